"""The shipped JSON Schema: what the meter writes fits it, and nothing that is wrong does."""

import copy
import importlib.resources
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from taximeter.billing.credit import Grant
from taximeter.billing.notices import grant_record, threshold_record
from taximeter.billing.thresholds import Due, Key
from taximeter.records import PLATFORM, RecordType, UsageRecord
from tests.observe import histories


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    text = importlib.resources.files("taximeter").joinpath("schema/usage-record.v1.json").read_text("utf-8")
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    return jsonschema.Draft202012Validator(json.loads(text))


@pytest.mark.parametrize("history", histories.ALL, ids=lambda history: history.__name__)
def test_every_record_of_the_meter_fits_the_schema(
    schema: jsonschema.Draft202012Validator, history: Callable[[], list[UsageRecord]]
) -> None:
    bodies = histories.bodies(history())
    assert bodies
    assert not [error.message for body in bodies for error in schema.iter_errors(json.loads(body))]


def test_the_histories_have_every_type_of_usage_record() -> None:
    types = {record.type for history in histories.ALL for record in history()}
    own = {RecordType.FACT, RecordType.THRESHOLD, RecordType.GRANT, RecordType.CHECKPOINT}
    assert types == set(RecordType) - own


@pytest.mark.parametrize("history", histories.ALL, ids=lambda history: history.__name__)
def test_every_record_is_a_cloudevent_for_the_official_sdk(history: Callable[[], list[UsageRecord]]) -> None:
    for body in histories.bodies(history()):
        event = JSONFormat().read(CloudEvent, body)
        assert (event.get_source(), event.get_specversion()) == ("/nodes/n1", "1.0")


def changed(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(event: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            event = event[int(name)] if isinstance(event, list) else event[name]
        event[last] = value

    return change


WRONG = {
    "a float for an amount": changed("data.billing.amount", 0.1),
    "an amount with an exponent": changed("data.billing.amount", "1E-7"),
    "a float for nanoseconds": changed("data.time.active_ns", 1.5),
    "a negative time": changed("data.time.active_ns", -1),
    "a time with milliseconds": changed("time", "2026-11-22T10:00:00.000Z"),
    "an unknown type": changed("type", "taximeter.usage.guess.v1"),
    "a type of another shape": changed("type", "taximeter.usage.instance.v1"),
    "an unknown field": changed("data.surprise", 1),
    "an unknown phase": changed("data.time.boot_ns", 1),
    "an unknown status": changed("data.status", "finished"),
    "an unknown class": changed("data.class", "vip"),
    "an extension attribute": changed("traceparent", "00-x"),
    "rated without an amount": changed("data.billing.amount", None),
    "a price on what is unrated": changed("data.billing.status", "unrated"),
    "a hash of another length": changed("data.ledger.previous", "sha256:00"),
    "the number zero": changed("data.ledger.seq", 0),
    "an unknown witness": changed("data.timing.end.source", "hearsay"),
    "a line without a rate": changed("data.billing.lines.0.rate", None),
    "no subject": changed("subject", ""),
    "a source with a blank": changed("source", "/nodes/a b"),
}


def a_prediction() -> dict[str, Any]:
    body = histories.bodies(histories.one_shot())[0]
    event: dict[str, Any] = json.loads(body)
    assert event["type"] == "taximeter.usage.prediction.v1"
    return event


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_does_not_fit(schema: jsonschema.Draft202012Validator, what: str) -> None:
    event = a_prediction()
    before = copy.deepcopy(event)
    WRONG[what](event)
    assert event != before
    assert not schema.is_valid(event)


@pytest.mark.parametrize("name", sorted(a_prediction()["data"]))
def test_no_field_may_be_missing(schema: jsonschema.Draft202012Validator, name: str) -> None:
    event = a_prediction()
    del event["data"][name]
    assert not schema.is_valid(event)


def test_what_the_ledger_says_of_accounts_fits_the_schema(schema: jsonschema.Draft202012Validator) -> None:
    grant = Grant("g1", "cus_7", "USD", Decimal("5.50"), 0)
    due = Due(0, Key("cus_7", "USD", "1970-01"), Decimal(10), Decimal("10.25"))
    records = [
        threshold_record("L1-00000000", due, histories.one_shot()[0], "/nodes/n1"),
        grant_record("L1-00000001", grant),
        grant_record("L1-00000002", grant._replace(expires_utc_ns=10**18)),
    ]
    for body in histories.bodies(records):
        assert not list(schema.iter_errors(json.loads(body)))


def test_a_fact_of_the_ledger_fits_the_schema(schema: jsonschema.Draft202012Validator) -> None:
    content = {"fact": "rate_card", "hash": f"sha256:{'b' * 64}", "content": {"currency": "USD"}}
    fact = UsageRecord("L1-00000000", RecordType.FACT, PLATFORM, 0, content)
    (body,) = histories.bodies([fact])
    assert not list(schema.iter_errors(json.loads(body)))
