"""A node's own card, and a list of models that somebody else may change: one card, from when the list was seen."""

from decimal import Decimal

import pytest

from taximeter.billing import exact
from taximeter.billing.models_file import Document
from taximeter.billing.price_list import card_with, is_older
from taximeter.billing.rates import RateCard, parse_card
from taximeter.errors import ConfigError

SECOND = 1_000_000_000
BEGUN_NS = 1_767_225_600 * SECOND  # 2026-01-01
OWN = {"version": "7", "effective": "2026-01-01T00:00:00Z", "currency": "USD", "tiers": {"cpu": "0.0001"}}
LIST = '{"data":[{"name":"acme/image","pricing":{"amount":0.1,"currency":"USD","unit":"image"}}]}'


def own(**more: object) -> RateCard:
    return parse_card(OWN | more, "rates.toml")


def listed(text: str = LIST) -> Document:
    return Document(exact.loads(text, "https://platform.example"), "https://platform.example")


def test_it_has_the_tiers_of_the_one_and_the_models_of_the_other() -> None:
    card = card_with(own(), listed(), "ab12", BEGUN_NS)
    assert card.tiers == {"cpu": Decimal("0.0001")}
    assert [price.amount for price in card.models["acme/image"].prices] == [Decimal("0.1")]
    assert card.version == "7+ab12"


def test_its_own_models_stay() -> None:
    mine = own(models=[{"name": "acme/mine", "amount": "3", "unit": "image"}])
    assert sorted(card_with(mine, listed(), "ab12", BEGUN_NS).models) == ["acme/image", "acme/mine"]


@pytest.mark.parametrize(
    ("seen_ns", "effective_ns"),
    [
        (BEGUN_NS - SECOND, BEGUN_NS),  # never before the own card
        (BEGUN_NS + 5 * SECOND, BEGUN_NS + 5 * SECOND),
        (BEGUN_NS + 5 * SECOND + 1, BEGUN_NS + 6 * SECOND),  # never before it was seen
    ],
)
def test_it_takes_effect_when_the_list_was_seen(seen_ns: int, effective_ns: int) -> None:
    assert card_with(own(), listed(), "ab12", seen_ns).effective_utc_ns == effective_ns


def test_a_ledger_gives_the_same_card_back() -> None:
    card = card_with(own(), listed(), "ab12", BEGUN_NS)
    assert parse_card(card.content(), "ledger").hash == card.hash


def test_what_is_wrong_with_a_list_is_named_with_its_source() -> None:
    with pytest.raises(ConfigError, match=r"https://platform\.example: data\[0\]\.pricing\.unit = 'parsec': expected"):
        card_with(own(), listed(LIST.replace('"image"', '"parsec"')), "ab12", BEGUN_NS)


def test_a_model_that_both_price_is_a_fault() -> None:
    mine = own(models=[{"name": "acme/image", "amount": "3", "unit": "image"}])
    with pytest.raises(ConfigError, match="two prices"):
        card_with(mine, listed(), "ab12", BEGUN_NS)


def test_prices_are_not_taken_back() -> None:
    older, newer = own(), own(version="8", effective="2026-02-01T00:00:00Z")
    assert is_older(older, newer)
    assert not is_older(newer, older)
    assert not is_older(older, older)
    assert not is_older(older, None)
