"""How most commands begin, taken at once: in each case to the very state to which fact by fact leads."""

import pytest

from taximeter.events import Clock, Event, Options
from taximeter.meter import fold, fold_all, open_instance
from taximeter.values import replace
from tests.core.stories import MINUTE, MS, SECOND, beat, book, clock, exited, opened, ready, spawned

BEGUN = [spawned(0), ready(0)]
NOW = replace(clock(MINUTE), utc_error_ns=5)


def stepped(at_ns: int) -> Event:
    """A heartbeat behind a calendar that somebody set."""
    told = beat(at_ns)
    return replace(told, clock=replace(told.clock, realtime=told.clock.realtime + SECOND))


@pytest.mark.parametrize(
    ("facts", "now"),
    [
        pytest.param([*BEGUN, beat(SECOND, cpu_ns=MS), exited(2 * SECOND)], None, id="it beats, and ends"),
        pytest.param([*BEGUN, beat(SECOND)], None, id="it goes on, and does not say what it used"),
        pytest.param([*BEGUN, beat(SECOND, cpu_ns=MS)], NOW, id="the agent knows how far off the calendar is"),
        pytest.param([*BEGUN, stepped(SECOND), beat(2 * SECOND)], None, id="somebody set the calendar"),
        pytest.param([*BEGUN, beat(SECOND, slept_ns=SECOND), exited(2 * SECOND, slept_ns=SECOND)], None, id="it slept"),
        pytest.param([*BEGUN, beat(2 * MINUTE), exited(3 * MINUTE)], None, id="an interim record is due"),
        pytest.param([*BEGUN, beat(SECOND), beat(MS)], None, id="a beat is told late"),
        pytest.param([spawned(SECOND), ready(2 * SECOND), exited(3 * SECOND)], None, id="it is ready later"),
        pytest.param([spawned(SECOND), ready(SECOND, "log"), exited(3 * SECOND)], None, id="it says that it is ready"),
        pytest.param([ready(0), spawned(0), exited(SECOND)], None, id="the other way round"),
        pytest.param([spawned(0)], None, id="no more is known"),
    ],
)
@pytest.mark.parametrize("worker", [False, True], ids=["one-shot", "worker"])
def test_taken_at_once_it_is_as_fact_by_fact(facts: list[Event], now: Clock | None, worker: bool) -> None:
    begun = open_instance(opened(Options(prediction="p1", worker=worker)), book())
    assert fold_all([(begun, facts)], book(), now) == [fold(begun, facts, book(), now)]
