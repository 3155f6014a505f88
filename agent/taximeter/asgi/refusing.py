"""What a request that this node does not admit is answered, in place of its application.

Owns that answer: problem+json (RFC 9457), 402 where an account's money is what is missing, 503 where the node's agent
is. It says nothing of the node, for it goes to a customer. Refuses to know who is denied (client).
"""

from typing import Final

from taximeter.asgi.ride import Receive, Scope, Send
from taximeter.client import Refused

_WHOSE: Final = {
    "account": (402, "Payment Required", "This account has no credit here, or has reached its cap."),
    "model": (402, "Payment Required", "This account has reached its limit for this model."),
    "agent": (503, "Service Unavailable", "Nothing is run here while nothing can be metered."),
}
_BODY: Final = '{"type":"about:blank","title":"%s","status":%d,"detail":"%s"}'
#: A websocket that is closed before it is accepted: its server answers 403.
_POLICY: Final = 1008


async def refuse(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one connection; a websocket's server that has no way to be told a status answers 403."""
    status, title, detail = _WHOSE[refused.what]
    body = (_BODY % (title, status, detail)).encode()
    kind = "http.response"
    if scope["type"] == "websocket":
        await receive()  # that it would connect
        kind = "websocket.http.response"
        if kind not in (scope.get("extensions") or ()):
            await send({"type": "websocket.close", "code": _POLICY, "reason": ""})
            return
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
