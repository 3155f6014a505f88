"""The middleware: each request of an ASGI server is a prediction.

Owns which calls are measured, and that the server's own startup and shutdown are told. Refuses to hold anything up: a
request is passed on at once, whatever the meter can do with it, but for one that is not admitted where that is asked
for (refusing). What becomes of it: ride.
"""

import os
from contextvars import Context
from typing import Any, Unpack

from taximeter import client, wire
from taximeter.asgi.headers import header_reader
from taximeter.asgi.refusing import refuse
from taximeter.asgi.request import Request
from taximeter.asgi.ride import App, Message, Receive, Scope, Send
from taximeter.asgi.settings import Given, path_matcher, read_settings
from taximeter.asgi.talk import Talk

#: In the scope of a request that is measured: the prediction's id. Of two Meters one above the other, one measures.
SCOPE_KEY = "taximeter.prediction"

# What the environment says is looked at now: frameworks make a middleware when they are asked first, too late to stop.
read_settings({}, os.environ)


class Meter:
    """Pure ASGI 3 middleware: a request is a prediction, from its arrival to the last piece of its answer.

    `app.add_middleware(Meter)`, `Meter(app)`, `vllm serve --middleware taximeter.asgi.Meter`. Outside a process that
    `taximeter run` wraps it measures nothing. Each setting that is left out is taken from TAXIMETER_ASGI_ and its name
    in upper case, else it is as `asgi.settings.Settings` has it. Raises ValueError where one makes no sense; no request
    raises anything here.
    """

    def __init__(self, app: App, **settings: Unpack[Given]) -> None:
        self.app = app
        self.settings = read_settings(settings, os.environ)
        self._is_prediction = path_matcher(self.settings)
        self._read_headers = header_reader(self.settings)
        self._open: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, measured or not."""
        kind = scope["type"]
        if SCOPE_KEY in scope:
            await self.app(scope, receive, send)
        elif kind == "lifespan" and self.settings.lifespan:
            await self._lifespan(scope, receive, send)
        elif self._may_be(scope, kind) and self._is_prediction(_path(scope)):
            await self._measured(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _may_be(self, scope: Scope, kind: str) -> bool:
        if kind == "http":
            return scope["method"] in self.settings.methods
        return kind == "websocket" and self.settings.websockets

    async def _measured(self, scope: Scope, receive: Receive, send: Send) -> None:
        said: dict[str, Any] = self._read_headers(scope["headers"])
        if said.get("id") in self._open:
            del said["id"]  # tried again while it still runs: the same work, and a prediction of its own
        # A server may answer a connection's next request from within the last one's context, which is not its parent.
        if self.settings.admit:
            said["admit"] = True
        prediction = Context().run(lambda: client.prediction(**said))
        if self.settings.admit:
            try:
                prediction.start()
            except client.Refused as refused:
                await refuse(refused, scope, receive, send)
                return
        scope[SCOPE_KEY] = prediction.id
        self._open.add(prediction.id)
        kind = Request if scope["type"] == "http" else Talk
        ride = kind(prediction, self.settings, receive, send, loads=said.get("service_class") == "fast_boot")
        try:
            with prediction:
                try:
                    await self.app(scope, ride.receive, ride.send)
                except BaseException:
                    ride.raised()
                    raise
                ride.returned()
        finally:
            self._open.discard(prediction.id)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def hear() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown" and _is_the_command():
                client.stopping("drain")
            return message

        async def say(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                client.ready()

        await self.app(scope, hear, say)


def _path(scope: Scope) -> str:
    """The path below where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path") or ""
    return path.removeprefix(root) or "/" if root else path


def _is_the_command() -> bool:
    """Whether the instance stops with this process: one of a server's many workers may come and go."""
    ours = f"{wire.ENV_MARKS}={os.environ.get(wire.ENV_MARKS)}".encode()
    try:
        with open(f"/proc/{os.getppid()}/environ", "rb") as parent:
            return ours not in parent.read().split(b"\0")
    except OSError:  # a parent that may not be looked at is none of ours
        return True
