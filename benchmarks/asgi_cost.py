"""What a Meter costs a server: processor time for each request, and for each event of a stream, without any network.

    python benchmarks/asgi_cost.py

The server that calls and the application that answers are a few lines each, so that the difference is the Meter's, with
its marks written into a FIFO that is emptied in between. The least of several rounds counts: what disturbs only adds.
"""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from taximeter import wire

ROUNDS = 15
REQUESTS = 300
EVENTS = 1000

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]

_USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
_CHUNK = {
    "id": "c1",
    "object": "chat.completion.chunk",
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "a"}}],
}
_ANSWER = {"id": "c1", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello. " * 20}}]}


def answer(content_type: bytes, *pieces: bytes) -> App:
    """An application that answers with these pieces."""

    async def app(_scope: Message, _receive: object, send: Send) -> None:
        headers = [(b"content-type", content_type), (b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": pieces[-1]})

    return app


def event(**more: object) -> bytes:
    return b"data: " + json.dumps({**_CHUNK, **more}).encode() + b"\n\n"


async def least_us(app: App, marks: int, requests: int) -> float:
    """Processor time for a request, in microseconds."""

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        pass

    headers = [
        (b"host", b"x"),
        (b"accept", b"*/*"),
        (b"content-type", b"application/json"),
        (b"content-length", b"99"),
        (b"taximeter-account", b"cus_1"),
    ]
    best_s = float("inf")
    for _ in range(ROUNDS):
        begin_s = time.process_time()
        for _ in range(requests):
            scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
            await app(scope, receive, send)
        best_s = min(best_s, (time.process_time() - begin_s) / requests)
        while marks_left(marks):
            pass
    return best_s * 1e6


def marks_left(marks: int) -> bool:
    try:
        return bool(os.read(marks, 1 << 20))
    except BlockingIOError:
        return False


async def measure(marks: int) -> None:
    from taximeter.asgi import Meter  # noqa: PLC0415 -- its client looks for the FIFO when it is imported

    whole = json.dumps({**_ANSWER, "usage": _USAGE}).encode()
    stream = answer(b"text/event-stream", *[event()] * EVENTS)
    told = answer(b"text/event-stream", *[event(usage=_USAGE)] * EVENTS)
    image = answer(b"image/png", whole)
    text = answer(b"application/json", whole)
    bare_us = await least_us(image, marks, REQUESTS)
    print(f"a request whose answer is not read      {await least_us(Meter(image), marks, REQUESTS) - bare_us:8.1f} us")
    print(f"a request with usage in JSON            {await least_us(Meter(text), marks, REQUESTS) - bare_us:8.1f} us")
    streamed_us = await least_us(stream, marks, 1)
    for what, app in (("an event without usage", stream), ("an event with usage", told)):
        print(f"{what:40}{(await least_us(Meter(app), marks, 1) - streamed_us) / EVENTS:8.2f} us")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        fifo = Path(folder) / "marks"
        os.mkfifo(fifo)
        os.environ[wire.ENV_MARKS] = str(fifo)  # before the client is imported
        asyncio.run(measure(os.open(fifo, os.O_RDWR | os.O_NONBLOCK)))


if __name__ == "__main__":
    main()
