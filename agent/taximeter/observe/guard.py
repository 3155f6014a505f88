"""Stands before the HTTP API: who may ask, and under which name the node may be asked.

Owns the token rule, from which those are free whom the kernel knows to be ours, the Host rule, and the headers that
every answer carries. Paths are closed unless they are listed as open. Refuses to know what an answer says.
"""

import hmac
import ipaddress
import logging
from email.utils import formatdate

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

#: Read by scrapers, balancers and schedulers that hold no token.
OPEN_PATHS = frozenset({"/metrics", "/healthz", "/readyz", "/v1/hardware", "/v1/models"})
_OPEN_BELOW = ("/v1/model/", "/v1/models/")
#: In the scope of a request: whether whoever asks knows the token, of which an open path may make a difference.
TRUSTED = "taximeter.trusted"
#: In the state of a connection: whether the kernel says that its peer is the agent's own user, or root.
OURS = "taximeter.ours"

URL_MAX_BYTES = 8192

_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    414: "URI Too Long",
    421: "Misdirected Request",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Make an error answer (RFC 9457): `detail` says what was expected."""
    body = {"type": "about:blank", "title": _TITLES.get(status, "Error"), "status": status, "detail": detail}
    return Response(orjson.dumps(body), status, headers, media_type="application/problem+json")


class Guard:
    """An ASGI application before `app`; `loopback` says that it listens there, where a foreign Host is an attack."""

    def __init__(self, app: ASGIApp, token: str, *, loopback: bool) -> None:
        if not token:
            raise ValueError("cannot guard the API: expected a token")
        self._app = app
        self._token = token.encode()
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request; whatever goes wrong behind the door is logged and stays behind it."""
        if scope["type"] != "http":
            return
        began = False

        async def send_with_headers(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                headers = MutableHeaders(scope=message)
                headers["date"] = formatdate(usegmt=True)
                headers["cache-control"] = "no-store"
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        trusted = scope.get("state", {}).get(OURS, False) or self._knows_token(Headers(scope=scope))
        scope[TRUSTED] = trusted
        try:
            await (self._refusal(scope, trusted=trusted) or self._app)(scope, receive, send_with_headers)
        except Exception:
            logger.exception("api.failed path=%r", scope["path"])
            if began:
                raise
            await problem(500, "the agent's log says what went wrong")(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, *, trusted: bool) -> Response | None:
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers and "content-length" in headers:
            # Whoever stands before us may have believed the other one.
            return problem(400, "expected one length of a body, not two", {"connection": "close"})
        if len(scope["raw_path"]) + len(scope["query_string"]) > URL_MAX_BYTES:
            return problem(414, f"expected a path and query of at most {URL_MAX_BYTES} bytes", {"connection": "close"})
        host = headers.get("host")
        if self._loopback and host is not None and not is_local(host):
            return problem(421, "expected a Host that names this machine's loopback: a web page may not ask")
        if trusted or is_open(scope["path"]):
            return None
        return problem(401, "expected Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})

    def _knows_token(self, headers: Headers) -> bool:
        """Whether one credential was given, and it is the token: a Bearer's, or a key as the platform's SDK sends."""
        given = [*headers.getlist("authorization"), *(f"Bearer {key}" for key in headers.getlist("x-api-key"))]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode("latin-1"), self._token)


def is_open(path: str) -> bool:
    """Whether a path is for all to read."""
    return path in OPEN_PATHS or path.startswith(_OPEN_BELOW)


def is_local(host: str) -> bool:
    """Whether a Host header, with or without a port, names the loopback interface."""
    name, bracket, _ = host.removeprefix("[").partition("]")
    if not bracket:
        name = host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
