"""The receiver of a soak: a real HTTP server in a thread of its own, which misbehaves at random while it is ill.

Keeps what it accepted by source and id, and notes who came twice with other bytes. Refuses to know what it receives.
"""

import asyncio
import contextlib
import gzip
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from tests.shipping import receiver as scripted
from tests.shipping.receiver import Answer, Receiver, Request, read_request, say

#: How it answers while it is ill, each as often as any other.
ILL: Mapping[str, Answer] = {
    "accepts": scripted.accept,
    "accepts, and its answer is lost": scripted.accept_then_reset,
    "accepts, and its answer does not end": scripted.accept_then_hang,
    "resets": scripted.reset,
    "hangs": scripted.hang,
    "answers garbage": scripted.garbage,
    "408": say(408),
    "429, later": say(429, "retry-after: 1\r\n"),
    "500": say(500),
    "502 with a body": say(502, body=b"<html>bad gateway</html>"),
    "503, now": say(503, "retry-after: 0\r\n"),
}


class Holding(Receiver):
    """What was accepted; a repeat has to be the same, byte for byte."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.is_ill = False
        self.answers: Counter[str] = Counter()
        self.repeats = 0
        self.changed: list[str] = []
        self._dice = dice
        self._serving: set[asyncio.Task[None] | None] = set()  # whoever hangs is kept by nobody else

    def keep(self, body: bytes) -> None:  # type: ignore[explicit-override] # 3.12
        for event in orjson.loads(body):
            key, whole = (event["source"], event["id"]), orjson.dumps(event)
            known = self.held.setdefault(key, whole)
            self.repeats += key in self.held and known is not whole
            if known != whole:
                self.changed.append(event["id"])

    async def serve(  # type: ignore[explicit-override] # 3.12
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._serving.add(asyncio.current_task())
        # Python 3.11 prints a traceback for each of these tasks that is cancelled at the end.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while request := await read_request(reader):
                name = self._dice.choice(list(ILL)) if self.is_ill else "accepts"
                self.answers[name] += 1
                await ILL[name](self, _unpacked(request), writer)
                await writer.drain()
        writer.close()


def _unpacked(request: Request) -> Request:
    if request.headers.get("content-encoding") != "gzip":
        return request
    return Request(request.line, request.headers, gzip.decompress(request.body))


@contextlib.contextmanager
def receiving(dice: random.Random) -> Iterator[Holding]:
    """A receiver that listens on loopback while the block runs."""
    receiver = Holding(dice)
    loop = asyncio.new_event_loop()
    up = threading.Event()

    async def serve() -> None:
        server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/events"
        up.set()
        await asyncio.Event().wait()

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    task = loop.create_task(serve())
    thread = threading.Thread(target=run, name="receiver")
    thread.start()
    up.wait()
    try:
        yield receiver
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        for other in asyncio.all_tasks(loop):
            other.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(other)
        loop.close()


def stored(bodies: Iterator[bytes]) -> dict[tuple[str, str], bytes]:
    """What a ledger holds, as a receiver would."""
    events = [orjson.loads(body) for body in bodies]
    return {(event["source"], event["id"]): orjson.dumps(event) for event in events}


def worker_script() -> Path:
    """The program of the soak's servers."""
    return Path(__file__).with_name("serve.py")
