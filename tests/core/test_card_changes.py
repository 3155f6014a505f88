"""A rate card takes effect while something runs: predictions keep theirs, what is sold online is cut there."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.billing.rates import RateCard
from taximeter.events import Event, Options, ServiceClass, Status, Stopping, StopReason
from taximeter.meter import fold, open_instance
from taximeter.records import RecordType, UsageRecord
from taximeter.rulebook import Rulebook
from taximeter.values import replace
from tests import recomputing
from tests.core.reading_back import taken_up
from tests.core.stories import (
    MINUTE,
    REALTIME_AT_ZERO,
    SECOND,
    Told,
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
    tell,
)
from tests.core.test_evidence import ONE, TWO, seen

PRIVATE = Options(worker=True, service_class=ServiceClass.PRIVATE, account="cus_1")
OLD = card("0.1", one="0.7", two="1.1")


def card_from(at_s: int, price: str, **tiers: str) -> RateCard:
    """A card that takes effect so many seconds after the opening."""
    effective = datetime.fromtimestamp(REALTIME_AT_ZERO // SECOND + at_s, UTC).isoformat()
    return card(price, effective, **tiers)


def cuts(told: Told) -> list[tuple[int, int]]:
    """Where the instance's records begin and end, in seconds."""
    intervals: list[Any] = [record.data["interval"] for record in told.instances()]
    return [(one["start_ns"] // SECOND, one["end_ns"] // SECOND) for one in intervals]


def cards_of(records: Sequence[UsageRecord]) -> list[str]:
    return [record.data["billing"].rate_card for record in records]  # type: ignore[attr-defined]


def run(until_s: int, *more: Event) -> list[Event]:
    return [spawned(0), ready(0), *more, exited(until_s * SECOND)]


def test_a_private_instance_is_cut_where_a_new_card_takes_effect() -> None:
    new = card_from(100, "0.2")
    told = tell(PRIVATE, run(150), book(MINUTE, (OLD, new)))
    assert cuts(told) == [(0, 60), (60, 100), (100, 120), (120, 150)]
    assert cards_of(told.instances()) == [OLD.hash] * 2 + [new.hash] * 2
    assert told.amount() == 100 * Decimal("0.1") + 50 * Decimal("0.2")


def test_a_card_that_takes_effect_at_an_interim_cut_makes_no_second_one() -> None:
    told = tell(PRIVATE, run(90), book(MINUTE, (OLD, card_from(60, "0.2"))))
    assert cuts(told) == [(0, 60), (60, 90)]
    assert told.amount() == 12


def test_a_prediction_keeps_the_card_of_its_start_and_what_starts_later_has_the_new_one() -> None:
    new = card_from(100, "0.2")
    events = run(290, start(0, "a"), finish(150 * SECOND, "a"), start(200 * SECOND, "b"), finish(250 * SECOND, "b"))
    told = tell(Options(worker=True), events, book(MINUTE, (OLD, new)))
    assert told.amount("a") == 15
    assert told.amount("b") == 10
    assert cuts(told) == [(0, 60), (60, 120), (120, 180), (180, 240), (240, 290)]


def test_a_card_that_begins_before_the_instance_and_is_known_is_its_card_from_the_start() -> None:
    new = card_from(-5, "0.2")
    told = tell(PRIVATE, run(50), book(MINUTE, (OLD, new)))
    assert cards_of(told.instances()) == [new.hash]


def test_a_boot_is_billed_at_the_card_in_force_when_it_leads_to_ready() -> None:
    events: list[Event] = [spawned(0), ready(80 * SECOND, "notify"), exited(100 * SECOND)]
    told = tell(PRIVATE, events, book(MINUTE, (OLD, card_from(50, "0.2"))))
    assert told.amount() == 100 * Decimal("0.2")
    assert tell(PRIVATE, [spawned(0), exited(70 * SECOND)], book(MINUTE, (OLD, card_from(50, "0.2")))).amount() == 0


def test_an_end_at_another_multiplier_corrects_each_stretch_at_its_own_card() -> None:
    new, newer = card_from(20, "0.2"), card_from(40, "0.3")
    events = run(50, Stopping(50 * SECOND, StopReason.ABORTED))
    told = tell(PRIVATE, events, book(MINUTE, (OLD, new, newer), private={"aborted": "0"}))
    corrections = told.of(RecordType.CORRECTION)
    assert cards_of(corrections) == [OLD.hash, new.hash]
    assert [record.data["reason"] for record in corrections] == ["aborted"] * 2
    assert told.amount() == 0


def test_an_end_at_another_multiplier_corrects_what_a_cut_told_since_the_card_changed() -> None:
    new = card_from(20, "0.2")
    events = run(90, Stopping(90 * SECOND, StopReason.ABORTED))
    told = tell(PRIVATE, events, book(MINUTE, (OLD, new), private={"aborted": "0"}))
    assert cards_of(told.of(RecordType.CORRECTION)) == [OLD.hash, new.hash]
    assert told.amount() == 0


def test_other_devices_correct_each_stretch_at_its_own_card() -> None:
    new = card_from(80, "9", one="0.2", two="0.3")
    told = tell(PRIVATE, run(200, seen(ONE, at_s=100)), book(MINUTE, (OLD, new)), on=TWO)
    assert told.amount() == 80 * Decimal("0.7") + 118 * Decimal("0.2")  # nobody looked for 2 s


def test_a_card_that_is_known_late_counts_for_what_no_record_has_told() -> None:
    new = card_from(30, "0.2")
    before, after = book(MINUTE, (OLD,)), book(MINUTE, (OLD, new))
    first = fold(open_instance(opened(PRIVATE), before, dataclasses.replace(TWO, tier="cpu")), beats(0, 70), before)
    told = fold(first.instance, [*beats(71, 99), exited(100 * SECOND)], after)
    records = [*first.records, *told.records]
    assert sum(map(amount_of, records)) == Decimal("0.1") * 60 + Decimal("0.2") * 40


def beats(from_s: int, until_s: int) -> list[Event]:
    begun = [spawned(0), ready(0)] if from_s == 0 else []
    return [*begun, *(beat(at_s * SECOND) for at_s in range(max(from_s, 1), until_s + 1))]


def test_a_machine_that_slept_wakes_under_the_card_that_its_calendar_says() -> None:
    """It sleeps for 30 s at 50 s, so that the card of 100 s by the calendar takes effect after 70 s awake."""
    events = [
        *beats(0, 50),
        *(beat(at_s * SECOND, 30 * SECOND) for at_s in range(51, 90)),
        exited(90 * SECOND, slept_ns=30 * SECOND),
    ]
    told = tell(PRIVATE, events, book(MINUTE, (OLD, card_from(100, "0.2"))), silent=True)
    assert told.amount() == 70 * Decimal("0.1") + 20 * Decimal("0.2")


@pytest.mark.parametrize("service_class", [ServiceClass.PUBLIC, ServiceClass.TRAINING])
def test_what_is_not_sold_online_is_not_cut(service_class: ServiceClass) -> None:
    told = tell(replace_class(service_class), run(50), book(MINUTE, (OLD, card_from(20, "0.2"))))
    assert cuts(told) == [(0, 50)]


def replace_class(service_class: ServiceClass) -> Options:
    return Options(worker=True, service_class=service_class)


CHANGES = st.lists(st.tuples(st.integers(-5, 110), st.integers(1, 99)), max_size=4, unique_by=lambda change: change[0])
ENDS = st.sampled_from(Status)
TERMS = {"boot": "0.3", "idle": "0.11", "active": "1.3", "teardown": "0.9", "failed": "0.5", "canceled": "0.7"}


@settings(deadline=None, max_examples=40)
@given(
    CHANGES,
    st.integers(1, 70),
    st.integers(0, 20),
    st.lists(st.booleans(), min_size=8, max_size=8),
    st.sampled_from([None, *StopReason]),
    st.sampled_from([0, 3]),
)
def test_online_time_costs_each_stretch_at_the_card_that_was_in_force(
    changes: list[tuple[int, int]],
    interim_s: int,
    boot_s: int,
    kills: list[bool],
    stops: StopReason | None,
    code: int,
) -> None:
    by = book(
        interim_s * SECOND,
        (OLD, *(card_from(at_s, f"0.{price:02}") for at_s, price in changes)),
        private={**TERMS, "aborted": "0.25"},
    )
    events: list[Event] = [spawned(0), *(beat(s * SECOND) for s in range(1, boot_s)), ready(boot_s * SECOND, "notify")]
    events += [beat(s * SECOND) for s in range(boot_s + 1, 91)]
    events += [Stopping(90 * SECOND, stops)] if stops else []
    events.append(exited(91 * SECOND, code))
    instance, records = open_instance(opened(PRIVATE), by, TWO), list[UsageRecord]()
    instance = replace(instance, hardware=dataclasses.replace(TWO, tier="cpu"))
    for at, event in enumerate(events):
        step = fold(instance, [event], by)
        records += step.records
        instance = taken_up(step.instance) if kills[at % len(kills)] and at < len(events) - 1 else step.instance
    told = Told(instance, records, [])
    end: Any = told.instances()[-1].data
    multiplier = Decimal({"failed": "0.5", "canceled": "0.7", "aborted": "0.25"}.get(end["status"], "1"))
    expected = boot_s * Decimal("0.3") * price_at(by, boot_s) if boot_s else Decimal(0)
    expected += sum(Decimal("0.11") * price_at(by, s) for s in range(boot_s, 90))
    expected += Decimal("0.9" if stops else "0.11") * price_at(by, 90)
    assert told.amount() == expected * multiplier
    lines = recomputing.sealed([*recomputing.facts(by), *records])
    assert not recomputing.tool().recompute(lines).findings


def price_at(by: Rulebook, at_s: int) -> Decimal:
    found = by.card_at(REALTIME_AT_ZERO + at_s * SECOND)
    assert found is not None
    return found.tiers["cpu"]


def test_a_card_that_takes_effect_between_opening_and_start_is_there_from_the_start() -> None:
    new = card_from(3, "0.2")
    told = tell(PRIVATE, [spawned(5 * SECOND), ready(5 * SECOND), exited(50 * SECOND)], book(MINUTE, (OLD, new)))
    assert cards_of(told.instances()) == [new.hash]


def test_cards_that_become_known_together_late_are_passed_by_at_once() -> None:
    before = book(MINUTE, (OLD,))
    first = fold(open_instance(opened(PRIVATE), before, dataclasses.replace(TWO, tier="cpu")), beats(0, 70), before)
    after = book(MINUTE, (OLD, card_from(30, "0.2"), card_from(40, "0.3")))
    step = fold(first.instance, [*beats(71, 99), exited(100 * SECOND)], after)
    assert sum(map(amount_of, [*first.records, *step.records])) == Decimal("0.1") * 60 + Decimal("0.3") * 40
    assert len(step.instance.pieces) == 1
