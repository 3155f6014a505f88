"""The shipper: in order, in batches, for ever, and never in a hurry."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest

from taximeter.errors import LedgerError, SinkError
from taximeter.shipping.shipper import BATCH_MAX_RECORDS, Bell, ShipState, cut, pause_s, ship
from tests.shipping.outbox import Outbox, Stored, until

pytestmark = pytest.mark.anyio


@dataclass
class Sink:
    """Takes what it is given, after the errors it was told to raise."""

    name: str = "s"
    errors: list[Exception] = field(default_factory=list)
    batches: list[list[bytes]] = field(default_factory=list)
    tried: int = 0
    closed: bool = False
    most: int | None = None
    poison: set[bytes] = field(default_factory=set)

    async def send(self, bodies: Sequence[bytes]) -> None:
        self.tried += 1
        if self.errors:
            raise self.errors.pop(0)
        if self.most is not None and len(bodies) > self.most:
            raise SinkError("too_large", "413")
        if self.poison.intersection(bodies):
            raise SinkError("rejected", "400")
        self.batches.append(list(bodies))

    async def close(self) -> None:
        self.closed = True


class StuckSink(Sink):
    """Takes its time for ever."""

    async def send(self, bodies: Sequence[bytes]) -> None:
        self.tried += 1
        await anyio.sleep_forever()


@dataclass
class Shipping:
    """A shipper at work."""

    outbox: Outbox
    bell: Bell
    state: ShipState
    pauses: list[float]


@asynccontextmanager
async def shipping(sink: Sink, count: int = 0, jitter: float = 0.5) -> AsyncIterator[Shipping]:
    at_work = Shipping(Outbox([b"%d" % n for n in range(1, count + 1)]), Bell(), ShipState(), [])

    async def noted(pause: float) -> None:
        at_work.pauses.append(pause)
        await anyio.lowlevel.checkpoint()

    async def work() -> None:
        await ship(sink, at_work.outbox, wake=at_work.bell, state=at_work.state, jitter=lambda: jitter, sleep=noted)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        yield at_work
        tasks.cancel_scope.cancel()


async def test_everything_is_shipped_in_order() -> None:
    sink = Sink()
    async with shipping(sink, 7) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert [body for batch in sink.batches for body in batch] == [b"1", b"2", b"3", b"4", b"5", b"6", b"7"]


async def test_a_batch_holds_a_hundred_records_at_most() -> None:
    sink = Sink()
    async with shipping(sink, 250) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert [len(batch) for batch in sink.batches] == [BATCH_MAX_RECORDS, BATCH_MAX_RECORDS, 50]


def test_a_batch_is_cut_before_it_grows_too_big() -> None:
    batch = [Stored(seq, b"x" * 40) for seq in range(1, 5)]
    assert [stored.seq for stored in cut(batch, max_bytes=100)] == [1, 2]


def test_a_record_that_is_too_big_alone_is_a_batch_all_the_same() -> None:
    batch = [Stored(1, b"x" * 400), Stored(2, b"x")]
    assert [stored.seq for stored in cut(batch, max_bytes=100)] == [1]


async def test_a_bell_rung_before_the_wait_is_heard() -> None:
    bell = Bell()
    bell.ring()
    with anyio.fail_after(5):
        await bell.wait()


async def test_a_bell_is_heard_once_only() -> None:
    bell = Bell()
    bell.ring()
    await bell.wait()
    with anyio.move_on_after(0.02) as scope:
        await bell.wait()
    assert scope.cancelled_caught


async def test_new_records_are_shipped_when_the_bell_rings() -> None:
    sink = Sink()
    async with shipping(sink) as at_work:
        at_work.outbox.bodies.append(b"late")
        at_work.bell.ring()
        await until(lambda: sink.batches == [[b"late"]])


async def test_a_refused_batch_is_tried_again_unchanged() -> None:
    sink = Sink(errors=[SinkError("server_error", "500"), SinkError("timeout", "slow")])
    async with shipping(sink, 3) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert sink.batches == [[b"1", b"2", b"3"]]


async def test_failures_are_counted_by_reason() -> None:
    sink = Sink(errors=[SinkError("server_error", "a"), SinkError("timeout", "b"), SinkError("timeout", "c")])
    async with shipping(sink, 1) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert dict(at_work.state.failures) == {"server_error": 1, "timeout": 2}


async def test_the_last_error_is_told_while_it_lasts() -> None:
    sink = Sink(errors=[SinkError("server_error", "the receiver is ill")] * 10_000)
    async with shipping(sink, 1) as at_work:
        await until(lambda: at_work.state.last_error == "the receiver is ill")


async def test_the_last_error_is_gone_once_a_batch_has_passed() -> None:
    sink = Sink(errors=[SinkError("server_error", "ill")])
    async with shipping(sink, 1) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert at_work.state.last_error is None


async def test_a_sink_with_a_bug_is_a_failure_like_any_other() -> None:
    sink = Sink(errors=[ZeroDivisionError("oops")])
    async with shipping(sink, 1) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert dict(at_work.state.failures) == {"unexpected": 1}


async def test_an_outbox_that_cannot_be_read_is_tried_again() -> None:
    sink = Sink(errors=[LedgerError("locked")])
    async with shipping(sink, 1) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert dict(at_work.state.failures) == {"outbox": 1}


async def test_a_batch_that_is_too_large_is_halved_until_it_passes() -> None:
    sink = Sink(most=30)
    async with shipping(sink, 100) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert sum(len(batch) for batch in sink.batches) == 100


async def test_a_record_that_alone_is_refused_is_set_aside_and_the_rest_goes_on() -> None:
    sink = Sink(poison={b"42"})
    async with shipping(sink, 250) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert sorted(int(body) for batch in sink.batches for body in batch) == [n for n in range(1, 251) if n != 42]


async def test_what_is_set_aside_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    async with shipping(Sink(poison={b"3"}), 5) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert [message for message in caplog.messages if "record=3 reason=rejected: 400" in message]


async def test_what_is_set_aside_is_counted_and_is_no_failure() -> None:
    async with shipping(Sink(poison={b"3", b"4"}), 5) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert (at_work.state.shipped, at_work.state.refused, at_work.state.failing) == (3, 2, 0)


async def test_a_receiver_that_refuses_everything_has_nothing_set_aside_for_it() -> None:
    sink = Sink(poison={b"%d" % n for n in range(1, 8)})
    async with shipping(sink, 7) as at_work:
        await until(lambda: at_work.state.failures["rejected"] > 3)
    assert (at_work.outbox.done, at_work.outbox.letters) == (0, {})


async def test_a_refused_record_that_was_alone_is_set_aside_once_another_one_passes() -> None:
    sink = Sink(poison={b"1"})
    async with shipping(sink, 1) as at_work:
        await until(lambda: at_work.state.failing > 1)
        at_work.outbox.bodies.append(b"2")
        await until(lambda: at_work.outbox.empty)
    assert list(at_work.outbox.letters) == [1]


async def test_what_somebody_wants_to_be_tried_again_is_tried_once() -> None:
    sink = Sink(poison={b"2", b"3"})
    async with shipping(sink, 4) as at_work:
        await until(lambda: at_work.outbox.empty)
        sink.poison = {b"3"}
        at_work.outbox.wanted = {2, 3}
        at_work.bell.ring()
        await until(lambda: not at_work.outbox.wanted)
    assert (list(at_work.outbox.letters), [b"2"] in sink.batches) == ([3], True)


async def test_a_sink_that_is_stuck_delays_no_other() -> None:
    stuck, well = StuckSink(name="stuck"), Sink(name="well")
    async with shipping(stuck, 5) as first, shipping(well, 5) as second:
        await until(lambda: stuck.tried == 1)
        await until(lambda: second.outbox.empty)
        assert first.outbox.done == 0


async def test_a_sink_is_closed_when_the_shipper_is_cancelled() -> None:
    sink = Sink()
    async with shipping(sink):
        await anyio.lowlevel.checkpoint()
    assert sink.closed


async def test_a_hopeless_answer_is_said_aloud_each_time(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink(errors=[SinkError("refused", "400")] * 3)
    async with shipping(sink, 1) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert sum("reason=refused" in message for message in caplog.messages) == 3


async def test_a_passing_trouble_is_said_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink(errors=[SinkError("timeout", "slow")] * 5)
    async with shipping(sink, 1) as at_work:
        await until(lambda: at_work.outbox.empty)
    assert [message.split()[0] for message in caplog.messages] == ["ship.failed", "ship.recovered"]


def test_back_off_doubles_its_ceiling_up_to_a_minute() -> None:
    fault = SinkError("server_error", "500")
    assert [pause_s(fault, before, 1.0) for before in (0, 1, 2, 7, 8, 1000)] == [0.5, 1.0, 2.0, 60.0, 60.0, 60.0]


def test_back_off_is_anything_between_nothing_and_its_ceiling() -> None:
    assert pause_s(SinkError("timeout", ""), 3, 0.0) == 0.0


def test_a_receiver_that_asks_for_patience_gets_it() -> None:
    assert pause_s(SinkError("throttled", "429", retry_after_s=17.0), 0, 0.0) == 17.0


def test_patience_ends_after_five_minutes() -> None:
    assert pause_s(SinkError("throttled", "429", retry_after_s=1e12), 0, 0.0) == 300.0


def test_a_retry_after_in_the_past_asks_for_nothing() -> None:
    assert pause_s(SinkError("throttled", "429", retry_after_s=-5.0), 0, 0.0) == 0.0


def test_what_will_hardly_change_is_tried_slowly_from_the_first() -> None:
    assert pause_s(SinkError("refused", "400"), 0, 0.0) == 30.0
