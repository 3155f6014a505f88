"""What had no price is billed after all: by the card of its start, or the first later one; once; to the last digit."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.billing.rates import RateCard, parse_card
from taximeter.events import Event, Options, ServiceClass, Status, Stopping, StopReason, UnitsMark
from taximeter.lifecycle import Stage
from taximeter.records import RecordType, UsageRecord
from taximeter.rerating import NO_CARD, NO_TIER, NO_UNITS, OTHER_CURRENCY, Outcome, rerate
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
    ready,
    spawned,
    start,
    tell,
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
