"""Asking for a price list, over real sockets: one good answer, and every bad one by its reason."""

import asyncio
import gzip
from pathlib import Path

import pytest

from taximeter.prices import Answer as Listed
from taximeter.prices import Refusal, fetch
from taximeter.prices.fetch import Fetcher
from tests.prices.lists import body_of, serving
from tests.shipping.receiver import Answer, Receiver, Request, garbage, hang, receiving, reset, respond, say

pytestmark = pytest.mark.anyio

BODY = body_of(("acme/image", "0.1"))


async def asked(
    url: str, key_file: Path | None = None, etag: str | None = None, timeout_s: float = 20
) -> Listed | None:
    return await Fetcher(url, key_file, timeout_s).fetch(etag)


async def test_a_list_comes_with_its_etag_and_its_date() -> None:
    async with serving(BODY, etag='"e1"', last_modified="Thu, 26 Nov 2026 07:00:00 GMT") as platform:
        answer = await asked(platform.url)
    assert answer == Listed(BODY.decode(), '"e1"', "Thu, 26 Nov 2026 07:00:00 GMT")


async def test_a_list_that_is_known_does_not_come_again() -> None:
    async with serving(BODY, etag='"e1"') as platform:
        assert await asked(platform.url, etag='"e1"') is None


async def test_the_key_goes_into_its_header_and_is_read_anew_each_time(tmp_path: Path) -> None:
    key = tmp_path / "key"
    async with serving(BODY) as platform:
        fetcher = Fetcher(platform.url, key, 1)
        for word in ("one", "two"):
            key.write_text(f"{word}\n")
            await fetcher.fetch(None)
        assert [request.headers["x-api-key"] for request in platform.asked] == ["one", "two"]


async def drip(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def bomb(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
    respond(writer, 200, "content-encoding: gzip\r\n", gzip.compress(bytes(1 << 20)))


async def without_end(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (say(401), "refused"),
        (say(404), "refused"),
        (say(429), "throttled"),
        (say(500), "server_error"),
        (say(302, "location: http://127.0.0.1:1/\r\n"), "redirect"),
        (say(200, body=b"\xff"), "bad_list"),
        (bomb, "encoded"),
        (hang, "timeout"),
        (drip, "timeout"),
        (reset, "connection"),
        (garbage, "connection"),
    ],
)
async def test_whatever_else_comes_is_refused_by_its_reason(answer: Answer, reason: str) -> None:
    async with receiving(answer) as receiver:
        with pytest.raises(Refusal, match="cannot fetch the price list of http://127") as caught:
            await asked(receiver.url, timeout_s=0.3 if reason == "timeout" else 20)
    assert caught.value.reason == reason


async def test_a_body_without_end_is_read_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "LIST_MAX_BYTES", 100_000)
    async with receiving(without_end) as receiver:
        with pytest.raises(Refusal) as caught:
            await asked(receiver.url)
    assert caught.value.reason == "too_large"


async def test_a_wish_for_patience_is_passed_on() -> None:
    async with receiving(say(503, "retry-after: 7\r\n")) as receiver:
        with pytest.raises(Refusal) as caught:
            await asked(receiver.url)
    assert caught.value.retry_after_s == 7


async def test_nobody_there_is_a_reason_too() -> None:
    with pytest.raises(Refusal) as caught:
        await asked("http://127.0.0.1:1/v1/models")
    assert caught.value.reason == "connect"


async def test_a_key_that_cannot_be_read_is_said_and_nothing_is_asked(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"se\xffcret")
    async with serving(BODY) as platform:
        with pytest.raises(Refusal, match="cannot read key_file") as caught:
            await asked(platform.url, tmp_path / "key")
        assert caught.value.reason == "key"
        assert "cret" not in str(caught.value)
        assert platform.asked == []
