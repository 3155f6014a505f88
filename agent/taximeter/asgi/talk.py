"""A websocket as one prediction, from its connection until its application has left it.

Owns what its codes mean for the prediction. Refuses to look into what is said: that is the application's business.
"""

from taximeter.asgi.ride import Message, Ride

#: By these a client says that it is done; any other cuts the talk off.
_DONE = (1000, 1001, 1005)
#: By these a server says that it cannot go on.
_FAILED = (1011, 1012, 1013, 1014)


class Talk(Ride):
    """A websocket, as `receive` and `send` of the application that holds it."""

    async def receive(self) -> Message:
        """The server's next message, and whether the client was cut off."""
        message = await self._hear()
        if message["type"] == "websocket.disconnect":
            self._gone = message.get("code", 1005) not in _DONE
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on, then look at it."""
        await self._pass_on(message)
        kind = message["type"]
        if kind == "websocket.accept":
            self._status = 101
            if self._loads:
                self._prediction.active()
        elif kind == "websocket.close" and self._status != 101:
            self._status = 403  # it was not taken
        elif kind == "websocket.close" and message.get("code") in _FAILED:
            self._status = 500
        elif kind == "websocket.http.response.start":
            self._status = message["status"]

    def returned(self) -> None:
        """The application has left it."""
        self._end()
