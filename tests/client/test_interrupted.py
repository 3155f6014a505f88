"""An exception from elsewhere (Ctrl-C, a timeout's signal, Cog that cancels) comes behind any call, also behind ours.

Whatever it comes upon: no prediction that was told stays open, none is told twice, and nobody is the current one.
"""

import contextlib
import dis
import fcntl
import itertools
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from taximeter import client
from taximeter.client import marks
from taximeter.client.outlet import OUTLET
from taximeter.client.predictions import Prediction
from tests.client.fifo import Fifo

HERE = str(Path(client.__file__).parent)
OURS = (HERE, __file__)


class Cut(BaseException):
    """What Cog, or Ctrl-C, raises."""


class TimedOut(TimeoutError):
    """What a handler of SIGALRM raises, which is an OSError as well."""


class Late(ValueError, RuntimeError, KeyError):
    """What any other handler raises: of kinds that our own calls raise, too."""


def is_at_the_way_out(frame: FrameType) -> bool:
    """Where a tracer's exception is not what a signal's is: none of the function's handlers has it.

    For signals: `test_one_that_comes_as_the_block_is_left_ends_it`.
    """
    return frame.f_code in WAYS_OUT and frame.f_lasti <= 4


WAYS_OUT = tuple(out.__code__ for out in (Prediction.__exit__, Prediction.__aexit__))


class Interruption:
    """Raises behind the n-th call that client code makes of what is written in C, or at the beginning of its own.

    There the interpreter looks for signals, and nowhere else in code without loops.
    """

    def __init__(self, at: int, error: type[BaseException], everywhere: bool = False) -> None:
        self.left = at
        self._error = error
        self._everywhere = everywhere
        self._called: FrameType | None = None  # who has just begun to call something

    def trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(HERE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        called, self._called = self._called, None
        if event == "call" or (event == "opcode" and called is frame):
            self._look(frame)
        if event == "opcode":
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            self._called = frame if name in ("CALL", "CALL_KW", "CALL_FUNCTION_EX") else None
        return self.trace

    def _look(self, frame: FrameType) -> None:
        if is_at_the_way_out(frame) and not self._everywhere:
            return
        self.left -= 1
        if self.left == 0:
            raise self._error


def plain() -> None:
    with client.prediction(model="acme/echo"):
        pass


def of_a_new_kind() -> None:
    marks.heads.clear()
    plain()


def with_units() -> None:
    with client.prediction("p1", service_class="fast_boot", attributes={"a": 1}) as prediction:
        prediction.active()
        prediction.add(image=1)


def failing() -> None:
    with client.prediction():
        raise KeyError


def nested() -> None:
    with client.prediction("outer", account="cus_7"), client.prediction("inner"):
        pass


@client.prediction(model="acme/echo")
def values() -> Iterator[int]:
    yield 1


def read() -> None:
    for _ in values():
        pass


def in_a_task() -> None:
    async def work() -> None:
        async with client.prediction("p1", admit=False) as prediction:
            prediction.add(image=1)

    with contextlib.suppress(StopIteration):
        work().send(None)


def adding() -> None:
    with client.prediction("p1", attributes={"a": 1.5}) as prediction:
        prediction.add({"5 seconds": "1.25", "token": 0.5}, image=2)
        prediction._due_ns = 0
        prediction.add({"5 seconds": 1})


WAYS = (plain, of_a_new_kind, with_units, failing, nested, read, in_a_task, adding)


@client.prediction(model="acme/echo")
def decorated() -> None:
    pass


@client.prediction(model="acme/echo")
async def awaited() -> None:
    pass


def awaiting() -> None:
    with contextlib.suppress(StopIteration):
        awaited().send(None)


def interrupted(work: Callable[[], None], at: int, error: type[BaseException], everywhere: bool = False) -> bool:
    """Whether there was something to interrupt; what was raised there passes through."""
    interruption, before = Interruption(at, error, everywhere), sys.gettrace()
    raised: BaseException | None = None
    sys.settrace(interruption.trace)
    try:
        work()
    except (error, KeyError) as passing:
        raised = passing
    finally:
        sys.settrace(before)
    assert interruption.left > 0 or isinstance(raised, error), "it passes through"
    return interruption.left <= 0


def left_open(said: list[dict[str, Any]]) -> list[str]:
    starts = [mark["prediction"] for mark in said if mark["mark"] == "start"]
    ends = [mark["prediction"] for mark in said if mark["mark"] == "finish"]
    assert sorted(set(ends)) == sorted(ends), "an end is told once"
    assert sorted(set(starts)) == sorted(starts), "a start is told once"
    return sorted(set(starts) - set(ends))


@pytest.mark.filterwarnings("ignore:.*coroutine")  # one may be interrupted before it begins
@pytest.mark.parametrize("error", [Cut, TimedOut, Late])
@pytest.mark.parametrize("work", WAYS, ids=lambda work: work.__name__)
def test_what_comes_behind_any_call_leaves_nothing_open(
    fifo: Fifo, work: Callable[[], None], error: type[BaseException]
) -> None:
    work() if work is not failing else None
    fifo.read()
    for at in itertools.count(1):
        was_one = interrupted(work, at, error)
        assert left_open(fifo.marks()) == [], at
        assert client.current() is None, at
        if not was_one:
            assert at > 5
            return


@pytest.mark.filterwarnings("ignore:.*coroutine")  # one may be interrupted before it begins
@pytest.mark.parametrize("work", [decorated, awaiting], ids=lambda work: work.__name__)
def test_of_a_decorated_function_no_moment_is_out_of_reach(fifo: Fifo, work: Callable[[], None]) -> None:
    for at in itertools.count(1):
        was_one = interrupted(work, at, Cut, everywhere=True)
        assert left_open(fifo.marks()) == [], at
        assert client.current() is None, at
        if not was_one:
            assert at > 5
            return


@pytest.mark.parametrize("work", WAYS, ids=lambda work: work.__name__)
def test_nor_does_it_where_the_fifo_is_full(fifo: Fifo, work: Callable[[], None]) -> None:
    client.ready()
    fcntl.fcntl(fifo.fd, fcntl.F_SETPIPE_SZ, 4096)
    for at in itertools.count(1):
        fifo.stuff()
        was_one = interrupted(work, at, Cut)
        said = fifo.marks()
        client.ready()  # whoever speaks next sends what waits
        assert left_open(said + all_of(fifo)) == [], at
        assert client.current() is None, at
        if not was_one:
            assert at > 5
            return


def all_of(fifo: Fifo) -> list[dict[str, Any]]:
    """What is said, and what waits."""
    said: list[dict[str, Any]] = []
    while OUTLET.waiting:
        OUTLET.drain()
        said += fifo.marks()
    return said + fifo.marks()


def until_interrupted(within_s: float, error: type[BaseException]) -> None:
    signal.setitimer(signal.ITIMER_REAL, within_s)
    for _ in range(500):
        plain()
    raise error  # it came to somebody else


@pytest.mark.parametrize("error", [Cut, TimedOut])
def test_a_storm_of_signals_leaves_nothing_open(fifo: Fifo, error: type[BaseException]) -> None:
    dice, said = random.Random(0), []

    def handle(_: int, frame: FrameType | None) -> None:
        # Not in what runs beside it now and then, such as a callback of the garbage collector, which swallows all.
        if frame is not None and frame.f_code.co_filename.startswith(OURS):
            raise error

    before = signal.signal(signal.SIGALRM, handle)
    try:
        for _ in range(2000):
            with pytest.raises(error):
                until_interrupted(dice.uniform(1e-6, 1e-4), error)
            said += fifo.marks()
            assert client.current() is None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert left_open(said + all_of(fifo)) == []
    assert client.dropped() == 0


class AtTheWayOut:
    """Has a signal come while the block does nothing at which the interpreter looks for one, and says where it did."""

    def __init__(self) -> None:
        self.found: list[bool] = []

    def __enter__(self) -> "AtTheWayOut":
        self._before = signal.signal(signal.SIGALRM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def _handle(self, _: int, frame: FrameType | None) -> None:
        assert frame is not None
        first = next(one.offset for one in dis.get_instructions(frame.f_code) if one.opname == "RESUME")
        self.found.append(frame.f_code in WAYS_OUT and frame.f_lasti == first)
        raise Cut


#: To make so much takes tens of milliseconds, in one instruction.
MUCH = 100_000_000


def idle_in_a_block() -> None:
    with client.prediction("p1"):
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        b"a" * MUCH


def test_one_that_comes_as_the_block_is_left_ends_it(fifo: Fifo) -> None:
    with AtTheWayOut() as came:
        with pytest.raises(Cut):
            idle_in_a_block()
        assert client.current() is None
    assert came.found == [True]
    assert [(mark["mark"], mark.get("status")) for mark in fifo.marks()] == [("start", None), ("finish", "canceled")]


def test_so_does_one_that_comes_as_the_block_of_a_task_is_left(fifo: Fifo) -> None:
    async def work() -> None:
        async with client.prediction("p1"):
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            b"a" * MUCH

    with AtTheWayOut() as came:
        with pytest.raises(Cut):
            work().send(None)
        assert client.current() is None
    assert came.found == [True]
    assert [(mark["mark"], mark.get("status")) for mark in fifo.marks()] == [("start", None), ("finish", "canceled")]


def test_units_that_were_counted_are_told_with_the_end_whatever_comes_in_its_midst(fifo: Fifo) -> None:
    def end() -> None:
        with made:
            pass

    for at in itertools.count(1):
        made = client.prediction("p1").start()
        made.add({"a": 1, "b": "0.5"})
        made.add(a=2)
        was_one = interrupted(end, at, Late)
        made.finish()
        (units,) = [mark["units"] for mark in fifo.marks() if "units" in mark]
        assert units == {"a": 3, "b": "0.5"}, at
        if not was_one:
            assert at > 5
            return


def test_of_what_is_added_as_a_signal_comes_all_counts_or_nothing(fifo: Fifo) -> None:
    for at in itertools.count(1):
        with client.prediction("p1") as prediction:
            was_one = interrupted(lambda: prediction.add({"a": 1}, b=2), at, Late)
        assert fifo.marks()[-1].get("units") in (None, {"a": 1, "b": 2}), at
        if not was_one:
            assert at > 5
            return


def test_who_is_interrupted_in_the_start_is_canceled_and_the_exception_passes_through(
    fifo: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain()
    fifo.read()
    write = client.predictions.write

    def interrupting(fd: int, line: bytes) -> None:
        write(fd, line)
        if b'"start"' in line:
            raise KeyboardInterrupt

    monkeypatch.setattr("taximeter.client.predictions.write", interrupting)
    with pytest.raises(KeyboardInterrupt):
        plain()
    assert [(mark["mark"], mark.get("status")) for mark in fifo.marks()] == [("start", None), ("finish", "canceled")]


def test_a_generator_that_is_called_with_what_it_does_not_take_begins_nothing(fifo: Fifo) -> None:
    call: Any = values
    with pytest.raises(TypeError):
        next(call(1, 2))
    assert fifo.lines() == []
