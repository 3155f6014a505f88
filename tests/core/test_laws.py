"""The laws, over random histories: conservation of time, tiling, telescoping money, replay."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from taximeter.billing.classes import ONLINE
from taximeter.billing.money import EXACT, plain, rounded, seconds
from taximeter.billing.rates import RateCard
from taximeter.events import (
    ActiveMark,
    Alive,
    BadMark,
    Clock,
    Event,
    Exited,
    FinishMark,
    Lost,
    Marked,
    Measured,
    Observed,
    Oom,
    Options,
    OwnerEnded,
    OwnersHeld,
    ReadyMark,
    ServiceClass,
    Signaled,
    StartMark,
    Status,
    Stopping,
    StoppingMark,
    StopReason,
    UnitsMark,
)
from taximeter.hardware.inventory import Device, Hardware
from taximeter.meter import fold, fold_all, open_instance
from taximeter.records import OWNER_UNSEEN, RecordType, UsageRecord
from taximeter.rulebook import Rulebook
from taximeter.turn import LATE_NS
from taximeter.values import replace
from tests.core.stories import (
    MINUTE,
    MS,
    SECOND,
    Told,
    amount_of,
    beat,
    book,
    card,
    clock,
    exited,
    finish,
    opened,
    ready,
    spawned,
    start,
    with_heartbeats,
)
from tests.core.stories import tell as tell_story

NAMES = st.sampled_from(["a", "b", "c"])
#: Evidence and resources are in all histories; what evidence does to a price has laws of its own (test_evidence).
SEEN = Hardware("cpu", 1, (Device("GPU-a", "a GPU", None),))
GAPS = st.one_of(st.integers(0, 5), st.integers(0, 3 * SECOND), st.integers(0, 20 * SECOND))
MOSTLY_NOTHING = st.sampled_from([0, 0, 0, 0, 1, -1])
PRICES = st.decimals("0", "10", places=9).map(plain)


def tell(options: Options, events: list[Event], rules: Rulebook | None = None) -> Told:
    """As it is told, with interim records every few seconds."""
    return tell_story(options, events, rules or book(interim_ns=3 * SECOND), silent=True)


def _happening(kind: str, at_ns: int, name: str, said_ns: int | None, slept_ns: int) -> Event:
    fast = ServiceClass.FAST_BOOT if name == "c" else None
    made: dict[str, Event] = {
        "start": start(at_ns, name, said_ns, service_class=fast),
        "child_starts": start(at_ns, name, said_ns, service_class=fast, pid=12),
        "child_ends": OwnerEnded(at_ns, 12, min(said_ns or at_ns, at_ns), at_ns),
        "child_is_lost": OwnerEnded(at_ns, 12, None, at_ns),
        "child_is_held": OwnersHeld(at_ns, (12,)),
        "active": Marked(at_ns, ActiveMark(name)),
        "finish": finish(at_ns, name, said_ns=said_ns),
        "fail": finish(at_ns, name, Status.FAILED, said_ns),
        "units": Marked(at_ns, UnitsMark(name, {"image": "1"})),
        "ready": ready(at_ns),
        "ready_mark": Marked(at_ns, ReadyMark()),
        "stopping": Marked(at_ns, StoppingMark(StopReason.CANCELED)),
        "drain": Stopping(at_ns, StopReason.DRAIN),
        "term": Signaled(at_ns, 15, by_kernel=False, outside=True),
        "bad": BadMark(at_ns, "not_json"),
        "beat": beat(at_ns, slept_ns),
        "alive": Alive(at_ns, clock(at_ns, slept_ns)),
        "observed": Observed(at_ns, max(0, at_ns - SECOND), SEEN, ("GPU-a",)),
        "measured": Measured(at_ns, at_ns // 2, at_ns, at_ns // 3, at_ns // 1000, "counter"),
    }
    return made[kind]


KINDS = [
    *["beat"] * 6,
    *["start"] * 4,
    *["finish"] * 4,
    *["active", "fail", "units", "ready", "ready_mark", "stopping", "drain", "term", "bad", "alive"],
    *["observed", "measured"],
    *["child_starts"] * 4,
    *["child_ends", "child_ends", "child_is_lost", "child_is_held"],
]
ENDS = st.sampled_from(["exit", "seen", "fail", "oom", "lost", "rebooted", "open"])


@st.composite
def histories(draw: st.DrawFn, *, online: bool = False) -> tuple[Options, list[Event]]:
    """Any order of legal and illegal facts, by any kind of instance, with any end or none; or by one sold online."""
    worker = draw(st.booleans())
    service_class = draw(st.sampled_from(sorted(ONLINE) if online else [None, *ServiceClass]))
    on_term = draw(st.sampled_from(StopReason))
    prediction = None if worker else "a"
    options = Options(worker=worker, service_class=service_class, prediction=prediction, on_term=on_term)
    at_ns, slept_ns = draw(st.integers(0, SECOND)), 0
    off_ns = draw(st.one_of(st.none(), st.integers(-300_000, 5_000_000)))
    exec_ns = None if off_ns is None else max(0, at_ns + off_ns)
    events: list[Event] = [replace(spawned(at_ns), exec_ns=exec_ns)]
    if draw(st.booleans()):
        events.append(ready(at_ns))
    for kind in draw(st.lists(st.sampled_from(KINDS), max_size=25)):
        at_ns += draw(GAPS)
        slept_ns += draw(st.sampled_from([0, 0, 0, 20_000_000, SECOND]))
        said_ns = draw(st.one_of(st.none(), st.integers(at_ns - SECOND, at_ns + SECOND)))
        events.append(_happening(kind, at_ns, draw(NAMES), said_ns, slept_ns))
    at_ns += draw(GAPS)
    events.extend(_end(draw(ENDS), at_ns, slept_ns))
    # Gaps with the wrapper's heartbeats in them, and some that are silences.
    return options, _attested(list(with_heartbeats(events, draw(st.sampled_from([0, 4 * SECOND, 20 * SECOND])))))


def _attested(events: list[Event]) -> list[Event]:
    """Nothing is stamped later than the kernel's own stamp of the end: the agent sees to that where it has one."""
    *before, last = events
    if isinstance(last, Exited) and last.kernel_ns is not None:
        latest_ns = max((event.at_ns or 0 for event in before), default=0)
        return [*before, replace(last, kernel_ns=max(last.kernel_ns, latest_ns))]
    return events


def _end(kind: str, at_ns: int, slept_ns: int) -> list[Event]:
    match kind:
        case "exit":
            return [exited(at_ns, slept_ns=slept_ns)]
        case "seen":
            return [replace(exited(at_ns, slept_ns=slept_ns), kernel_ns=max(0, at_ns - 5_000_000))]
        case "fail":
            return [exited(at_ns, code=None, signal=9, slept_ns=slept_ns)]
        case "oom":
            return [exited(at_ns, code=None, signal=9, slept_ns=slept_ns, oom=Oom.NODE)]
        case "lost":
            return [Lost(at_ns, "wrapper_lost")]
        case "rebooted":
            return [Lost(None, "rebooted")]
        case _:
            return []


def _sum(records: Sequence[UsageRecord], part: str) -> int:
    return sum(_data(record)["time"][part] for record in records)


def _data(record: UsageRecord) -> Any:
    return record.data


def _said_in_time(event: Event, since_ns: int, interim_ns: int) -> Event:
    """The same, told at once if it ends something, and not believed back over a cut if it begins something."""
    if isinstance(event, OwnerEnded):
        return replace(event, ended_ns=event.at_ns)
    if not isinstance(event, Marked) or event.said_ns is None:
        return event
    if isinstance(event.mark, StartMark) and event.at_ns >= since_ns:
        cut_ns = event.at_ns - (event.at_ns - since_ns) % interim_ns
        return replace(event, said_ns=max(event.said_ns, cut_ns))
    return replace(event, said_ns=None) if isinstance(event.mark, FinishMark) else event


def _by_prediction(told: Told) -> dict[tuple[str, int], list[UsageRecord]]:
    """Each prediction's records; an id may be used again after its end."""
    runs: dict[tuple[str, int], list[UsageRecord]] = {}
    ended: dict[str, int] = {}
    for record in told.predictions():
        name = str(record.prediction)
        runs.setdefault((name, ended.get(name, 0)), []).append(record)
        if _data(record)["final"]:
            ended[name] = ended.get(name, 0) + 1
    return runs


@given(histories())
def test_the_phases_of_an_instance_add_up_to_its_wall(history: tuple[Options, list[Event]]) -> None:
    for record in tell(*history).instances():
        time = _data(record)["time"]
        parts = (
            time["boot_ns"],
            time["idle_ns"],
            time["active_ns"],
            time["teardown_ns"],
            time["suspended_ns"],
            time["unknown_ns"],
        )
        assert sum(parts) == time["wall_ns"]
        assert min(parts) >= 0


@given(histories())
def test_the_parts_of_a_prediction_add_up_to_its_wall(history: tuple[Options, list[Event]]) -> None:
    for record in tell(*history).predictions():
        time = _data(record)["time"]
        assert time["load_ns"] + time["active_ns"] + time["suspended_ns"] + time["unknown_ns"] == time["wall_ns"]
        assert 0 <= time["share_ns"] <= time["active_ns"]


@given(histories())
def test_the_shares_of_an_instances_predictions_add_up_to_its_active_time(
    history: tuple[Options, list[Event]],
) -> None:
    told = tell(*history)
    if _ended(told):
        assert _sum(told.predictions(), "share_ns") == _sum(told.instances(), "active_ns")


@given(histories())
def test_records_tile_a_life_without_gap_or_overlap(history: tuple[Options, list[Event]]) -> None:
    told = tell(*history)
    for tiles in (told.instances(), *_by_prediction(told).values()):
        intervals = [_data(record)["interval"] for record in tiles]
        assert all(before["end_ns"] == after["start_ns"] for before, after in pairwise(intervals))
        assert all(interval["start_ns"] <= interval["end_ns"] for interval in intervals)


@given(histories())
def test_every_prediction_that_ends_has_one_final_record(history: tuple[Options, list[Event]]) -> None:
    told = tell(*history)
    if _ended(told):
        for records in _by_prediction(told).values():
            assert [_data(record)["final"] for record in records] == [False] * (len(records) - 1) + [True]


@given(histories())
def test_record_ids_number_an_instances_records_without_a_gap(history: tuple[Options, list[Event]]) -> None:
    assert [int(record.id[-8:]) for record in tell(*history).records] == list(range(len(tell(*history).records)))


@given(st.lists(histories(), max_size=5), st.sampled_from([None, replace(clock(SECOND), utc_error_ns=5)]))
def test_who_is_told_of_together_is_told_as_alone(told: list[tuple[Options, list[Event]]], now: Clock | None) -> None:
    by = book()
    begun = [(open_instance(opened(options), by), events) for options, events in told]
    assert fold_all(begun, by, now) == [fold(instance, events, by, now) for instance, events in begun]


@st.composite
def beginnings(draw: st.DrawFn) -> list[Event]:
    """What most runs are: a start, readiness by it, heartbeats, an end; here and there one of them is not as it is."""
    at_ns = draw(st.sampled_from([0, MS, SECOND]))
    exec_ns = draw(st.sampled_from([None, 0, at_ns, at_ns + 1]))
    start_of_it = replace(spawned(at_ns), exec_ns=exec_ns)
    facts: list[Event] = [
        start_of_it,
        ready(at_ns + draw(MOSTLY_NOTHING), draw(st.sampled_from(["exec", "exec", "log"]))),
    ]
    slept_ns = 0
    for _ in range(draw(st.integers(0, 12))):
        at_ns += draw(st.sampled_from([SECOND, SECOND, SECOND, 0, -1, LATE_NS, LATE_NS + 1, 20 * SECOND]))
        slept_ns += draw(st.sampled_from([0, 0, 0, 0, SECOND]))
        told = beat(at_ns, slept_ns, draw(st.sampled_from([None, 5 * MS])))
        steered_ns = draw(MOSTLY_NOTHING) * SECOND
        facts.append(
            replace(told, clock=replace(told.clock, raw=told.clock.raw + steered_ns, took_ns=draw(st.integers(0, MS))))
        )
    ends = [exited(at_ns + MS, slept_ns=slept_ns), finish(at_ns, "p1"), start_of_it]
    facts += draw(st.lists(st.sampled_from(ends), max_size=2))
    return facts[draw(MOSTLY_NOTHING) ** 2 :]


@given(
    beginnings(),
    st.builds(
        Options,
        worker=st.sampled_from([False, False, False, True]),
        prediction=st.just("p1"),
        parent=st.sampled_from([None, None, "p1", "p2"]),
        service_class=st.sampled_from([None, ServiceClass.PUBLIC, *ONLINE]),
    ),
    st.sampled_from([(card(),), (card(), card("0.0002", "2030-01-01T00:00:00Z"))]),
    st.sampled_from([SECOND, 3 * SECOND, MINUTE]),
    st.sampled_from([None, replace(clock(SECOND), utc_error_ns=5)]),
)
def test_a_beginning_that_is_taken_at_once_is_as_fact_by_fact(
    facts: list[Event], options: Options, rates: tuple[RateCard, ...], interim_ns: int, now: Clock | None
) -> None:
    by = book(interim_ns, rates)
    begun = open_instance(opened(options), by)
    assert fold_all([(begun, facts)], by, now) == [fold(begun, facts, by, now)]


def test_many_heartbeats_in_a_row_are_taken_at_once_as_one_by_one() -> None:
    beats = [beat(second * SECOND, cpu_ns=second * MS) for second in range(1, 40)]
    begun, by = open_instance(opened(), book()), book()
    facts = [spawned(0), ready(0), *beats, exited(40 * SECOND)]
    assert fold_all([(begun, facts)], by) == [fold(begun, facts, by)]


@given(histories(), st.data())
def test_no_cut_changes_time_or_price(history: tuple[Options, list[Event]], data: st.DataObject) -> None:
    """Interim records of any length tell the same totals and the same money as none at all.

    But for what is known only behind a cut of a time that was told already: an end (of a share, cut or not, nobody
    knows how much lies beyond it), and a start. A cut is in the payer's favour then (below); of what is sold online, an
    end changes nothing (test_freed).
    """
    options, interim_ns = history[0], data.draw(st.integers(SECOND // 3, 30 * SECOND))
    since_ns = tell(*history, book(interim_ns=10**18)).instance.start_ns
    events = [_said_in_time(event, since_ns, interim_ns) for event in history[1]]
    whole = tell(options, events, book(interim_ns=10**18))
    if not _ended(whole):
        return
    cut = tell(options, events, book(interim_ns))
    if any(_data(record)["reason"] == OWNER_UNSEEN for record in cut.of(RecordType.CORRECTION)):
        in_favour = cut.amount() <= whole.amount()
        assert cut.amount() == whole.amount() if options.service_class in ONLINE else in_favour
        return
    for part in ("boot_ns", "idle_ns", "active_ns", "teardown_ns", "suspended_ns", "unknown_ns"):
        assert _sum(cut.instances(), part) == _sum(whole.instances(), part)
    assert cut.amount() == whole.amount()


@given(histories())
def test_a_replay_yields_the_same_records(history: tuple[Options, list[Event]]) -> None:
    assert tell(*history).records == tell(*history).records


@given(histories(), st.data())
def test_a_replay_from_any_saved_state_goes_on_as_if_nothing_had_happened(
    history: tuple[Options, list[Event]], data: st.DataObject
) -> None:
    options, events = history
    rules = book(interim_ns=3 * SECOND)
    split = data.draw(st.integers(0, len(events)))
    first = fold(open_instance(opened(options), rules), events[:split], rules)
    rest = fold(first.instance, events[split:], rules)
    whole = fold(open_instance(opened(options), rules), events, rules)
    assert (*first.records, *rest.records) == whole.records
    assert rest.instance == whole.instance


@given(histories())
def test_nothing_unknown_is_billed(history: tuple[Options, list[Event]]) -> None:
    """What is charged never exceeds the time that somebody saw to be active."""
    options, events = history
    told = tell(options, events)
    for record in told.predictions():
        charged = sum(Decimal(line.quantity) for line in _data(record)["billing"].lines)
        assert charged <= seconds(_data(record)["time"]["active_ns"])


@given(histories())
def test_no_line_of_zero_quantity_is_billed(history: tuple[Options, list[Event]]) -> None:
    for record in tell(*history).records:
        assert all(Decimal(line.quantity) > 0 for line in _data(record)["billing"].lines)


@given(histories())
def test_no_time_is_billed_twice(history: tuple[Options, list[Event]]) -> None:
    """An online instance bills itself and its predictions inform; any other is billed by its predictions alone."""
    told = tell(*history)
    online = history[0].service_class in (ServiceClass.PRIVATE, ServiceClass.DEPLOYMENT)
    silent = told.predictions() if online else told.instances()
    assert all(amount_of(record) == 0 for record in silent)


@given(histories())
def test_only_a_correction_may_be_negative(history: tuple[Options, list[Event]]) -> None:
    assert all(amount_of(r) >= 0 for r in tell(*history).records if r.type is not RecordType.CORRECTION)
    assert tell(*history).amount() >= 0


@st.composite
def overlaps(draw: st.DrawFn) -> tuple[list[Event], int, dict[str, tuple[int, int]]]:
    """Predictions that overlap, one of which is told of late; the history, its end, and who truly ran when."""
    ran: dict[str, tuple[int, int]] = {}
    for name in draw(st.sampled_from(["a", "ab", "abc"])):
        since_ns = draw(st.integers(0, 9 * SECOND))
        ran[name] = (since_ns, since_ns + draw(st.integers(0, 9 * SECOND)))
    late_ns = ran["a"][1] + draw(st.integers(0, 15 * SECOND))
    how = draw(st.sampled_from(["finish", "fail", "owner"]))
    events: list[Event] = []
    for name, (since_ns, until_ns) in ran.items():
        events.append(start(since_ns, name, pid=12 if name == "a" else None))
        if name != "a":
            events.append(finish(until_ns, name))
        elif how == "owner":
            events.append(OwnerEnded(late_ns, 12, until_ns, late_ns))
        else:
            events.append(finish(late_ns, name, Status.FAILED if how == "fail" else Status.SUCCEEDED, until_ns))
    end_ns = 40 * SECOND
    events.sort(key=lambda event: event.at_ns or 0)
    # What the agent saw is no sign of life: the wrapper's heartbeats come as if nobody had seen it.
    heard = [event for event in events if not isinstance(event, OwnerEnded)]
    told = list(with_heartbeats([ready(0), *heard, exited(end_ns)], end_ns))
    for seen in events:
        if isinstance(seen, OwnerEnded):
            at = max(at for at, event in enumerate(told) if (event.at_ns or 0) <= seen.at_ns)
            told.insert(at + 1, seen)
    return [spawned(0), *told], end_ns, ran


def _billed_ns(told: Told, name: str) -> Decimal:
    """For how long a prediction is billed in the end."""
    records = [record for record in told.records if record.prediction == name]
    signs = {RecordType.PREDICTION: 1, RecordType.CORRECTION: -1}
    lines = [(signs[record.type], line) for record in records for line in _data(record)["billing"].lines]
    return sum((sign * Decimal(line.quantity) for sign, line in lines), Decimal(0)) * 10**9


@given(overlaps(), st.sampled_from([3 * SECOND, 10**18]))
def test_nobody_is_billed_beyond_a_true_end_that_is_told_late(
    overlap: tuple[list[Event], int, dict[str, tuple[int, int]]], interim_ns: int
) -> None:
    events, _, ran = overlap
    told = tell(Options(worker=True), events, book(interim_ns))
    edges = sorted({edge for stretch in ran.values() for edge in stretch})
    share = Decimal(0)
    for since_ns, until_ns in pairwise(edges):
        crowd = [name for name, (begun_ns, ended_ns) in ran.items() if begun_ns <= since_ns and until_ns <= ended_ns]
        share += Decimal(until_ns - since_ns) / len(crowd) if "a" in crowd else 0
    slack_ns = len(told.records)  # each cut of a share by a number is off by less than one
    assert 0 <= _billed_ns(told, "a") <= share + slack_ns
    if len(ran) == 1:
        assert _billed_ns(told, "a") == share
    assert {record.prediction for record in told.of(RecordType.CORRECTION)} <= {"a"}
    assert told.amount("a") >= 0


@given(overlaps())
def test_an_end_that_is_told_late_changes_no_other_bill(
    overlap: tuple[list[Event], int, dict[str, tuple[int, int]]],
) -> None:
    """Whoever ran beside it pays as if it had gone on until that was told."""
    events, _, ran = overlap
    told = tell(Options(worker=True), events)
    ended_ns = max((_data(record)["interval"]["end_ns"] for record in told.predictions("a")), default=0)
    others = [beat(event.at_ns or 0) if _ends(event, "a") else event for event in events]
    at = next(at for at, event in enumerate(others) if (event.at_ns or 0) > ended_ns)
    until_then = tell(Options(worker=True), [*others[:at], finish(ended_ns, "a"), *others[at:]])
    for name in ran.keys() - {"a"}:
        assert told.amount(name) == until_then.amount(name)


@given(overlaps(), st.integers(SECOND // 3, 12 * SECOND))
def test_a_cut_before_a_late_end_is_told_raises_nobodys_bill_and_lowers_it_by_no_more_than_was_told(
    overlap: tuple[list[Event], int, dict[str, tuple[int, int]]], interim_ns: int
) -> None:
    """Whoever ran beside it keeps the share that a record told, which is less than without the cut."""
    events, _, ran = overlap
    whole, cut = (tell(Options(worker=True), events, book(by_ns)) for by_ns in (10**18, interim_ns))
    told_ns = max(_data(record)["interval"]["end_ns"] for record in cut.predictions("a"))
    slack = Decimal("1e-13") * len(cut.records)  # each cut of a share by a number is off by less than a nanosecond
    for name in ran:
        less = whole.amount(name) - cut.amount(name)
        most = told_ns - ran["a"][1] if name != "a" else told_ns - ran["a"][0]
        assert -slack <= less <= seconds(most) * Decimal("0.0001") + slack


@given(st.integers(0, 50 * MS), st.integers(0, 50 * MS), st.booleans())
def test_a_start_that_is_believed_back_over_a_cut_begins_there(before_ns: int, behind_ns: int, alone: bool) -> None:
    """What was told until there stays with whom it was told of: of what it may be believed, 50 ms, no more is moved."""
    begun = start(MINUTE + behind_ns, "b", said_ns=MINUTE - before_ns)
    ends = [finish(70 * SECOND, "b"), *([] if alone else [finish(71 * SECOND, "a")]), exited(72 * SECOND)]
    first = [spawned(0), ready(0), *([] if alone else [start(0, "a")]), beat(MINUTE)]
    whole, cut = (tell_story(Options(worker=True), [*first, begun, *ends], book(by)) for by in (10**18, MINUTE))
    is_believed = before_ns + behind_ns <= 50 * MS
    first_ns = min(_data(record)["interval"]["start_ns"] for record in cut.predictions("b"))
    assert first_ns == MINUTE if is_believed else MINUTE + behind_ns
    less = whole.amount("b") - cut.amount("b")
    assert 0 <= less <= seconds(50 * MS) * Decimal("0.0001")
    assert alone or cut.amount() == whole.amount()


def _ends(event: Event, name: str) -> bool:
    finishes = isinstance(event, Marked) and isinstance(event.mark, FinishMark) and event.mark.prediction == name
    return finishes or isinstance(event, OwnerEnded)


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**18), max_size=6), PRICES)
def test_amounts_telescope_over_any_cut(total_ns: int, cuts: list[int], price: str) -> None:
    points = sorted({0, total_ns, *(cut for cut in cuts if cut < total_ns)})
    rate = Decimal(price)

    def to_date(duration_ns: int) -> Decimal:
        return rounded(EXACT.multiply(seconds(duration_ns), rate))

    assert sum((to_date(b) - to_date(a) for a, b in pairwise(points)), Decimal(0)) == to_date(total_ns)


def _ended(told: Told) -> bool:
    return told.instance.stage == "closed"
