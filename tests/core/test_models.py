"""Models' own prices: how they are written down, and which price holds."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.billing import exact
from taximeter.billing.models import ModelPrice, OnFailure, Price, counts_of
from taximeter.billing.models_file import Document
from taximeter.billing.money import plain
from taximeter.billing.rates import RateCard, parse_card
from taximeter.billing.units import priced
from taximeter.errors import ConfigError
from tests.core.stories import card

CARD: Mapping[str, object] = {
    "version": "v",
    "effective": "2026-01-01T00:00:00Z",
    "currency": "USD",
    "tiers": {"cpu": "0.0001"},
}


def own(**said: Any) -> dict[str, Any]:
    """A model in our own shape."""
    return {"name": "m", "amount": "0.03", "unit": "image", **said}


def theirs(**pricing: Any) -> dict[str, Any]:
    """A model in the platform's shape."""
    return {"name": "m", "pricing": {"amount": Decimal("0.03"), "currency": "USD", "unit": "image", **pricing}}


def parsed(*models: object) -> RateCard:
    """A card with these models."""
    return parse_card({**CARD, "models": list(models)}, "rates.toml")


def one(*models: object) -> ModelPrice:
    """The model of that name."""
    return parsed(*models).models["m"]


def faults(*models: object) -> tuple[str, ...]:
    """What is wrong with a card of these models."""
    with pytest.raises(ConfigError) as caught:
        parsed(*models)
    return caught.value.faults


# --- JSON without floats ---


def test_a_number_of_json_is_what_is_written() -> None:
    assert exact.loads('{"a": 0.1, "b": [3e-05, 12, -1]}', "x") == {
        "a": Decimal("0.1"),
        "b": [Decimal("0.00003"), 12, -1],
    }


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1E999999", "1e-999999", "1" * 61])
def test_what_is_no_plain_number_is_named_with_file_and_key(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        exact.loads('{"models": [{"amount": ' + text + "}]}", "models.json")
    assert caught.value.faults[0].startswith("models.json: models[0].amount = ")


def test_a_document_may_be_such_a_number_itself() -> None:
    with pytest.raises(ConfigError, match="x: \\(document\\) = NaN"):
        exact.loads("NaN", "x")


def test_a_key_said_twice_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        exact.loads('[{"pricing": {"amount": 1, "amount": 2, "unit": "image"}}]', "models.json")
    assert caught.value.faults == ("models.json: [0].pricing.amount: said more than once: expected it once",)


def test_a_key_that_is_said_more_than_once_is_found_among_very_many() -> None:
    """Each by its own search of all the others would take hours, for an answer that anybody may give."""
    text = "{" + ",".join(f'"k{number % 100_000}":1' for number in range(200_000)) + "}"
    with pytest.raises(ConfigError) as caught:
        exact.loads(text, "x")
    assert len(caught.value.faults) == 100_000


@pytest.mark.parametrize("number", ["1e-999999999999999999999", "1E+999999999999999999999", "0e99999999999999999999"])
def test_an_exponent_that_no_number_can_have_is_a_fault_of_its_key(number: str) -> None:
    with pytest.raises(ConfigError) as caught:
        exact.loads(f'{{"amount": {number}}}', "models.json")
    assert caught.value.faults == (f"models.json: amount = {number}: expected a plain number",)


@pytest.mark.parametrize("text", ['{"a": "x\\ud800"}', '{"a": ["\\udfff"]}', '{"\\ud800": 1}'])
def test_half_a_character_is_a_fault_for_nobody_could_write_it_down(text: str) -> None:
    with pytest.raises(ConfigError, match="expected whole characters"):
        exact.loads(text, "models.json")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "\x7f", "\x9b"])
def test_a_name_has_no_control_characters(name: str) -> None:
    with pytest.raises(ConfigError, match="expected a name of 1 to 256 characters, none of them a control character"):
        parsed({"name": name, "amount": "1", "unit": "image"})


@pytest.mark.parametrize(
    "text", ["", "{", "[1,]", "[" * 40 + "]" * 40, "[" * 100_000, '{"a":' * 40 + "1" + "}" * 40, "nul"]
)
def test_what_is_no_json_of_few_levels_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^x: .*expected"):
        exact.loads(text, "x")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.text(max_size=5)
    | st.integers(-(10**9), 10**9)
    | st.decimals("-1e9", "1e9", places=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def test_json_is_written_in_full_and_without_spaces() -> None:
    assert exact.dumps({"a": [Decimal("1E+2"), None, "é"], "b": {}}) == '{"a":[100,null,"\\u00e9"],"b":{}}'


@given(JSON)
def test_json_that_is_written_reads_back_the_same(value: object) -> None:
    assert exact.loads(exact.dumps(value), "x") == value


# --- the platform's shape ---


def test_the_platforms_list_is_a_second_document_of_a_card() -> None:
    listed = Document([theirs()], "models.json")
    assert parse_card(CARD, "rates.toml", listed).models["m"].amount == Decimal("0.03")


def test_a_list_may_lie_in_data() -> None:
    listed = Document({"data": [theirs()], "total": 1}, "models.json")
    assert "m" in parse_card(CARD, "rates.toml", listed).models


def test_a_model_is_known_by_its_namespace_too() -> None:
    found = parsed({**theirs(), "namespace": "truefusion"})
    assert found.model("truefusion") is found.model("m") is found.models["m"]
    assert found.model("other") is found.model(None) is None


def test_a_namespace_of_two_models_names_neither() -> None:
    found = parsed({**theirs(), "namespace": "acme"}, {**theirs(), "name": "n", "namespace": "acme"})
    assert found.model("acme") is None


def test_what_the_platform_says_beside_the_price_is_kept_and_changes_no_hash() -> None:
    found = parsed({**theirs(), "status": "operational", "vendor": {"name": "x"}})
    assert found.models["m"].raw["status"] == "operational"
    assert found.hash == parsed({**theirs(), "status": "degraded"}).hash


def test_the_tier_that_a_model_is_published_with_is_in_its_metadata() -> None:
    assert (
        one({**theirs(), "metadata": {"deployment_hardware": {"type": "", "slug": "gpu-h100"}}}).hardware == "gpu-h100"
    )
    assert one({**theirs(), "metadata": {"deployment_hardware": {"slug": ""}}}).hardware is None
    assert one({**theirs(), "hardware": "cpu", "metadata": {"deployment_hardware": {"slug": "x"}}}).hardware == "cpu"
    assert one({**theirs(), "metadata": None}).hardware is None


def test_a_criterion_of_the_platforms_has_a_price_and_a_unit() -> None:
    criteria = [{"field": "hd", "operator": "==", "value": True, "billable_price": Decimal("0.1"), "unit": ""}]
    found = one(theirs(criterias=criteria)).criterias[0]
    assert (found.amount, found.unit, found.value) == (Decimal("0.1"), "image", "true")


def test_our_own_terms_may_stand_in_the_platforms_shape() -> None:
    found = one({**theirs(), "plus_hardware": True, "prices": [{"amount": "1", "unit": "prediction"}]})
    assert (found.plus_hardware, [price.unit for price in found.prices]) == (True, ["image", "prediction"])


# --- our own shape ---


def test_a_card_without_models_has_the_hash_that_it_always_had() -> None:
    assert parse_card({**CARD, "models": []}, "x").hash == parse_card(CARD, "x").hash
    assert parse_card(CARD, "x").hash == "sha256:52c1c3ea4e2712bf24e8fe112bef75d1162422ef3a0a34f8a5f05b7f05badf7d"


def test_a_card_with_models_makes_itself_again_from_its_content() -> None:
    found = parsed(
        own(
            prices=[{"amount": "2", "unit": "million_token", "counts": "token_input", "above": "5", "up_to": "9"}],
            criterias=[
                {"field": "size", "operator": "in", "value": ["a", Decimal("1.50")], "amount": "1"},
                {"field": "steps", "operator": ">", "value": 30, "amount": "1", "unit": "computing_second"},
            ],
            plus_hardware=True,
            online_units=True,
            billable=False,
            on_failure="none",
            counted={"picture": "image"},
            versions=["a", {"id": "b", "fast_boot": True}],
            hardware="cpu",
            namespace="ns",
            type="image",
            privacy="public",
        ),
        own(name="n", currency="EUR"),
    )
    again = parse_card(found.content(), "ledger")
    assert again == found
    assert json.loads(json.dumps(found.content())) == found.content()


def test_versions_may_be_a_table() -> None:
    assert one(own(versions={"a": True, "b": False})).versions == {"a": True, "b": False}


def test_a_price_needs_no_first_one_where_there_are_several() -> None:
    several = [{"amount": "3", "unit": "million_token", "counts": name} for name in ("token_input", "token_output")]
    found = one({"name": "m", "prices": several})
    assert (found.amount, found.unit, len(found.prices)) == (Decimal(3), "million_token", 2)


def test_a_model_of_another_currency_bills_no_time_where_it_fails() -> None:
    assert one(own(currency="EUR")).on_failure is OnFailure.NONE
    assert one(own()).on_failure is OnFailure.TIME


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (1, "models[0] = 1"),
        (own(name=""), "models[0].name"),
        (own(unit="Image"), "models[0].unit = 'Image'"),
        (own(amount=None), "models[0].amount = None"),
        (own(amount=True), "models[0].amount = true"),
        (own(amount="-1"), "models[0].amount = '-1'"),
        (own(amount=-1), "models[0].amount"),
        (own(amount=0.03), "models[0].amount = 0.03"),
        (own(amount=Decimal("NaN")), "models[0].amount = NaN"),
        (own(amount=Decimal("1e999")), "models[0].amount = 1E+999"),
        (own(amount="9" * 99), "models[0].amount = '999"),
        (own(currency="usd"), "models[0].currency = 'usd'"),
        (own(currency="ZZZ"), "models[0].currency = 'ZZZ'"),
        (own(colour="red"), "models[0].colour"),
        (own(prices=1), "models[0].prices = 1"),
        (own(prices=[1]), "models[0].prices[0] = 1"),
        (own(prices=[{"amount": "1", "unit": "gpu", "x": 1}]), "models[0].prices[0].x"),
        (own(prices=[{"amount": "1", "unit": "gpu", "counts": "image"}]), "prices[0].counts = 'image'"),
        (own(prices=[{"amount": "1", "unit": "token", "counts": ""}]), "prices[0].counts = ''"),
        (own(prices=[{"amount": "1", "unit": "token", "above": "2", "up_to": "2"}]), "prices[0].up_to = '2'"),
        (own(prices=[{"amount": "1", "unit": "image"}]), "models[0].prices = 'image'"),
        (own(unit="minute", prices=[{"amount": "1", "unit": "second"}]), "models[0].prices = 'second'"),
        (own(unit="token", prices=[{"amount": "1", "unit": "token", "counts": "token_input"}]), "'token_input'"),
        (own(criterias=1), "models[0].criterias = 1"),
        (own(criterias=[1]), "models[0].criterias[0] = 1"),
        (own(criterias=[{"field": "", "operator": "==", "value": 1, "amount": "1"}]), "criterias[0].field = ''"),
        (own(criterias=[{"field": "a", "operator": "~", "value": 1, "amount": "1"}]), "criterias[0].operator = '~'"),
        (own(criterias=[{"field": "a", "operator": "<", "value": "b", "amount": "1"}]), "criterias[0].value = 'b'"),
        (own(criterias=[{"field": "a", "operator": "==", "value": [], "amount": "1"}]), "criterias[0].value = []"),
        (own(criterias=[{"field": "a", "operator": "in", "value": "b", "amount": "1"}]), "criterias[0].value = 'b'"),
        (own(criterias=[{"field": "a", "operator": "==", "value": "b"}]), "criterias[0].amount"),
        (own(criterias=[{"field": "a", "operator": "==", "value": "b", "amount": "1", "z": 1}]), "criterias[0].z"),
        (own(plus_hardware=1), "models[0].plus_hardware = 1"),
        (own(plus_hardware=True, currency="EUR"), "models[0].plus_hardware = true"),
        (own(plus_hardware=True, hardware="gpu"), "'m'.hardware = 'gpu'"),
        (own(on_failure="all"), "models[0].on_failure = 'all'"),
        (own(on_failure="time", currency="EUR"), "models[0].on_failure = 'time'"),
        (own(counted=1), "models[0].counted = 1"),
        (own(counted={"a": "gpu"}), "models[0].counted.a = 'gpu'"),
        (own(versions=1), "models[0].versions = 1"),
        (own(versions=[1]), "models[0].versions[0] = 1"),
        (own(versions=["a", "a"]), "models[0].versions[1] = 'a'"),
        (own(type="x" * 257), "models[0].type"),
        (theirs(discount="1"), "models[0].pricing.discount"),
        (theirs(formula={"a": 1}), "models[0].pricing.formula"),
        (theirs(currency="XXY"), "models[0].pricing.currency = 'XXY'"),
        (theirs(unit="hour"), "models[0].pricing.unit = 'hour'"),
        ({"name": "m", "pricing": 1}, "models[0].pricing = 1"),
        (theirs(criterias=[{"field": "a", "operator": "==", "value": 1, "price": 1}]), "criterias[0].price"),
    ],
)
def test_a_fault_of_a_model_is_named_with_file_and_key(model: object, names: str) -> None:
    found = faults(model)
    assert all(fault.startswith("rates.toml: ") for fault in found)
    assert any(names in fault for fault in found)


def test_two_prices_of_one_model_are_a_fault() -> None:
    assert faults(own(), own()) == ("rates.toml: models: 'm' has two prices: expected one",)


def test_models_that_are_no_list_are_a_fault() -> None:
    with pytest.raises(ConfigError, match=r"rates.toml: models = 1: expected a list of models"):
        parse_card({**CARD, "models": 1}, "rates.toml")


def test_models_of_a_second_file_are_named_with_that_file() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_card({**CARD, "models": [own(unit="x")]}, "rates.toml", Document({"a": 1}, "models.json"))
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["rates.toml", "models.json"]


# --- which price holds ---


@pytest.mark.parametrize(
    ("operator", "value", "said", "holds"),
    [
        ("==", "1080p", "1080p", True),
        ("==", "1080p", "720p", False),
        ("==", 5, "5.0", True),
        ("==", True, "true", True),
        ("!=", "1080p", "720p", True),
        ("!=", 5, "5.0", False),
        ("!=", 5, None, False),
        ("<", 30, "29.5", True),
        ("<=", 30, "30", True),
        (">", 30, "30", False),
        (">", 30, "1e2", True),
        (">=", 30, "many", False),
        ("in", ["a", 2], "2.0", True),
        ("in", ["a", 2], "b", False),
    ],
)
def test_a_criterion_compares_an_attribute(operator: str, value: object, said: str | None, holds: bool) -> None:
    found = one(own(criterias=[{"field": "x", "operator": operator, "value": value, "amount": "1"}]))
    attributes = {} if said is None else {"x": said}
    assert found.prices_for(attributes)[0].amount == (1 if holds else Decimal("0.03"))


def test_the_first_criterion_that_holds_wins() -> None:
    criterias = [
        {"field": "x", "operator": ">", "value": 1, "amount": "1"},
        {"field": "x", "operator": ">", "value": 2, "amount": "2", "unit": "video"},
    ]
    assert one(own(criterias=criterias)).prices_for({"x": "3"}) == (Price(Decimal(1), "image"),)


def test_a_criterion_replaces_the_price_that_counts_the_same() -> None:
    tokens = [{"amount": "3", "unit": "million_token", "counts": name} for name in ("token_input", "token_output")]
    dearer = {"field": "long", "operator": "==", "value": True, "amount": "6", "counts": "token_output"}
    found = one({"name": "m", "prices": tokens, "criterias": [dearer]})
    assert [price.amount for price in found.prices_for({"long": "true"})] == [3, 6]


def test_where_no_criterion_holds_each_price_stays_what_it_is() -> None:
    tokens = [{"amount": "3", "unit": "million_token", "counts": name} for name in ("token_input", "token_output")]
    dearer = {"field": "long", "operator": "==", "value": True, "amount": "6", "counts": "token_output"}
    found = one({"name": "m", "prices": tokens, "criterias": [dearer]})
    assert [price.amount for price in found.prices_for({"long": "false"})] == [3, 3]


def test_a_part_of_what_is_used_has_a_price_of_its_own() -> None:
    price = Price(Decimal(1), "token", None, Decimal(10), Decimal(15))
    assert [price.part_of(Decimal(quantity)) for quantity in (0, 10, 12, 15, 20)] == [0, 0, 2, 5, 5]
    assert price.meter == "token above 10 up to 15"
    assert Price(Decimal(1), "token").part_of(Decimal(7)) == 7


def test_what_is_counted_for_a_price_is_its_own_or_all_of_its_unit() -> None:
    prices = [Price(Decimal(1), "million_token", "token_input"), Price(Decimal(1), "minute"), Price(Decimal(1), "gpu")]
    assert [counts_of(price) for price in prices] == ["token_input", "second", None]


def test_minutes_are_kept_to_18_places_and_nothing_else_needs_them() -> None:
    assert [plain(priced(Decimal(7), size)) for size in (1, 5, 60, 1_000_000)] == [
        "7",
        "1.4",
        "0.116666666666666667",
        "0.000007",
    ]


def test_a_model_of_hardware_time_is_told_from_one_of_units() -> None:
    assert [one(own(unit=unit)).is_time for unit in ("gpu", "computing_second", "second")] == [True, True, False]


def test_a_card_for_tests_has_no_models() -> None:
    assert card().models == {}
