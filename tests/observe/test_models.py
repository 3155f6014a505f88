"""The models of a node in the platform's shape: prices to the last digit, and what this node saw of each."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taximeter.billing import exact
from taximeter.billing.models_file import Document
from taximeter.billing.rates import RateCard, parse_card
from taximeter.ledger.runs import Call, Kind, Runs
from taximeter.ledger.store import Batch
from taximeter.observe import models
from taximeter.observe.estimate import Prices, prices_of
from taximeter.observe.queries import Queries
from tests.core.stories import SECOND
from tests.ledger.samples import opened
from tests.observe.nodes import LedgerReader
from tests.observe.test_estimate import CATALOGUE, TERMS, near, spread

Json = dict[str, Any]
SDXL = {
    "name": "SDXL",
    "namespace": "acme-sdxl",
    "type": "image",
    "privacy": "public",
    "billable": True,
    "status": "operational",
    "vendor": {"name": "Acme", "slug": "acme", "verified": True},
    "pricing": {
        "amount": Decimal("0.0300000000000000001"),
        "currency": "USD",
        "unit": "image",
        "criterias": [
            {"field": "size", "operator": "==", "value": 2, "billable_price": Decimal("0.1"), "unit": "image"}
        ],
        "formula": {},
    },
    "metadata": {"cold_boot": True, "deployment_hardware": {"type": "H100", "slug": "h100"}},
    "versions": [{"id": "v1", "fast_boot": True, "digest": "abc"}, {"id": "v2"}],
}
CHAT = {
    "name": "acme/chat",
    "privacy": "private",
    "prices": [
        {"amount": "0.01", "unit": "prediction"},
        {"amount": "0.0015", "unit": "computing_second", "above": "5"},
    ],
}


def card(*said: Json) -> RateCard:
    content = {"version": "1", "effective": "2026-01-01T00:00:00Z", "currency": "USD", "tiers": {"h100": "0.0015"}}
    return parse_card(content, "test", Document(list(said), "models.json"))


PRICES = prices_of(card(SDXL, CHAT), TERMS, CATALOGUE)


def took(model: str, count: int = 1, version: str = "v1", tier: str = "h100", images: int = 1) -> Runs:
    measures = {"active": spread(*[2 * SECOND] * count), "share": spread(*[SECOND] * count)}
    measures["units image"] = spread(*[images * 10**9] * count)
    return Runs(Kind(model, version, tier), count + 1, count, SECOND, SECOND, measures if count else {})


def listed(*runs: Runs, calls: tuple[Call, ...] = (), prices: Prices = PRICES) -> dict[str, Json]:
    return {model["name"]: model for model in models.listed(runs, calls, prices)}


# --- The platform's shape --------------------------------------------------------------------------------------------


def test_what_the_platform_says_of_a_model_is_said() -> None:
    sdxl = listed()["SDXL"]
    for key in ("name", "namespace", "type", "privacy", "billable", "status", "vendor", "pricing", "metadata"):
        assert sdxl[key] == SDXL[key]


def test_a_model_of_our_own_has_the_platforms_keys() -> None:
    chat = listed()["acme/chat"]
    assert set(SDXL) <= set(chat)
    assert (chat["namespace"], chat["privacy"], chat["pricing"]["amount"]) == ("acme/chat", "private", Decimal("0.01"))


def test_what_the_platforms_shape_does_not_hold_is_said_beside_it() -> None:
    by = card(SDXL | {"plus_hardware": True, "online_units": True, "counted": {"pic": "image"}, "on_failure": "none"})
    sdxl = listed(prices=prices_of(by, TERMS, None))["SDXL"]
    assert (sdxl["plus_hardware"], sdxl["online_units"], sdxl["counted"], sdxl["on_failure"]) == (
        True,
        True,
        {"pic": "image"},
        "none",
    )
    (second,) = listed()["acme/chat"]["prices"]
    assert second == {"amount": Decimal("0.0015"), "unit": "computing_second", "above": "5"}


def test_criteria_of_our_own_are_said_in_the_platforms_words() -> None:
    own = {"name": "m", "amount": "1", "unit": "image", "hardware": "h100"}
    own["criterias"] = [{"field": "size", "operator": "in", "value": ["l", "xl"], "amount": "2"}]  # type: ignore[assignment]
    m = listed(prices=prices_of(card(own), TERMS, None))["m"]
    (criterion,) = m["pricing"]["criterias"]
    assert criterion == {"field": "size", "operator": "in", "value": ["l", "xl"], "billable_price": 2, "unit": "image"}
    assert m["metadata"] == {"deployment_hardware": {"type": "", "slug": "h100"}}


def test_a_node_that_reads_the_list_as_its_card_has_the_same_prices() -> None:
    """Also of what it saw itself, in the very bytes that are sent."""
    body = msgspec.json.Encoder(decimal_format="number").encode(list(listed(took("SDXL")).values()))
    again = parse_card(card().content(), "test", Document(exact.loads(body.decode(), "answer"), "answer"))
    assert {name: model.content() for name, model in again.models.items()} == {
        "SDXL": PRICES.card.models["SDXL"].content(),  # type: ignore[union-attr]
        "acme/chat": PRICES.card.models["acme/chat"].content() | {"namespace": "acme/chat"},  # type: ignore[union-attr]
    }


# --- What this node saw ----------------------------------------------------------------------------------------------


def test_run_time_is_told_in_seconds_those_with_most_runs_first() -> None:
    sdxl = listed(took("SDXL", 3), took("SDXL", 40, version="v2"))["SDXL"]
    assert [(one["version"], one["tier"], one["n"], one["thin"]) for one in sdxl["run_time"]] == [
        ("v2", "h100", 40, False),
        ("v1", "h100", 3, True),
    ]
    assert sdxl["run_time"][0]["mean"] == 2
    assert near(str(sdxl["run_time"][0]["p50"]), "2")


def test_cost_is_by_the_card_in_force() -> None:
    sdxl = listed(took("SDXL", 3, images=2))["SDXL"]
    assert sdxl["cost"][0]["currency"] == "USD"
    assert near(str(sdxl["cost"][0]["p95"]), "0.06")


def test_where_nothing_says_a_price_the_cost_is_null() -> None:
    (cost,) = listed(took("other", tier="odd"))["other"]["cost"]
    assert (cost["currency"], cost["p50"]) == (None, None)


def test_of_runs_that_failed_there_is_no_time() -> None:
    sdxl = listed(took("SDXL", 0))["SDXL"]
    assert (sdxl["run_time"], sdxl["cost"], sdxl["deployment"]["found"]) == ([], [], ["h100"])


def test_versions_say_whether_they_boot_fast_and_those_that_only_ran_come_last() -> None:
    versions = listed(took("SDXL", 2), took("SDXL", 3, version="v9"), took("SDXL", 1, version=""))["SDXL"]["versions"]
    assert versions == [
        {"id": "v1", "fast_boot": True, "digest": "abc", "succeeded": 2},
        {"id": "v2", "fast_boot": False, "succeeded": 0},
        {"id": "v9", "fast_boot": False, "succeeded": 3},
    ]


@pytest.mark.parametrize(
    ("tiers", "matches"),
    [(("h100",), True), (("h100", "cpu"), False), (("cpu",), False), (("h100", "unknown"), True), (("unknown",), None)],
)
def test_published_hardware_is_held_against_what_was_found(tiers: tuple[str, ...], matches: bool | None) -> None:
    deployment = listed(*(took("SDXL", tier=tier) for tier in tiers))["SDXL"]["deployment"]
    assert (deployment["published"], set(deployment["found"]), deployment["matches"]) == ("h100", set(tiers), matches)


def test_where_nothing_is_published_nothing_is_to_be_matched() -> None:
    assert listed(took("acme/chat"))["acme/chat"]["deployment"]["matches"] is None


def test_whom_it_calls_is_told_by_the_names_of_the_card() -> None:
    calls = (Call("acme-sdxl", "acme/chat", 1, 1), Call("SDXL", "acme-sdxl", 1, 1), Call("SDXL", "x", 1, 1))
    assert listed(calls=calls)["SDXL"]["downstream"] == ["SDXL", "acme/chat", "x"]


def test_a_model_on_no_card_has_the_price_of_the_tier_that_it_mostly_runs_on() -> None:
    other = listed(took("other", 3), took("other", 2, tier="odd"))["other"]
    assert (other["pricing"]["amount"], other["pricing"]["unit"]) == (Decimal("0.0015"), "computing_second")
    assert (other["privacy"], other["namespace"]) == ("private", "other")
    assert listed(took("other", tier="odd"))["other"]["pricing"] is None


def test_without_a_card_there_are_times_and_no_prices() -> None:
    found = listed(took("SDXL"), prices=Prices())["SDXL"]
    assert (found["pricing"], found["cost"][0]["p50"], found["run_time"][0]["n"]) == (None, None, 1)


# --- Who may know ----------------------------------------------------------------------------------------------------


def test_what_anybody_may_know_is_what_the_card_makes_public() -> None:
    calls = (Call("SDXL", "acme/chat", 1, 1), Call("SDXL", "secret", 1, 1), Call("SDXL", "SDXL", 1, 1))
    told = models.public(listed(took("secret"), calls=calls).values(), PRICES)
    assert [model["name"] for model in told] == ["SDXL"]
    assert told[0]["downstream"] == ["SDXL"]


def test_without_a_card_nobody_may_know_anything() -> None:
    assert models.public(listed(took("SDXL"), prices=Prices()).values(), Prices()) == []


def test_a_model_is_found_by_its_namespace_and_by_its_name() -> None:
    some = list(listed().values())
    assert models.found_by(some, "acme-sdxl") == models.found_by(some, "SDXL") == some[0]
    assert models.found_by(some, "nope") is None


# --- Reading ---------------------------------------------------------------------------------------------------------


def test_so_many_kinds_of_a_model_are_read_as_are_listed(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.commit(Batch((), (), runs=tuple(took("SDXL", at, version=f"{at:02}") for at in range(1, 20))))
    ledger.commit(Batch((), (), runs=(took("acme-sdxl", 50, version="50"), took("other"))))
    ledger.close()
    with LedgerReader(tmp_path / "ledger.db") as reader:
        read = models.to_read(reader.kinds(), PRICES)
        assert len(read) == models.KINDS_MAX + 1
        assert Kind("acme-sdxl", "50", "h100") in read
        assert {model["name"] for model in Queries(reader).models()} == {"SDXL", "acme-sdxl", "other"}


def test_so_many_models_are_listed_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MODELS_MAX", 3)
    assert list(listed(*(took(f"m{at}") for at in range(5)))) == ["SDXL", "acme/chat", "m0"]


def test_of_all_models_those_with_most_runs_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "KINDS_READ_MAX", 2)
    read = models.to_read([took("few"), took("most", 9), took("most", 8, version="2"), took("more", 2)], PRICES)
    assert [kind.model for kind in read] == ["most", "more"]
