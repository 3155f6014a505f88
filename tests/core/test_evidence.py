"""Which devices an instance used, by whose word, and what that costs: evidence never moves a nanosecond."""

import dataclasses
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.events import Event, Exited, Observed, Options, ServiceClass, Spawned, Status
from taximeter.hardware.evidence import UNUSED_NS, OnMismatch, billed, weigh
from taximeter.hardware.inventory import Device, Evidence, Hardware
from taximeter.late import review, take_over
from taximeter.lifecycle import Stage
from taximeter.meter import Step, fold, open_instance
from taximeter.recall import ended
from taximeter.records import RecordType, UsageRecord
from taximeter.rulebook import Rulebook, make_rules
from taximeter.values import replace
from tests.core.reading_back import as_read, look_through, taken_up
from tests.core.stories import (
    MS,
    SECOND,
    Told,
    amount_of,
    beat,
    book,
    card,
    classes,
    exited,
    finish,
    opened,
    ready,
    spawned,
    start,
    with_looks,
)

PRICES = {"one": "0.1", "two": "0.2", "dear": "0.7"}
A, B, C = (Device(f"GPU-{name}", "a GPU", None, at) for at, name in enumerate("abc"))
ONE = Hardware("one", 1, (A,), rule="one of them")
TWO = Hardware("two", 2, (A, B), rule="two of them")
DEAR = Hardware("dear", 1, (C,), rule="another")
ODD = Hardware("unknown", 3, (A, B, C), rule="no rule fits")
NONE = Hardware("cpu", 0)
ANY = dataclasses.replace(TWO, settled=False)
WORKER, ONE_SHOT = Options(worker=True, account="cus_1"), Options(prediction="p1")


def seen(hardware: Hardware | None, at_s: float = 2, since_s: float = 2, shared: tuple[str, ...] = ()) -> Observed:
    return Observed(int(at_s * SECOND), int(since_s * SECOND), hardware, shared)


def rules(interim_s: int = 60, on_mismatch: OnMismatch = OnMismatch.CHEAPER, **prices: str) -> Rulebook:
    made = make_rules(interim_s * SECOND, 50 * MS, classes(), on_mismatch)
    return Rulebook({made.hash: made}, made.hash, (card(**(prices or PRICES)),), "/nodes/test")


def tell(declared: Hardware, events: Sequence[Event], by: Rulebook | None = None, options: Options = ONE_SHOT) -> Told:
    """Fold a history, fact by fact; whatever is to be looked through again is so at once."""
    by = by or rules()
    instance, records = open_instance(opened(options), by, declared), list[UsageRecord]()
    for event in with_looks(events, 10_000 * SECOND):
        step = fold(instance, [event], by)
        assert not step.rejected
        records += step.records
        instance = look_through(step.instance, records, by)
    return Told(instance, records, [])


def run(*looks: Observed, until_s: int = 100) -> list[Event]:
    """A run of so many seconds, with what was seen of it on the way."""
    events: list[Event] = [spawned(0), ready(0), *looks, exited(until_s * SECOND)]
    return sorted(events, key=lambda event: (event.at_ns or 0, not isinstance(event, Spawned)))


def hardware_of(record: UsageRecord) -> Any:
    return record.data["hardware"]


# --- The verdict ---


@pytest.mark.parametrize(
    ("declared", "observed", "verdict"),
    [
        (ONE, None, "declared"),
        (ONE, seen(None), "declared"),
        (NONE, seen(None), "declared"),
        (ANY, seen(ONE), "observed"),
        (None, seen(ONE), "observed"),
        (ONE, seen(ONE), "both"),
        (ONE, seen(DEAR), "mismatch"),
        (ONE, seen(TWO), "mismatch"),
        (NONE, seen(ONE), "mismatch"),
        (TWO, seen(ONE), "both"),
        (TWO, seen(ONE, at_s=61, since_s=2), "both"),
        (TWO, seen(ONE, at_s=62, since_s=2), "mismatch"),
        (TWO, seen(TWO, at_s=600, since_s=2), "both"),
    ],
)
def test_the_verdict_is_over_what_was_declared_and_what_was_seen(
    declared: Hardware | None, observed: Observed | None, verdict: str
) -> None:
    assert weigh(declared, observed) == verdict


@pytest.mark.parametrize(("end_s", "verdict"), [(20, "mismatch"), (21, "both"), (1, "mismatch"), (0, "both")])
def test_at_the_end_a_device_is_unused_that_was_not_seen_for_half_of_the_life(end_s: int, verdict: str) -> None:
    assert weigh(TWO, seen(ONE, at_s=12, since_s=2), (0, end_s * SECOND)) == verdict


@pytest.mark.parametrize(
    ("declared", "observed", "choice", "bills"),
    [
        (TWO, ONE, "cheaper", ONE),
        (ONE, TWO, "cheaper", ONE),
        (ONE, DEAR, "declared", ONE),
        (ONE, DEAR, "observed", DEAR),
        (ODD, ONE, "cheaper", ODD),
        (ONE, ODD, "cheaper", ONE),
        (ONE, ODD, "observed", ODD),
        (NONE, ONE, "cheaper", NONE),
    ],
)
def test_on_a_mismatch_the_rules_in_force_say_which_bills(
    declared: Hardware, observed: Hardware, choice: str, bills: Hardware
) -> None:
    prices = {slug: Decimal(price) for slug, price in PRICES.items()}
    assert billed(declared, observed, Evidence.MISMATCH, OnMismatch(choice), prices) is bills


def test_without_a_mismatch_nobody_chooses() -> None:
    assert billed(TWO, ONE, Evidence.BOTH, OnMismatch.OBSERVED, {}) is TWO
    assert billed(ANY, ONE, Evidence.OBSERVED, OnMismatch.DECLARED, {}) is ONE


# --- In records ---


def test_a_run_that_nobody_saw_on_a_device_is_sold_as_declared() -> None:
    told = tell(ONE, run())
    use = hardware_of(told.records[-1])
    assert (use.tier, use.evidence, use.declared, use.observed, use.shared) == (
        "one",
        "declared",
        ("GPU-a",),
        (),
        False,
    )
    assert told.amount() == Decimal(10)


def test_what_was_seen_as_declared_says_both() -> None:
    use = hardware_of(tell(ONE, run(seen(ONE))).records[-1])
    assert (use.evidence, use.declared, use.observed) == ("both", ("GPU-a",), ("GPU-a",))


def test_devices_that_no_variable_names_are_not_declared() -> None:
    told = tell(ANY, run(seen(ONE)))
    use = hardware_of(told.records[-1])
    assert (use.tier, use.evidence, use.declared, use.observed) == ("one", "observed", (), ("GPU-a",))
    assert told.amount() == Decimal(10)


def test_a_mismatch_keeps_both_lists_and_bills_the_cheaper() -> None:
    told = tell(ONE, run(seen(DEAR)))
    use = hardware_of(told.records[-1])
    assert (use.tier, use.evidence, use.declared, use.observed) == ("one", "mismatch", ("GPU-a",), ("GPU-c",))
    assert told.amount() == Decimal(10)


def test_a_mismatch_is_said_once() -> None:
    by = rules()
    first = fold(open_instance(opened(ONE_SHOT), by, ONE), [spawned(0), ready(0), seen(DEAR)], by)
    again = fold(first.instance, [seen(DEAR, at_s=3)], by)
    assert (first.mismatch, again.mismatch) == (True, False)


def test_devices_that_others_were_on_are_named() -> None:
    use = hardware_of(tell(ONE, run(seen(None, shared=("GPU-a",)))).records[-1])
    assert (use.evidence, use.shared, use.shared_devices) == ("declared", True, ("GPU-a",))


def test_an_instance_that_nobody_placed_is_sold_as_what_it_was_seen_on() -> None:
    by = rules()
    step = fold(open_instance(opened(ONE_SHOT), by), run(seen(ONE), until_s=5), by)
    assert hardware_of(step.records[-1]).tier == "one"
    unseen = fold(open_instance(opened(ONE_SHOT), by), run(seen(None), until_s=5), by)
    assert (hardware_of(unseen.records[-1]).tier, hardware_of(unseen.records[-1]).declared) == ("unknown", ())


def test_without_a_rate_card_a_mismatch_is_sold_as_declared() -> None:
    by = rules()
    told = tell(ONE, run(seen(DEAR)), Rulebook(by.rules, by.current, ()))
    assert hardware_of(told.records[-1]).tier == "one"
    assert told.records[-2].data["billing"].status == "unrated"  # type: ignore[attr-defined]


# --- Evidence that comes late ---


def test_late_evidence_corrects_what_interim_records_billed() -> None:
    told = tell(TWO, run(seen(ONE, at_s=90)))
    (correction,) = told.of(RecordType.CORRECTION)
    billing: Any = correction.data["billing"]
    assert correction.data["reason"] == "evidence"
    assert [(line.rate, line.multiplier, line.amount) for line in billing.lines] == [
        ("0.2", "-1", "-12"),
        ("0.1", "1", "6"),
    ]
    assert told.amount() == Decimal(10)


def test_a_run_that_was_unrated_is_rated_once_its_devices_are_seen() -> None:
    told = tell(dataclasses.replace(ODD, settled=False), run(seen(ONE, at_s=90)))
    statuses = [record.data["billing"].status for record in told.predictions()]  # type: ignore[attr-defined]
    assert statuses == ["unrated", "rated"]
    assert told.amount() == Decimal(10)


def test_what_was_billed_is_taken_back_where_no_tier_fits_what_was_seen() -> None:
    told = tell(ANY, run(seen(ODD, at_s=90)))
    assert told.predictions()[-1].data["billing"].status == "unrated"  # type: ignore[attr-defined]
    assert told.amount() == 0


def test_a_run_that_the_platform_aborts_costs_nothing_whatever_was_seen() -> None:
    options = Options(prediction="p1")
    end = replace(exited(100 * SECOND), code=None, signal=9, oom="node")
    told = tell(TWO, [spawned(0), ready(0), seen(ONE, at_s=90), end], options=options)
    assert told.amount() == 0
    (correction,) = told.of(RecordType.CORRECTION)
    assert [line.amount for line in correction.data["billing"].lines] == ["-12"]  # type: ignore[attr-defined]


def test_tiers_of_one_price_need_no_correction() -> None:
    told = tell(ONE, run(seen(DEAR, at_s=90)), rules(one="0.1", dear="0.1"))
    assert not told.of(RecordType.CORRECTION)


def test_an_end_at_another_multiplier_is_corrected_though_the_tier_changed_its_name() -> None:
    end = replace(exited(100 * SECOND), code=None, signal=9, oom="node")
    told = tell(ANY, [spawned(0), ready(0), seen(DEAR, at_s=90), end], rules(two="0.1", dear="0.1"))
    assert told.amount() == 0


def test_an_online_instance_is_corrected_itself() -> None:
    told = tell(TWO, run(seen(ONE, at_s=90)), options=Options(worker=True, service_class="private"))  # type: ignore[arg-type]
    assert [record.prediction for record in told.of(RecordType.CORRECTION)] == [None]
    assert told.amount() == Decimal(10)


# --- A worker's predictions that have ended ---


def served(*looks: Observed, end_s: int = 40) -> list[Event]:
    """A worker with one prediction of ten seconds, and what was seen of it."""
    events: list[Event] = [spawned(0), ready(0), start(SECOND, "a"), finish(11 * SECOND, "a"), *looks]
    return [*sorted(events, key=lambda event: event.at_ns or 0), exited(end_s * SECOND)]


def test_a_prediction_that_has_ended_is_corrected_by_late_evidence() -> None:
    told = tell(TWO, served(seen(TWO, at_s=15), seen(dataclasses.replace(ONE, devices=(A,)), at_s=35)), options=WORKER)
    (correction,) = told.of(RecordType.CORRECTION)
    assert (correction.prediction, correction.data["reason"]) == ("a", "evidence")
    assert correction.data["corrects"] == {"source": "/nodes/test", "id": told.predictions()[0].id}
    assert told.amount("a") == Decimal(1)
    assert [int(record.id[-8:]) for record in told.records] == [0, 1, 2]


def test_a_prediction_is_corrected_as_often_as_the_tier_changes() -> None:
    told = tell(ANY, served(seen(ONE, at_s=12), seen(TWO, at_s=14), seen(ONE, at_s=15)), options=WORKER)
    assert len(told.of(RecordType.CORRECTION)) == 3
    assert told.amount("a") == Decimal(1)


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
@pytest.mark.parametrize(
    ("looks", "price"),
    [((seen(DEAR, 20),), "0.7"), ((seen(ODD, 20),), "0"), ((seen(ODD, 20), seen(ONE, 25)), "0.1")],
)
def test_what_a_late_finish_took_back_is_priced_anew_as_the_rest_is(
    status: Status, looks: tuple[Observed, ...], price: str
) -> None:
    """It ran for 3 s by its own word, and was told of until 7 s."""
    by = rules(interim_s=7, on_mismatch=OnMismatch.OBSERVED)
    events = [spawned(0), ready(0), start(0, "a"), finish(10 * SECOND, "a", status, 3 * SECOND), *looks]
    told = tell(TWO, [*events, exited(40 * SECOND)], by, options=WORKER)
    assert told.of(RecordType.CORRECTION)[0].data["reason"] == "late_finish"
    assert told.amount("a") == 3 * Decimal(price)


def test_what_a_late_finish_took_back_without_a_price_stays_so_where_that_does_not_change() -> None:
    events = [
        spawned(0),
        ready(0),
        start(0, "a"),
        finish(70 * SECOND, "a", Status.SUCCEEDED, 3 * SECOND),
        seen(ODD, 75),
    ]
    told = tell(NONE, [*events, exited(80 * SECOND)], rules(cpu="0"), options=WORKER)
    assert told.amount("a") == 0


def test_a_prediction_whose_price_stays_has_no_correction() -> None:
    told = tell(ANY, served(seen(ONE, at_s=12)), rules(one="0.2", two="0.2"), WORKER)
    assert not told.of(RecordType.CORRECTION)


def test_an_informative_prediction_has_no_correction() -> None:
    told = tell(ANY, served(seen(ONE, at_s=12)), options=Options(worker=True, service_class="deployment"))  # type: ignore[arg-type]
    assert not told.of(RecordType.CORRECTION)
    online = start(SECOND, "a", service_class=ServiceClass.PRIVATE)
    told = tell(ANY, [spawned(0), ready(0), online, finish(11 * SECOND, "a"), seen(ONE, 12)], options=WORKER)
    assert not told.of(RecordType.CORRECTION)
    assert told.instance.reviewed


def test_where_nothing_is_to_be_looked_through_nothing_is() -> None:
    instance = open_instance(opened(WORKER), rules(), ANY)
    assert review(instance, [], 7, rules()) == (instance, [])


def test_a_worker_without_devices_that_is_seen_on_one_is_corrected_where_the_rules_say_that_this_bills() -> None:
    told = tell(NONE, served(seen(ONE, at_s=12)), rules(on_mismatch=OnMismatch.OBSERVED, cpu="0.1", one="0.2"), WORKER)
    assert told.amount("a") == Decimal(2)
    assert not tell(NONE, served(seen(ONE, at_s=12)), options=WORKER).of(RecordType.CORRECTION)


def test_what_ended_hours_before_the_first_look_is_corrected_by_it() -> None:
    events = [spawned(0), ready(0), start(SECOND, "a"), finish(11 * SECOND, "a"), seen(ONE, 9000, 9000)]
    told = tell(ANY, [*events, exited(9001 * SECOND)], options=WORKER)
    assert told.amount("a") == Decimal(1)


@pytest.mark.parametrize(("at_s", "amount"), [(122, "1"), (123, "2")])
def test_once_it_is_known_for_two_minutes_where_an_instance_is_what_has_ended_keeps_its_price(
    at_s: int, amount: str
) -> None:
    told = tell(ANY, served(seen(TWO, at_s=2), seen(ONE, at_s=at_s, since_s=2), end_s=200), options=WORKER)
    assert told.amount("a") == Decimal(amount)


def test_what_was_settled_stays_so_though_it_is_seen_anew_since_later() -> None:
    looks = [seen(TWO, at_s=2), seen(ONE, at_s=200, since_s=200), seen(TWO, at_s=201, since_s=200)]
    told = tell(ANY, served(*looks, end_s=300), options=WORKER)
    assert not told.of(RecordType.CORRECTION)


def test_evidence_that_changes_no_tier_sends_nobody_to_the_records() -> None:
    instance = open_instance(opened(WORKER), rules(), TWO)
    events = served(seen(ONE, at_s=12))[:-1]
    assert fold(instance, events, rules()).instance.review is None


def test_what_has_ended_is_looked_through_in_slices_and_what_ends_meanwhile_bills_as_is_known_then() -> None:
    by = rules()
    events: list[Event] = [spawned(0), ready(0)]
    for at in range(10):
        events += [start(at * SECOND, f"p{at}"), finish((at + 1) * SECOND, f"p{at}")]
    step = fold(open_instance(opened(WORKER), by, ANY), [*events, seen(ONE, at_s=10)], by)
    records, instance = list(step.records), step.instance
    assert instance.review is not None
    assert (instance.review.at, instance.review.until) == (0, 10)
    instance = look_through(instance, records, by, slices=1, most=4)
    assert instance.review is not None
    assert instance.review.at == 4
    step = fold(instance, [start(11 * SECOND, "q"), finish(12 * SECOND, "q"), exited(13 * SECOND)], by)
    records += step.records
    instance = look_through(step.instance, records, by)
    told = Told(instance, records, [])
    assert {told.amount(f"p{at}") for at in range(10)} == {told.amount("q")} == {Decimal("0.1")}
    assert [record.prediction for record in told.of(RecordType.CORRECTION)] == [f"p{at}" for at in range(10)]
    assert [int(record.id[-8:]) for record in records] == list(range(len(records)))


def test_what_ended_while_another_verdict_held_for_a_moment_is_reviewed_too() -> None:
    by = rules(60, OnMismatch.OBSERVED)
    first = [spawned(0), ready(0), start(0, "p0"), finish(SECOND, "p0"), seen(TWO, at_s=1, since_s=0)]
    step = fold(open_instance(opened(WORKER), by, ONE), first, by)
    records = list(step.records)
    others = [seen(ONE, at_s=1, since_s=0), start(SECOND, "p1"), finish(2 * SECOND, "p1"), seen(TWO, at_s=2, since_s=0)]
    step = fold(step.instance, [*others, exited(3 * SECOND)], by)
    records += step.records
    told = Told(look_through(step.instance, records, by), records, [])
    assert told.instance.review is None
    assert told.amount("p0") == told.amount("p1") == Decimal(PRICES["two"])


def test_a_correction_of_what_had_interim_records_and_slept_is_from_its_start_to_its_end_by_the_calendar() -> None:
    by = rules(5)
    beats = [beat(at * SECOND, slept_ns=3 * SECOND * (at > 2)) for at in range(2, 11)]
    events: list[Event] = [spawned(0), ready(0), start(SECOND, "a"), *beats, finish(11 * SECOND, "a")]
    step = fold(open_instance(opened(WORKER), by, ANY), [*events, seen(ONE, at_s=12)], by)
    records = list(step.records)
    look_through(step.instance, records, by)
    told: list[Any] = [record.data for record in records if record.prediction]
    assert [data["interval"]["end_ns"] // SECOND for data in told] == [5, 10, 11, 11]
    assert told[3]["interval"]["start_utc"] == told[0]["interval"]["start_utc"]
    assert told[3]["interval"]["end_utc"] == told[2]["interval"]["end_utc"]


def test_a_state_of_an_older_agent_goes_on_from_what_that_one_remembered() -> None:
    """It had corrected what it remembered: the second prediction; the first one it had forgotten."""
    by = rules()
    events = [
        spawned(0),
        ready(0),
        *(mark for at in (1, 2) for mark in (start(at * SECOND, "a"), finish(at * SECOND + MS, "a"))),
    ]
    step = fold(open_instance(opened(WORKER), by, ANY), events, by)
    (_, _), (_, last) = ended(step.instance.opened, map(as_read, step.records))
    old = replace(fold(step.instance, [seen(ONE, at_s=4)], by).instance, review=None, ended=(last,))
    instance = take_over(old)
    assert (instance.ended, instance.settled) == ((), 1)
    records = list(step.records)
    look_through(fold(instance, [seen(TWO, at_s=5)], by).instance, records, by)
    (correction,) = (record for record in records if record.type is RecordType.CORRECTION)
    assert correction.data["corrects"] == {"source": "/nodes/test", "id": step.records[1].id}
    assert [line.rate for line in correction.data["billing"].lines] == ["0.1", "0.2"]  # type: ignore[attr-defined]
    assert take_over(instance) == instance


# --- Laws ---

LOOKS = st.lists(
    st.tuples(st.integers(0, 199), st.sampled_from([ONE, TWO, DEAR, ODD, None])),
    max_size=4,
    unique_by=lambda one: one[0],
)


def _told(
    declared: Hardware, looks: list[tuple[int, Hardware | None]], interim_s: int, choice: OnMismatch, code: int
) -> tuple[Step, Rulebook]:
    by = rules(interim_s, choice)
    events: list[Event] = [spawned(0), ready(0)]
    events += [seen(hardware, at_s, 0) for at_s, hardware in sorted(looks, key=lambda one: one[0])]
    events.append(Exited(200 * SECOND, code, None, False, None))
    events.sort(key=lambda event: event.at_ns or 0)
    instance = open_instance(opened(ONE_SHOT), by, declared)
    return fold(instance, with_looks(events, 600 * SECOND), by), by


def _amount(records: Sequence[UsageRecord]) -> Decimal:
    return sum((amount_of(record) for record in records), Decimal(0))


@given(
    st.sampled_from([NONE, ONE, TWO, ODD, ANY, dataclasses.replace(ODD, settled=False)]),
    LOOKS,
    st.integers(1, 250),
    st.sampled_from(OnMismatch),
    st.sampled_from([0, 1]),
)
def test_the_total_is_the_price_of_the_whole_at_the_tier_that_bills_in_the_end(
    declared: Hardware, looks: list[tuple[int, Hardware | None]], interim_s: int, choice: OnMismatch, code: int
) -> None:
    step, _ = _told(declared, looks, interim_s, choice, code)
    whole, _ = _told(declared, looks, 1000, choice, code)
    tier = hardware_of(step.records[-1]).tier
    assert tier == hardware_of(whole.records[-1]).tier
    price = {"cpu": "0.0001", **PRICES}.get(tier, "0")
    assert _amount(step.records) == _amount(whole.records) == 200 * Decimal(price)


@given(LOOKS.filter(bool), st.integers(1, 250), st.randoms(use_true_random=False))
def test_the_order_in_which_evidence_comes_changes_no_total(
    looks: list[tuple[int, Hardware | None]], interim_s: int, random: Any
) -> None:
    """Each look tells of everything that was seen until then, so the last one is the same in every order."""
    last = (199, TWO)
    others = [look for look in looks if look[0] != 199]
    times = [at_s for at_s, _ in others]
    random.shuffle(times)
    shuffled = [(at_s, hardware) for at_s, (_, hardware) in zip(times, others, strict=True)]
    one, _ = _told(ONE, [*others, last], interim_s, OnMismatch.CHEAPER, 0)
    other, _ = _told(ONE, [*shuffled, last], interim_s, OnMismatch.CHEAPER, 0)
    assert _amount(one.records) == _amount(other.records)


@given(st.sampled_from([ONE, TWO, DEAR]), st.sampled_from([ONE, TWO, DEAR]), st.integers(0, 199), st.integers(1, 250))
def test_a_mismatch_never_costs_more_than_the_cheaper_of_the_two(
    declared: Hardware, observed: Hardware, at_s: int, interim_s: int
) -> None:
    step, _ = _told(declared, [(at_s, observed)], interim_s, OnMismatch.CHEAPER, 0)
    if step.instance.evidence is Evidence.MISMATCH:
        assert _amount(step.records) == 200 * min(Decimal(PRICES[tier.tier]) for tier in (declared, observed))


@given(LOOKS, st.integers(1, 250))
def test_evidence_moves_no_nanosecond(looks: list[tuple[int, Hardware | None]], interim_s: int) -> None:
    step, _ = _told(ONE, looks, interim_s, OnMismatch.CHEAPER, 0)
    blind, _ = _told(ONE, [], interim_s, OnMismatch.CHEAPER, 0)

    def times(records: Sequence[UsageRecord]) -> list[Any]:
        return [record.data["time"] for record in records if record.type is not RecordType.CORRECTION]

    assert times(step.records) == times(blind.records)


def test_unused_takes_a_minute() -> None:
    assert UNUSED_NS == 60 * SECOND


def test_the_rules_say_who_bills_on_a_mismatch_and_older_rules_say_cheaper() -> None:
    assert book().rules_of(book().current).on_mismatch is OnMismatch.CHEAPER


CHANGES = st.lists(st.tuples(st.integers(0, 60), st.sampled_from([ONE, TWO, DEAR, ODD])), min_size=1, max_size=4)
#: When it began, for how long it ran and how much later that was told, in quarters of a second; and how it ended.
RUNS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 9), st.integers(0, 9), st.sampled_from(Status)), min_size=1, max_size=8
)


@settings(max_examples=40)
@given(
    st.sampled_from([ONE, TWO, ANY, dataclasses.replace(ODD, settled=False)]),
    CHANGES,
    RUNS,
    st.integers(1, 20),
    st.sampled_from(OnMismatch),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.booleans()), min_size=200, max_size=200),
)
def test_whatever_ended_when_and_whenever_it_is_looked_through_it_costs_what_the_last_verdict_says(
    declared: Hardware,
    looks: list[tuple[int, Hardware]],
    runs: list[tuple[int, int, int, Status]],
    interim_s: int,
    choice: OnMismatch,
    turns: list[tuple[int, int, bool]],
) -> None:
    """The agent comes to it in slices, between any two facts, and may be killed and go on from what it had kept."""
    by = rules(interim_s, choice)
    events: list[Event] = [seen(hardware, at / 4, 0) for at, hardware in looks]
    for number, (at, length, late, how) in enumerate(runs):
        said_ns, status = (at + length) * SECOND // 4, Status.FAILED if how is Status.PROCESSING else how
        ends = finish(said_ns + late * SECOND // 4, f"p{number}", status, said_ns)
        events += [start(at * SECOND // 4, f"p{number}"), ends]
    events.sort(key=lambda event: event.at_ns or 0)
    facts = with_looks([spawned(0), ready(0), *events, exited(16 * SECOND)], 600 * SECOND)
    instance, records = open_instance(opened(WORKER), by, declared), list[UsageRecord]()
    for event, (slices, most, is_killed) in zip(facts, turns, strict=False):
        step = fold(instance, [event], by)
        records += step.records
        instance = look_through(step.instance, records, by, slices, most)
        instance = taken_up(instance) if is_killed else instance
    instance = look_through(instance, records, by)
    assert (instance.stage, instance.review) == (Stage.CLOSED, None)
    assert [int(record.id[-8:]) for record in records] == list(range(len(records)))
    told = Told(instance, records, [])
    finals = {record.prediction: record.data for record in told.predictions() if record.data["final"]}
    for number in range(len(runs)):
        data: Any = finals[f"p{number}"]
        tier = hardware_of(told.instances()[-1]).tier
        price = Decimal({"cpu": "0.0001", **PRICES}.get(tier, "0")) * (data["status"] != Status.ABORTED)
        share_ns = data["to_date"]["share_ns"]
        share_ns += sum(_changes_ns(record) for record in told.of(RecordType.CORRECTION, f"p{number}"))
        assert told.amount(f"p{number}") == price * Decimal(share_ns).scaleb(-9)


def _changes_ns(record: UsageRecord) -> int:
    time: Any = record.data["time"]
    return int(time["share_ns"])
