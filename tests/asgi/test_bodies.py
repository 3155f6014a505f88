"""Token counts and errors out of bodies that stream by: where they count, and that no cut changes them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.asgi.bodies import JSON_MAX_BYTES, USAGE_MAX_BYTES, Documents, Events, Reader, reader_for

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
UNITS = {"token_input": 11, "token_output": 7}


def read(reader: Reader, body: bytes, *cuts: int) -> dict[str, int]:
    """The units of a body that came in pieces, cut at these places."""
    ends = [*sorted(cut for cut in cuts if cut < len(body)), len(body)]
    for begin, end in zip([0, *ends], ends, strict=False):
        reader.feed(body[begin:end], last=end == len(body))
    return reader.said.units()


def as_json(value: Any) -> dict[str, int]:
    return read(Documents(), json.dumps(value).encode())


def events(*values: Any, end: str = "\n") -> bytes:
    data = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return "".join(f"data: {one}{end}{end}" for one in data).encode()


# Where usage counts


def test_usage_at_the_top_of_a_document_counts() -> None:
    assert as_json({"id": "c1", "choices": [{"text": "a"}], "usage": USAGE}) == UNITS


def test_the_names_of_the_responses_api_and_of_anthropic_count_as_well() -> None:
    assert as_json({"usage": {"input_tokens": 11, "output_tokens": 7}}) == UNITS


@pytest.mark.parametrize("wrapper", ["response", "message"])
def test_usage_in_the_response_or_message_of_an_event_counts(wrapper: str) -> None:
    assert read(Events(), events({"type": "x", wrapper: {"status": "completed", "usage": USAGE}})) == UNITS


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"output": {"usage": USAGE}},
        {"choices": [{"usage": USAGE}]},
        {"response": {"output": {"usage": USAGE}}},
        {"response": [{"usage": USAGE}]},
        [{"usage": USAGE}],
        {"text": json.dumps({"usage": USAGE})},
        {"text": 'x", "usage": {"prompt_tokens": 1}'},
        {"usage": None},
        {"usage": [USAGE]},
        {"usage": "prompt_tokens"},
        {"usage": {"usage": USAGE}},
        {"a": "usage", "b": USAGE},
        "usage",
    ],
)
def test_usage_elsewhere_does_not_count(elsewhere: Any) -> None:
    assert as_json(elsewhere) == {}


def test_after_something_deeper_the_top_still_counts() -> None:
    assert as_json({"message": {"usage": {"prompt_tokens": 1}}, "x": {"usage": {}}, "usage": USAGE}) == UNITS


def test_of_lines_of_json_the_last_word_holds() -> None:
    lines = "".join(json.dumps({"done": done, "usage": {**USAGE, "completion_tokens": done}}) + "\n" for done in (3, 7))
    assert read(Documents(), lines.encode()) == UNITS


# What counts as what


def test_usage_to_date_in_each_event_is_not_added_up() -> None:
    body = events(*({"choices": [], "usage": {**USAGE, "completion_tokens": count}} for count in range(8)), "[DONE]")
    assert read(Events(), body) == UNITS


def test_usage_that_is_null_in_all_but_the_last_event_counts_once() -> None:
    body = events(*[{"choices": [{"delta": {"content": "a"}}], "usage": None}] * 7, {"usage": USAGE}, "[DONE]")
    assert read(Events(), body) == UNITS


def test_anthropic_tells_input_first_and_output_to_date_last() -> None:
    body = events(
        {"type": "message_start", "message": {"usage": {"input_tokens": 11, "output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
    )
    assert read(Events(), body) == UNITS


def test_cached_tokens_are_a_part_of_what_was_read() -> None:
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 5}}
    assert as_json({"usage": usage}) == {**UNITS, "token_input_cached": 5}


def test_where_cached_tokens_are_told_apart_they_are_added() -> None:
    usage = {"input_tokens": 4, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 7}
    assert as_json({"usage": usage}) == {**UNITS, "token_input_cached": 5}


def test_reasoning_is_a_part_of_what_was_written() -> None:
    usage = {"input_tokens": 11, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 3}}
    assert as_json({"usage": usage}) == {**UNITS, "token_output_reasoning": 3}


def test_a_total_alone_was_read() -> None:
    assert as_json({"usage": {"total_tokens": 9}}) == {"token_input": 9}


def test_an_embedding_writes_nothing() -> None:
    assert as_json({"data": [{"embedding": [0.1] * 99}], "usage": {"prompt_tokens": 9, "total_tokens": 9}}) == {
        "token_input": 9
    }


@pytest.mark.parametrize("count", [0, 2**53 + 1, 2**64, 10**40 - 1])
def test_whole_numbers_are_exact_as_far_as_units_go(count: int) -> None:
    assert as_json({"usage": {"prompt_tokens": count}}) == {"token_input": count}


@pytest.mark.parametrize("count", ["-1", "1.5", "1e3", "true", "null", '"7"', "[7]", "NaN", "1" + "0" * 40, "9" * 5000])
def test_what_is_no_count_does_not_count(count: str) -> None:
    assert read(Documents(), b'{"usage":{"prompt_tokens":%s}}' % count.encode()) == {}


# Errors


@pytest.mark.parametrize("error", [{"message": "out of memory", "code": 500}, "out of memory", {}])
def test_an_error_in_an_event_is_a_failure(error: Any) -> None:
    reader = Events()
    read(reader, events({"choices": []}, {"error": error}, "[DONE]"))
    assert reader.said.failed


@pytest.mark.parametrize("body", [b"event: error\ndata: {}\n\n", b"event:error\r\ndata: x\r\n\r\n"])
def test_an_event_called_error_is_a_failure(body: bytes) -> None:
    reader = Events()
    read(reader, body)
    assert reader.said.failed


def test_a_response_that_failed_is_a_failure() -> None:
    reader = Events()
    read(reader, events({"type": "response.failed", "response": {"error": {"code": "server_error"}}}))
    assert reader.said.failed


@pytest.mark.parametrize(
    "fine",
    [
        {"error": None},
        {"error": ""},
        {"error": 0.03},
        {"error": False},
        {"error": []},
        {"response": {"error": None}},
        {"output": {"error": {"x": 1}}},
        {"text": "error: {"},
        {"x": "error", "y": {}},
    ],
)
def test_no_error_is_no_failure(fine: Any) -> None:
    reader = Events()
    read(reader, events(fine))
    assert not reader.said.failed


def test_what_was_counted_before_an_error_counts() -> None:
    reader = Events()
    assert read(reader, events({"usage": USAGE}, {"error": {"message": "x"}})) == UNITS
    assert reader.said.failed


# Server-sent events


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_an_event_may_come_in_many_lines(end: str) -> None:
    lines = json.dumps({"model": "m", "usage": USAGE}, indent=1).splitlines()
    body = "".join(f"data: {line}{end}" for line in lines) + end
    assert read(Events(), f": ping{end}{end}id: 1{end}{body}".encode()) == UNITS


def test_a_torn_event_spoils_no_other() -> None:
    assert read(Events(), b'data: {"a":"{[\n\n' + events({"usage": USAGE})) == UNITS


def test_only_data_is_read() -> None:
    assert read(Events(), b'foo: {"usage":{"prompt_tokens":1}}\n{"usage":{"prompt_tokens":1}}\n\n') == {}


# Limits


def test_a_usage_object_is_read_up_to_its_limit_and_not_beyond() -> None:
    fits = b'{"prompt_tokens":11,"completion_tokens":7,"x":"%s"}'
    fits %= b"x" * (USAGE_MAX_BYTES - len(fits) + 2)
    assert len(fits) == USAGE_MAX_BYTES
    assert read(Documents(), b'{"usage":' + fits + b"}") == UNITS
    assert read(Documents(), b'{"usage":' + fits.replace(b"x", b"xx", 1) + b"}") == {}


def test_a_document_that_is_too_long_says_that_it_was_not_read() -> None:
    body = b'{"x":"' + b"x" * JSON_MAX_BYTES + b'","usage":{"prompt_tokens":1}}'
    assert read(Documents(), body) == {"usage_unread": 1}


def test_a_long_document_is_read_to_its_end_and_not_kept() -> None:
    reader = Documents()
    for piece in (b'{"b64":"', *[b'\\\\\\"x' * 10_000] * 100, b'","a":[', *[b"0.125," * 10_000] * 10, b'0],"usage":'):
        reader.feed(piece)
        assert reader._capture is None
    assert read(reader, json.dumps(USAGE).encode() + b"}") == UNITS


# No cut changes anything; no garbage raises

NAMES = st.sampled_from(["usage", "error", "response", "message", "prompt_tokens", "output_tokens", "a", "", "us\\age"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 10**41) | st.floats(allow_nan=False) | NAMES | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
CUTS = st.lists(st.integers(0, 400), max_size=30)


def expected(document: Any, said: dict[str, int]) -> bool:
    """What a whole document says, read the plain way; returns whether it tells of an error."""
    if not isinstance(document, dict):
        return False
    failed = False
    for name, value in document.items():
        if name == "usage" and isinstance(value, dict):
            for key in ("prompt_tokens", "output_tokens"):
                if type(value.get(key)) is int and 0 <= value[key] < 10**40:
                    said[key] = value[key]
        elif name == "error":
            failed = failed or isinstance(value, dict) or (isinstance(value, str) and value != "")
        elif name in ("response", "message") and isinstance(value, dict):
            inner = {key: value[key] for key in value if key in ("usage", "error")}
            failed = expected(inner, said) or failed
    return failed


def test_a_name_that_is_there_twice_counts_twice_whether_it_comes_whole_or_in_pieces() -> None:
    body = b'{"usage":{"prompt_tokens":11},"usage":null,"usage":{"completion_tokens":7,"completion_tokens":null}}'
    assert read(Documents(), body) == read(Documents(), body, 20) == {"token_input": 11}


@given(JSON, CUTS, st.sampled_from([None, 1]), st.booleans())
def test_any_document_is_read_as_if_it_were_whole(document: Any, cuts: list[int], indent: int, ascii_: bool) -> None:
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    reader = Documents()
    read(reader, body, *cuts)
    said: dict[str, int] = {}
    assert reader.said.failed == expected(document, said)
    assert {name: reader.said.counts[name] for name in said} == said
    assert set(reader.said.counts) & {"prompt_tokens", "output_tokens"} == set(said)


@given(st.lists(JSON, max_size=4), CUTS, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from([None, 1]))
def test_any_stream_of_events_is_read_as_if_it_were_whole(
    documents: list[Any], cuts: list[int], end: str, indent: int
) -> None:
    body = b""
    said: dict[str, int] = {}
    failed = False
    for document in documents:
        lines = json.dumps(document, indent=indent).splitlines()
        body += ("".join(f"data: {line}{end}" for line in lines) + end).encode()
        failed = expected(document, said) or failed
    reader = Events()
    read(reader, body, *cuts)
    assert reader.said.failed == failed
    assert {name: reader.said.counts.get(name) for name in ("prompt_tokens", "output_tokens")} == {
        name: said.get(name) for name in ("prompt_tokens", "output_tokens")
    }


BITS = st.sampled_from(
    [
        *(b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b" ", b"\n", b"\r", b"\xff", b"\x00", b"9", b"usage"),
        *(
            b"data:",
            b"data: ",
            b"event: error",
            b'"usage":',
            b'"error":',
            b'{"prompt_tokens":1}',
            b'"message":{',
            b'"us\\u0061ge":',
        ),
    ]
)


@pytest.mark.parametrize("kind", [Documents, Events])
@given(bits=st.lists(BITS, max_size=40), cuts=CUTS)
def test_no_garbage_raises_and_no_cut_changes_what_it_says(
    kind: type[Documents] | type[Events], bits: list[bytes], cuts: list[int]
) -> None:
    body = b"".join(bits)
    whole, cut, bytewise = kind(), kind(), kind()
    assert read(whole, body) == read(cut, body, *cuts) == read(bytewise, body, *range(len(body)))
    assert whole.said.failed == cut.said.failed == bytewise.said.failed


# Which bodies are read


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        (b"application/json", Documents),
        (b"Application/JSON; charset=utf-8", Documents),
        (b"application/problem+json", Documents),
        (b"application/x-ndjson", Documents),
        (b"text/event-stream; charset=utf-8", Events),
        (b"image/png", type(None)),
        (b"text/plain", type(None)),
        (b"", type(None)),
    ],
)
def test_what_is_read_is_told_by_its_type(content_type: bytes, kind: type) -> None:
    assert type(reader_for(content_type, b"")) is kind


@pytest.mark.parametrize("content_type", [b"application/json", b"text/event-stream"])
def test_what_is_compressed_is_not_read_and_says_so(content_type: bytes) -> None:
    reader = reader_for(content_type, b"gzip")
    assert reader is not None
    assert read(reader, json.dumps({"usage": USAGE, "error": "x"}).encode()) == {"usage_unread": 1}
    assert not reader.said.failed
