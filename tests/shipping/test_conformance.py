"""What every kind of sink keeps, whatever it is made of: the shipper relies on nothing else.

A kind that is new gets a receiver here, and passes.
"""

import asyncio
import json
import os
import random
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import anyio
import pytest

from taximeter.errors import SinkError
from taximeter.shipping.reconcile import reconcile
from taximeter.shipping.shipper import Sink
from taximeter.shipping.sinks import open_sink
from taximeter.shipping.sinks.filled import numbered
from tests.shipping.nats_servers import SUBJECT, NatsServer
from tests.shipping.nats_servers import serving as nats_serving
from tests.shipping.outbox import until
from tests.shipping.receiver import Receiver, events, reset

pytestmark = pytest.mark.anyio

#: Everything that a sink may give as a reason: they are labels of a metric, and stand in docs/contracts.md.
REASONS = {
    "connect", "connection", "diverged", "duplicate", "file", "no_stream", "redirect", "refused", "rejected",
    "server_error", "throttled", "timeout", "tls", "token", "too_large", "unreadable",
}  # fmt: skip
TIMEOUT_S = 0.3
CONTRACTS = Path(__file__).parent.parent.parent / "docs" / "contracts.md"


class Far(Protocol):
    """A receiver of some kind, and the way to it."""

    def sink(self) -> Sink:
        """Make a sink that ships to it, as an agent does that was just started."""
        ...

    async def held(self) -> list[bytes]:
        """What it has, in the order in which it came; of repeats the first."""
        ...

    async def go(self) -> None:
        """Be away."""
        ...

    async def come(self) -> None:
        """Be back, with all that it had."""
        ...


class FarFile:
    """The directory is there, or is not."""

    def __init__(self, directory: Path, rotate_bytes: int | None = None) -> None:
        self._path, self._rotate_bytes = directory / "there" / "usage.ndjson", rotate_bytes
        self._path.parent.mkdir()

    def sink(self) -> Sink:
        return open_sink("usage", "file", path=self._path, rotate_bytes=self._rotate_bytes)

    async def held(self) -> list[bytes]:
        resent = self._path.with_name("usage.ndjson.resent")
        files = [*numbered(self._path), self._path, *([resent] if resent.exists() else [])]
        return [line for file in files for line in file.read_bytes().splitlines()]

    async def go(self) -> None:
        self._path.parent.rename(self._path.parent.with_name("away"))

    async def come(self) -> None:
        self._path.parent.with_name("away").rename(self._path.parent)


class FarHttp:
    """A receiver that closes its door and opens it again at the same port."""

    def __init__(self) -> None:
        self.receiver, self._port = Receiver(), 0

    async def come(self) -> None:
        self.receiver.script.clear()
        self._server = await asyncio.start_server(self.receiver.serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def go(self) -> None:
        self._server.close()
        self.receiver.script[:] = [reset]  # whoever is still connected

    def sink(self) -> Sink:
        url = f"http://127.0.0.1:{self._port}/"
        return open_sink("usage", "http", url=url, read_url=url, timeout_s=20)

    async def held(self) -> list[bytes]:
        taken: dict[str, bytes] = {}
        for request in self.receiver.requests:
            for body in split(request.body or b"[]"):
                taken.setdefault(json.loads(body)["id"], body)
        return list(taken.values())


class FarNats:
    """A nats-server that is killed and started again."""

    def __init__(self, server: NatsServer, subject: str) -> None:
        self.server, self._subject = server, subject

    def sink(self) -> Sink:
        return open_sink("usage", "nats", url=self.server.url, subject=self._subject, timeout_s=20)

    async def held(self) -> list[bytes]:
        return await self.server.messages()

    async def go(self) -> None:
        self.server.kill()

    async def come(self) -> None:
        await self.server.start()


def split(array: bytes) -> Iterator[bytes]:
    """The elements of a JSON array, byte by byte as they came."""
    text, at = array.decode(), 1
    while text[at:] != "]":
        end = json.JSONDecoder().raw_decode(text, at)[1]
        yield text[at:end].encode()
        at = end + (text[end] == ",")


@asynccontextmanager
async def far_of(kind: str, directory: Path) -> AsyncIterator[Far]:
    if kind == "file":
        yield FarFile(directory)
    elif kind == "file-rotating":
        yield FarFile(directory, rotate_bytes=1000)
    elif kind == "http":
        far = FarHttp()
        await far.come()
        yield far
        await far.go()
    else:
        subjects = (SUBJECT, SUBJECT) if kind == "nats" else (f"{SUBJECT}.*", f"{SUBJECT}.{{id}}")
        async with nats_serving(directory, subjects[0]) as server:
            yield FarNats(server, subjects[1])


KINDS = [
    "file",
    "file-rotating",
    "http",
    *(pytest.param(kind, marks=pytest.mark.system) for kind in ("nats", "nats-by-id")),
]


@pytest.fixture(params=KINDS)
async def far(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Far]:
    async with far_of(request.param, tmp_path) as far:
        yield far


@asynccontextmanager
async def sending(far: Far) -> AsyncIterator[Sink]:
    sink = far.sink()
    try:
        yield sink
    finally:
        await sink.close()


def test_every_reason_is_documented() -> None:
    table = CONTRACTS.read_text().partition("| reason | means |\n")[2].partition("\n\n")[0]
    named = {word for row in table.splitlines() for word in re.findall("`([a-z_]+)`", row.split("|")[1])}
    assert named == REASONS | {"outbox", "unexpected"}


async def test_a_batch_is_delivered_in_order_with_the_bytes_that_were_given(far: Far) -> None:
    bodies = [body.replace(b'"t"', b'"t\xc3\xa9" ') for body in events(100)]
    async with sending(far) as sink:
        await sink.send(bodies)
    assert await far.held() == bodies


async def test_the_next_batch_comes_behind_it(far: Far) -> None:
    async with sending(far) as sink:
        for begin in range(0, 50, 10):
            await sink.send(events(50)[begin : begin + 10])
    assert await far.held() == events(50)


async def test_what_comes_again_does_no_harm(far: Far) -> None:
    async with sending(far) as sink:
        for count in (3, 3, 2, 5, 1, 5):
            await sink.send(events(count))
    assert await far.held() == events(5)


async def test_what_comes_again_from_the_next_agent_does_no_harm(far: Far) -> None:
    for count in (3, 3, 5):
        async with sending(far) as sink:
            await sink.send(events(count))
    assert await far.held() == events(5)


async def test_a_receiver_that_is_away_is_a_reason_and_has_everything_once_it_is_back(far: Far) -> None:
    async with sending(far) as sink:
        await sink.send(events(2))
        await far.go()
        for _ in range(3):
            with pytest.raises(SinkError, match=r"^cannot .*: expected ") as caught:
                await sink.send(events(4))
            assert caught.value.reason in REASONS
        await far.come()
        await sink.send(events(4))
    assert await far.held() == events(4)


async def test_a_receiver_that_was_never_there_is_a_reason_and_takes_what_it_is_sent_later(far: Far) -> None:
    await far.go()
    async with sending(far) as sink:
        with pytest.raises(SinkError):
            await sink.send(events(2))
        await far.come()
        await sink.send(events(2))
    assert await far.held() == events(2)


async def test_a_sink_that_was_closed_opens_again(far: Far) -> None:
    async with sending(far) as sink:
        for count in (1, 2, 3):
            await sink.send(events(count))
            await sink.close()
    assert await far.held() == events(3)


async def test_closing_twice_or_unopened_does_no_harm(far: Far) -> None:
    sink = far.sink()
    await sink.close()
    await sink.send(events(1))
    await sink.close()
    await sink.close()
    assert await far.held() == events(1)


async def test_nothing_stays_open_whatever_happened(far: Far) -> None:
    async with settled():
        sink = far.sink()
        await sink.send(events(2))
        await far.go()
        for _ in range(5):
            with pytest.raises(SinkError):
                await sink.send(events(3))
        await far.come()
        await sink.send(events(3))
        await sink.close()


async def test_nothing_stays_open_where_a_sending_is_canceled(far: Far) -> None:
    async with settled():
        sink = far.sink()
        for turns in (0, 1, 2, 3, 5, 8, 13, 21):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(sink.send, events(100))
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        await sink.send(events(100))
        await sink.close()
    assert await far.held() == events(100)


@pytest.mark.parametrize("seed", range(3))
async def test_however_an_agent_fares_the_receiver_ends_up_with_the_ledger(far: Far, seed: int) -> None:
    chance, ledger, cursor, is_away = random.Random(seed), events(60), 0, False
    sink = far.sink()
    for _ in range(40):
        match chance.choice(["send", "send", "send", "crash", "close", "away", "back"]):
            case "send":
                batch = ledger[cursor : cursor + chance.randrange(1, 8)]
                if batch and await passes(sink, batch) and chance.random() < 0.7:  # else: died before it was noted
                    cursor += len(batch)
            case "crash":
                await sink.close()
                sink = far.sink()
            case "close":
                await sink.close()
            case "away" if not is_away:
                is_away = True
                await far.go()
            case "back" if is_away:
                is_away = False
                await far.come()
    if is_away:
        await far.come()
    await sink.send(ledger[cursor:] or ledger[-1:])
    await sink.close()
    assert await far.held() == ledger


async def passes(sink: Sink, batch: Sequence[bytes]) -> bool:
    try:
        await sink.send(batch)
    except SinkError:
        return False
    return True


# A receiver that takes the connection and never says a word; a file has no such thing.


def to_http(port: int) -> Sink:
    return open_sink("usage", "http", url=f"http://127.0.0.1:{port}/", timeout_s=TIMEOUT_S)


def to_nats(port: int) -> Sink:
    return open_sink("usage", "nats", url=f"nats://127.0.0.1:{port}", subject=SUBJECT, timeout_s=TIMEOUT_S)


REMOTE = pytest.mark.parametrize("sink_to", [to_http, to_nats])


@contextmanager
def mute() -> Iterator[int]:
    """The port of somebody who listens and does not care: the kernel takes connections and what is sent."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@REMOTE
async def test_a_sending_ends_at_its_deadline(sink_to: Callable[[int], Sink]) -> None:
    with mute() as port:
        async with settled():
            sink = sink_to(port)
            with pytest.raises(SinkError) as caught, anyio.fail_after(10):
                await sink.send([b'{"id":"r-%08d","data":"%s"}' % (n, b"x" * 900_000) for n in range(20)])
            await sink.close()
    assert caught.value.reason == "timeout"


@REMOTE
async def test_whoever_is_asked_in_vain_may_be_left_at_any_time(sink_to: Callable[[int], Sink]) -> None:
    with mute() as port:
        async with settled():
            sink = sink_to(port)
            with anyio.move_on_after(TIMEOUT_S / 4):
                await sink.send(events(100))
            await sink.close()


@pytest.mark.system
async def test_a_server_that_falls_silent_in_the_midst_of_large_messages_may_be_left(tmp_path: Path) -> None:
    async with nats_serving(tmp_path) as server:
        sink = open_sink("usage", "nats", url=server.url, subject=SUBJECT, timeout_s=1)
        async with settled():
            await sink.send(events(1))
            server.hang()
            with pytest.raises(SinkError) as caught:
                await sink.send([b'{"id":"r-%08d","data":"%s"}' % (n, b"x" * 900_000) for n in range(20)])
            await sink.close()
        server.go_on()
    assert caught.value.reason == "timeout"


@asynccontextmanager
async def settled() -> AsyncIterator[None]:
    """As many descriptors are open behind the block as were before it."""
    await anyio.to_thread.run_sync(lambda: None)  # a thread's own are none of a sink's
    before = len(os.listdir("/proc/self/fd"))
    yield
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before, 5)


# --- Reading back ---


async def test_what_a_receiver_lacks_is_sent_again_where_it_can_be_read(
    far: Far, request: pytest.FixtureRequest
) -> None:
    bodies = events(9)
    async with sending(far) as sink:
        await sink.send(bodies[:3])
        await sink.send(bodies[5:])
        if request.node.name.endswith("[nats]"):
            with pytest.raises(SinkError, match="expected") as caught:
                await reconcile(sink, bodies)
            assert caught.value.reason == "unreadable"
            return
        assert await reconcile(sink, bodies, dry_run=True) == 2
        assert len(await far.held()) == 7
        assert await reconcile(sink, bodies) == 2
        assert await reconcile(sink, bodies) == 0
    assert sorted(await far.held()) == bodies
