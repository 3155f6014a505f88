"""A request as a prediction: it ends with the last piece of its answer.

Owns what is read of an answer, and the one header that it gains. Where the application ends first, that is the end; a
client that is gone ends nothing by itself, for the work goes on.
"""

from taximeter.asgi.bodies import Reader, reader_for
from taximeter.asgi.ride import Message, Ride


class Request(Ride):
    """A request on its way, as `receive` and `send` of the application that answers it."""

    _reader: Reader | None = None

    async def receive(self) -> Message:
        """The server's next message, and whether the client is gone."""
        message = await self._hear()
        if message["type"] == "http.disconnect":
            self._gone = True
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on, then look at it."""
        kind = message["type"]
        if kind == "http.response.start":
            message = self._begun(message)
        await self._pass_on(message)
        if kind == "http.response.body":
            self._read(message)
        elif kind == "http.response.pathsend":  # the whole of a file
            self._end()

    def returned(self) -> None:
        """The application is done. A request that it left without a whole answer has failed."""
        if not self._over:
            self._status = 500
        self._end()

    def _begun(self, message: Message) -> Message:
        """The answer's start, with the prediction's id in it."""
        if self._loads:
            self._prediction.active()
        ours = self._settings.headers["prediction"].encode()
        try:
            self._status = int(message["status"])
            headers = [(name.lower(), name, value) for name, value in message.get("headers", ())]
            if self._settings.usage and self._status < 400:
                said = {name: value for name, _, value in headers}
                self._reader = reader_for(said.get(b"content-type", b""), said.get(b"content-encoding", b""))
        except (AttributeError, KeyError, TypeError, ValueError):  # no ASGI message: the server will say so
            return message
        self._said = None if self._reader is None else self._reader.said
        if not ours:
            return message
        named = (ours, self._prediction.id.encode())
        return {**message, "headers": [*((name, value) for low, name, value in headers if low != ours), named]}

    def _read(self, message: Message) -> None:
        more = message.get("more_body", False)
        if self._reader is not None and not self._over:
            self._reader.feed(bytes(message.get("body") or b""), last=not more)
        if not more:
            self._end()
