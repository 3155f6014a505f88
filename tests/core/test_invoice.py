"""How sums are rounded for an invoice, by hand-worked cases."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.billing.invoice import MODES, Rounding, invoiced, parse_invoice
from taximeter.errors import ConfigError


@pytest.mark.parametrize(
    ("mode", "amount", "shown"),
    [
        ("half_even", "0.025", "0.02"),
        ("half_even", "0.035", "0.04"),
        ("half_up", "0.025", "0.03"),
        ("up", "0.0201", "0.03"),
        ("down", "0.0299", "0.02"),
        ("half_even", "-0.025", "-0.02"),
    ],
)
def test_a_sum_is_rounded_once_as_its_currency_says(mode: str, amount: str, shown: str) -> None:
    assert invoiced(Decimal(amount), "USD", {"USD": Rounding(2, mode)}) == Decimal(shown)


def test_a_currency_that_nothing_is_said_of_is_not_rounded() -> None:
    assert invoiced(Decimal("0.025"), "EUR", {"USD": Rounding(2, "up")}) is None


@given(st.decimals("-1e12", "1e12", places=18), st.sampled_from(sorted(MODES)), st.integers(0, 18))
def test_rounding_moves_a_sum_by_less_than_one_of_the_last_place(amount: Decimal, mode: str, places: int) -> None:
    assert abs(Rounding(places, mode).applied(amount) - amount) < Decimal(1).scaleb(-places)


def test_rules_are_read_by_currency() -> None:
    said = {"USD": {"places": 2, "mode": "up"}, "JPY": {"places": 0}}
    assert parse_invoice(said, "invoice") == {"USD": Rounding(2, "up"), "JPY": Rounding(0, "half_even")}


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"usd": {"places": 2}}, "invoice.usd: expected an ISO 4217 code"),
        ({"USD": 2}, "invoice.USD = 2"),
        ({"USD": {"places": 2, "round": "up"}}, "invoice.USD.round"),
        ({"USD": {"places": True}}, "invoice.USD.places = True"),
        ({"USD": {"places": 19}}, "invoice.USD.places = 19"),
        ({"USD": {"places": 2, "mode": "bank"}}, "invoice.USD.mode = 'bank'"),
    ],
)
def test_a_fault_of_the_rules_is_named(said: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_invoice(said, "invoice")
    assert names in caught.value.faults[0]
