"""What a request to reconcile may say."""

import orjson
import pytest

from taximeter.observe.reconciling import Looked, ReconcileError, Request, looked_view, read_request


def test_a_sink_is_enough() -> None:
    assert read_request(b'{"sink":"billing"}') == Request("billing")


def test_a_request_goes_on_after_a_record_and_since_an_instant() -> None:
    asked = read_request(b'{"sink":"billing","after":7,"since_utc":"2026-11-22T10:00:00Z","dry_run":true}')
    assert asked == Request("billing", 7, 1_795_341_600_000_000_000, dry_run=True)


@pytest.mark.parametrize(
    "said",
    [
        [],
        {},
        {"sink": 1},
        {"sink": "UPPER"},
        {"sink": "billing", "after": -1},
        {"sink": "billing", "after": True},
        {"sink": "billing", "after": 1 << 60},
        {"sink": "billing", "after": "1"},
        {"sink": "billing", "since_utc": "yesterday"},
        {"sink": "billing", "since_utc": 5},
        {"sink": "billing", "dry_run": "no"},
        {"sink": "billing", "fast": True},
    ],
)
def test_a_request_that_nobody_can_follow_is_refused(said: object) -> None:
    with pytest.raises(ReconcileError, match=r"^cannot .*: expected "):
        read_request(orjson.dumps(said))


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ReconcileError, match="expected JSON"):
        read_request(b"{")


def test_what_was_found_is_told_with_where_to_go_on() -> None:
    shown = {"sink": "billing", "after": 57, "looked": 50, "missing": 2, "done": False}
    assert looked_view(Looked("billing", 57, 50, 2, done=False)) == shown
