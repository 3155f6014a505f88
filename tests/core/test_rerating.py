"""What had no price is billed after all: by the card of its start, or the first later one; once; to the last digit."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.billing.rates import RateCard, parse_card
from taximeter.events import Event, Observed, Options, ServiceClass, Status, Stopping, StopReason, UnitsMark
from taximeter.hardware.inventory import Device, Hardware
from taximeter.late import review
from taximeter.lifecycle import Stage
from taximeter.meter import fold, open_instance
from taximeter.recall import ended
from taximeter.records import RecordType, UsageRecord, utc_text
from taximeter.rerating import NO_CARD, NO_TIER, NO_UNITS, OTHER_CURRENCY, LateCards, Outcome, rerate
from taximeter.rulebook import Rulebook
from taximeter.values import replace
from tests import recomputing
from tests.core.draws import MATRICES
from tests.core.stories import (
    MINUTE,
    SECOND,
    WORKER,
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
    with_heartbeats,
)
from tests.core.test_laws import PRICES, histories

IMAGE = {"name": "acme/image", "amount": "0.03", "unit": "image"}


def priced(*models: Mapping[str, Any], effective: str = "2026-01-01T00:00:00Z", **tiers: str) -> RateCard:
    content = card(effective=effective, **tiers).content()
    return parse_card(content | ({"models": list(models)} if models else {}), "test")


def under(*cards: RateCard, interim_ns: int = MINUTE) -> Rulebook:
    return book(interim_ns, cards)


def ridden(by: Rulebook, model: str | None = "acme/image", *, tier: str = "cpu", **told: Any) -> Told:
    """A worker's prediction of two seconds, from second 1 to 3."""
    events: list[Event] = [spawned(0), ready(0), start(SECOND, "p1", model=model), finish(3 * SECOND, "p1")]
    return tell(replace(WORKER, **told), [*events, exited(4 * SECOND)], by, tier)


def read(records: Sequence[UsageRecord]) -> list[dict[str, Any]]:
    """Records as whoever reads the ledger has them."""
    return [json.loads(body) for body in recomputing.sealed(records)]


def rerated(told: Told, by: Rulebook, **units: str) -> Outcome:
    return rerate(read(told.records), by, by.rules[by.current], {"p1": units})


def anew(records: Sequence[UsageRecord], by: Rulebook) -> Outcome:
    """The same where cards came late that were in force by then."""
    return rerate(read(records), by, by.rules[by.current], {}, late_cards=True)


def amounts(outcome: Outcome) -> list[Decimal]:
    return [amount_of(record) for record in outcome.records]


def test_units_that_are_told_later_are_billed_at_the_card_of_the_start() -> None:
    by = under(priced(IMAGE), priced({**IMAGE, "amount": "9"}, effective="2026-11-22T10:00:02Z"))
    outcome = rerated(ridden(by), by, image="2")
    assert amounts(outcome) == [Decimal("0.06")]
    (record,) = outcome.records
    assert record.type is RecordType.CORRECTION
    assert record.data["reason"] == "rerated"
    assert record.data["units_to_date"] == {"image": "2"}


def test_without_its_units_it_is_left() -> None:
    by = under(priced(IMAGE))
    assert rerated(ridden(by), by) == Outcome((), (NO_UNITS,))


def test_a_card_that_comes_after_all_counts_where_it_was_in_force_at_the_start() -> None:
    told = ridden(under())
    assert rerated(told, under()).left == (NO_CARD,)
    assert amounts(rerated(told, under(card("0.5")), image="3")) == [Decimal(1)]


def test_where_there_was_none_at_its_start_the_first_later_card_counts() -> None:
    first, second = (card(price, f"2027-0{month}-01T00:00:00Z") for month, price in ((1, "0.5"), (2, "0.7")))
    assert amounts(rerated(ridden(under()), under(second, first))) == [Decimal(1)]


def test_a_tier_without_a_price_is_billed_once_a_card_has_one() -> None:
    by = under(card())
    told = ridden(by, None, tier="gpu-t4")
    assert rerated(told, by).left == (NO_TIER,)
    later = card(effective="2027-01-01T00:00:00Z", **{"gpu-t4": "0.25"})
    assert amounts(rerated(told, under(card(), later))) == [Decimal("0.5")]


def test_a_later_card_does_not_stand_in_for_units() -> None:
    by = under(priced(IMAGE))
    later = priced({**IMAGE, "unit": "computing_second"}, effective="2027-01-01T00:00:00Z")
    assert rerated(ridden(by), under(priced(IMAGE), later)).left == (NO_UNITS,)


def test_a_model_that_has_its_units_and_no_price_for_its_hardware_is_left() -> None:
    by = under(priced({**IMAGE, "plus_hardware": True}))
    assert rerated(ridden(by, tier="gpu-t4"), by, image="1").left == (NO_TIER,)


def test_doing_it_again_changes_nothing_and_more_units_bill_the_rest() -> None:
    by = under(priced(IMAGE))
    told = ridden(by)
    first = rerated(told, by, image="2")
    again = Told(told.instance, [*told.records, *first.records], [])
    assert rerated(again, by) == Outcome((), ())
    more = rerated(again, by, image="1")
    assert amounts(more) == [Decimal("0.03")]
    assert more.records[0].data["units_to_date"] == {"image": "3"}
    assert more.records[0].id > first.records[0].id > told.records[-1].id


def test_what_has_its_price_is_not_touched() -> None:
    by = under(priced(IMAGE))
    assert rerated(ridden(by, None), by, image="2") == Outcome((), ())


def test_an_id_that_came_twice_is_rerated_for_each_run_of_it() -> None:
    by = under()
    events = [start(SECOND, "p1"), finish(2 * SECOND, "p1"), start(3 * SECOND, "p1"), finish(5 * SECOND, "p1")]
    told = tell(WORKER, [spawned(0), ready(0), *events, exited(6 * SECOND)], by)
    assert amounts(rerated(told, under(card("1")))) == [Decimal(1), Decimal(2)]


def test_what_was_billed_in_one_currency_is_not_rerated_in_another() -> None:
    by = under(priced(IMAGE))
    told = ridden(by)
    events = read([*told.records, *rerated(told, by, image="1").records])
    euros = parse_card(card().content() | {"currency": "EUR"}, "test")
    outcome = rerate(events, under(euros), by.rules[by.current], {"p1": {"image": "1"}})
    assert outcome.left == (OTHER_CURRENCY,)


def test_on_an_instance_that_is_sold_only_units_beside_its_time_are_billed() -> None:
    by = under(priced({**IMAGE, "online_units": True}))
    private = {"service_class": ServiceClass.PRIVATE, "account": "cus_7"}
    assert amounts(rerated(ridden(by, **private), by, image="2")) == [Decimal("0.06")]


def test_what_was_taken_back_of_it_stays_so() -> None:
    """It says at 3.5 s that it ended at 2.5 s, when an interim record had told of the third second already."""
    by = under(interim_ns=SECOND)
    events = [
        start(SECOND // 2, "p1"),
        *(beat(at * SECOND) for at in (1, 2, 3)),
        finish(7 * SECOND // 2, "p1", Status.SUCCEEDED, 5 * SECOND // 2),
    ]
    told = tell(WORKER, [spawned(0), ready(0), *events, exited(4 * SECOND)], by)
    assert [record.data["reason"] for record in told.of(RecordType.CORRECTION)] == ["late_finish"]
    assert amounts(rerated(told, under(card("1")))) == [Decimal(2)]


def test_a_tier_that_is_published_as_another_is_said_again() -> None:
    by = under(priced({**IMAGE, "hardware": "gpu-t4"}))
    (record,) = rerated(ridden(by), by, image="1").records
    use: Any = record.data["hardware"]
    assert (use.tier, use.published) == ("cpu", "gpu-t4")


@settings(deadline=None, max_examples=40)
@given(histories(), PRICES, MATRICES, st.integers(SECOND, 100 * SECOND))
def test_rerated_with_the_card_a_history_costs_what_it_would_have_cost_and_the_recomputation_agrees(
    history: tuple[Options, list[Event]], price: str, matrix: dict[str, dict[str, str]], interim_ns: int
) -> None:
    """Predictions told without any card, and then rerated, against the same ones told with it from the beginning."""
    options, events = history
    options = replace(options, service_class=None)
    unpriced, by = book(interim_ns, (), **matrix), book(interim_ns, (card(price),), **matrix)
    bare = tell(options, events, unpriced, silent=True)
    whole = tell(options, events, by, silent=True)
    if bare.instance.stage is not Stage.CLOSED:
        return  # what is not over is left for later
    outcome = rerate(read(bare.records), by, by.rules[by.current], {})
    names = {record.prediction for record in bare.predictions()}
    for name in names:
        rerated_amount = sum((amount_of(one) for one in outcome.records if one.prediction == name), Decimal(0))
        assert rerated_amount == whole.amount(name or "")
    bodies = recomputing.sealed(
        [*recomputing.facts(unpriced), *bare.records, *recomputing.facts(by, 1)[1:], *outcome.records]
    )
    made = recomputing.tool().recompute(bodies)
    assert made.findings == []


def online(by: Rulebook, *more: Event, service_class: ServiceClass = ServiceClass.PRIVATE, **told: Any) -> Told:
    """A private instance: boot of 2 s, up to second 10."""
    options = replace(WORKER, service_class=service_class, account="cus_7")
    return tell(options, [spawned(0), ready(2 * SECOND), *more, exited(10 * SECOND)], by, **told)


def sound(before: Rulebook, told: Told, by: Rulebook, outcome: Outcome) -> list[Any]:
    """What the recomputation finds, once the cards of `by` came after the records."""
    facts = recomputing.facts(by, 1)[1:]
    bodies = recomputing.sealed([*recomputing.facts(before), *told.records, *facts, *outcome.records])
    return recomputing.tool().recompute(bodies).findings


def test_online_time_that_had_no_price_is_billed_once_there_is_one() -> None:
    before, by = under(), under(card("0.5"))
    told = online(before)
    outcome = rerated(told, by)
    (record,) = outcome.records
    assert (amount_of(record), record.prediction, record.subject) == (Decimal(5), None, "cus_7")
    assert record.data["reason"] == "rerated"
    assert sound(before, told, by, outcome) == []
    again = read([*told.records, *outcome.records])
    assert rerate(again, by, by.rules[by.current], {}).records == ()


def test_the_recomputation_finds_a_wrong_digit_of_online_time_that_was_rerated() -> None:
    before, by = under(), under(card("0.5"))
    told = online(before)
    facts = [*recomputing.facts(before), *told.records, *recomputing.facts(by, 1)[1:]]
    lines = recomputing.sealed([*facts, *rerated(told, by).records])
    wrong = [*lines[:-1], lines[-1].replace(b'"quantity":"8"', b'"quantity":"7"')]
    assert wrong != lines
    assert recomputing.tool().recompute(wrong).findings


def test_online_time_on_a_tier_that_no_card_prices_is_left() -> None:
    by = under(card("0.5"))
    told = online(by, tier="gpu-odd")
    assert rerated(told, by) == Outcome((), (NO_TIER,))
    assert rerated(online(under()), under()) == Outcome((), (NO_CARD,))


def test_each_stretch_of_online_time_is_billed_by_the_card_of_its_start() -> None:
    """Two cards without a price for its tier, so that it was cut; then two with one, the first of which is late."""
    old, new = card("9"), card("9", "2026-11-22T10:00:04Z")
    before = under(old, new)
    told = online(before, tier="gpu-odd")
    assert [record.data["billing"].status for record in told.instances()] == ["unrated", "unrated"]
    by = under(
        card("9", **{"gpu-odd": "0.1"}), new, card("9", "2026-11-22T10:00:05Z", **{"gpu-odd": "2"}), interim_ns=MINUTE
    )
    outcome = rerated(told, by)
    assert amounts(outcome) == [Decimal("0.4"), Decimal(12)]
    assert sound(before, told, by, outcome) == []


def test_what_turned_out_to_be_no_active_time_is_billed_as_what_it_was() -> None:
    """It drained, and whoever began its last prediction was held by nobody: cut at 4 s, 6 s and 8 s, over since 3 s."""
    cards = card("9"), card("9", "2026-11-22T10:00:06Z")
    before = under(*cards, interim_ns=4 * SECOND)
    told = online(before, start(3 * SECOND, "a", pid=12), Stopping(3 * SECOND, StopReason.DRAIN), tier="gpu-odd")
    by = under(card("9", **{"gpu-odd": "1"}), card("9", "2026-11-22T10:00:06Z", **{"gpu-odd": "3"}))
    outcome = rerated(told, by)
    assert sum(amounts(outcome)) == Decimal(3)
    assert sound(before, told, by, outcome) == []


def test_a_boot_that_ended_after_a_card_changed_is_of_the_stretch_in_which_it_did() -> None:
    before = under(card("9"), card("9", "2026-11-22T10:00:01Z"))
    told = online(before, tier="gpu-odd")
    by = under(card("9", **{"gpu-odd": "1"}), card("9", "2026-11-22T10:00:01Z", **{"gpu-odd": "3"}))
    outcome = rerated(told, by)
    assert sum(amounts(outcome)) == Decimal(30)
    assert sound(before, told, by, outcome) == []


def test_what_was_billed_of_online_time_in_another_currency_is_left() -> None:
    events = read(online(under()).records)
    events[-1]["data"]["billing"] |= {"currency": "EUR", "lines": [{}]}
    assert rerate(events, under(card("1")), book().rules[book().current], {}).left == (OTHER_CURRENCY,)


def test_an_instance_that_is_not_over_is_left_as_it_is() -> None:
    told = tell(
        replace(WORKER, service_class=ServiceClass.PRIVATE),
        [spawned(0), ready(0), beat(9 * SECOND)],
        under(interim_ns=SECOND),
    )
    assert told.instances()
    assert rerated(told, under(card("1"))) == Outcome((), ())


@settings(deadline=None, max_examples=40)
@given(
    histories(),
    PRICES,
    MATRICES,
    st.integers(SECOND, 100 * SECOND),
    st.sampled_from([ServiceClass.PRIVATE, ServiceClass.DEPLOYMENT, ServiceClass.PUBLIC]),
)
def test_rerated_with_the_card_an_instance_costs_what_it_would_have_cost_and_the_recomputation_agrees(
    history: tuple[Options, list[Event]],
    price: str,
    matrix: dict[str, dict[str, str]],
    interim_ns: int,
    service_class: ServiceClass,
) -> None:
    options, events = history
    options = replace(options, service_class=service_class)
    unpriced, by = book(interim_ns, (), **matrix), book(interim_ns, (card(price),), **matrix)
    bare = tell(options, events, unpriced, silent=True)
    whole = tell(options, events, by, silent=True)
    if bare.instance.stage is not Stage.CLOSED:
        return
    outcome = rerate(read(bare.records), by, by.rules[by.current], {})
    assert sum(amounts(outcome), Decimal(0)) == whole.amount()
    assert sound(unpriced, bare, by, outcome) == []


def test_the_recomputation_finds_a_wrong_digit_of_what_was_rerated() -> None:
    by = under(priced(IMAGE))
    told = ridden(by)
    outcome = rerated(told, by, image="2")
    lines = recomputing.sealed([*recomputing.facts(by), *told.records, *outcome.records])
    assert not recomputing.tool().recompute(lines).findings
    wrong = [*lines[:-1], lines[-1].replace(b'"amount":"0.06"', b'"amount":"0.07"')]
    assert recomputing.tool().recompute(wrong).findings
    more = [*lines[:-1], lines[-1].replace(b'"units_to_date":{"image":"2"}', b'"units_to_date":{"image":"1"}')]
    assert recomputing.tool().recompute(more).findings


@pytest.mark.parametrize("said", [{}, {"image": "1"}])
def test_units_that_were_counted_and_had_no_price_are_billed_when_the_model_has_one(said: dict[str, str]) -> None:
    """The tier has no price either: so there was none at its start, and the first later card that has one counts."""
    by = under(card())
    marks = [start(SECOND, "p1", model="acme/image")]
    units = [tell_units(2 * SECOND, said)] if said else []
    events = [spawned(0), ready(0), *marks, *units, finish(3 * SECOND, "p1"), exited(4 * SECOND)]
    told = tell(WORKER, events, by, "gpu-t4")
    later = priced(IMAGE, effective="2027-01-01T00:00:00Z")
    assert amounts(rerated(told, under(card(), later))) == ([Decimal("0.03")] if said else [])


def tell_units(at_ns: int, units: dict[str, str]) -> Event:
    from taximeter.events import Marked

    return Marked(at_ns, UnitsMark("p1", units))


# --- A card that comes late ---


def late(at_s: int, price: str, **tiers: str) -> RateCard:
    """A card that takes effect so many seconds after the opening."""
    return card(price, f"2026-11-22T10:00:{at_s:02d}Z", **tiers)


def test_a_card_that_comes_late_cuts_the_stretch_that_was_sold() -> None:
    before, by = under(card("0.5")), under(card("0.5"), late(6, "2"))
    told = online(before)
    assert told.amount() == Decimal(5)
    outcome = anew(told.records, by)
    (correction,) = outcome.records
    assert told.amount() + amount_of(correction) == online(by).amount() == Decimal(11)
    lines = [(line.quantity, line.rate, line.multiplier, line.amount) for line in billing_of(correction).lines]
    assert lines == [("4", "0.5", "-1", "-2"), ("4", "2", "1", "8")]
    assert billing_of(correction).rate_card == by.cards[1].hash
    assert sound(before, told, by, outcome) == []


def billing_of(record: UsageRecord) -> Any:
    return record.data["billing"]


def test_doing_it_again_changes_nothing_until_another_card_comes() -> None:
    before, by = under(card("0.5")), under(card("0.5"), late(6, "2"))
    told = online(before)
    again = [*told.records, *anew(told.records, by).records]
    assert anew(again, by) == Outcome((), ())
    third = under(card("0.5"), late(6, "2"), late(8, "3"))
    outcome = anew(again, third)
    assert amounts(outcome) == [Decimal(2)]
    facts = [*recomputing.facts(by, 1)[1:], *again[len(told.records) :], *recomputing.facts(third, 1)[2:]]
    bodies = recomputing.sealed([*recomputing.facts(before), *told.records, *facts, *outcome.records])
    assert recomputing.tool().recompute(bodies).findings == []


def test_a_prediction_is_billed_by_the_card_of_its_start_even_if_that_came_late() -> None:
    before, by = under(card("0.5")), under(card("0.5"), late(1, "0.7"))
    told = ridden(before, None)
    outcome = anew(told.records, by)
    assert told.amount() + sum(amounts(outcome)) == ridden(by, None).amount() == Decimal("1.4")
    assert sound(before, told, by, outcome) == []
    assert outcome.records[0].sold_ns == 0


def test_a_run_that_was_corrected_for_its_hardware_is_billed_anew_on_that() -> None:
    """It ran on one of the two devices that it declared, as was seen when it had ended."""
    both = Hardware("two", 2, (Device("GPU-a", "a GPU", None, 0), Device("GPU-b", "a GPU", None, 1)), settled=False)
    one = Hardware("one", 1, (Device("GPU-a", "a GPU", None, 0),))
    happened = [spawned(0), ready(0), start(SECOND, "p1"), finish(3 * SECOND, "p1")]
    events = [*with_heartbeats(happened, MINUTE), beat(4 * SECOND), Observed(4 * SECOND, 4 * SECOND, one)]
    before = under(card(one="1", two="3"))
    instance = open_instance(opened(WORKER), before, both)
    step = fold(instance, events, before)
    settled, evidence = review(step.instance, ended(opened(WORKER), read(step.records)), step.instance.records, before)
    step_ = fold(settled, [exited(5 * SECOND)], before)
    records = [*step.records, *evidence, *step_.records]
    assert sum(map(amount_of, records)) == 2
    by = under(card(one="1", two="3"), late(1, "0", one="2", two="5"))
    outcome = anew(records, by)
    assert sum(map(amount_of, [*records, *outcome.records])) == 4
    facts = recomputing.facts(by, 1)[1:]
    bodies = recomputing.sealed([*recomputing.facts(before), *records, *facts, *outcome.records])
    assert recomputing.tool().recompute(bodies).findings == []


def test_only_who_asks_for_it_has_billed_anew_what_has_a_price() -> None:
    by = under(card("0.5"), late(6, "2"), late(1, "0.7"))
    assert rerated(online(under(card("0.5"))), by) == rerated(ridden(under(card("0.5")), None), by) == Outcome((), ())


def test_a_prediction_keeps_the_card_of_its_start_whatever_comes_later() -> None:
    before, by = under(card("0.5")), under(card("0.5"), late(2, "9"))
    assert anew(ridden(before, None).records, by) == Outcome((), ())


def test_of_cards_that_take_effect_together_the_one_that_has_billed_it_stays() -> None:
    before, by = under(card("0.5")), under(card("0.5"), card("0.7"))
    assert anew(online(before).records, by) == Outcome((), ())


def test_what_is_billed_by_a_card_that_nobody_knows_any_more_is_left_as_it_is() -> None:
    told = online(under(card("0.5")))
    assert anew(told.records, under(late(6, "2"))) == Outcome((), ())
    assert anew(ridden(under(card("0.5")), None).records, under(late(0, "2"))) == Outcome((), ())


def test_a_late_card_of_another_currency_is_left_and_so_is_one_without_a_price_for_its_tier() -> None:
    told = online(under(card("0.5")))
    euro = parse_card({**late(6, "2").content(), "currency": "EUR"}, "test")
    assert anew(told.records, under(card("0.5"), euro)) == Outcome((), (OTHER_CURRENCY,))
    bare = parse_card({**late(6, "2").content(), "tiers": {"gpu-odd": "1"}}, "test")
    assert anew(told.records, under(card("0.5"), bare)) == Outcome((), (NO_TIER,))


def test_what_is_not_sold_online_is_not_cut_by_a_late_card() -> None:
    matrix = {"public": {"idle": "1"}}
    before, by = book(MINUTE, (card("0.5"),), **matrix), book(MINUTE, (card("0.5"), late(6, "2")), **matrix)
    assert anew(online(before, service_class=ServiceClass.PUBLIC).records, by) == Outcome((), ())


def test_of_time_that_nobody_saw_a_late_card_is_given_what_favours_the_payer() -> None:
    """It was seen up to 4 s and from 9 s on, and ended at 10 s: of 5 s that count, 1 to 5 may have been before 6 s."""
    events = [spawned(0), ready(0), *(beat(at * SECOND) for at in (1, 2, 3, 4, 9)), exited(10 * SECOND)]
    options = replace(WORKER, service_class=ServiceClass.PRIVATE, account="cus_7")
    before = under(card("0.5"))
    told = tell(options, events, before, silent=True)
    assert told.amount() == Decimal("2.5")
    for by, due in (
        (under(card("0.5"), late(6, "2")), Decimal("2.5")),
        (under(card("0.5"), late(6, "0.1")), Decimal("0.9")),
    ):
        outcome = anew(told.records, by)
        assert told.amount() + sum(amounts(outcome)) == due
        assert sound(before, told, by, outcome) == []


EFFECTS = st.integers(0, 200)


@settings(deadline=None, max_examples=60)
@given(
    histories(),
    st.tuples(PRICES, PRICES),
    EFFECTS,
    st.integers(SECOND, 100 * SECOND),
    st.sampled_from([ServiceClass.PRIVATE, ServiceClass.DEPLOYMENT, None]),
    MATRICES,
)
def test_a_card_that_came_late_costs_no_more_than_one_that_was_known_and_the_recomputation_agrees(
    history: tuple[Options, list[Event]],
    prices: tuple[str, str],
    effective_s: int,
    interim_ns: int,
    service_class: ServiceClass | None,
    matrix: dict[str, dict[str, str]],
) -> None:
    options, events = history
    options = replace(options, service_class=service_class)
    cards = card(prices[0]), from_second(effective_s, prices[1])
    before, by = book(interim_ns, cards[:1], **matrix), book(interim_ns, cards, **matrix)
    told, whole = (tell(options, events, rules, silent=True) for rules in (before, by))
    if told.instance.stage is not Stage.CLOSED:
        return
    outcome = anew(told.records, by)
    assert told.amount() + sum(amounts(outcome)) <= whole.amount()
    assert sound(before, told, by, outcome) == []
    again = [*told.records, *outcome.records]
    assert anew(again, by).records == ()


def from_second(at_s: int, price: str) -> RateCard:
    return card(price, f"2026-11-22T10:{at_s // 60:02d}:{at_s % 60:02d}Z")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 99), unique=True, max_size=4),
    st.permutations(range(3)),
    st.lists(st.integers(0, 100), min_size=3, max_size=3, unique=True),
    st.integers(1, 120),
)
def test_what_online_time_costs_is_independent_of_when_its_cards_arrive(
    marks: list[int], order: list[int], arrivals: list[int], interim_s: int
) -> None:
    """An instance of a hundred seconds, some of them busy; three cards, each known at some time, in whatever order."""
    cards = (card("0.5"), from_second(30, "0.25"), from_second(60, "2"))
    options = replace(WORKER, service_class=ServiceClass.PRIVATE, account="cus_7")
    busy = [
        start(at * SECOND, str(n)) if n % 2 == 0 else finish(at * SECOND, str(n - 1))
        for n, at in enumerate(sorted(marks))
    ]
    beats = [beat(at * SECOND) for at in range(1, 100) if at not in marks]
    middle = sorted([*beats, *busy], key=lambda event: event.at_ns or 0)
    history: list[Event] = [spawned(0), ready(0), *middle, exited(100 * SECOND)]
    known = dict(zip(arrivals, (cards[n] for n in order), strict=True))

    def at(arrived_s: int) -> Rulebook:
        return book(interim_s * SECOND, tuple(one for when, one in sorted(known.items()) if when <= arrived_s))

    instance, records = open_instance(opened(options), at(0), Hardware("cpu", 1, rule="test")), list[UsageRecord]()
    for event in history:
        step = fold(instance, [event], at((event.at_ns or 0) // SECOND))
        instance, records = step.instance, [*records, *step.records]
    by = at(100)
    outcome = anew(records, by)
    told = sum(map(amount_of, [*records, *outcome.records]))
    assert told == tell(options, history, book(interim_s * SECOND, cards), silent=True).amount()


def test_a_card_is_known_to_be_followed_by_the_next_one_that_takes_effect_later() -> None:
    cards = card("0.5"), card("0.6"), late(6, "2"), late(3, "1")
    followed = LateCards(cards)
    assert [followed.since(one.hash) for one in cards] == [utc_text(cards[3].effective_utc_ns)] * 2 + [
        None,
        utc_text(cards[2].effective_utc_ns),
    ]
    assert followed.since(None) is None
    by_one = LateCards(cards, cards[2])
    since = utc_text(cards[2].effective_utc_ns)
    assert [by_one.since(one.hash) for one in cards] == [since, since, None, since]
    assert by_one.since(None) == since
