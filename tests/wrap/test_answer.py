"""An answer to a health check is read in any pieces, within bounds, and says yes only where it should."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.wrap.answer import Answer
from taximeter.wrap.health import NOT_READY

OK = b"HTTP/1.1 200 OK\r\n"


def verdict(*pieces: bytes, ended: bool = True) -> bool | None:
    """What is made of an answer that came in these pieces."""
    answer = Answer()
    for piece in pieces:
        answer.feed(piece)
        if answer.verdict is not None:
            return answer.verdict
    return answer.end() if ended else None


def chunked(body: bytes, size: int = 7) -> bytes:
    """The body in chunks, as HTTP has it."""
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%X;x=y\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def whole(body: bytes) -> list[bytes]:
    """An answer with this body, framed in every way there is."""
    return [
        OK + b"\r\n" + body,
        OK + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        OK + b"transfer-encoding: chunked\r\n\r\n" + chunked(body),
        b"HTTP/1.0 200 fine\nX: y\n\n" + body,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"\r\n" + body,
    ]


@pytest.mark.parametrize("word", NOT_READY)
def test_a_cog_that_is_not_ready_yet_says_so_with_200(word: bytes) -> None:
    for answer in whole(b'{"status":"%b","setup":{"logs":"READY"}}' % word):
        assert verdict(answer) is False


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok",
        b" \n",
        b"<html>",
        b"[1]",
        b"{}",
        b"{",
        b"{{{{",
        b"\x00\xff",
        b'"STARTING"',
        b"STARTING",
        b'{"status":"READY","setup":{"status":"STARTING"}}',
        b'{"status":"BUSY"}',
        b'{"status":"ok"}',
        b'{"status":"starting"}',
        b'{"status":null}',
        b'{"status":{"status":"STARTING"}}',
        b'{"status":["STARTING"]}',
        b'{"x":{"status":"STARTING"}}',
        b'{"x":["status","STARTING"],"y":"\\"status\\":\\"STARTING\\""}',
        b'{"state":"STARTING"}',
    ],
)
def test_any_other_200_counts(body: bytes) -> None:
    for answer in whole(body):
        assert verdict(answer) is True


def test_the_status_of_a_cog_may_come_last_and_behind_blanks() -> None:
    body = b' {\n "version" : {"cog":"1"}, "x":[{},"]}"], "status" :\t"STARTING" }'
    for answer in whole(body):
        assert verdict(answer) is False


_TEXT = st.text(max_size=12)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT | st.sampled_from(["READY", "STARTING", "status"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT | st.just("status"), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(_TEXT | st.just("status"), _VALUES, max_size=5), st.booleans(), st.integers(1, 9))
def test_the_reader_agrees_with_a_json_parser_however_it_comes(said: dict[str, object], ascii: bool, size: int) -> None:  # noqa: A002
    status = said.get("status")
    expected = not (isinstance(status, str) and status.encode("utf-8", "replace") in NOT_READY)
    for answer in whole(json.dumps(said, ensure_ascii=ascii).encode("utf-8", "replace")):
        assert verdict(*[answer[at : at + size] for at in range(0, len(answer), size)]) is expected


@pytest.mark.parametrize("code", [b"100", b"201", b"204", b"301", b"302", b"404", b"500", b"503", b"2000", b"20", b""])
def test_no_other_status_is_ready(code: bytes) -> None:
    assert verdict(b"HTTP/1.1 " + code + b' x\r\nLocation: /\r\nContent-Length: 0\r\n\r\n{"status":"READY"}') is False


@pytest.mark.parametrize(
    "garbage", [b"SSH-2.0-OpenSSH_9\r\n", b"\x15\x03\x01\x00\x02\x02\x16", b"HTTP/2 200\r\n\r\n", b"\r\n\r\n", b"HT"]
)
def test_garbage_is_not_ready(garbage: bytes) -> None:
    assert verdict(garbage) is False


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Le",
        OK + b"Content-Length: 20\r\n\r\n",
        OK + b'Content-Length: 20\r\n\r\n{"status":"RE',
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        OK + b'Transfer-Encoding: chunked\r\n\r\n9\r\n{"status"',
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{",
        OK + b"Content-Length: -5\r\n\r\n{",
        OK + b"Content-Length: 1e3\r\n\r\n{",
        b"",
    ],
)
def test_an_answer_that_is_cut_off_or_nonsense_is_not_ready(cut: bytes) -> None:
    assert verdict(cut) is False


def test_a_body_that_does_not_object_is_not_waited_for() -> None:
    assert verdict(OK + b"Content-Length: 9999999999\r\n\r\nready", ended=False) is True
    assert verdict(OK + b'Content-Length: 9999\r\n\r\n{"status":"READY"', ended=False) is True


@given(st.binary(min_size=1, max_size=200), st.sampled_from([b"", OK, OK + b"\r\n", OK + b"\r\n{", OK + b"A: "]))
def test_whatever_never_ends_gets_a_verdict_all_the_same(noise: bytes, begin: bytes) -> None:
    data = begin + noise * (70_000 // len(noise))
    assert verdict(*[data[at : at + 4096] for at in range(0, len(data), 4096)], ended=False) is not None


@given(st.binary(max_size=300), st.integers(1, 20))
def test_whatever_comes_the_pieces_it_comes_in_do_not_matter(noise: bytes, size: int) -> None:
    for data in (noise, OK + noise, OK + b"Transfer-Encoding: chunked\r\n\r\n" + noise, OK + b"\r\n{" + noise):
        assert verdict(*[data[at : at + size] for at in range(0, len(data), size)]) is verdict(data)
