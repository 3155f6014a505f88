"""The tier that a model is published with, against the one that it ran on: said where they differ, billed as ever."""

from typing import Any

import pytest

from taximeter.billing.rates import parse_card
from taximeter.events import Options, ServiceClass
from taximeter.hardware.inventory import UNKNOWN_TIER
from taximeter.records import HardwareElsewhere, HardwareUse, RecordType, UsageRecord
from taximeter.rulebook import Rulebook
from tests.core.stories import SECOND, Told, beat, book, card, exited, ready, spawned, tell

T4 = {"name": "acme/sdxl", "amount": "0.0002", "unit": "computing_second", "hardware": "gpu-t4"}


def rules(*models: dict[str, Any]) -> Rulebook:
    content = card(**{"gpu-t4": "0.0003"}).content() | ({"models": list(models)} if models else {})
    return book(2 * SECOND, (parse_card(content, "test"),))


def ran(tier: str, *models: dict[str, Any], **told: Any) -> Told:
    options = Options(**{"prediction": "p1", "model": "acme/sdxl", **told})
    events = [spawned(0), ready(0), *[beat(at * SECOND) for at in range(1, 3)], exited(3 * SECOND)]
    return tell(options, events, rules(*models), tier)


def used(record: UsageRecord) -> HardwareUse:
    use = record.data["hardware"]
    assert isinstance(use, HardwareUse)
    return use


def test_every_record_of_a_run_on_another_tier_names_the_one_that_is_published() -> None:
    told = ran("cpu", T4)
    assert {record.type for record in told.records} == {RecordType.PREDICTION, RecordType.INSTANCE}
    for record in told.records:
        use = used(record)
        assert isinstance(use, HardwareElsewhere)
        assert (use.tier, use.published) == ("cpu", "gpu-t4")


@pytest.mark.parametrize(
    ("tier", "models", "told"),
    [
        ("gpu-t4", (T4,), {}),
        ("cpu", ({**T4, "hardware": None},), {}),
        ("cpu", (), {}),
        ("cpu", (T4,), {"model": "other"}),
        ("cpu", (T4,), {"model": None}),
        (UNKNOWN_TIER, (T4,), {}),
    ],
    ids=["as published", "not published", "no models", "another model", "no model", "unknown"],
)
def test_where_they_agree_or_nobody_can_say_nothing_is_said(
    tier: str, models: tuple[dict[str, Any], ...], told: dict[str, Any]
) -> None:
    assert not any(isinstance(used(record), HardwareElsewhere) for record in ran(tier, *models, **told).records)


@pytest.mark.parametrize("service_class", ServiceClass)
def test_no_price_changes_by_it(service_class: ServiceClass) -> None:
    silent = {**T4, "hardware": None}
    amounts = [ran("cpu", model, service_class=service_class).amount() for model in (T4, silent)]
    assert amounts[0] == amounts[1]


def test_without_a_card_nothing_is_published() -> None:
    told = tell(Options(prediction="p1", model="acme/sdxl"), [spawned(0), ready(0), exited(SECOND)], book(rates=()))
    assert not any(isinstance(used(record), HardwareElsewhere) for record in told.records)
