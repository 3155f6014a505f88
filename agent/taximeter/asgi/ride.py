"""One prediction of a server: what its application and its server say to each other, passed on and listened to.

Owns what a request and a websocket have in common: what was heard of its end, and how that is told, once. Every message
is passed on before it is looked at, and not a byte of a body is changed.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from taximeter.asgi.settings import Settings
from taximeter.asgi.usage import Said
from taximeter.client import Prediction

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Ride:
    """A prediction on its way, between an application and what the server gave it to receive and send."""

    def __init__(
        self, prediction: Prediction, settings: Settings, receive: Receive, send: Send, *, loads: bool
    ) -> None:
        """`loads`: the prediction is in load until the application says that it is active, or answers."""
        self._prediction = prediction
        self._settings = settings
        self._hear = receive
        self._say = send
        self._loads = loads
        self._said: Said | None = None  #: what the answer said of itself
        self._status = 500  #: no answer at all is a failure
        self._gone = False  #: the client, before it had its answer
        self._over = False

    def raised(self) -> None:
        """The application raised, which ends the prediction; but what was counted counts, and whose doing it was."""
        if self._gone:
            self._end()
        elif not self._over:
            self._count()

    async def _pass_on(self, message: Message) -> None:
        try:
            await self._say(message)
        except OSError:  # how servers say, since ASGI 2.4, that nobody listens any more
            self._gone = True
            raise

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._count()
            self._prediction.finish(self._outcome())

    def _count(self) -> None:
        if self._said is not None:
            self._prediction.add(self._said.units())

    def _outcome(self) -> str:
        if self._gone:
            return "canceled"
        if self._status >= 500 or (self._said is not None and self._said.failed):
            return "failed"
        return self._settings.client_errors if self._status >= 400 else "succeeded"
