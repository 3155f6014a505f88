"""Money, rate cards, classes and rating, each by hand-worked cases."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.billing.classes import Quantity, parse_classes
from taximeter.billing.dues import Dues, of_time
from taximeter.billing.money import decimal_of, plain, rounded, seconds, seconds_text
from taximeter.billing.rates import RateCard, card_in_force, parse_card
from taximeter.billing.rating import rate
from taximeter.errors import ConfigError
from taximeter.events import ServiceClass, Status
from taximeter.hardware.evidence import OnMismatch
from taximeter.rulebook import make_rules, parse_rules
from tests.core.stories import CLASSES_SHIPPED, MINUTE, SECOND, book, card, classes

ONE = Decimal(1)

# --- money ---


@pytest.mark.parametrize("text", ["0", "1", "0.000225", "12.50", "0" * 40])
def test_plain_decimal_strings_are_numbers(text: str) -> None:
    assert decimal_of(text) == Decimal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1e3",
        "1E999999",
        "NaN",
        "Infinity",
        ".5",
        "5.",
        "1_0",
        "\u0661",
        " 1",
        "1" * 41,
        "1.-2",
        0.1,
        1,
        True,
        None,
    ],
)
def test_nothing_else_is_a_number(text: object) -> None:
    with pytest.raises(ValueError, match="not a plain decimal string"):
        decimal_of(text)


@given(st.decimals("-1e12", "1e12", places=18))
def test_a_number_written_in_full_reads_back_the_same(number: Decimal) -> None:
    assert Decimal(plain(number)) == number
    assert "E" not in plain(number)


@pytest.mark.parametrize(("number", "text"), [("1.500", "1.5"), ("-0.0", "0"), ("100", "100"), ("1E-7", "0.0000001")])
def test_numbers_are_written_in_full_without_trailing_zeros(number: str, text: str) -> None:
    assert plain(Decimal(number)) == text


def test_rounding_is_half_to_even_at_18_places() -> None:
    assert rounded(Decimal("0.0000000000000000005")) == 0
    assert rounded(Decimal("0.0000000000000000015")) == Decimal("2e-18")


def test_nanoseconds_are_exact_seconds() -> None:
    assert seconds(1) == Decimal("1e-9")
    assert seconds(2**63 - 1) == Decimal("9223372036.854775807")


@pytest.mark.parametrize(
    ("duration_ns", "text"), [(0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5"), (10**10, "10")]
)
def test_seconds_are_written_in_full_without_trailing_zeros(duration_ns: int, text: str) -> None:
    assert seconds_text(duration_ns) == text


@given(st.integers(0, 2**63 - 1) | st.integers(0, 10**4).map(lambda count: count * 10**8))
def test_seconds_are_written_as_any_number_is(duration_ns: int) -> None:
    assert seconds_text(duration_ns) == plain(seconds(duration_ns))


# --- rate cards ---

GOOD: dict[str, object] = {
    "version": "2026-11",
    "effective": "2026-11-01T00:00:00Z",
    "currency": "USD",
    "tiers": {"cpu": "0.0001"},
}


def test_a_card_makes_itself_again_from_its_content() -> None:
    parsed = parse_card(GOOD, "rates.toml")
    assert parse_card(parsed.content(), "ledger") == parsed


def test_a_toml_date_is_an_instant_too() -> None:
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    assert parse_card({**GOOD, "effective": moment}, "rates.toml") == parse_card(GOOD, "rates.toml")


def test_a_fraction_of_a_second_that_is_none_is_none() -> None:
    assert parse_card({**GOOD, "effective": "2026-11-01T00:00:00.000Z"}, "x") == parse_card(GOOD, "x")


def test_the_hash_of_a_card_changes_with_any_price() -> None:
    assert parse_card({**GOOD, "tiers": {"cpu": "0.0002"}}, "x").hash != parse_card(GOOD, "x").hash


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"modles": []}, "modles"),
        ({"version": ""}, "version"),
        ({"currency": "usd"}, "currency = 'usd'"),
        ({"currency": 1}, "currency = 1"),
        ({"effective": "2026-11-01T00:00:00"}, "effective"),
        ({"effective": "soon"}, "effective = 'soon'"),
        ({"effective": "2026-11-01T00:00:00.5Z"}, "effective = '2026-11-01T00:00:00.5Z': expected a whole second"),
        ({"effective": "2026-11-01T00:00:00.000000001Z"}, "expected a whole second"),
        (
            {"effective": datetime(2026, 11, 1, 0, 0, 0, 500_000, tzinfo=UTC)},
            "effective = 2026-11-01T00:00:00.500000+00:00: expected a whole second",
        ),
        ({"tiers": {}}, "tiers"),
        ({"tiers": {"cpu": 0.0001}}, "tiers.cpu = 0.0001"),
        ({"tiers": {"cpu": "-1"}}, "tiers.cpu = '-1'"),
        ({"tiers": {"cpu": "NaN"}}, "tiers.cpu"),
        ({"tiers": {"cpu": "1E999999"}}, "tiers.cpu"),
    ],
)
def test_a_fault_of_a_card_is_named_with_file_and_key(change: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_card({**GOOD, **change}, "rates.toml")
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith("rates.toml: ")
    assert names in caught.value.faults[0]


def test_every_fault_of_a_card_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_card({"tiers": {"cpu": 1, "gpu": "x"}}, "rates.toml")
    assert len(caught.value.faults) == 5


def test_the_card_in_force_is_the_latest_that_has_begun() -> None:
    first, second = card(effective="2026-01-01T00:00:00Z"), card("1", effective="2026-02-01T00:00:00Z")
    assert card_in_force((second, first), second.effective_utc_ns) is second
    assert card_in_force((second, first), second.effective_utc_ns - 1) is first
    assert card_in_force((second, first), first.effective_utc_ns - 1) is None


# --- classes ---


def test_classes_make_themselves_again_from_their_content() -> None:
    assert parse_classes(classes().content(), "ledger") == classes()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"publik": {}}, "publik"),
        ({"public": None}, "public"),
        ({"public": {**CLASSES_SHIPPED["public"], "actve": "1"}}, "public.actve"),
        ({"public": {**CLASSES_SHIPPED["public"], "active": 1}}, "public.active = 1"),
        ({"public": {**CLASSES_SHIPPED["public"], "quantity": "wall"}}, "public.quantity = 'wall'"),
    ],
)
def test_a_fault_of_the_classes_is_named(change: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_classes({**CLASSES_SHIPPED, **change}, "agent.toml")
    assert [names in fault for fault in caught.value.faults] == [True]


@pytest.mark.parametrize(
    ("status", "multiplier"),
    [("processing", 1), ("succeeded", 1), ("failed", 1), ("canceled", 1), ("aborted", 0)],
)
def test_an_aborted_public_run_is_billed_nothing(status: str, multiplier: int) -> None:
    assert classes().terms[ServiceClass.PUBLIC].on(Status(status)) == multiplier


def test_the_shipped_quantity_is_the_share() -> None:
    assert {terms.quantity for terms in classes().terms.values()} == {Quantity.SHARE}


# --- the rulebook ---


def test_rules_make_themselves_again_from_their_content() -> None:
    rules = make_rules(MINUTE, 50, classes())
    assert parse_rules(rules.content(), "ledger") == rules


def test_rules_of_an_older_agent_bill_the_cheaper_on_a_mismatch() -> None:
    content = make_rules(MINUTE, 50, classes(), OnMismatch.OBSERVED).content()
    assert parse_rules(content, "ledger").on_mismatch is OnMismatch.OBSERVED
    del content["on_mismatch"]
    assert parse_rules(content, "ledger").on_mismatch is OnMismatch.CHEAPER


def test_rules_with_another_choice_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of cheaper, declared, observed"):
        parse_rules(make_rules(MINUTE, 50, classes()).content() | {"on_mismatch": "dearer"}, "ledger")


def test_what_is_no_rules_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected rules"):
        parse_rules({"interim_ns": "60"}, "ledger")


def test_rules_that_were_lost_give_way_to_todays() -> None:
    rulebook = book()
    assert rulebook.rules_of("sha256:lost").hash == rulebook.current


# --- rating ---


def due(duration_ns: int, multiplier: str = "1", tier: str = "cpu", rates: RateCard | None = None) -> Dues:
    return of_time([("share", duration_ns, Decimal(multiplier))], tier, rates or card("0.1"))


def test_a_line_is_quantity_times_rate_times_multiplier() -> None:
    billing = rate(due(1_500_000_000, "0.5", rates=card("0.001525"))).billing
    line = billing.lines[0]
    assert (line.quantity, line.rate, line.multiplier, line.amount) == ("1.5", "0.001525", "0.5", "0.00114375")
    assert (billing.status, billing.amount, billing.currency) == ("rated", "0.00114375", "USD")


def test_lines_add_up_to_the_amount() -> None:
    parts = [("load", SECOND, ONE), ("share", 2 * SECOND, ONE)]
    billing = rate(of_time(parts, "cpu", card("0.1"))).billing
    assert (len(billing.lines), billing.amount) == (2, "0.3")


def test_time_that_nobody_pays_for_is_free() -> None:
    assert rate(due(SECOND, "0")).billing.status == "free"


def test_free_time_needs_no_price() -> None:
    assert rate(of_time([("share", SECOND, Decimal(0))], "nowhere", None)).billing.status == "free"


def test_time_without_a_card_is_unrated() -> None:
    billing = rate(of_time([("share", SECOND, ONE)], "cpu", None)).billing
    assert (billing.status, billing.reason) == ("unrated", "no rate card was in force")


def test_an_end_at_another_multiplier_corrects_what_was_billed() -> None:
    rating = rate(due(3 * SECOND, "0.5"), due(2 * SECOND, "0.5"), due(2 * SECOND))
    assert rating.billing.amount == "0.05"
    correction: Any = rating.correction
    assert (correction.lines[0].multiplier, correction.amount) == ("-0.5", "-0.1")


def test_a_total_that_turns_out_to_be_less_is_taken_back_and_more_is_billed() -> None:
    less: Any = rate(due(SECOND), due(SECOND), due(3 * SECOND)).correction
    assert [(line.quantity, line.multiplier, line.amount) for line in less.lines] == [("2", "-1", "-0.2")]
    more: Any = rate(due(3 * SECOND), due(3 * SECOND), due(SECOND)).correction
    assert [(line.quantity, line.multiplier, line.amount) for line in more.lines] == [("2", "1", "0.2")]


def test_a_correction_of_an_unrated_run_is_unrated() -> None:
    rating = rate(due(3 * SECOND, "1", "nowhere"), due(2 * SECOND, "1", "nowhere"), due(2 * SECOND, "1", "nowhere"))
    assert (rating.billing.status, rating.correction) == ("unrated", None)


def test_no_new_time_is_free_also_without_a_price() -> None:
    was = due(2 * SECOND, "1", "nowhere")
    assert rate(was, was, was).billing.status == "free"


def test_a_price_that_turns_out_to_be_none_takes_back_what_was_billed() -> None:
    rating = rate(due(3 * SECOND, "1", "nowhere"), due(2 * SECOND, "1", "nowhere"), due(2 * SECOND))
    correction: Any = rating.correction
    assert (rating.billing.status, correction.amount) == ("unrated", "-0.2")


def test_a_price_that_is_found_bills_what_was_unrated() -> None:
    correction: Any = rate(due(3 * SECOND), due(2 * SECOND), due(2 * SECOND, "1", "nowhere")).correction
    assert correction.amount == "0.2"
