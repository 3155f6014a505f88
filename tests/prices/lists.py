"""Price lists as a platform serves them: a real server that plays a script, and then serves what it has."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.shipping.receiver import Answer, Receiver, Request, receiving, respond


def body_of(*models: tuple[str, str], unit: str = "image") -> bytes:
    """A list of models, each with its price as it is written."""
    items = ",".join(
        f'{{"name":{json.dumps(name)},"pricing":{{"amount":{amount},"currency":"USD","unit":"{unit}"}}}}'
        for name, amount in models
    )
    return f'{{"data":[{items}]}}'.encode()


@dataclass
class Platform:
    """What is served, and what was asked."""

    body: bytes
    receiver: Receiver
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.receiver.url

    @property
    def asked(self) -> list[Request]:
        return self.receiver.requests

    async def serve(self, receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
        etag = self.headers.get("etag")
        if etag is not None and request.headers.get("if-none-match") == etag:
            writer.write(b"HTTP/1.1 304 Not Modified\r\n\r\n")
            return
        respond(writer, 200, "".join(f"{name}: {value}\r\n" for name, value in self.headers.items()), self.body)


@asynccontextmanager
async def serving(body: bytes, *script: Answer, **headers: str) -> AsyncIterator[Platform]:
    """A platform with this list; the script's answers come first."""
    async with receiving() as receiver:
        platform = Platform(body, receiver, {name.replace("_", "-"): value for name, value in headers.items()})
        receiver.script = Script(script, platform)
        yield platform


class Script(list[Answer]):
    """These answers, and then the platform's own, for ever."""

    def __init__(self, first: "tuple[Answer, ...]", platform: Platform) -> None:
        super().__init__(first)
        self._platform = platform

    def __bool__(self) -> bool:
        return True

    def pop(self, index: int = -1) -> Answer:  # type: ignore[explicit-override, override] # 3.12
        return super().pop(0) if len(self) else self._platform.serve
