"""What was stamped in a time namespace, told by the clocks here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.events import (
    BecameReady,
    Clock,
    Event,
    Exited,
    FinishMark,
    Heartbeat,
    Lost,
    Marked,
    Spawned,
    Status,
    TimeOffsets,
)
from taximeter.timens import TICK_NS, said_here, told_here
from taximeter.values import replace
from tests.core.stories import SECOND, WORKER, beat, exited, finish, opened, ready, spawned, start
from tests.core.test_clocks import told

AHEAD = TimeOffsets(500 * SECOND, 900 * SECOND)
HERE = TimeOffsets()
OFFSETS = st.builds(TimeOffsets, st.integers(-(10**18), 10**18), st.integers(-(10**18), 10**18))


def clock(monotonic: int, boottime: int, raw: int) -> Clock:
    return Clock(monotonic, boottime, raw, 7, "boot")


def one(event: Event, theirs: TimeOffsets = AHEAD, ours: TimeOffsets = HERE) -> Event:
    (told_event,) = told_here([event], theirs, ours)
    return told_event


def test_where_all_clocks_are_the_machines_nothing_is_touched() -> None:
    events = [spawned(SECOND)]
    assert told_here(events, None, HERE) is events


def test_in_the_same_time_namespace_nothing_is_touched() -> None:
    events = [spawned(SECOND)]
    assert told_here(events, AHEAD, AHEAD) is events


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (BecameReady(501 * SECOND, "http", 5), BecameReady(SECOND, "http", 5)),
        (
            Spawned(501 * SECOND, 500 * SECOND + 7, 9, 90_100),
            Spawned(SECOND, 7, 9, 100),
        ),
        (Spawned(501 * SECOND, 500 * SECOND, 9, None), Spawned(SECOND, 0, 9, None)),
        (Marked(501 * SECOND, FinishMark("a", Status.FAILED)), Marked(SECOND, FinishMark("a", Status.FAILED))),
        (
            Marked(502 * SECOND, FinishMark("a", Status.FAILED), 501 * SECOND),
            Marked(2 * SECOND, FinishMark("a", Status.FAILED), SECOND),
        ),
        (
            Heartbeat(501 * SECOND, clock(501 * SECOND, 902 * SECOND, 500 * SECOND)),
            Heartbeat(SECOND, clock(SECOND, 2 * SECOND, 0)),
        ),
        (
            Exited(501 * SECOND, 0, None, False, clock(501 * SECOND, 902 * SECOND, 500 * SECOND)),
            Exited(SECOND, 0, None, False, clock(SECOND, 2 * SECOND, 0)),
        ),
        (Exited(501 * SECOND, 0, None, False, None), Exited(SECOND, 0, None, False, None)),
        (Lost(None, "rebooted"), Lost(None, "rebooted")),
    ],
)
def test_a_fact_is_told_by_the_clocks_here(there: Event, here: Event) -> None:
    assert one(there) == here


def test_an_opening_keeps_the_offsets_that_it_was_told_by() -> None:
    there = replace(opened(at_ns=501 * SECOND), timens=AHEAD)
    here = one(there)
    assert here == replace(there, at_ns=SECOND, clock=here.clock)  # type: ignore[union-attr]
    assert here.clock.monotonic == SECOND  # type: ignore[union-attr]


def test_an_agent_in_a_time_namespace_tells_the_machines_time_by_its_own() -> None:
    assert one(ready(SECOND), HERE, AHEAD).at_ns == 501 * SECOND


def test_a_start_time_is_unknown_where_the_offset_is_no_number_of_ticks() -> None:
    assert one(Spawned(SECOND, 0, 9, 100), TimeOffsets(0, TICK_NS + 1)) == Spawned(SECOND, 0, 9, None)


def test_of_what_was_stamped_here_only_the_workers_own_word_is_by_its_clocks() -> None:
    heard = [finish(9 * SECOND, "a", said_ns=508 * SECOND), finish(9 * SECOND, "b"), ready(10 * SECOND)]
    assert said_here(heard, AHEAD, HERE) == [finish(9 * SECOND, "a", said_ns=8 * SECOND), *heard[1:]]
    assert said_here(heard, None, HERE) is heard


@given(OFFSETS, OFFSETS, st.integers(0, 2**60 - 1))
def test_no_offset_makes_a_time_negative(theirs: TimeOffsets, ours: TimeOffsets, at_ns: int) -> None:
    at = one(ready(at_ns), theirs, ours).at_ns
    assert at is not None
    assert at >= 0


@given(st.builds(TimeOffsets, st.integers(0, 10**18), st.integers(-(10**9), 10**9).map(lambda ticks: ticks * TICK_NS)))
def test_a_life_in_a_time_namespace_is_billed_as_one_outside(by: TimeOffsets) -> None:
    life = [spawned(SECOND), start(SECOND, "a"), *map(beat, range(2 * SECOND, 9 * SECOND, SECOND))]
    life += [finish(9 * SECOND, "a", said_ns=9 * SECOND - 7), exited(10 * SECOND)]
    first = opened(WORKER)
    there = told_here([first, *life], HERE, by)
    opening, *rest = told_here(there, by, HERE)
    assert [first, *life] == [opening, *rest]
    assert told(rest, first).records == told(life, first).records
