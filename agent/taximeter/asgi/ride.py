"""One request as a prediction: what the application and the server say to each other, passed on and listened to.

Owns how a prediction ends: by the last piece of the answer, the application's own end, or a client that is gone. Every
message is passed on as it came, before it is looked at; of an answer only its headers gain one.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from taximeter.asgi.bodies import Documents, Events, reader_for
from taximeter.asgi.settings import Settings
from taximeter.client import Prediction

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Codes by which a websocket is closed by a client that is done, not cut off; and by an application that cannot go on.
_DONE_CODES = (1000, 1001, 1005)
_FAILED_CODES = (1011, 1012, 1013, 1014)
_STARTS = ("http.response.start", "websocket.http.response.start")


class Ride:
    """A request on its way, as `receive` and `send` of the application that answers it."""

    __slots__ = ("_gone", "_is_http", "_over", "_prediction", "_reader", "_receive", "_send", "_settings", "_status")

    def __init__(
        self, prediction: Prediction, settings: Settings, receive: Receive, send: Send, *, is_http: bool
    ) -> None:
        self._prediction = prediction
        self._settings = settings
        self._receive = receive
        self._send = send
        self._is_http = is_http
        self._reader: Documents | Events | None = None
        self._status = 500  #: no answer at all is a failure
        self._gone = self._over = False

    async def receive(self) -> Message:
        """The server's next message. A client that is gone cancels the prediction, which ends when the work does."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone = True
        elif message["type"] == "websocket.disconnect":
            self._gone = message.get("code", 1005) not in _DONE_CODES
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on, then look at it."""
        kind = message["type"]
        if kind in _STARTS:
            message = self._begun(message)
        try:
            await self._send(message)
        except OSError:  # how servers say, since ASGI 2.4, that nobody listens any more
            self._gone = True
            raise
        if kind == "http.response.body":
            self._looked_at(message)
        elif kind == "http.response.pathsend":  # the whole of a file
            self._end()
        elif kind == "websocket.accept":
            self._status = 101
        elif kind == "websocket.close" and self._status != 101:
            self._status = 403  # it was not taken
        elif kind == "websocket.close" and message.get("code") in _FAILED_CODES:
            self._status = 500

    def returned(self) -> None:
        """The application is done. A request that it left without a whole answer has failed."""
        if self._is_http and not self._over:
            self._status = 500
        self._end()

    def raised(self) -> None:
        """The application raised, which ends the prediction; but what was counted counts, and whose doing it was."""
        if self._gone:
            self._end()
        elif not self._over:
            self._count()

    def _begun(self, message: Message) -> Message:
        """The answer's start, with the prediction's id in it."""
        ours = self._settings.headers["prediction"].encode("latin-1", "replace")
        kind = encoding = b""
        kept = []
        try:
            self._status = int(message["status"])
            for name, value in message.get("headers", ()):
                lowered = name.lower()
                if lowered == b"content-type":
                    kind = value
                elif lowered == b"content-encoding":
                    encoding = value
                if lowered != ours:
                    kept.append((name, value))
            if self._settings.usage and self._status < 400:
                self._reader = reader_for(kind, encoding)
        except (AttributeError, KeyError, TypeError, ValueError):  # no ASGI message: the server will say so
            return message
        if ours:
            kept.append((ours, self._prediction.id.encode("latin-1", "replace")))
        return {**message, "headers": kept}

    def _looked_at(self, message: Message) -> None:
        more = message.get("more_body", False)
        if self._reader is not None and not self._over:
            self._reader.feed(bytes(message.get("body") or b""), last=not more)
        if not more:
            self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._prediction.finish(self._outcome(failed=self._count()))

    def _count(self) -> bool:
        """Count what the answer said so far; true if it told of an error."""
        if self._reader is None:
            return False
        said = self._reader.said
        self._prediction.add(said.units())
        return said.failed

    def _outcome(self, *, failed: bool) -> str:
        if self._gone:
            return "canceled"
        if failed or self._status >= 500:
            return "failed"
        return self._settings.client_errors if self._status >= 400 else "succeeded"
