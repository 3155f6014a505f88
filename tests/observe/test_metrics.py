"""Metrics: the golden scrape, both formats, bounded labels, and promtool's opinion."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from taximeter.observe.metrics import OPENMETRICS, PLAIN, render, wants_openmetrics
from taximeter.observe.snapshot import PriceListView, SinkView
from tests.observe.nodes import BUSY, IDLE
from tests.require import require_program

GOLDEN = Path(__file__).parent / "golden_scrape.txt"


def value(text: bytes, name: str, /, **labels: str) -> float:
    samples = (sample for family in parse_plain(text.decode()) for sample in family.samples)
    (found,) = (sample.value for sample in samples if sample.name == name and sample.labels == labels)
    return float(found)


def test_a_price_list_tells_how_old_it_is_and_why_there_is_no_newer_one() -> None:
    listed = PriceListView("http://platform.example/v1/models", "ab12", 1_790_000_000.0, {"bad_list": 2})
    body, _ = render(replace(IDLE, price_list=listed))
    assert b"\ntaximeter_price_list_checked_seconds 1.79e+09\n" in body
    assert b'\ntaximeter_price_list_failures_total{reason="bad_list"} 2.0\n' in body
    assert b"price_list" not in render(IDLE)[0]


def test_a_busy_node_scrapes_as_it_always_did() -> None:
    body, _ = render(BUSY)
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN.write_bytes(body)
    assert body.decode() == GOLDEN.read_text()


def test_plain_text_is_the_default() -> None:
    assert render(IDLE)[1] == PLAIN


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    body, kind = render(BUSY, accept)
    assert kind == OPENMETRICS
    assert body.endswith(b"# EOF\n")


def test_openmetrics_is_valid_and_says_the_same() -> None:
    body, _ = render(BUSY, "application/openmetrics-text")
    strict = {s.name: s.value for family in parse_openmetrics(body.decode()) for s in family.samples if not s.labels}
    plain = {
        s.name: s.value for family in parse_plain(render(BUSY)[0].decode()) for s in family.samples if not s.labels
    }
    assert strict == plain


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain", "text/plain, application/openmetrics-text", "application/json"]
)
def test_openmetrics_is_not_pressed_on_anybody(accept: str) -> None:
    assert not wants_openmetrics(accept)


@pytest.mark.parametrize("snapshot", [IDLE, BUSY], ids=["idle", "busy"])
def test_promtool_has_nothing_to_say(snapshot: object) -> None:
    promtool = require_program("promtool", "prometheus")
    body, _ = render(snapshot, process=True)
    ran = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, b"")


def test_nothing_tells_when_a_series_was_created() -> None:
    assert b"_created" not in render(BUSY)[0] + render(BUSY, "application/openmetrics-text")[0]


def test_phases_that_nobody_is_in_are_shown_as_zero() -> None:
    assert value(render(IDLE)[0], "taximeter_instances", phase="teardown") == 0


def test_open_predictions_are_counted() -> None:
    assert value(render(BUSY)[0], "taximeter_predictions_open") == 1


def test_what_took_longer_than_every_bucket_is_in_the_last() -> None:
    body = render(BUSY)[0]
    assert value(body, "taximeter_ledger_commit_seconds_bucket", le="5.0") == 6
    assert value(body, "taximeter_ledger_commit_seconds_bucket", le="+Inf") == 7


def test_a_sink_that_fails_is_seen_failing() -> None:
    assert value(render(BUSY)[0], "taximeter_sink_failing", sink="billing") == 1


def test_devices_are_counted_by_name() -> None:
    assert value(render(BUSY)[0], "taximeter_devices", name="NVIDIA H100 80GB HBM3") == 2


def test_no_account_model_or_prediction_is_a_label() -> None:
    body = render(BUSY)[0]
    assert not [word for word in (b"cus_7", b"acme", b"p-open") if word in body]


def test_the_process_itself_is_measured_on_request() -> None:
    body, _ = render(IDLE, process=True)
    assert value(body, "process_resident_memory_bytes") > 0


def test_a_label_with_a_quote_is_escaped() -> None:
    body, _ = render(replace(IDLE, sinks=(SinkView('a"b\\c\n', "file", 1),)))
    assert value(body, "taximeter_outbox_pending", sink='a"b\\c\n') == 1
