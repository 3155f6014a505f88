"""The tier that a model is published with, against the one that it ran on: said where they differ, billed as ever."""

from typing import Any

import pytest

from taximeter.billing.rates import parse_card
from taximeter.events import ActiveMark, Marked, Options, ServiceClass
from taximeter.hardware.inventory import UNKNOWN_TIER
from taximeter.records import HardwareElsewhere, HardwareUse, RecordType, UsageRecord
from taximeter.rulebook import Rulebook
from tests.core.stories import SECOND, Told, beat, book, card, exited, finish, ready, spawned, start, tell

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


FAST = {"name": "acme/lora", "amount": "0.0002", "unit": "computing_second", "versions": {"3f2a": True, "old": False}}


def served(card_has: dict[str, Any] = FAST, fixed: ServiceClass | None = None, **said: Any) -> UsageRecord:
    """The record of a prediction on a pool's worker, which says `active` a second after its start."""
    mark = {"model": "acme/lora", "version": "3f2a", "pool": "sdxl", **said}
    events = [
        spawned(0),
        ready(0),
        start(SECOND, "p1", **mark),
        Marked(2 * SECOND, ActiveMark("p1")),
        finish(3 * SECOND, "p1"),
        exited(4 * SECOND),
    ]
    told = tell(Options(worker=True, service_class=fixed), events, rules(card_has))
    return told.of(RecordType.PREDICTION, "p1")[-1]


def test_a_version_that_boots_fast_is_of_that_class_on_a_pool_where_nobody_says_one() -> None:
    data = served().data
    assert data["class"] == ServiceClass.FAST_BOOT
    assert (data["to_date"]["load_ns"], data["to_date"]["active_ns"]) == (SECOND, SECOND)
    assert "published_class" not in data


@pytest.mark.parametrize(
    ("card_has", "said"),
    [
        (FAST, {"version": "old"}),
        (FAST, {"version": None}),
        (FAST, {"version": "unheard-of"}),
        (FAST, {"pool": None}),
        (FAST, {"model": "other"}),
        ({**FAST, "versions": {}}, {}),
    ],
    ids=["a slow one", "no version", "another version", "no pool", "another model", "no versions"],
)
def test_any_other_is_public_where_nobody_says_a_class(card_has: dict[str, Any], said: dict[str, Any]) -> None:
    data = served(card_has, **said).data
    assert data["class"] == ServiceClass.PUBLIC
    assert "published_class" not in data


@pytest.mark.parametrize("fixed", [True, False])
def test_who_says_another_class_is_billed_as_that_and_flagged(fixed: bool) -> None:
    record = served(fixed=ServiceClass.TRAINING) if fixed else served(service_class=ServiceClass.TRAINING)
    assert record.data["class"] == ServiceClass.TRAINING
    assert record.data["published_class"] == ServiceClass.FAST_BOOT
    assert record.data["to_date"]["active_ns"] == 2 * SECOND


def test_who_says_the_class_that_is_published_is_not_flagged() -> None:
    assert "published_class" not in served(service_class=ServiceClass.FAST_BOOT).data
