"""A line that nobody can read may have said anything: whatever it said, nobody pays more than without the damage."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from taximeter.billing.classes import ONLINE
from taximeter.billing.rates import parse_card
from taximeter.events import (
    ActiveMark,
    Event,
    Exited,
    Heartbeat,
    Lost,
    Marked,
    Oom,
    Options,
    OwnerEnded,
    OwnersHeld,
    ReadyMark,
    ServiceClass,
    Signaled,
    Source,
    Status,
    Stopping,
    StoppingMark,
    StopReason,
    UnitsMark,
    Unread,
)
from taximeter.records import LINE_UNREAD, RecordType
from taximeter.rulebook import Rulebook
from taximeter.values import replace
from tests.core.stories import (
    MINUTE,
    MS,
    SECOND,
    WORKER,
    Told,
    beat,
    book,
    clock,
    exited,
    finish,
    ready,
    spawned,
    start,
    tell,
    with_heartbeats,
)

RATES = {
    "version": "test",
    "effective": "2026-01-01T00:00:00Z",
    "currency": "USD",
    "tiers": {"cpu": "0.001"},
    "models": [
        {"name": "by-image", "amount": "0.05", "unit": "image"},
        {"name": "by-run", "amount": "0.02", "unit": "prediction", "on_failure": "units"},
    ],
}
RULES = book(60 * MINUTE, (parse_card(RATES, "test"),))
#: A share is a whole number of nanoseconds: where somebody comes or goes elsewhere, it is that much off.
ROUNDED = Decimal("0.000000000001")
MODELS = st.sampled_from([None, "by-image", "by-run"])
AGENTS = (OwnerEnded, OwnersHeld, Lost)


def lose(events: Sequence[Event], at: int) -> list[Event]:
    """The same journal with one line that nobody can read, as its reader tells of it."""
    lost = [] if isinstance(events[at], Heartbeat) else [Unread()]
    return [*events[:at], *lost, *events[at + 1 :]]


@st.composite
def workers(draw: st.DrawFn) -> tuple[Options, list[Event]]:
    """Any life of a worker that tells of each prediction once: its marks, its children, stops, and any end."""
    service_class = draw(st.sampled_from([None] * 5 + [*ServiceClass]))
    options = Options(worker=True, service_class=service_class, on_term=draw(st.sampled_from(StopReason)))
    at_ns, names = SECOND, iter(range(100))
    here: dict[str, bool] = {}
    events: list[Event] = [spawned(at_ns)]
    any_kind, crowd = st.sampled_from(["start"] * 4 + ["finish"] * 4 + [*OTHERS]), st.sampled_from(["start", "finish"])
    for kind in draw(st.one_of(st.lists(any_kind, max_size=12), st.lists(crowd, min_size=3, max_size=8))):
        at_ns += draw(st.one_of(st.integers(0, 5), st.integers(0, 3 * SECOND), st.integers(0, 9 * SECOND)))
        said_ns = draw(st.sampled_from([None, None, at_ns, at_ns - 20 * MS, at_ns - 3 * SECOND]))
        if kind == "start":
            name = f"p{next(names)}"
            fast = draw(st.booleans())
            pid = draw(st.sampled_from([None, 12]))
            told = ServiceClass.FAST_BOOT if fast and service_class is None else None
            events.append(
                start(at_ns, name, said_ns, service_class=told, pid=pid, model=draw(st.one_of(st.none(), MODELS)))
            )
            here[name] = not fast
        elif kind in OTHERS:
            events.append(OTHERS[kind](at_ns))
            if kind in ("stop", "abort") or (kind == "term" and options.on_term is not StopReason.DRAIN):
                here.clear()  # it says no more of them
        elif here:
            name = draw(st.sampled_from(sorted(here)))
            if draw(st.booleans()) or not here[name]:
                here[name] = True
                mark = draw(st.sampled_from([ActiveMark(name), UnitsMark(name, {"image": "1"})]))
                events.append(Marked(at_ns, mark, said_ns))
            else:
                del here[name]
                status = draw(st.sampled_from([Status.SUCCEEDED, Status.FAILED, Status.CANCELED]))
                # What a late finish takes back is as much as it can have been, which is less where less was settled.
                events.append(finish(at_ns, name, status, None if said_ns is None else at_ns))
    at_ns += draw(st.integers(0, 3 * SECOND))
    return options, [*with_heartbeats(events, MINUTE), *draw(ends(at_ns))]


OTHERS: dict[str, Any] = {
    "ready": ready,
    "ready_mark": lambda at_ns: Marked(at_ns, ReadyMark()),
    "drain": lambda at_ns: Stopping(at_ns, StopReason.DRAIN),
    "stop": lambda at_ns: Marked(at_ns, StoppingMark(StopReason.CANCELED)),
    "abort": lambda at_ns: Marked(at_ns, StoppingMark(StopReason.ABORTED)),
    "term": lambda at_ns: Signaled(at_ns, 15, by_kernel=False, outside=True),
    "interrupt": lambda at_ns: Signaled(at_ns, 2, by_kernel=True, outside=False),
    "child_ends": lambda at_ns: OwnerEnded(at_ns, 12, at_ns - 5, at_ns),
    "child_is_lost": lambda at_ns: OwnerEnded(at_ns, 12, None, at_ns),
    "child_is_held": lambda at_ns: OwnersHeld(at_ns, (12,)),
}


@st.composite
def ends(draw: st.DrawFn, at_ns: int) -> list[Event]:
    """How a command ends, and, where its wrapper's word of that is lost, what the agent makes of it."""
    code, signal = draw(st.sampled_from([(0, None), (3, None), (None, 2), (None, 9)]))
    return [exited(at_ns, code, signal, oom=draw(st.sampled_from([None, Oom.NODE, Oom.LIMIT])))]


@st.composite
def one_shots(draw: st.DrawFn) -> tuple[Options, list[Event]]:
    """Any life of a command that is one prediction."""
    told = {"model": draw(MODELS), "on_term": draw(st.sampled_from(StopReason))}
    options = Options(prediction="p0", service_class=draw(st.sampled_from([None, *ServiceClass])), **told)
    at_ns = SECOND
    events: list[Event] = [spawned(at_ns), ready(at_ns)]
    kinds = ["units", "term", "interrupt", "drain", "abort", "ready_mark"]
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=4)):
        at_ns += draw(st.integers(0, 9 * SECOND))
        counted = Marked(at_ns, UnitsMark(None, {"image": "1"}))
        events.append(counted if kind == "units" else OTHERS[kind](at_ns))
    at_ns += draw(st.integers(0, 3 * SECOND))
    return options, [*with_heartbeats(events, MINUTE), *draw(ends(at_ns))]


def ended_without_word(events: Sequence[Event], ended_ns: int, draw: st.DrawFn) -> list[Event]:
    """Where the end itself was lost: the agent saw that it ended, or found it gone."""
    if not isinstance(events[-1], Unread):
        return list(events)
    seen = Exited(ended_ns, draw(st.sampled_from([None, 0, 3])), None, False, clock(ended_ns), source=Source.AGENT)
    at_ns = ended_ns + draw(st.integers(0, SECOND))
    return [*events, draw(st.sampled_from([seen, Lost(at_ns, "wrapper_lost", clock(at_ns)), Lost(None, "rebooted")]))]


def bills(told: Told) -> Counter[str]:
    """What each prediction costs, and the instance."""
    return Counter({name: told.amount(name) for name in {record.prediction for record in told.records}})  # type: ignore[misc]


def says_stop(event: Event) -> bool:
    return isinstance(event, Stopping | Signaled) or (
        isinstance(event, Marked) and isinstance(event.mark, StoppingMark)
    )


@settings(max_examples=300)
@given(life=st.one_of(workers(), one_shots()), data=st.data(), at=st.integers(0, 10_000))
def test_law_nobody_pays_more_for_whatever_line_of_a_journal_is_damaged(
    life: tuple[Options, list[Event]], data: st.DataObject, at: int
) -> None:
    options, events = life
    kinds = data.draw(st.sampled_from([AGENTS, (*AGENTS, Heartbeat)]))
    written = [number for number, event in enumerate(events) if not isinstance(event, kinds)]
    # Where time online is sold, it is free behind a word to stop, once nothing is open: that is said not to hold.
    assume(not (options.service_class in ONLINE and any(says_stop(event) for event in events)))
    damaged = ended_without_word(lose(events, written[at % len(written)]), events[-1].at_ns or 0, data.draw)
    whole, left = bills(told_by(options, events)), bills(told_by(options, damaged))
    for name, amount in left.items():
        assert amount <= whole[name] + ROUNDED * len(events), name


@given(life=workers(), at=st.lists(st.integers(0, 10_000), min_size=1, max_size=3), interim=st.sampled_from([3, 3600]))
def test_law_whatever_is_lost_what_is_told_adds_up(
    life: tuple[Options, list[Event]], at: list[int], interim: int
) -> None:
    options, events = life
    for number in at:
        if not isinstance(events[number % (len(events) - 1)], AGENTS):
            events = lose(events, number % (len(events) - 1))
    told = told_by(options, events, book(interim * SECOND))
    times: Counter[str] = Counter()
    for record in told.instances():
        time: Any = record.data["time"]
        assert time["wall_ns"] == sum(ns for part, ns in time.items() if part != "wall_ns")
        assert min(time.values()) >= 0
        times.update(time)
    shares: list[Any] = [record.data["time"] for record in told.predictions()]
    assert sum(time["share_ns"] for time in shares) == times["active_ns"]
    assert all(min(time.values()) >= 0 for time in shares)


def told_by(options: Options, events: Sequence[Event], rules: Rulebook = RULES) -> Told:
    return tell(options, events, rules, silent=True)


def a_worker(*events: Event, end: Event) -> list[Event]:
    return list(with_heartbeats([spawned(0), *events, end], MINUTE))


def share(told: Told, name: str) -> int:
    """What is left of a prediction's share after corrections."""
    records = [*told.predictions(name), *told.of(RecordType.CORRECTION, name)]
    return sum(record.data["time"]["share_ns"] for record in records)  # type: ignore[index]


def test_a_prediction_whose_finish_was_lost_costs_nothing_and_its_time_is_taken_back_to_the_last_word() -> None:
    counted = Marked(4 * SECOND, UnitsMark("a", {"image": "1"}))
    told = tell(WORKER, lose_behind(a_worker(start(SECOND, "a"), counted, end=exited(30 * SECOND)), 10), silent=True)
    last, correction = told.predictions("a")[-1], told.of(RecordType.CORRECTION)[0]
    assert (last.data["status"], correction.data["reason"]) == (Status.ABORTED, LINE_UNREAD)
    taken_back: Any = correction.data["interval"]
    assert (taken_back["start_ns"], taken_back["end_ns"]) == (4 * SECOND, 30 * SECOND)
    assert (share(told, "a"), told.amount()) == (0, 0)  # as much as it can have been


def test_what_is_said_of_a_prediction_behind_the_line_shows_that_its_end_was_not_in_it() -> None:
    counted = Marked(20 * SECOND, UnitsMark("a", {"image": "1"}))
    story = a_worker(start(SECOND, "a"), beat(10 * SECOND), counted, finish(21 * SECOND, "a"), end=exited(30 * SECOND))
    whole, told = (tell(WORKER, events, silent=True) for events in (story, lose_behind(story, 10)))
    assert told.predictions("a")[-1].data["status"] == Status.SUCCEEDED
    assert told.of(RecordType.CORRECTION) == []
    hidden_ns = (11 * SECOND + 50 * MS) // 2  # another one may have been there, believed back as far as that goes
    time: Any = told.instances()[-1].data["time"]
    assert share(whole, "a") - share(told, "a") == time["unknown_ns"] == hidden_ns


def lose_behind(events: Sequence[Event], seconds: int) -> list[Event]:
    at = next(number for number, event in enumerate(events) if event.at_ns == seconds * SECOND)
    return [*events[: at + 1], Unread(), *events[at + 1 :]]


def test_a_finish_of_which_nobody_read_the_start_shows_what_was_in_the_line() -> None:
    story = a_worker(start(SECOND, "a"), finish(12 * SECOND, "b"), finish(22 * SECOND, "a"), end=exited(30 * SECOND))
    told = tell(WORKER, lose_behind(story, 10), silent=True)
    assert told.rejected == ["no_such_prediction"]
    assert told.instance.hidden == 0
    assert share(told, "a") == 21 * SECOND - (2 * SECOND + 50 * MS) // 2


def test_another_start_of_the_same_id_shows_that_the_end_of_the_first_was_in_the_line() -> None:
    story = a_worker(start(SECOND, "a"), start(20 * SECOND, "a"), finish(24 * SECOND, "a"), end=exited(30 * SECOND))
    told = tell(WORKER, lose_behind(story, 10), silent=True)
    assert [record.data["status"] for record in told.predictions("a")] == [Status.ABORTED, Status.SUCCEEDED]
    assert told.rejected == []
    assert share(told, "a") == 2 * SECOND


def test_one_whose_word_of_its_beginning_does_not_count_was_beside_the_others_since_then_all_the_same() -> None:
    began = start(12 * SECOND, "b", 12 * SECOND - 20 * MS)
    story = a_worker(start(SECOND, "a"), began, finish(13 * SECOND, "a"), end=exited(30 * SECOND))
    told = tell(WORKER, lose_behind(story, 10), silent=True)
    first = told.predictions("b")[0].data["interval"]
    alone_ns, beside_one_ns, beside_two_ns = 9 * SECOND - 50 * MS, 2 * SECOND + 30 * MS, (20 * MS, SECOND)
    assert first["start_ns"] == 12 * SECOND  # type: ignore[index]
    assert share(told, "a") == alone_ns + beside_one_ns // 2 + sum(ns // 3 for ns in beside_two_ns)
    assert told.instance.hidden == 1


def test_what_is_sold_online_is_so_whoever_is_on_it() -> None:
    story = a_worker(start(SECOND, "a"), beat(29 * SECOND), end=exited(30 * SECOND))
    private = replace(WORKER, service_class=ServiceClass.PRIVATE)
    whole, told = (tell(private, events, silent=True) for events in (story, lose_behind(story, 10)))
    assert told.amount() == whole.amount() > 0


@pytest.mark.parametrize(
    ("on_term", "end", "status"),
    [
        (StopReason.CANCELED, exited(9 * SECOND), Status.SUCCEEDED),
        (StopReason.ABORTED, exited(9 * SECOND), Status.ABORTED),
        (StopReason.DRAIN, exited(9 * SECOND), Status.ABORTED),
        (StopReason.CANCELED, replace(exited(9 * SECOND), source=Source.AGENT), Status.ABORTED),
        (StopReason.CANCELED, Lost(9 * SECOND, "wrapper_lost", clock(9 * SECOND)), Status.ABORTED),
    ],
)
def test_a_one_shot_that_the_platform_may_have_stopped_costs_nothing(
    on_term: StopReason, end: Event, status: Status
) -> None:
    options = Options(prediction="p1", on_term=on_term)
    story = [*with_heartbeats([spawned(0), ready(0), Unread(), beat(8 * SECOND)], MINUTE), end]
    told = tell(options, story, silent=True)
    assert told.predictions()[-1].data["status"] == status
    assert (told.amount() > 0) is (status is Status.SUCCEEDED)


@pytest.mark.parametrize(("model", "status"), [("by-image", Status.CANCELED), ("by-run", Status.FAILED)])
def test_a_one_shot_that_may_have_been_canceled_costs_the_lesser_of_both(model: str, status: Status) -> None:
    """By the image, and none was counted; by the run, which costs the same either way."""
    options = Options(prediction="p1", model=model)
    story = [*with_heartbeats([spawned(0), ready(0), Unread(), beat(8 * SECOND)], MINUTE), exited(9 * SECOND, 3)]
    assert tell(options, story, RULES, silent=True).predictions()[-1].data["status"] == status


def test_before_its_command_has_started_nothing_is_to_be_doubted() -> None:
    told = tell(WORKER, [Unread(), *a_worker(start(SECOND, "a"), finish(5 * SECOND, "a"), end=exited(9 * SECOND))])
    assert share(told, "a") == 4 * SECOND


def test_where_the_wrapper_was_lost_behind_the_line_all_of_a_prediction_is_unknown() -> None:
    lost = Lost(30 * SECOND, "wrapper_lost", clock(30 * SECOND))
    story = lose_behind([spawned(0), ready(0), start(SECOND, "a"), beat(10 * SECOND), lost], 10)
    told = tell(WORKER, story, silent=True)
    time: Any = told.predictions("a")[-1].data["time"]
    assert (time["active_ns"], time["unknown_ns"], told.amount()) == (0, 29 * SECOND, 0)
