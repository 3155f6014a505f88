"""What clocks do to a record: they mark it, and change nothing that is billed."""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.clockwork import STEP_NS, WORDS, Reading, moved, outdates, reading, text, utc_error_ns, words
from taximeter.events import UNTOLD_NS, Alive, Clock, Event, Lost, Opened, Options, TimeOffsets
from taximeter.hardware.inventory import Hardware
from taximeter.instance import Instance, Prediction
from taximeter.meter import Step, fold, open_instance
from taximeter.records import RecordType, UsageRecord
from taximeter.rulebook import Rulebook
from taximeter.values import replace
from tests.core.stories import (
    BOOT_ID,
    MINUTE,
    MS,
    REALTIME_AT_ZERO,
    SECOND,
    WORKER,
    amount_of,
    beat,
    book,
    card,
    exited,
    finish,
    opened,
    ready,
    spawned,
    start,
)

US = 1_000
HOUR = 60 * MINUTE
PPM = 1_000_000


def clock(at_ns: int, stepped_ns: int = 0, drifted_ns: int = 0, slept_ns: int = 0, took_ns: int = 0) -> Clock:
    """The clocks at an instant: what somebody set, what a slew did against RAW, what the machine slept until then."""
    realtime = REALTIME_AT_ZERO + at_ns + slept_ns + stepped_ns
    return Clock(at_ns, at_ns + slept_ns, at_ns - drifted_ns, realtime, BOOT_ID, took_ns)


def begun(options: Options | None = None, timens: TimeOffsets | None = None) -> Opened:
    return replace(opened(options), clock=clock(0), timens=timens)


def beats(*clocks: Clock) -> list[Event]:
    return [replace(beat(one.monotonic), clock=one) for one in clocks]


def ended(one: Clock) -> Event:
    return replace(exited(one.monotonic), clock=one)


def anew(rules: Rulebook, first: Opened | None = None) -> Instance:
    return open_instance(first or begun(), rules, Hardware("cpu", 1, rule="test"))


def told(
    events: Sequence[Event], first: Opened | None = None, interim_ns: int = MINUTE, now: Clock | None = None
) -> Step:
    rules = book(interim_ns)
    return fold(anew(rules, first), events, rules, now)


def one_shot(*clocks: Clock) -> list[Event]:
    """A command with a heartbeat at each of these clocks, and its exit at the last."""
    return [spawned(0), ready(0), *beats(*clocks[:-1]), ended(clocks[-1])]


def each_second(until_s: int, **happened: Any) -> list[Clock]:
    return [clock(s * SECOND, **{name: do(s) for name, do in happened.items()}) for s in range(1, until_s + 1)]


def of(kind: RecordType, records: Sequence[UsageRecord]) -> list[Any]:
    return [record.data for record in records if record.type is kind]


def marks(step: Step) -> list[str]:
    """What each instance record says of its clocks; the predictions of a one-shot say the same."""
    instances = [data["timing"]["clock"] for data in of(RecordType.INSTANCE, step.records)]
    assert [data["timing"]["clock"] for data in of(RecordType.PREDICTION, step.records)] == instances
    return instances


# --- steps ---


@pytest.mark.parametrize("stepped_ns", [HOUR, -HOUR, 24 * HOUR, -24 * HOUR, 2 * MS, -2 * MS, SECOND])
def test_a_clock_that_is_set_marks_the_record(stepped_ns: int) -> None:
    step = told(one_shot(clock(SECOND), clock(2 * SECOND, stepped_ns), clock(3 * SECOND, stepped_ns)))
    assert marks(step) == ["stepped"]
    assert step.faults == ("stepped",)


@pytest.mark.parametrize("stepped_ns", [HOUR, -HOUR, 24 * HOUR, -24 * HOUR])
def test_a_clock_that_is_set_bills_what_a_clock_that_is_not_does(stepped_ns: int) -> None:
    step = told(one_shot(clock(SECOND), clock(2 * SECOND, stepped_ns), clock(3 * SECOND, stepped_ns)))
    plain = told(one_shot(clock(SECOND), clock(2 * SECOND), clock(3 * SECOND)))
    for record, same in zip(step.records, plain.records, strict=True):
        assert record.data["time"] == same.data["time"]
        assert record.data["interval"] == same.data["interval"]
        assert record.data["billing"] == same.data["billing"]


def test_a_leap_second_is_a_step() -> None:
    assert marks(told(one_shot(clock(SECOND), clock(2 * SECOND, -SECOND), clock(3 * SECOND, -SECOND)))) == ["stepped"]


def test_a_calendar_that_moved_less_than_a_millisecond_was_not_set() -> None:
    assert marks(told(one_shot(clock(SECOND, STEP_NS), clock(2 * SECOND)))) == ["ok"]


def test_a_step_is_no_slew_and_no_sleep() -> None:
    assert moved(reading(clock(0)), reading(clock(SECOND, HOUR))) == 1


def test_what_came_between_two_clocks_as_they_were_read_is_no_step() -> None:
    slow = clock(SECOND, 80 * MS, took_ns=80 * MS)
    assert marks(told(one_shot(slow, clock(2 * SECOND)))) == ["ok"]


def test_an_older_wrapper_does_not_say_how_long_it_took_and_is_believed_to_10_ms() -> None:
    silent = [replace(clock(s * SECOND, 9 * MS * s), took_ns=UNTOLD_NS) for s in (1, 2, 3)]
    assert marks(told(one_shot(*silent[:1], clock(2 * SECOND)))) == ["ok"]
    assert marks(told(one_shot(*silent))) == ["stepped"]


# --- slews ---


@pytest.mark.parametrize("ppm", [83_333, -83_333, 1_000, -1_000, 700])
def test_a_clock_that_is_slewed_by_more_than_500_ppm_marks_the_record(ppm: int) -> None:
    step = told(one_shot(*each_second(3, drifted_ns=lambda s: s * SECOND * ppm // PPM)))
    assert marks(step) == ["slewed"]
    assert step.faults == ("slewed",)


@pytest.mark.parametrize("ppm", [0, 12, -12, 100, 500, -500])
def test_what_ntp_does_all_the_time_and_a_smeared_leap_second_mark_nothing(ppm: int) -> None:
    step = told(one_shot(*each_second(130, drifted_ns=lambda s: s * SECOND * ppm // PPM)))
    assert marks(step) == ["ok", "ok", "ok"]


def test_what_is_billed_is_what_the_slewed_clock_says() -> None:
    step = told(one_shot(*each_second(3, drifted_ns=lambda s: s * SECOND * 83_333 // PPM)))
    assert of(RecordType.PREDICTION, step.records)[0]["time"]["active_ns"] == 3 * SECOND


def test_a_slew_of_little_more_than_500_ppm_shows_over_some_seconds() -> None:
    assert marks(told(one_shot(*each_second(12, drifted_ns=lambda s: s * SECOND * 520 // PPM)))) == ["slewed"]


def test_a_slew_that_lasts_some_seconds_is_seen_however_old_the_instance_is() -> None:
    step = told(one_shot(*each_second(170, drifted_ns=lambda s: 2 * MS * min(max(s - 125, 0), 3))))
    assert marks(step) == ["ok", "ok", "slewed"]


def test_a_reading_that_took_long_is_not_measured_from() -> None:
    assert not outdates(Reading(0, 0, 0, 0), Reading(HOUR, HOUR, 0, MS))
    assert outdates(Reading(0, 0, 0, 0), Reading(HOUR, HOUR, 0, 50 * US))
    assert outdates(Reading(0, 0, 0, 2 * MS), Reading(HOUR, HOUR, 0, MS))


# --- sleep ---


def test_a_machine_that_slept_marks_the_record() -> None:
    step = told(one_shot(clock(SECOND), clock(2 * SECOND, slept_ns=HOUR), clock(3 * SECOND, slept_ns=HOUR)))
    assert marks(step) == ["suspended"]
    assert step.faults == ("suspended",)


def test_a_reading_that_was_interrupted_for_30_s_is_no_sleep() -> None:
    slow = clock(SECOND, slept_ns=30 * SECOND, took_ns=30 * SECOND)
    step = told(one_shot(slow, clock(2 * SECOND)))
    assert marks(step) == ["ok"]
    assert of(RecordType.INSTANCE, step.records)[0]["time"]["suspended_ns"] == 0


def test_sleep_is_counted_once_through_cuts() -> None:
    slept = [clock(s * SECOND, slept_ns=HOUR * (s >= 70)) for s in range(1, 131)]
    step = told(one_shot(*slept))
    assert [data["time"]["suspended_ns"] for data in of(RecordType.INSTANCE, step.records)] == [0, HOUR, 0]
    assert marks(step) == ["ok", "suspended", "ok"]


def test_sleep_belongs_behind_the_cut_that_the_first_reading_after_it_passes() -> None:
    slept = [clock(s * SECOND + MS, slept_ns=HOUR * (s >= 60)) for s in range(1, 63)]
    step = told(one_shot(*slept))
    assert [data["time"]["suspended_ns"] for data in of(RecordType.PREDICTION, step.records)] == [0, HOUR]


def test_sleep_before_the_loss_of_a_wrapper_is_told_by_the_agents_clock() -> None:
    lost = Lost(2 * SECOND, "wrapper_lost", clock(2 * SECOND, slept_ns=HOUR))
    step = told([spawned(0), ready(0), *beats(clock(SECOND)), lost])
    time = of(RecordType.PREDICTION, step.records)[0]["time"]
    assert (time["active_ns"], time["unknown_ns"], time["suspended_ns"]) == (SECOND, SECOND, HOUR)
    assert time["wall_ns"] == 2 * SECOND + HOUR


def test_sleep_is_seen_by_the_agent_where_the_wrapper_is_gone() -> None:
    alive = Alive(2 * SECOND, clock(2 * SECOND, slept_ns=HOUR))
    step = told([spawned(0), ready(0), alive, ended(clock(3 * SECOND, slept_ns=HOUR))])
    assert of(RecordType.PREDICTION, step.records)[0]["time"]["suspended_ns"] == HOUR


def test_sleep_is_nobodys_who_was_not_open() -> None:
    events = [spawned(0), start(SECOND, "a"), finish(2 * SECOND, "a"), *beats(clock(2 * SECOND + 1, slept_ns=HOUR))]
    step = told([*events, start(3 * SECOND, "b"), ended(clock(4 * SECOND, slept_ns=HOUR))], begun(WORKER))
    assert [data["time"]["suspended_ns"] for data in of(RecordType.PREDICTION, step.records)] == [0, 0]
    assert [data["timing"]["clock"] for data in of(RecordType.PREDICTION, step.records)] == ["ok", "ok"]
    assert of(RecordType.INSTANCE, step.records)[0]["time"]["suspended_ns"] == HOUR


# --- which records are marked ---


def test_a_fault_marks_the_record_of_its_time_and_no_other() -> None:
    step = told(one_shot(*each_second(190, stepped_ns=lambda s: HOUR * (s >= 90))))
    assert marks(step) == ["ok", "stepped", "ok", "ok"]


def test_a_fault_that_may_lie_on_either_side_of_a_cut_marks_both() -> None:
    odd = [clock(s * SECOND + MS, stepped_ns=HOUR * (s >= 60)) for s in range(1, 130)]
    assert marks(told(one_shot(*odd))) == ["stepped", "stepped", "ok"]


def test_a_cut_that_a_mark_passes_ends_what_was_seen_before() -> None:
    events = [spawned(0), *beats(*each_second(59, stepped_ns=lambda _: HOUR)), start(60 * SECOND + 1, "a")]
    step = told([*events, ended(clock(61 * SECOND, HOUR))], begun(WORKER))
    assert [data["timing"]["clock"] for data in of(RecordType.INSTANCE, step.records)] == ["stepped", "ok"]


def test_a_prediction_that_began_after_a_step_is_not_marked() -> None:
    events = [spawned(0), start(0, "a"), *beats(clock(SECOND, HOUR)), start(2 * SECOND, "b")]
    step = told([*events, ended(clock(3 * SECOND, HOUR))], begun(WORKER))
    assert {data["prediction"]: data["timing"]["clock"] for data in of(RecordType.PREDICTION, step.records)} == {
        "a": "stepped",
        "b": "ok",
    }


def test_a_slew_is_counted_once_and_marks_every_record_for_as_long_as_it_goes_on() -> None:
    step = told(one_shot(*each_second(130, drifted_ns=lambda s: s * SECOND * 83_333 // PPM)))
    assert (marks(step), step.faults) == (["slewed", "slewed", "slewed"], ("slewed",))


def test_what_happens_again_is_counted_again() -> None:
    step = told(one_shot(*each_second(190, stepped_ns=lambda s: HOUR * (s >= 30) + HOUR * (s >= 150))))
    assert step.faults == ("stepped", "stepped")


def test_faults_stand_in_one_order() -> None:
    awry = clock(2 * SECOND, HOUR, 100 * MS, HOUR)
    step = told(one_shot(clock(SECOND), awry, clock(3 * SECOND, HOUR, 100 * MS, HOUR)), begun(timens=TimeOffsets(1, 2)))
    assert marks(step) == ["stepped+slewed+suspended+time_namespace"]
    assert step.faults == ("stepped", "slewed", "suspended")


def test_every_record_from_a_time_namespace_says_so() -> None:
    step = told(one_shot(*each_second(70)), begun(timens=TimeOffsets(SECOND, 0)))
    assert marks(step) == ["time_namespace", "time_namespace"]


@pytest.mark.parametrize("faults", range(16))
def test_every_set_of_faults_has_its_words(faults: int) -> None:
    assert text(faults) == ("+".join(words(faults)) or "ok")
    assert set(words(faults)) <= set(WORDS)


def test_a_state_of_an_older_agent_is_measured_from_its_opening() -> None:
    """A state is kept as rows of values, to which fields were added at the ends."""
    rules = book()
    kept = fold(anew(rules), [spawned(0), ready(0), *beats(*each_second(30))], rules).instance
    row = json.loads(msgspec.json.encode(kept))
    del row[Instance.__struct_fields__.index("reading") :]
    del row[0][Opened.__struct_fields__.index("timens") :]
    del row[0][Opened.__struct_fields__.index("clock")][Clock.__struct_fields__.index("took_ns") :]
    for open_ in row[Instance.__struct_fields__.index("predictions")]:
        del open_[Prediction.__struct_fields__.index("faults") :]
    older = msgspec.json.decode(json.dumps(row), type=Instance)
    step = fold(older, [ended(clock(31 * SECOND, HOUR))], rules)
    assert marks(step) == ["stepped"]


# --- UTC labels ---


def test_a_label_behind_a_sleep_is_that_of_the_calendar() -> None:
    step = told(one_shot(clock(SECOND), clock(2 * SECOND, slept_ns=HOUR), clock(3 * SECOND, slept_ns=HOUR)))
    interval = of(RecordType.PREDICTION, step.records)[0]["interval"]
    assert interval["start_utc"].startswith("2026-11-22T10:00:00.")
    assert interval["end_utc"].startswith("2026-11-22T11:00:03.")


def test_the_labels_of_records_meet() -> None:
    slept = [clock(s * SECOND, slept_ns=s * SECOND) for s in range(1, 131)]
    for kind in (RecordType.INSTANCE, RecordType.PREDICTION):
        intervals = [data["interval"] for data in of(kind, told(one_shot(*slept)).records)]
        assert all(before["end_utc"] == after["start_utc"] for before, after in pairwise(intervals))


def test_a_correction_has_the_labels_of_what_it_corrects() -> None:
    slept = [clock(s * SECOND, slept_ns=HOUR * (s >= 30)) for s in range(1, 63)]
    events = [spawned(0), start(0, "a"), *beats(*slept), ended(clock(63 * SECOND, slept_ns=HOUR))]
    rules = book(public={"failed": "0.5"})
    step = fold(anew(rules, begun(WORKER)), events, rules)
    (interim, _) = of(RecordType.PREDICTION, step.records)
    (correction,) = of(RecordType.CORRECTION, step.records)
    assert correction["interval"] == interim["interval"]


def test_a_prediction_that_begins_behind_a_sleep_takes_the_card_of_that_day() -> None:
    rules = book(rates=(card("0.0001"), card("9", effective="2026-11-22T10:30:00Z")))
    events = [spawned(0), *beats(clock(SECOND, slept_ns=HOUR)), start(2 * SECOND, "a"), finish(3 * SECOND, "a")]
    step = fold(anew(rules, begun(WORKER)), events, rules)
    assert amount_of(step.records[0]) == 9


def uncertainty(step: Step) -> Any:
    (data,) = of(RecordType.INSTANCE, step.records)
    return data["timing"]["utc_uncertainty_ns"]


def test_labels_are_off_by_what_the_kernel_says_of_its_calendar() -> None:
    now = replace(clock(4 * SECOND, took_ns=US), utc_error_ns=7 * MS)
    assert uncertainty(told(one_shot(clock(3 * SECOND)), now=now)) == 7 * MS + US


@pytest.mark.parametrize("stepped_ns", [HOUR, -HOUR])
def test_labels_are_off_by_what_was_set_since_the_opening(stepped_ns: int) -> None:
    now = replace(clock(4 * SECOND, stepped_ns), utc_error_ns=7 * MS)
    assert uncertainty(told(one_shot(clock(3 * SECOND, stepped_ns)), now=now)) == HOUR + 7 * MS


def test_a_sleep_makes_no_label_uncertain() -> None:
    now = replace(clock(4 * SECOND, slept_ns=HOUR), utc_error_ns=7 * MS)
    assert uncertainty(told(one_shot(clock(3 * SECOND, slept_ns=HOUR)), now=now)) == 7 * MS


def test_nobody_knows_how_far_off_the_labels_of_an_unsynchronised_machine_are() -> None:
    assert uncertainty(told(one_shot(clock(3 * SECOND)), now=clock(4 * SECOND))) is None


def test_where_the_agent_may_not_ask_the_wrappers_word_counts() -> None:
    told_ns = replace(clock(3 * SECOND), utc_error_ns=9 * MS)
    assert uncertainty(told(one_shot(told_ns), now=clock(4 * SECOND))) == 9 * MS
    assert uncertainty(told(one_shot(told_ns), now=replace(clock(4 * SECOND), utc_error_ns=7 * MS))) == 7 * MS


def test_a_clock_that_nobody_keeps_in_step_any_more_is_not_known_by_what_it_was() -> None:
    assert uncertainty(told(one_shot(replace(clock(SECOND), utc_error_ns=9 * MS), clock(2 * SECOND)))) is None


def test_the_calendar_of_another_boot_says_nothing() -> None:
    now = replace(clock(4 * SECOND), utc_error_ns=7 * MS, boot_id="another")
    assert utc_error_ns(begun(), now) is None


# --- laws ---

STEPS = st.sampled_from([0, 0, 0, 5 * MS, -5 * MS, HOUR, -HOUR, 24 * HOUR])
DRIFTS = st.sampled_from([0, 0, 0, 80 * MS, -80 * MS])
SLEEPS = st.sampled_from([0, 0, 0, 20 * MS, SECOND, HOUR])
HAPPENINGS = st.lists(st.tuples(STEPS, DRIFTS, SLEEPS, st.integers(0, 20 * US)), min_size=1, max_size=40)


def history(happenings: Sequence[tuple[int, int, int, int]]) -> list[Event]:
    """A worker with predictions that come and go, and with a heartbeat each second after each of these happenings."""
    events: list[Event] = [spawned(0), ready(0), start(0, "a")]
    stepped_ns = drifted_ns = slept_ns = at_ns = 0
    for number, (step_ns, drift_ns, sleep_ns, took_ns) in enumerate(happenings):
        at_ns = (number + 1) * SECOND
        stepped_ns, drifted_ns, slept_ns = stepped_ns + step_ns, drifted_ns + drift_ns, slept_ns + sleep_ns
        events += beats(clock(at_ns, stepped_ns, drifted_ns, slept_ns, took_ns))
        if number % 7 == 3:
            events += [start(at_ns + 5, f"p{number}"), finish(at_ns + SECOND // 2, f"p{number}")]
    last = clock(at_ns + SECOND // 3, stepped_ns, drifted_ns, slept_ns)
    return [*events, ended(last)]


@given(HAPPENINGS)
def test_no_clock_changes_what_is_billed(happenings: list[tuple[int, int, int, int]]) -> None:
    awry = told(history(happenings), begun(WORKER), interim_ns=7 * SECOND)
    plain = told(history([(0, 0, 0, took_ns) for *_, took_ns in happenings]), begun(WORKER), interim_ns=7 * SECOND)
    for record, same in zip(awry.records, plain.records, strict=True):
        assert record.data["billing"] == same.data["billing"]
        differing: Any = {"wall_ns", "suspended_ns"}
        time, same_time = dict(record.data["time"]), dict(same.data["time"])  # type: ignore[call-overload]
        assert {k: v for k, v in time.items() if k not in differing} == {
            k: v for k, v in same_time.items() if k not in differing
        }
        assert record.data["interval"]["start_ns"] == same.data["interval"]["start_ns"]  # type: ignore[index]


@given(HAPPENINGS)
def test_sleep_adds_up(happenings: list[tuple[int, int, int, int]]) -> None:
    step = told(history(happenings), begun(WORKER), interim_ns=7 * SECOND)
    times = [(data["interval"], data["time"]) for data in of(RecordType.INSTANCE, step.records)]
    slack_ns = sum(took_ns for *_, took_ns in happenings)
    slept_ns = sum(sleep_ns for _, _, sleep_ns, _ in happenings)
    assert abs(sum(time["suspended_ns"] for _, time in times) - slept_ns) <= slack_ns
    for record in step.records:
        interval: Any = record.data["interval"]
        time: Any = record.data["time"]
        assert time["wall_ns"] == interval["end_ns"] - interval["start_ns"] + time["suspended_ns"]


@given(HAPPENINGS)
def test_a_word_stands_on_a_record_only_if_that_happened_and_on_one_at_least_if_it_did(
    happenings: list[tuple[int, int, int, int]],
) -> None:
    step = told(history(happenings), begun(WORKER), interim_ns=7 * SECOND)
    found = {word for data in of(RecordType.INSTANCE, step.records) for word in data["timing"]["clock"].split("+")}
    happened = {
        word
        for word, at in zip(("stepped", "slewed", "suspended"), range(3), strict=True)
        if any(happening[at] for happening in happenings)
    }
    assert found - {"ok"} == happened
    assert set(step.faults) == happened


@given(HAPPENINGS)
def test_labels_are_as_far_apart_as_the_wall_is_long(happenings: list[tuple[int, int, int, int]]) -> None:
    step = told(history(happenings), begun(WORKER), interim_ns=7 * SECOND)
    for record in step.records:
        interval: Any = record.data["interval"]
        time: Any = record.data["time"]
        assert _utc_ns(interval["end_utc"]) - _utc_ns(interval["start_utc"]) == time["wall_ns"]
        assert _utc_ns(interval["start_utc"]) == record.time_utc_ns


def _utc_ns(label: str) -> int:
    from datetime import datetime

    whole, fraction = label.removesuffix("Z").split(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * SECOND + int(fraction)


@given(HAPPENINGS, st.data())
def test_a_replay_from_any_saved_state_marks_the_same(
    happenings: list[tuple[int, int, int, int]], data: st.DataObject
) -> None:
    events, rules = history(happenings), book(7 * SECOND)
    split = data.draw(st.integers(0, len(events)))
    first = fold(anew(rules, begun(WORKER)), events[:split], rules)
    rest = fold(first.instance, events[split:], rules)
    whole = fold(anew(rules, begun(WORKER)), events, rules)
    assert (*first.records, *rest.records) == whole.records
    assert (*first.faults, *rest.faults) == whole.faults
