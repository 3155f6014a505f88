"""What a run takes and costs, from what runs took: exact where it can be, honest where it cannot."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taximeter.billing.classes import Terms
from taximeter.billing.rates import RateCard, parse_card
from taximeter.events import ServiceClass
from taximeter.hardware.tiers import Catalogue, Tier
from taximeter.ledger.distribution import Distribution, spread_of
from taximeter.ledger.runs import Call, Kind, Runs
from taximeter.ledger.store import Batch
from taximeter.observe.estimate import KINDS_LISTED, Known, Prices, estimate, prices_of
from taximeter.observe.filters import QuestionError, kind_of
from taximeter.observe.queries import Queries
from tests.core.stories import MS, SECOND, classes
from tests.ledger.samples import opened
from tests.observe.nodes import LedgerReader

Json = dict[str, Any]
TERMS: Terms = classes().terms[ServiceClass.PUBLIC]
CATALOGUE = Catalogue((Tier("cpu", "CPU", 0), Tier("h100", "H100", 1), Tier("h100-8x", "8 × H100", 8)))
ASKED = Kind("acme/sdxl", "", "")


def card(*models: Json) -> RateCard:
    said: Json = {"version": "1", "effective": "2026-01-01T00:00:00Z", "currency": "USD"}
    tiers = {"cpu": "0.0001", "h100": "0.0015", "h100-8x": "0.012"}
    return parse_card(said | {"tiers": tiers} | ({"models": list(models)} if models else {}), "test")


def spread(*numbers: int) -> Distribution:
    return spread_of(numbers)


def took(*active_ns: int, version: str = "1", tier: str = "h100", model: str = "acme/sdxl", **units: int) -> Runs:
    measures = {"active": spread(*active_ns), "share": spread(*(ns // 2 for ns in active_ns))}
    measures |= {f"units {name}": spread(*[count * 10**9] * len(active_ns)) for name, count in units.items()}
    n = len(active_ns)
    return Runs(Kind(model, version, tier), n + 1, n, SECOND, 2 * SECOND, measures if active_ns else {})


def told(*runs: Runs, by: RateCard | None = None, asked: Kind = ASKED, calls: Sequence[Call] = ()) -> Json:
    return estimate(asked, Known(runs, 0, calls, ["other/model"]), prices_of(by or card(), TERMS, CATALOGUE))


def near(text: str, number: str) -> bool:
    return abs(Decimal(text) - Decimal(number)) <= Decimal(number) * Decimal("0.021")  # 1.6 %, and three digits


# --- Time ------------------------------------------------------------------------------------------------------------


def test_times_are_told_by_version_and_tier_those_with_most_runs_first() -> None:
    kinds = told(took(SECOND, tier="cpu"), took(SECOND, SECOND, version="2"))["kinds"]
    assert [(kind["version"], kind["tier"], kind["succeeded"]) for kind in kinds] == [("2", "h100", 2), ("1", "cpu", 1)]


def test_a_hundred_runs_tell_their_spread() -> None:
    active = told(took(*(at * 10 * MS for at in range(1, 101))))["kinds"][0]["active"]
    assert active["n"] == 100
    for name, expected in (("p5_ns", 50), ("p50_ns", 500), ("p95_ns", 950)):
        assert near(str(active[name]), str(expected * MS))
    assert active["mean_ns"] == 505 * MS


def test_the_same_model_by_another_name_is_the_same_model() -> None:
    by = card({"name": "SDXL", "namespace": "acme/sdxl", "amount": "0.03", "unit": "image"})
    runs = (took(SECOND, image=1), took(3 * SECOND, model="SDXL", image=3))
    (kind,) = told(*runs, by=by)["kinds"]
    assert (kind["succeeded"], kind["active"]["mean_ns"], kind["units"]["image"]["mean"]) == (2, 2 * SECOND, "2")


@pytest.mark.parametrize(("count", "thin"), [(1, True), (19, True), (20, False)])
def test_few_runs_are_said_to_be_few(count: int, thin: bool) -> None:
    found = told(took(*[SECOND] * count))
    assert (found["thin"], found["kinds"][0]["thin"]) == (thin, thin)


def test_of_runs_that_failed_nothing_is_estimated() -> None:
    (kind,) = told(took())["kinds"]
    assert (kind["ended"], kind["succeeded"], kind["active"], kind["expected"]) == (1, 0, None, None)
    assert kind["what_if"] == kind["cost"] == []


def test_of_no_run_nothing_is_guessed_and_the_models_that_are_known_are_named() -> None:
    found = told()
    assert (found["kinds"], found["models"], found["thin"]) == ([], ["other/model"], True)


def test_a_version_narrows_it() -> None:
    runs = (took(SECOND), took(SECOND, version="2"))
    assert [kind["version"] for kind in told(*runs, asked=ASKED._replace(version="2"))["kinds"]] == ["2"]


def test_a_tier_narrows_it_and_where_nothing_ran_there_only_what_if_is_told() -> None:
    runs = (took(SECOND), took(SECOND, tier="cpu"))
    assert [kind["tier"] for kind in told(*runs, asked=ASKED._replace(tier="cpu"))["kinds"]] == ["cpu"]
    (kind,) = told(took(SECOND), asked=ASKED._replace(tier="h100-8x"))["kinds"]
    assert (kind["tier"], [other["tier"] for other in kind["what_if"]]) == ("h100", ["h100-8x"])


def test_whom_it_calls_is_told() -> None:
    calls = (Call("acme/sdxl", "b", 1, 1), Call("acme/sdxl", "a", 1, 1), Call("other", "c", 1, 1))
    assert told(took(SECOND), calls=calls)["calls"] == ["a", "b"]


# --- Money -----------------------------------------------------------------------------------------------------------


def test_what_was_billed_is_told_with_an_exact_total() -> None:
    billed = took(SECOND, SECOND)
    billed.measures["cost USD"] = spread(15 * 10**14, 25 * 10**14 + 1)  # type: ignore[index]
    (cost,) = told(billed)["kinds"][0]["cost"]
    assert (cost["currency"], cost["n"], cost["total"], cost["mean"]) == ("USD", 2, "0.004000000000000001", "0.002")
    assert near(cost["p5"], "0.0015")
    assert near(cost["p95"], "0.0025")


def test_by_the_card_a_run_costs_its_share_at_its_tiers_price() -> None:
    expected = told(took(2 * SECOND))["kinds"][0]["expected"]
    assert near(expected["p50"], "0.0015")
    assert expected["lines"][0].endswith(" s × 0.0015 USD/s × 1")


def test_on_other_tiers_it_would_cost_their_price_the_cheapest_first() -> None:
    others = told(took(2 * SECOND))["kinds"][0]["what_if"]
    assert [other["tier"] for other in others] == ["cpu", "h100-8x"]
    assert near(others[0]["p50"], "0.0001")
    assert near(others[1]["p50"], "0.012")


def test_a_model_with_its_own_price_costs_that_on_any_hardware() -> None:
    by = card({"name": "acme/sdxl", "amount": "0.03", "unit": "image"})
    found = told(took(SECOND, image=4), by=by)
    (kind,) = found["kinds"]
    assert (kind["expected"]["p5"], kind["expected"]["p95"], kind["what_if"]) == ("0.12", "0.12", [])
    assert (found["price"], kind["expected"]["lines"]) == (["0.03 USD per image"], ["4 image × 0.03 USD/image × 1"])


def test_hardware_on_top_of_units_depends_on_the_tier() -> None:
    by = card({"name": "acme/sdxl", "amount": "0.03", "unit": "image", "plus_hardware": True})
    (kind,) = told(took(2 * SECOND, image=1), by=by)["kinds"]
    assert near(kind["expected"]["p50"], "0.0315")
    assert near(kind["what_if"][1]["p50"], "0.042")


def test_a_price_by_gpu_counts_the_devices_of_the_tier() -> None:
    by = card({"name": "acme/sdxl", "amount": "0.002", "unit": "gpu"})
    (kind,) = told(took(2 * SECOND), by=by)["kinds"]
    assert near(kind["expected"]["p50"], "0.002")
    assert near(kind["what_if"][1]["p50"], "0.016")
    assert kind["what_if"][0] == {"tier": "cpu", "reason": "it ran on no device, and 'acme/sdxl' is priced by gpu"}


def test_without_the_units_that_it_is_priced_by_there_is_no_price_and_a_reason() -> None:
    by = card({"name": "acme/sdxl", "amount": "0.03", "unit": "image"})
    assert told(took(SECOND), by=by)["kinds"][0]["expected"]["reason"].startswith("nothing was counted that is 'image'")


def test_a_tier_without_a_price_has_a_reason() -> None:
    expected = told(took(SECOND, tier="odd"))["kinds"][0]["expected"]
    assert expected == {"tier": "odd", "reason": "the rate card has no tier 'odd'"}


def test_prices_that_depend_on_attributes_are_said_to() -> None:
    by = card(
        {
            "name": "acme/sdxl",
            "amount": "0.03",
            "unit": "image",
            "plus_hardware": True,
            "hardware": "h100",
            "criterias": [
                {"field": "size", "operator": "in", "value": ["xl", "xxl"], "amount": "0.05"},
                {"field": "steps", "operator": ">", "value": "50", "amount": "0.1"},
            ],
        }
    )
    found = told(took(SECOND, image=1), by=by)
    assert found["published"] == "h100"
    assert found["price"] == [
        "0.03 USD per image",
        "0.05 USD per image where size in xl, xxl",
        "0.1 USD per image where steps > 50",
        "plus hardware",
    ]


def test_prices_that_name_what_they_count_say_so() -> None:
    prices = [
        {"counts": f"token_{what}", "unit": "million_token", "amount": amount}
        for what, amount in (("input", "3"), ("output", "15"))
    ]
    found = told(
        took(SECOND, token_input=2_000_000, token_output=1_000), by=card({"name": "acme/sdxl", "prices": prices})
    )
    assert found["price"] == [
        "3 USD per million_token (token_input)",
        "15 USD per million_token (token_output)",
    ]
    assert near(found["kinds"][0]["expected"]["p50"], "6.015")


def test_without_a_card_or_terms_there_is_time_and_no_money() -> None:
    for prices in (Prices(), Prices(card()), Prices(None, TERMS)):
        found = estimate(ASKED, Known([took(SECOND)]), prices)
        assert "reason" in found["kinds"][0]["expected"]
        assert found["kinds"][0]["active"]["n"] == 1


# --- Asking ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def queries(tmp_path: Path) -> Any:
    ledger = opened(tmp_path)
    runs = (took(SECOND), took(SECOND, SECOND, model="SDXL"), took(*[SECOND] * 9, model="z"))
    ledger.commit(Batch((), (), runs=runs, calls=(Call("acme/sdxl", "b", 1, 1),)))
    ledger.close()
    with LedgerReader(tmp_path / "ledger.db") as reader:
        yield Queries(reader)


def test_a_ledger_is_asked_for_one_model_by_all_of_its_names(queries: Queries) -> None:
    by = card({"name": "SDXL", "namespace": "acme/sdxl", "amount": "0.03", "unit": "image"})
    found = queries.estimate(ASKED, prices_of(by, TERMS, None))
    assert (found["kinds"][0]["succeeded"], found["calls"], found["models"]) == (3, ["b"], [])


def test_a_ledger_names_its_models_those_with_most_runs_first(queries: Queries) -> None:
    assert queries.estimate(Kind("nope", "", ""))["models"] == ["z", "SDXL", "acme/sdxl"]


def test_more_kinds_than_a_page_takes_are_counted(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.commit(Batch((), (), runs=tuple(took(SECOND, version=f"{at:02}") for at in range(40))))
    ledger.commit(Batch((), (), runs=tuple(took(SECOND, version=f"{at:02}") for at in range(40, 60))))
    ledger.close()
    with LedgerReader(tmp_path / "ledger.db") as reader:
        found = Queries(reader).estimate(ASKED)
    assert (len(found["kinds"]), found["kinds_more"]) == (KINDS_LISTED, 60 - KINDS_LISTED)


def test_a_question_for_an_estimate_names_what_it_can_be_narrowed_to() -> None:
    assert kind_of("m", {"version": "1", "tier": "cpu"}) == Kind("m", "1", "cpu")
    with pytest.raises(QuestionError, match="expected version or tier"):
        kind_of("m", {"teir": "cpu"})
