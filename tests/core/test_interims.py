"""Interim records: whatever is open is told every so often, each over its own interval, and the sums are the whole."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.events import ActiveMark, Event, Marked, Measured, Options, ReadyMark, ServiceClass, UnitsMark, Unread
from taximeter.lifecycle import Stage
from taximeter.lineage import OWN_PARENT
from taximeter.meter import fold, go_on, open_instance
from taximeter.records import RecordType, UsageRecord
from taximeter.values import replace
from tests.core.stories import (
    MINUTE,
    MS,
    SECOND,
    WORKER,
    beat,
    book,
    exited,
    finish,
    in_pieces,
    opened,
    ready,
    spawned,
    start,
    tell,
    with_heartbeats,
)

LOADS = start(5 * SECOND, "a", service_class=ServiceClass.FAST_BOOT)


def data_of(record: UsageRecord) -> Any:
    return record.data


def ends(records: Iterable[UsageRecord]) -> list[int]:
    return [data_of(record)["interval"]["end_ns"] for record in records]


def parts(records: Iterable[UsageRecord], part: str) -> list[int]:
    return [data_of(record)["time"][part] for record in records]


# --- what is open is told ---


def test_an_instance_tells_of_itself_in_boot_in_idle_and_in_teardown() -> None:
    told = tell(WORKER, [spawned(0), ready(90 * SECOND), exited(200 * SECOND)])
    assert ends(told.instances()) == [MINUTE, 2 * MINUTE, 3 * MINUTE, 200 * SECOND]
    assert parts(told.instances(), "boot_ns") == [MINUTE, 30 * SECOND, 0, 0]
    assert parts(told.instances(), "idle_ns") == [0, 30 * SECOND, MINUTE, 20 * SECOND]


def test_cuts_lie_at_multiples_since_the_instance_began_whenever_a_prediction_did() -> None:
    told = tell(WORKER, [spawned(SECOND), start(31 * SECOND, "a"), finish(152 * SECOND, "a"), exited(153 * SECOND)])
    assert ends(told.predictions()) == [61 * SECOND, 121 * SECOND, 152 * SECOND]


def test_a_prediction_that_only_loads_is_told_of_its_load() -> None:
    told = tell(WORKER, [spawned(0), ready(0), LOADS, finish(130 * SECOND, "a"), exited(130 * SECOND)])
    assert parts(told.predictions(), "load_ns") == [55 * SECOND, MINUTE, 10 * SECOND]
    assert parts(told.instances(), "idle_ns") == [MINUTE, MINUTE, 10 * SECOND]
    assert told.amount() == 0


def test_a_load_that_ends_within_an_interval_is_told_in_both_parts() -> None:
    on = Marked(70 * SECOND, ActiveMark("a"))
    told = tell(WORKER, [spawned(0), ready(0), LOADS, on, finish(130 * SECOND, "a"), exited(130 * SECOND)])
    assert parts(told.predictions(), "load_ns") == [55 * SECOND, 10 * SECOND, 0]
    assert parts(told.predictions(), "active_ns") == [0, 50 * SECOND, 10 * SECOND]


def test_a_machine_that_sleeps_moves_no_cut_and_its_sleep_is_of_the_interval_that_noticed_it() -> None:
    """A cut is at so much monotonic time, which stands still in sleep; the labels go on."""
    asleep = [beat(at * SECOND, slept_ns=3600 * SECOND) for at in range(90, 130)]
    begun = list(with_heartbeats([spawned(0), ready(0), start(0, "a"), beat(89 * SECOND)], 10 * MINUTE))
    told = tell(WORKER, [*begun, *asleep, exited(130 * SECOND, slept_ns=3600 * SECOND)], silent=True)
    assert ends(told.predictions()) == [MINUTE, 2 * MINUTE, 130 * SECOND]
    assert parts(told.predictions(), "suspended_ns") == [0, 3600 * SECOND, 0]
    assert parts(told.instances(), "suspended_ns") == [0, 3600 * SECOND, 0]
    assert [data_of(record)["interval"]["end_utc"][11:19] for record in told.instances()] == [
        "10:01:00",
        "11:02:00",
        "11:02:10",
    ]


def test_each_record_of_an_open_run_is_processing_and_only_the_last_is_final() -> None:
    told = tell(WORKER, [spawned(0), start(0, "a"), finish(130 * SECOND, "a"), exited(130 * SECOND)])
    for records in (told.predictions(), told.instances()):
        assert [data_of(record)["final"] for record in records] == [False, False, True]
        assert [data_of(record)["status"] for record in records] == ["processing", "processing", "succeeded"]


# --- units ---


def counted(at_ns: int, amount: int, name: str | None = "a") -> Marked:
    return Marked(at_ns, UnitsMark(name, {"image": str(amount)}))


def test_units_belong_to_the_interval_in_which_they_were_said() -> None:
    marks = [counted(SECOND, 1), counted(59 * SECOND, 2), counted(MINUTE, 4), counted(61 * SECOND, 8)]
    told = tell(WORKER, [spawned(0), start(0, "a"), *marks, finish(130 * SECOND, "a"), exited(130 * SECOND)])
    # What is said at the very instant of a cut is of the next interval.
    assert [data_of(record)["units"] for record in told.predictions()] == [{"image": "3"}, {"image": "12"}, {}]


def test_units_that_were_known_beforehand_are_in_the_first_record_alone() -> None:
    options = Options(prediction="p1", units={"token_input": "7"})
    told = tell(options, [spawned(0), ready(0), counted(70 * SECOND, 1, None), exited(130 * SECOND)])
    assert [data_of(record)["units"] for record in told.predictions()] == [{"token_input": "7"}, {"image": "1"}, {}]


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 9)), max_size=20), st.integers(20, 1500))
def test_units_add_up_to_all_that_was_said_however_it_is_cut(said: list[tuple[int, int]], interim_ns: int) -> None:
    marks: list[Event] = [counted(at_ns, amount) for at_ns, amount in sorted(said)]
    told = tell(WORKER, [spawned(0), start(0, "a"), *marks, exited(1001)], book(interim_ns), silent=True)
    total = sum(int(data_of(record)["units"].get("image", "0")) for record in told.predictions())
    assert total == sum(amount for _, amount in said)


# --- what a receiver can check ---


def life() -> list[Event]:
    """A worker of some minutes with everything in it: load, overlap, idle, sleep, a silence, resources, an end."""
    facts: list[Event] = [
        *(spawned(0), ready(20 * SECOND), replace(LOADS, at_ns=30 * SECOND)),
        *(Marked(45 * SECOND, ActiveMark("a")), start(50 * SECOND, "b"), Measured(55 * SECOND, cpu_ns=10**9)),
        *(finish(70 * SECOND, "b"), Measured(100 * SECOND, cpu_ns=3 * 10**9), finish(130 * SECOND, "a")),
        *(start(140 * SECOND, "c"), beat(150 * SECOND, slept_ns=MINUTE), beat(170 * SECOND, slept_ns=MINUTE)),
        *(beat(171 * SECOND, slept_ns=MINUTE), exited(172 * SECOND, code=1, slept_ns=MINUTE)),
    ]
    return list(with_heartbeats(facts[:-3], 10 * MINUTE)) + facts[-3:]


@pytest.mark.parametrize("interim_ns", [MINUTE, 7 * SECOND, SECOND, 333 * MS + 1])
def test_what_a_run_has_told_so_far_adds_up_to_each_of_its_totals_to_date(interim_ns: int) -> None:
    told = tell(WORKER, life(), book(interim_ns), silent=True)
    so_far: dict[str | None, Counter[str]] = {}
    for record in told.records:
        sums = so_far.setdefault(record.prediction, Counter())
        sums.update(data_of(record)["time"])
        assert data_of(record)["to_date"] == {part: sums[part] for part in data_of(record)["to_date"]}
    assert so_far.keys() == {None, "a", "b", "c"}
    assert {"share_ns", "load_ns", "active_ns", "wall_ns"} == data_of(told.predictions()[0])["to_date"].keys()


def test_a_receiver_that_missed_a_record_sees_it_by_the_next() -> None:
    records = tell(WORKER, life(), book(7 * SECOND), silent=True).predictions("a")
    missed, after = records[3], records[4]
    so_far = sum(parts([*records[:3], after], "wall_ns"))
    assert data_of(after)["to_date"]["wall_ns"] - so_far == data_of(missed)["time"]["wall_ns"] > 0


@pytest.mark.parametrize("interim_ns", [7 * SECOND, SECOND, 333 * MS + 1])
def test_no_length_of_the_interim_changes_a_total(interim_ns: int) -> None:
    whole, cut = (tell(WORKER, life(), book(length), silent=True) for length in (10**18, interim_ns))
    for name in ("a", "b", "c"):
        for part in ("wall_ns", "load_ns", "active_ns", "share_ns", "suspended_ns", "unknown_ns"):
            assert sum(parts(cut.predictions(name), part)) == sum(parts(whole.predictions(name), part))
    assert cut.amount() == whole.amount()


# --- what burns with the node ---


@pytest.mark.many
def test_of_three_days_no_moment_leaves_more_untold_than_an_interval_and_a_heartbeat() -> None:
    """Whatever happens to the node, and whenever: what was told by then is all but the last minute."""
    rules = book()
    instance = open_instance(opened(WORKER), rules)
    step = fold(instance, [spawned(0), ready(0), start(0, "a")], rules)
    told_ns = Counter[str | None]()
    for second in range(20, 3 * 24 * 3600 + 1, 20):
        step = fold(step.instance, [beat(at * SECOND) for at in range(second - 19, second + 1)], rules)
        for record in step.records:
            told_ns[record.prediction] += data_of(record)["time"]["active_ns"]
        assert min(told_ns["a"], told_ns[None]) >= (second - 60) * SECOND
    assert told_ns == {"a": 3 * 24 * 3600 * SECOND, None: 3 * 24 * 3600 * SECOND}


# --- a cut of many is made in pieces ---


def test_a_cut_of_many_predictions_is_made_in_pieces_of_so_many_records_which_lead_to_what_one_leads_to() -> None:
    starts = [start((1 + n) * MS, f"p{n}", account=f"cus_{n % 3}") for n in range(10)]
    events = [spawned(0), ready(0), *starts, *[beat(at * SECOND) for at in range(1, 61)], beat(61 * SECOND)]
    begun = open_instance(opened(WORKER), book())
    steps = in_pieces(begun, events, book(), at_once=4)
    assert [len(step.records) for step in steps] == [4, 8, 11]
    assert [step.instance.cut.at_ns == MINUTE for step in steps] == [False, False, True]
    assert steps[-1] == fold(begun, events, book())
    assert go_on(steps[-1], book()) is steps[-1]


def test_the_end_of_many_predictions_is_made_in_pieces_which_lead_to_what_one_leads_to() -> None:
    starts = [start((1 + n) * MS, f"p{n}") for n in range(10)]
    events = [spawned(0), ready(0), *starts, beat(10 * SECOND), exited(10 * SECOND)]
    begun = open_instance(opened(WORKER), book())
    steps = in_pieces(begun, events, book(), at_once=4)
    assert [step.pause is None for step in steps] == [False, False, True]
    assert steps[-1] == fold(begun, events, book())


def test_a_fact_that_is_refused_behind_its_cut_takes_the_cut_back_however_it_was_made() -> None:
    """It changes nothing: so the cut is made by the next one."""
    events = [spawned(0), start(0, "a"), start(0, "b"), *[beat(at * SECOND) for at in range(1, 60)]]
    instance = fold(open_instance(opened(WORKER), book()), events, book()).instance
    stopped = replace(instance, stage=Stage.PENDING)
    facts = [Marked(MINUTE, ReadyMark()), beat(MINUTE)]
    steps = in_pieces(stopped, facts, book(), at_once=1)
    assert [len(step.records) for step in steps] == [1, 0, 1, 3]
    assert steps[-1] == fold(stopped, facts, book())
    assert fold(stopped, facts[:1], book()).instance == stopped


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_what_the_clocks_did_is_marked_on_the_first_cut_behind_it_however_that_is_made(at_once: int) -> None:
    """There may be several cuts up to a fact: the machine slept before the first, and not before the others."""
    rules = book(interim_ns=400 * MS)
    beats = [beat(at * SECOND, slept_ns=50 * MS) for at in (1, 2)]
    events = [spawned(0), start(0, "a"), start(0, "b"), *beats]
    begun = open_instance(opened(WORKER), rules)
    whole = fold(begun, events, rules)
    assert in_pieces(begun, events, rules, at_once)[-1] == whole
    told = [record.data["timing"]["clock"] for record in whole.records if record.type is RecordType.INSTANCE]  # type: ignore[index]
    assert (told, whole.faults) == (["ok", "ok", "suspended", "ok", "ok"], ("suspended",))


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_a_clock_that_was_set_is_marked_on_every_cut_up_to_the_fact_that_shows_it_however_these_are_made(
    at_once: int,
) -> None:
    rules, late = book(interim_ns=400 * MS), beat(2 * SECOND)
    late = replace(late, clock=replace(late.clock, realtime=late.clock.realtime + 60 * SECOND))
    events = [spawned(0), start(0, "a"), start(0, "b"), beat(SECOND), late]
    begun = open_instance(opened(WORKER), rules)
    whole = fold(begun, events, rules)
    assert in_pieces(begun, events, rules, at_once)[-1] == whole
    told = [record.data["timing"]["clock"] for record in whole.records if record.type is RecordType.INSTANCE]  # type: ignore[index]
    assert (told, whole.faults) == (["ok", "ok", "stepped", "stepped", "stepped"], ("stepped",))


def test_what_a_fact_says_beside_its_cut_is_said_once() -> None:
    odd = start(MINUTE, "a", parent="a")
    events = [spawned(0), start(0, "b"), start(0, "c"), *[beat(at * SECOND) for at in range(1, 60)], odd]
    begun = open_instance(opened(WORKER), book())
    assert in_pieces(begun, events, book(), at_once=1)[-1].doubts == fold(begun, events, book()).doubts == (OWN_PARENT,)


@pytest.mark.parametrize("lost", [(), (Unread(),)], ids=["whole", "a line was lost"])
@pytest.mark.parametrize("late", [0, 1, 20 * MS])
def test_a_mark_of_before_a_cut_that_it_passes_is_done_once(late: int, lost: tuple[Event, ...]) -> None:
    marks = [finish(MINUTE + MS, "b", said_ns=MINUTE - late), start(MINUTE + MS, "e", said_ns=MINUTE - late)]
    begun = [start(SECOND, name) for name in "abcd"]
    for mark in marks:
        beats = [beat(at * SECOND) for at in range(2, 60)]
        events = [spawned(0), *begun, *lost, *beats, mark, mark, beat(61 * SECOND)]
        instance = open_instance(opened(WORKER), book())
        assert in_pieces(instance, events, book(), at_once=1)[-1] == fold(instance, events, book())
        assert len(in_pieces(instance, events, book(), at_once=1)) >= 3
