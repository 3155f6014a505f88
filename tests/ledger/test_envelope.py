"""A stored record is a CloudEvent, by the letter of the contract and by the official SDK."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat

from taximeter.ledger.reader import LedgerReader
from tests.ledger.samples import instance_id, opened, run_batch

pytestmark = pytest.mark.forged


@pytest.fixture
def body(tmp_path: Path) -> bytes:
    ledger = opened(tmp_path)
    ledger.commit(run_batch(1))
    ledger.close()
    with LedgerReader(tmp_path / "ledger.db") as reader:
        return next(reader.records())


def test_the_official_sdk_reads_a_stored_record(body: bytes) -> None:
    event = JSONFormat().read(None, body)
    assert event.get_specversion() == "1.0"
    assert event.get_id() == f"{instance_id(1)}-00000000"
    assert event.get_source() == "/nodes/gpu-node-7"
    assert event.get_type() == "taximeter.usage.prediction.v1"
    assert event.get_subject() == "cus_7"
    assert event.get_datacontenttype() == "application/json"
    assert event.get_time() == datetime(2026, 11, 22, 10, 0, 3, 123_456, tzinfo=UTC)
    assert event.get_data() == json.loads(body)["data"]


def test_the_sdk_writes_a_record_back_as_the_same_event(body: bytes) -> None:
    again: dict[str, Any] = json.loads(JSONFormat().write(JSONFormat().read(None, body)))
    told = json.loads(body)
    assert {**again, "time": told["time"]} == told  # the SDK cuts nanoseconds to microseconds


def test_the_keys_stand_in_the_order_of_the_contract(body: bytes) -> None:
    event = json.loads(body)
    assert list(event) == ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"]
    assert list(event["data"])[-2:] == ["node", "ledger"]
    assert list(event["data"]["node"]) == ["id", "region", "software", "config"]
    assert list(event["data"]["ledger"]) == ["id", "seq", "previous"]


def test_the_time_keeps_its_nanoseconds(body: bytes) -> None:
    assert json.loads(body)["time"] == "2026-11-22T10:00:03.123456789Z"


def test_a_record_is_one_line(body: bytes) -> None:
    assert b"\n" not in body
