"""ASGI conversations for tests: a server that records, and a stand-in of the client that keeps what it is told."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from taximeter.asgi import Meter
from taximeter.asgi.ride import App, Message, Receive, Scope, Send

DISCONNECT: Message = {"type": "http.disconnect"}


class Told:
    """One prediction, as the stand-in was told of it."""

    def __init__(self, client: "Client", said: dict[str, Any]) -> None:
        self.client = client
        self.said = said
        self.id = said.get("id") or f"made-{len(client.predictions)}"
        self.parent = said.get("parent") or getattr(client.current(), "id", None)
        self.status: str | None = None
        self.units: dict[str, int] = {}
        self.was_active = False

    def active(self) -> None:
        self.was_active = True

    def add(self, units: dict[str, int]) -> None:
        assert self.status is None, "units after the end"
        for name, count in units.items():
            self.units[name] = self.units.get(name, 0) + count

    def finish(self, status: str) -> None:
        assert self.status is None, "a second end"
        self.status = status

    def __enter__(self) -> "Told":
        self.token = self.client.context.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.client.context.reset(self.token)
        if self.status is None:
            ended = "succeeded" if kind is None else "failed" if issubclass(kind, Exception) else "canceled"
            self.finish(ended)


class Client:
    """Stands in for the module `taximeter.client`."""

    def __init__(self) -> None:
        self.context: ContextVar[Told | None] = ContextVar("current", default=None)
        self.predictions: list[Told] = []
        self.words: list[str] = []

    def prediction(self, **said: Any) -> Told:
        self.predictions.append(Told(self, said))
        return self.predictions[-1]

    def current(self) -> Told | None:
        return self.context.get()

    def ready(self) -> None:
        self.words.append("ready")

    def stopping(self, reason: str) -> None:
        self.words.append(f"stopping {reason}")

    @property
    def only(self) -> Told:
        (only,) = self.predictions
        return only


@dataclass
class Server:
    """Calls an application as a server does, and keeps what it is sent."""

    heard: list[Message] = field(default_factory=list)
    sends: Callable[[Message], Awaitable[None]] | None = None  #: what a send does beside, before it returns

    async def send(self, message: Message) -> None:
        self.heard.append(message)
        if self.sends is not None:
            await self.sends(message)

    async def call(self, app: App, scope: Scope, *messages: Message) -> None:
        waiting = list(messages)

        async def receive() -> Message:
            if not waiting:
                await asyncio.Event().wait()  # as a client that is there, and silent
            return waiting.pop(0)

        await app(scope, receive, self.send)

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.heard if message["type"] == "http.response.body")

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [
            header
            for message in self.heard
            if message["type"] == "http.response.start"
            for header in message["headers"]
        ]


def request(path: str = "/v1/completions", method: str = "POST", **headers: str) -> Scope:
    """The scope of a request; underscores in header names stand for hyphens."""
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "root_path": "", "headers": pairs}


def answer(*pieces: bytes, status: int = 200, content_type: str = "application/json", **headers: str) -> App:
    """An application that answers with these pieces."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pairs = [("content-type", content_type), *((name.replace("_", "-"), value) for name, value in headers.items())]
        encoded = [(name.encode(), value.encode()) for name, value in pairs]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        for piece in pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": pieces[-1] if pieces else b""})

    return app


def serve(app: App, scope: Scope | None = None, *messages: Message, **settings: Any) -> Server:
    """Serve one request through a Meter; exceptions pass."""
    server = Server()
    asyncio.run(server.call(Meter(app, **settings), scope or request(), *messages))
    return server
