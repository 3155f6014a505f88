"""From the real ledger over real sockets to a receiver that misbehaves: what it holds becomes what the ledger holds."""

import importlib.resources
import json
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import jsonschema
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from taximeter.events import Options
from taximeter.ledger.store import Batch, Ledger, Stored
from taximeter.records import UsageRecord
from taximeter.shipping.delivery import Refused
from taximeter.shipping.shipper import Bell, ShipState, Sink, ship
from taximeter.shipping.sinks.file import FileSink
from taximeter.shipping.sinks.http import HttpSink
from taximeter.values import replace
from tests.core.stories import SECOND, exited, ready, spawned, tell
from tests.observe.histories import NODE
from tests.shipping.receiver import (
    Answer,
    Receiver,
    accept,
    accept_then_hang,
    accept_then_reset,
    hang,
    receiving,
    reset,
    say,
)

pytestmark = pytest.mark.anyio

T = TypeVar("T")

TROUBLES: tuple[Answer, ...] = (
    accept,
    accept_then_hang,
    accept_then_reset,
    hang,
    reset,
    say(400),
    say(429, "retry-after: 0\r\n"),
    say(500),
    say(503),
)


@dataclass
class Node:
    """A ledger that is written and shipped in one thread at a time, as the agent does."""

    ledger: Ledger
    one_at_a_time: anyio.CapacityLimiter
    runs: int = 0

    async def unshipped(self, sink: str, limit: int) -> Sequence[Stored]:
        return await self._do(partial(self.ledger.unshipped, sink, limit))

    async def newest(self, sink: str) -> Stored | None:
        return await self._do(partial(self.ledger.newest_unshipped, sink))

    async def shipped(self, sink: str, seq: int, refused: Sequence[Refused] = ()) -> None:
        await self._do(partial(self.ledger.shipped, sink, seq, refused))

    async def again(self, sink: str, limit: int) -> Sequence[Stored]:
        return await self._do(partial(self.ledger.letters_to_retry, sink, limit))

    async def tried_again(self, sink: str, seq: int, refused: Refused | None) -> None:
        raise AssertionError("nobody wanted that")

    async def run(self, count: int) -> None:
        """Book `count` one-shot runs: two records each."""
        for _ in range(count):
            self.runs += 1
            instance = f"0198c2aa-0000-7000-8000-{self.runs:012d}"
            records = tell(Options(prediction=f"p{self.runs}"), [spawned(0), ready(0), exited(SECOND)]).records
            renamed = [record_of(record, instance, number) for number, record in enumerate(records)]
            await self._do(partial(self.ledger.commit, Batch(tuple(renamed), ())))

    async def bodies(self) -> list[bytes]:
        """Everything that the ledger holds."""
        await self._do(partial(self.ledger.register_sink, "everything"))
        return [stored.body for stored in await self.unshipped("everything", 1_000_000)]

    async def drained(self, sink: str) -> None:
        """Come back once `sink` has acknowledged everything."""
        with anyio.fail_after(30):
            while await self._do(partial(self.ledger.pending, sink)):  # noqa: ASYNC110 -- the ledger rings no bell
                await anyio.sleep(0.002)

    async def _do(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self.one_at_a_time)


def record_of(record: UsageRecord, instance: str, number: int) -> UsageRecord:
    return replace(record, id=f"{instance}-{number:08d}", instance=instance, data={**record.data, "instance": instance})


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    ledger = Ledger.open(tmp_path / "ledger.db", NODE)
    yield Node(ledger, anyio.CapacityLimiter(1))
    ledger.close()


async def at_once(pause_s: float) -> None:
    await anyio.sleep(0.001)


@asynccontextmanager
async def shipping(node: Node, *sinks: Sink) -> AsyncIterator[dict[str, Bell]]:
    bells = {sink.name: Bell() for sink in sinks}
    async with anyio.create_task_group() as tasks:
        for sink in sinks:
            node.ledger.register_sink(sink.name)
            work = partial(ship, wake=bells[sink.name], state=ShipState(), jitter=random.random, sleep=at_once)
            tasks.start_soon(work, sink, node)
        yield bells
        tasks.cancel_scope.cancel()


async def holds_what_the_ledger_holds(receiver: Receiver, node: Node) -> bool:
    held = sorted(json.loads(body)["id"] for body in receiver.held.values())
    return held == sorted(json.loads(body)["id"] for body in await node.bodies())


@pytest.mark.parametrize("seed", range(5))
async def test_a_receiver_in_trouble_ends_up_with_what_the_ledger_holds(node: Node, seed: int) -> None:
    chance = random.Random(seed)
    script = [chance.choice(TROUBLES) for _ in range(25)]
    async with (
        receiving(*script) as receiver,
        shipping(node, HttpSink("billing", receiver.url, timeout_s=0.1)) as bells,
    ):
        for _ in range(10):
            await node.run(chance.randrange(1, 8))
            bells["billing"].ring()
        await node.drained("billing")
        assert await holds_what_the_ledger_holds(receiver, node)


async def test_a_receiver_that_hangs_delays_no_other_sink(node: Node, tmp_path: Path) -> None:
    async with receiving(*[hang] * 1000) as receiver:
        slow, fast = HttpSink("slow", receiver.url, timeout_s=30), FileSink("fast", tmp_path / "usage.ndjson")
        async with shipping(node, slow, fast) as bells:
            await node.run(20)
            for bell in bells.values():
                bell.ring()
            await node.drained("fast")
            assert not receiver.held


async def test_the_bytes_in_the_file_are_the_bytes_in_the_ledger(node: Node, tmp_path: Path) -> None:
    await node.run(30)
    async with shipping(node, FileSink("usage", tmp_path / "usage.ndjson")):
        await node.drained("usage")
    assert (tmp_path / "usage.ndjson").read_bytes().splitlines() == await node.bodies()


async def test_after_a_crash_between_delivery_and_note_the_file_has_each_record_once(
    node: Node, tmp_path: Path
) -> None:
    await node.run(3)
    sink = FileSink("usage", tmp_path / "usage.ndjson")
    await sink.send((await node.bodies())[:4])  # delivered, and the agent died before it noted so
    await sink.close()
    async with shipping(node, FileSink("usage", tmp_path / "usage.ndjson")):
        await node.drained("usage")
    assert (tmp_path / "usage.ndjson").read_bytes().splitlines() == await node.bodies()


async def test_what_arrives_fits_the_schema_and_is_a_cloudevent(node: Node) -> None:
    schema = json.loads(importlib.resources.files("taximeter").joinpath("schema/usage-record.v1.json").read_bytes())
    await node.run(2)
    async with receiving() as receiver:
        async with shipping(node, HttpSink("billing", receiver.url)):
            await node.drained("billing")
        for body in receiver.held.values():
            jsonschema.Draft202012Validator(schema).validate(json.loads(body))
            assert JSONFormat().read(CloudEvent, body).get_type().startswith("taximeter.")


@pytest.mark.timing
async def test_while_nothing_happens_shipping_costs_nothing(node: Node, tmp_path: Path) -> None:
    async with receiving() as receiver:
        sinks = (HttpSink("billing", receiver.url), FileSink("usage", tmp_path / "usage.ndjson"))
        async with shipping(node, *sinks) as bells:
            await node.run(1)
            for name, bell in bells.items():
                bell.ring()
                await node.drained(name)
            before = os.times()
            await anyio.sleep(1)
            after = os.times()
    assert after.user + after.system - before.user - before.system < 0.02
