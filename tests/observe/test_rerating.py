"""What a request to rerate may say."""

import json

import pytest

from taximeter.observe.rerating import Asked, RerateError, read_asked


def test_nothing_asks_for_all() -> None:
    assert read_asked(b"{}") == Asked()
    assert read_asked(b'{"model":null,"units":null,"since_utc":null}') == Asked()


def test_whatever_is_said_narrows_it() -> None:
    said = {"since_utc": "2026-11-22T10:00:00Z", "model": "m", "account": "a", "prediction": "p", "dry_run": True}
    asked = read_asked(json.dumps(said | {"units": {"image": "2.5"}}).encode())
    assert asked == Asked(1_795_341_600_000_000_000, "m", "a", "p", {"image": "2.5"}, dry_run=True)
    assert read_asked(b'{"late_cards":true}') == Asked(late_cards=True)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"modell":"m"}',
        b'{"model":""}',
        b'{"model":7}',
        b'{"account":"a\\nb"}',
        b'{"prediction":"' + b"p" * 257 + b'"}',
        b'{"dry_run":"yes"}',
        b'{"late_cards":1}',
        b'{"since_utc":"tomorrow"}',
        b'{"since_utc":7}',
        b'{"units":{"image":"1"}}',
        b'{"prediction":"p","units":["image"]}',
        b'{"prediction":"p","units":{"image":2}}',
        b'{"prediction":"p","units":{"image":"-2"}}',
        b'{"prediction":"p","units":{"image":"1e3"}}',
        '{"prediction":"p","units":{"image":"٣"}}'.encode(),
        b'{"prediction":"p","units":{"":"1"}}',
        json.dumps({"prediction": "p", "units": {str(at): "1" for at in range(65)}}).encode(),
    ],
)
def test_what_nobody_can_follow_is_refused_in_words(body: bytes) -> None:
    with pytest.raises(RerateError, match=r"^cannot .*expected"):
        read_asked(body)
