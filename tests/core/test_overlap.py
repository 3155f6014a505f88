"""Overlapping predictions: each nanosecond is shared out exactly, whoever comes and goes, wherever records are cut."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from taximeter.events import ActiveMark, Event, Marked, ServiceClass
from taximeter.instance import Instance, Prediction
from taximeter.lifecycle import Stage
from taximeter.meter import open_instance
from taximeter.records import UsageRecord, Witness
from taximeter.spans import times_at
from taximeter.values import replace
from tests.core.stories import MS, SECOND, WORKER, Told, beat, book, exited, finish, opened, ready, spawned, start, tell

NAMES = ("a", "b", "c", "d", "e")
#: Who joins or leaves, and after how many nanoseconds; what makes no sense is refused.
COMINGS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(NAMES), st.sampled_from(["start", "start", "finish", "load", "on"])),
    max_size=30,
)


def time_of(record: UsageRecord) -> Any:
    return record.data["time"]


def company_of(record: UsageRecord) -> Any:
    return record.data["concurrency"]


def crowded(count: int) -> Instance:
    """A worker on which so many predictions have just become active together."""
    seen = Witness("mark", None)
    guests = tuple(
        Prediction(
            str(number), *(None,) * 3, ServiceClass.PUBLIC, None, None, "r", {}, None, None, 0, seen, active=True
        )
        for number in range(count)
    )
    return replace(open_instance(opened(WORKER), book()), stage=Stage.ACTIVE, predictions=guests, crowd=count)


@given(st.integers(1, 1024), st.lists(st.integers(0, 10**15), min_size=1, max_size=5))
def test_a_stretch_is_shared_out_to_the_last_nanosecond_wherever_it_is_looked_at(count: int, looks: list[int]) -> None:
    instance = crowded(count)
    before = [0] * count
    for at_ns in sorted(looks):
        shares = [times.share for times in times_at(instance, at_ns)]
        assert sum(shares) == at_ns
        assert all(abs(Fraction(at_ns, count) - share) < 1 for share in shares)
        assert all(earlier <= share for earlier, share in zip(before, shares, strict=True))
        before = shares


def test_the_odd_nanoseconds_of_a_stretch_go_to_who_has_been_there_longest() -> None:
    assert [times.share for times in times_at(crowded(4), 10)] == [3, 3, 2, 2]


def come_and_go(comings: Sequence[tuple[int, str, str]], interim_ns: int) -> Told:
    """A life of a few hundred nanoseconds, cut into records of `interim_ns`."""
    events: list[Event] = [spawned(0), ready(0)]
    at_ns = 0
    for gap_ns, name, what in comings:
        at_ns += gap_ns
        happens = {
            "start": start(at_ns, name),
            "load": start(at_ns, name, service_class=ServiceClass.FAST_BOOT),
            "on": Marked(at_ns, ActiveMark(name)),
            "finish": finish(at_ns, name),
        }
        events.append(happens[what])
    return tell(WORKER, [*events, exited(at_ns + 7)], book(interim_ns), silent=True)


def shares_of(told: Told) -> dict[str, int]:
    """Each prediction's share over all its records; a name that comes again goes on."""
    sums: dict[str, int] = {}
    for record in told.predictions():
        sums[str(record.prediction)] = sums.get(str(record.prediction), 0) + time_of(record)["share_ns"]
    return sums


@given(COMINGS, st.integers(1, 90))
def test_no_cut_moves_a_nanosecond_from_one_prediction_to_another(
    comings: list[tuple[int, str, str]], interim_ns: int
) -> None:
    whole, cut = come_and_go(comings, 10**9), come_and_go(comings, interim_ns)
    assert shares_of(cut) == shares_of(whole)
    assert sum(shares_of(cut).values()) == sum(time_of(record)["active_ns"] for record in cut.instances())


@given(COMINGS)
def test_a_share_is_the_integral_of_time_over_company_to_a_nanosecond_for_each_change(
    comings: list[tuple[int, str, str]],
) -> None:
    active: dict[str, bool] = {}
    exact: dict[str, Fraction] = {}
    for gap_ns, name, what in [*comings, (7, "", "end")]:
        crowd = sum(active.values())
        for one in (one for one, runs in active.items() if runs):
            exact[one] += Fraction(gap_ns, crowd)
        if what == "finish":
            active.pop(name, None)
        elif what == "on" and name in active:
            active[name] = True
        elif what in ("start", "load") and name not in active:
            active[name] = what == "start"
            exact.setdefault(name, Fraction(0))
    told = shares_of(come_and_go(comings, 10**9))
    assert told.keys() == exact.keys()
    assert all(abs(told[name] - share) <= len(comings) + 1 for name, share in exact.items())


# --- who was there at the same time ---


def overlapped(interim_ns: int) -> Told:
    """`a` for 4 s, `b` with it from 1.5 s to 2.5 s, `c` from 1.75 s to 2 s."""
    marks = [
        *(start(0, "a"), start(1500 * MS, "b"), start(1750 * MS, "c")),
        *(finish(2 * SECOND, "c"), beat(2250 * MS), finish(2500 * MS, "b"), beat(3500 * MS), finish(4 * SECOND, "a")),
    ]
    return tell(WORKER, [spawned(0), ready(0), *marks, exited(5 * SECOND)], book(interim_ns))


def test_concurrency_is_of_the_whole_run_where_nothing_is_cut() -> None:
    told = overlapped(60 * SECOND)
    assert [company_of(told.predictions(name)[0]) for name in ("a", "b", "c")] == [
        {"mean": "1.31", "max": 3},
        {"mean": "2.25", "max": 3},
        {"mean": "3", "max": 3},
    ]


def test_each_record_tells_the_concurrency_of_its_own_interval() -> None:
    told = overlapped(SECOND)
    assert [(company["mean"], company["max"]) for company in map(company_of, told.predictions("a"))] == [
        ("1", 1),
        ("1.75", 3),
        ("1.5", 2),
        ("1", 1),
        ("0", 0),  # the last one ends where it begins
    ]
    assert [company["max"] for company in map(company_of, told.predictions("b"))] == [3, 2]
    assert [(company["mean"], company["max"]) for company in map(company_of, told.instances())] == [
        ("1", 1),
        ("1.75", 3),
        ("1.5", 2),
        ("1", 1),
        ("0", 0),
        ("0", 0),
    ]


def test_whoever_comes_as_another_goes_was_no_company() -> None:
    marks = [start(0, "a"), start(SECOND, "b"), finish(SECOND, "a"), finish(2 * SECOND, "b")]
    told = tell(WORKER, [spawned(0), ready(0), *marks, exited(3 * SECOND)])
    assert [company_of(record)["max"] for record in told.records] == [1, 1, 1]


def test_who_only_loads_is_nobodys_company() -> None:
    loads = start(0, "b", service_class=ServiceClass.FAST_BOOT)
    marks = [start(0, "a"), loads, finish(SECOND, "a"), finish(2 * SECOND, "b")]
    told = tell(WORKER, [spawned(0), ready(0), *marks, exited(3 * SECOND)])
    assert [company_of(record)["max"] for record in told.records] == [1, 0, 1]


def test_time_that_nobody_saw_has_no_concurrency() -> None:
    told = tell(
        WORKER, [spawned(0), start(0, "a"), beat(9 * SECOND), finish(9 * SECOND, "a"), exited(9 * SECOND)], silent=True
    )
    assert [company_of(record) for record in told.records] == [{"mean": "0", "max": 0}] * 2


def test_a_mean_is_rounded_once_half_to_even() -> None:
    """Of 200 ns one with company: 1.005; of 200 ns three: 1.015."""
    for together_ns, mean in ((1, "1"), (3, "1.02")):
        marks = [start(0, "a"), start(200 - together_ns, "b"), finish(200, "a"), finish(200, "b")]
        told = tell(WORKER, [spawned(0), ready(0), *marks, exited(300)])
        assert company_of(told.predictions("a")[0])["mean"] == mean


def test_intervals_tile_however_short_they_are() -> None:
    cut = come_and_go([(0, "a", "start"), (11, "b", "start"), (13, "a", "finish"), (17, "b", "finish")], 5)
    intervals: list[Any] = [record.data["interval"] for record in cut.instances()]
    assert all(before["end_ns"] == after["start_ns"] for before, after in pairwise(intervals))
