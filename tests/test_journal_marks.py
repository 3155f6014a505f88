"""Marks: what workers say, and every way in which it cannot be believed."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter import events
from taximeter.journal import parse_mark

AT_NS = 50_000
REASONS = {
    "too_long",
    "not_utf8",
    "not_json",
    "unknown_mark",
    "bad_shape",
    "bad_name",
    "bad_units",
    "bad_attributes",
    "bad_class",
    "bad_status",
    "bad_reason",
}


def said(**keys: Any) -> events.Mark:
    marked = parse_mark(json.dumps(keys).encode(), AT_NS)
    assert isinstance(marked, events.Marked), marked
    return marked.mark


def reason(raw: bytes) -> str:
    bad = parse_mark(raw, AT_NS)
    assert isinstance(bad, events.BadMark), bad
    assert bad.at_ns == AT_NS
    return bad.reason


def units(raw: str) -> str | None:
    """The quantity that `raw`, as it stands in the JSON, becomes; None where it is refused."""
    marked = parse_mark(f'{{"mark":"units","units":{{"image":{raw}}}}}'.encode(), AT_NS)
    if isinstance(marked, events.BadMark):
        assert marked.reason == "bad_units", marked
        return None
    assert isinstance(marked.mark, events.UnitsMark)
    return marked.mark.units["image"]


def test_a_start_says_everything_about_its_prediction() -> None:
    raw = (
        b'{"mark":"start","prediction":"p1","model":"acme/sdxl-lora","version":"3f2a","account":"cus_7",'
        b'"class":"fast_boot","pool":"sdxl","parent":null,"attributes":{"resolution":"1080p"},"pid":4711,"at":81234567890}'
    )
    assert parse_mark(raw, AT_NS) == events.Marked(
        AT_NS,
        events.StartMark(
            "p1",
            "acme/sdxl-lora",
            "3f2a",
            "cus_7",
            events.ServiceClass.FAST_BOOT,
            "sdxl",
            attributes={"resolution": "1080p"},
            pid=4711,
        ),
        said_ns=81_234_567_890,
    )


@pytest.mark.parametrize(
    ("keys", "mark"),
    [
        ({"mark": "ready"}, events.ReadyMark()),
        ({"mark": "ready", "colour": "green"}, events.ReadyMark()),
        ({"mark": "active", "prediction": "p1"}, events.ActiveMark("p1")),
        ({"mark": "units", "units": {"image": "2"}}, events.UnitsMark(None, {"image": "2"})),
        ({"mark": "units", "prediction": "p1", "units": {"a": 1}}, events.UnitsMark("p1", {"a": "1"})),
        ({"mark": "finish", "prediction": "p1", "status": "failed"}, events.FinishMark("p1", events.Status.FAILED)),
        ({"mark": "stopping"}, events.StoppingMark(events.StopReason.DRAIN)),
        ({"mark": "stopping", "reason": "aborted"}, events.StoppingMark(events.StopReason.ABORTED)),
        ({"mark": "start", "prediction": "p1", "detached": True}, events.StartMark("p1", detached=True)),
        ({"mark": "start", "prediction": "Grüße 🚕"}, events.StartMark("Grüße 🚕")),
        ({"mark": "start", "prediction": "p1", "traceparent": "nonsense"}, events.StartMark("p1")),
    ],
)
def test_a_mark_becomes_what_it_says(keys: dict[str, Any], mark: events.Mark) -> None:
    assert said(**keys) == mark


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "not_json"),
        (b'{"mark":"rea', "not_json"),
        (b'{"mark":"ready"}{"mark":"ready"}', "not_json"),
        (b'{"mark":"ready","at":NaN}', "not_json"),
        (b'{"mark":"ready"\0}', "not_json"),
        (b'{"mark":"start","prediction":"\\ud800"}', "not_json"),
        (b'{"mark":"start","prediction":"\xff"}', "not_utf8"),
        (b'{"mark":"start","prediction":"\xed\xa0\x80"}', "not_utf8"),
        (b'{"mark":"ready","x":' + b"[" * 4_000, "not_json"),
        (b'{"mark":"' + b"x" * 4_096 + b'"}', "too_long"),
        (b"[]", "bad_shape"),
        (b"{}", "bad_shape"),
        (b'{"mark":"explode"}', "unknown_mark"),
        (b'{"mark":7}', "unknown_mark"),
        (b'{"mark":"start"}', "bad_shape"),
        (b'{"mark":"start","prediction":7}', "bad_shape"),
        (b'{"mark":"finish","prediction":"p1"}', "bad_shape"),
        (b'{"mark":"ready","at":true}', "bad_shape"),
        (b'{"mark":"ready","at":1.0}', "bad_shape"),
        (b'{"mark":"ready","at":1e999}', "bad_shape"),
        (b'{"mark":"ready","at":-1}', "bad_shape"),
        (b'{"mark":"ready","at":9223372036854775808}', "bad_shape"),
        (b'{"mark":"ready","at":' + b"9" * 4_000 + b"}", "bad_shape"),
        (b'{"mark":"start","prediction":"p1","pid":0}', "bad_shape"),
        (b'{"mark":"start","prediction":"p1","detached":1}', "bad_shape"),
        (b'{"mark":"start","prediction":""}', "bad_name"),
        (b'{"mark":"start","prediction":"p\\n1"}', "bad_name"),
        (b'{"mark":"start","prediction":"\\u001b[31mred"}', "bad_name"),
        (b'{"mark":"start","prediction":"p\\u0000"}', "bad_name"),
        (b'{"mark":"start","prediction":"\\u202e1p"}', "bad_name"),
        (b'{"mark":"start","prediction":"' + b"p" * 257 + b'"}', "bad_name"),
        (b'{"mark":"start","prediction":"p1","account":"a\\tb"}', "bad_name"),
        (b'{"mark":"start","prediction":"p1","class":"private"}', "bad_class"),
        (b'{"mark":"start","prediction":"p1","class":"deployment"}', "bad_class"),
        (b'{"mark":"start","prediction":"p1","class":"royal"}', "bad_class"),
        (b'{"mark":"finish","prediction":"p1","status":"processing"}', "bad_status"),
        (b'{"mark":"finish","prediction":"p1","status":"aborted"}', "bad_status"),
        (b'{"mark":"stopping","reason":"boredom"}', "bad_reason"),
        (b'{"mark":"start","prediction":"p1","attributes":{"a":{"b":1}}}', "bad_attributes"),
        (b'{"mark":"start","prediction":"p1","attributes":{"a":[1]}}', "bad_attributes"),
        (b'{"mark":"start","prediction":"p1","attributes":{"a":null}}', "bad_attributes"),
        (b'{"mark":"start","prediction":"p1","attributes":{"a\\nb":1}}', "bad_name"),
    ],
)
def test_a_mark_that_cannot_be_read_is_a_bad_mark_that_says_why(raw: bytes, why: str) -> None:
    assert reason(raw) == why


def test_a_mark_of_4096_bytes_with_its_newline_is_the_longest() -> None:
    raw = b'{"mark":"ready"}'.ljust(4_095)
    assert isinstance(parse_mark(raw, AT_NS), events.Marked)
    assert reason(raw + b" ") == "too_long"


def test_a_name_of_256_characters_is_the_longest() -> None:
    assert said(mark="active", prediction="ß" * 256) == events.ActiveMark("ß" * 256)


@pytest.mark.parametrize(
    ("raw", "quantity"),
    [
        ("128", "128"),
        ('"128"', "128"),
        ("0", "0"),
        ('"007"', "7"),
        ("0.1", "0.1"),
        ("0.10", "0.1"),
        ('"1.000"', "1"),
        ("1e3", "1000"),
        ("1.5E-3", "0.0015"),
        ('"\\u0031"', "1"),
        ("0.1234567890123456789012345678901234567", "0.1234567890123456789012345678901234567"),
        ("9" * 40, "9" * 40),
    ],
)
def test_a_quantity_has_one_exact_form(raw: str, quantity: str) -> None:
    assert units(raw) == quantity


@pytest.mark.parametrize(
    "raw",
    [
        "true",
        "null",
        "[]",
        "{}",
        '""',
        '" 1"',
        '"+1"',
        '"-1"',
        "-1",
        "-0",
        '"NaN"',
        '"Infinity"',
        '"1_0"',
        '"١٢"',
        '"½"',
        '"0x10"',
        '"1."',
        '".5"',
        "1e999",
        '"1e40"',
        "1e-41",
        "9" * 41,
        "1" + "0" * 3_000,
        '"1e+-3"',
        '"1\\n"',
    ],
)
def test_a_quantity_that_is_not_a_plain_non_negative_number_is_refused(raw: str) -> None:
    assert units(raw) is None


def test_attributes_keep_the_digits_they_came_with() -> None:
    raw = b'{"mark":"start","prediction":"p1","attributes":{"a":1.50,"b":true,"c":"","d":1e3,"e":"x y"}}'
    marked = parse_mark(raw, AT_NS)
    assert isinstance(marked, events.Marked)
    assert isinstance(marked.mark, events.StartMark)
    assert marked.mark.attributes == {"a": "1.50", "b": "true", "c": "", "d": "1e3", "e": "x y"}


def test_more_than_64_units_or_attributes_are_refused() -> None:
    many = {str(number): 1 for number in range(65)}
    assert reason(json.dumps({"mark": "units", "units": many}).encode()) == "bad_units"
    assert reason(json.dumps({"mark": "start", "prediction": "p", "attributes": many}).encode()) == "bad_attributes"


@given(st.decimals(min_value=0, max_value=10**20, places=12))
def test_no_quantity_changes_its_value(number: Decimal) -> None:
    text = units(f"{number:f}")
    assert text is not None
    assert Decimal(text) == number
    assert units(f'"{number:f}"') == text


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reading_of_a_mark_raise(raw: bytes) -> None:
    marked = parse_mark(raw, AT_NS)
    assert isinstance(marked, events.Marked) or marked.reason in REASONS


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
_KEYS = (
    "prediction",
    "units",
    "status",
    "at",
    "pid",
    "class",
    "attributes",
    "reason",
    "detached",
    "model",
    "traceparent",
)


@given(
    st.sampled_from(["ready", "start", "active", "units", "finish", "stopping"]),
    st.dictionaries(st.sampled_from(_KEYS), _JSON),
)
def test_no_value_under_a_known_key_makes_the_reading_of_a_mark_raise(mark: str, keys: dict[str, Any]) -> None:
    marked = parse_mark(json.dumps({"mark": mark, **keys}).encode(), AT_NS)
    assert isinstance(marked, events.Marked) or marked.reason in REASONS


@given(st.dictionaries(st.text(max_size=9), _JSON, min_size=1))
def test_whatever_an_accepted_mark_names_breaks_no_line_and_no_terminal(entries: dict[str, Any]) -> None:
    marked = parse_mark(json.dumps({"mark": "start", "prediction": "p", "attributes": entries}).encode(), AT_NS)
    if isinstance(marked, events.Marked):
        assert isinstance(marked.mark, events.StartMark)
        text = "".join(f"{key}{value}" for key, value in marked.mark.attributes.items())
        assert not any(character < " " or "\x7f" <= character < "\xa0" for character in text)
