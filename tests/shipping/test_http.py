"""The http sink over real sockets: whatever the receiver does, what it holds becomes what was sent."""

import gzip
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from taximeter.errors import ConfigError, SinkError
from taximeter.shipping.shipper import Bell, ShipState, ship
from taximeter.shipping.sinks import open_sink
from taximeter.shipping.sinks.http import HttpSink, reason_of, retry_after_s
from tests.require import require_program
from tests.shipping.outbox import Outbox, until
from tests.shipping.receiver import (
    Answer,
    Receiver,
    accept_then_hang,
    accept_then_reset,
    accept_with_endless_body,
    events,
    garbage,
    hang,
    holds_exactly,
    receiving,
    reset,
    say,
    too_large_beyond,
)

pytestmark = pytest.mark.anyio


async def sent(receiver: Receiver, bodies: Sequence[bytes] = (), **options: object) -> None:
    sink = HttpSink("billing", receiver.url, **options)
    try:
        await sink.send(bodies or events(2))
    finally:
        await sink.close()


async def refused(answer: Answer, **options: object) -> SinkError:
    async with receiving(answer) as receiver:
        with pytest.raises(SinkError) as caught:
            await sent(receiver, **options)
    return caught.value


async def drained(receiver: Receiver, count: int, timeout_s: float = 0.2) -> ShipState:
    """Ship `count` records to `receiver` without pauses, until the outbox is empty."""
    outbox, state = Outbox(events(count)), ShipState()
    sink = HttpSink("billing", receiver.url, timeout_s=timeout_s)

    async def at_once(pause: float) -> None:
        await anyio.lowlevel.checkpoint()

    async def work() -> None:
        await ship(sink, outbox, wake=Bell(), state=state, jitter=lambda: 0.5, sleep=at_once)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await until(lambda: outbox.empty)
        tasks.cancel_scope.cancel()
    return state


async def test_a_batch_arrives_as_one_json_array() -> None:
    async with receiving() as receiver:
        await sent(receiver, events(3))
        assert receiver.requests[0].body == b"[" + b",".join(events(3)) + b"]"


async def test_the_content_type_is_bare() -> None:
    async with receiving() as receiver:
        await sent(receiver)
        assert receiver.requests[0].headers["content-type"] == "application/cloudevents-batch+json"


async def test_the_connection_is_kept_for_the_next_batch() -> None:
    async with receiving() as receiver:
        sink = HttpSink("billing", receiver.url)
        await sink.send(events(1))
        await sink.send(events(2))
        await sink.close()
        assert receiver.connections == 1


async def test_a_gzipped_batch_unpacks_to_the_same_bytes() -> None:
    async with receiving(say(204)) as receiver:
        await sent(receiver, events(3), gzip=True)
        request = receiver.requests[0]
        assert request.headers["content-encoding"] == "gzip"
        assert gzip.decompress(request.body) == b"[" + b",".join(events(3)) + b"]"


async def test_the_token_is_sent_as_bearer(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    async with receiving() as receiver:
        await sent(receiver, token_file=tmp_path / "token")
        assert receiver.requests[0].headers["authorization"] == "Bearer s3cret"


async def test_a_token_that_was_changed_is_used_at_once(tmp_path: Path) -> None:
    token = tmp_path / "token"
    async with receiving() as receiver:
        sink = HttpSink("billing", receiver.url, token)
        for text in ("old", "new"):
            token.write_text(text)
            await sink.send(events(1))
        await sink.close()
        assert [request.headers["authorization"] for request in receiver.requests] == ["Bearer old", "Bearer new"]


async def test_without_a_token_file_there_is_no_authorization() -> None:
    async with receiving() as receiver:
        await sent(receiver)
        assert "authorization" not in receiver.requests[0].headers


@pytest.mark.parametrize(
    "content", [b"", b"two\nlines", b"caf\xc3\xa9", b"x" * 9000], ids=["empty", "two", "utf8", "long"]
)
async def test_a_token_that_cannot_be_one_is_an_error_without_the_token(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    async with receiving() as receiver:
        with pytest.raises(SinkError, match="token_file") as caught:
            await sent(receiver, token_file=tmp_path / "token")
    assert caught.value.reason == "token"
    assert not content or content.decode("latin-1")[:5] not in str(caught.value)


async def test_a_missing_token_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    async with receiving() as receiver:
        with pytest.raises(SinkError, match="no-token"):
            await sent(receiver, token_file=tmp_path / "no-token")


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with receiving() as receiver:
        await sent(receiver)
        assert len(receiver.held) == 2


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_a_2xx_is_a_yes(status: int) -> None:
    async with receiving(say(status)) as receiver:
        await sent(receiver)
    assert len(receiver.requests) == 1


async def test_a_2xx_with_an_error_in_its_body_is_a_yes() -> None:
    async with receiving(say(200, body=b'{"error":"no"}')) as receiver:
        await sent(receiver)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "rejected"),
        (409, "duplicate"),
        (422, "rejected"),
        (401, "refused"),
        (404, "refused"),
        (408, "timeout"),
        (413, "too_large"),
        (429, "throttled"),
    ],
)
async def test_a_4xx_has_its_word(status: int, reason: str) -> None:
    assert (await refused(say(status))).reason == reason


async def test_a_5xx_is_the_servers_error() -> None:
    assert (await refused(say(503))).reason == "server_error"


async def test_what_the_receiver_said_is_told_in_one_printable_line() -> None:
    told = str(await refused(say(400, body=b"bad\nthing\x1b[31m" + b"y" * 9999)))
    assert "bad?thing?[31m" in told
    assert len(told) < 400


async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as elsewhere:
        error = await refused(say(307, f"location: {elsewhere.url}\r\n"))
        assert not elsewhere.requests
    assert error.reason == "redirect"
    assert "not followed" in str(error)


async def test_retry_after_in_seconds_is_passed_on() -> None:
    assert (await refused(say(429, "retry-after: 7\r\n"))).retry_after_s == 7.0


async def test_a_receiver_that_hangs_is_a_timeout() -> None:
    assert (await refused(hang, timeout_s=0.2)).reason == "timeout"


async def test_a_reset_is_a_connection_error() -> None:
    assert (await refused(reset)).reason == "connection"


async def test_what_is_not_http_is_a_connection_error() -> None:
    assert (await refused(garbage)).reason == "connection"


async def test_nobody_there_is_a_connect_error(unused_port: int) -> None:
    sink = HttpSink("billing", f"http://127.0.0.1:{unused_port}/")
    with pytest.raises(SinkError) as caught:
        await sink.send(events(1))
    await sink.close()
    assert caught.value.reason == "connect"


@pytest.fixture
async def unused_port() -> int:
    async with receiving() as receiver:
        return int(receiver.url.split(":")[2].split("/")[0])


async def test_an_endless_answer_after_a_yes_is_a_yes() -> None:
    async with receiving(accept_with_endless_body) as receiver:
        await sent(receiver)
        assert len(receiver.held) == 2


async def test_an_answer_of_a_hundred_megabytes_is_not_read_to_its_end() -> None:
    async with receiving(say(400, body=b"z" * 100_000_000)) as receiver:
        with pytest.raises(SinkError) as caught:
            await sent(receiver)
    assert caught.value.reason == "rejected"


async def test_a_gzip_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    error = await refused(say(400, "content-encoding: gzip\r\n", bomb))
    assert "000000" not in str(error)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    openssl, both = require_program("openssl"), tmp_path_factory.mktemp("tls") / "both.pem"
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", both.with_suffix(".key")]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    subprocess.run([openssl, "req", "-x509", *key, *name, "-out", both], check=True, capture_output=True)
    return both


def serving(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context


async def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path) -> None:
    async with receiving(tls=serving(certificate)) as receiver:
        with pytest.raises(SinkError) as caught:
            await sent(receiver)
        assert not receiver.requests
    assert caught.value.reason == "tls"


async def test_a_certificate_of_another_name_is_refused(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with receiving(tls=serving(certificate)) as receiver:
        receiver.url = receiver.url.replace("127.0.0.1", "localhost")
        with pytest.raises(SinkError) as caught:
            await sent(receiver)
        assert not receiver.requests
    assert caught.value.reason == "tls"


@pytest.mark.parametrize("body", [b'{"error": ', b"\xff\xfe", b"<html>", b"[" * 100_000, b"\x1b[2J\n" * 100])
@pytest.mark.parametrize("status", [200, 400])
async def test_a_body_that_is_no_json_changes_no_answer(status: int, body: bytes) -> None:
    async with receiving(say(status, body=body)) as receiver:
        if status == 200:
            await sent(receiver)
            return
        with pytest.raises(SinkError) as caught:
            await sent(receiver)
    assert caught.value.reason == "rejected"
    assert str(caught.value).isprintable()


async def test_a_certificate_of_the_systems_authorities_is_taken(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with receiving(tls=serving(certificate)) as receiver:
        await sent(receiver)
        assert len(receiver.held) == 2


@pytest.mark.parametrize("url", ["ftp://x/", "file:///etc/passwd", "/only/a/path", "http:///nohost"])
def test_a_url_that_is_not_http_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="expected http"):
        HttpSink("billing", url)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        HttpSink("billing", "https://user:hunter2@example.org/")
    assert "hunter2" not in str(caught.value)


def test_retry_after_may_be_a_date() -> None:
    assert retry_after_s("Sun, 22 Nov 2026 10:00:30 GMT", now_s=1795341600.0) == 30.0


@pytest.mark.parametrize("value", ["soon", "", "-1", "1e12", "٣", "Sun, 99 Nov 2026 10:00:30 GMT", "9" * 5000])
def test_a_retry_after_that_cannot_be_read_asks_for_nothing(value: str) -> None:
    assert retry_after_s(value, now_s=0.0) is None


def test_every_status_has_one_of_six_words() -> None:
    words = {reason_of(status) for status in range(300, 600)}
    assert words == {
        "redirect",
        "refused",
        "rejected",
        "duplicate",
        "timeout",
        "too_large",
        "throttled",
        "server_error",
    }


def test_a_kind_of_sink_that_does_not_exist_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="carrier-pigeon"):
        open_sink("billing", "carrier-pigeon")


@pytest.mark.parametrize(
    "trouble",
    [
        (say(500), say(502)),
        (say(429, "retry-after: 1\r\n"),),
        (hang,),
        (reset, reset),
        (accept_then_reset,),
        (accept_then_hang,),
        (say(400), say(307, "location: /x\r\n")),
        (garbage,),
        (accept_with_endless_body,),
        tuple(too_large_beyond(10) for _ in range(20)),
        (say(500), reset, accept_then_reset, hang, accept_then_hang, say(408), say(429)),
    ],
    ids=["5xx", "429", "hang", "reset", "lost", "lost-late", "4xx", "garbage", "endless", "413", "all"],
)
async def test_whatever_the_receiver_does_it_ends_up_with_what_the_ledger_holds(trouble: tuple[Answer, ...]) -> None:
    async with receiving(*trouble) as receiver:
        await drained(receiver, 250)
        assert holds_exactly(receiver, events(250))


async def test_a_lost_answer_is_repeated_with_the_same_bytes() -> None:
    async with receiving(accept_then_reset) as receiver:
        await drained(receiver, 5)
        assert receiver.requests[0].body == receiver.requests[1].body
        assert receiver.accepted == 10


# --- Reading back ---


async def missing(receiver: Receiver, count: int = 2, timeout_s: float = 20) -> Sequence[int]:
    sink = HttpSink("billing", receiver.url, timeout_s=timeout_s, read_url=receiver.url)
    try:
        return await sink.missing(events(count))
    finally:
        await sink.close()


async def test_a_receiver_is_asked_for_each_record_by_its_id_and_its_time() -> None:
    async with receiving(say(200, body=b"[]")) as receiver:
        assert await missing(receiver, 1) == [0]
    line = receiver.requests[0].line
    assert "id=r-00000001" in line
    assert "from=1969-12-31T23%3A59%3A59Z" in line


@pytest.mark.parametrize(
    ("body", "lost"),
    [
        (b'[{"id":"r-00000001","source":"/nodes/n1"}]', []),
        (b'[{"event":{"id":"r-00000001","source":"/nodes/n1"},"ingestedAt":"x"}]', []),
        (b'[{"event":{"id":"r-00000001","source":"/nodes/other"}}]', [0]),
        (b'[{"event":{"id":"r-000000011","source":"/nodes/n1"}}]', [0]),
        (b'[{"event":null}]', [0]),
    ],
)
async def test_only_the_very_record_counts_as_there(body: bytes, lost: list[int]) -> None:
    async with receiving(say(200, body=body)) as receiver:
        assert await missing(receiver, 1) == lost


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (say(200, body=b"{}"), "unreadable"),
        (say(200, body=b"[1]"), "unreadable"),
        (say(200, body=b"\xff"), "unreadable"),
        (say(200, body=b"[" + b" " * 100_000), "unreadable"),
        (say(401), "refused"),
        (say(503), "server_error"),
        (hang, "timeout"),
        (reset, "connection"),
    ],
)
async def test_a_receiver_that_cannot_be_read_says_nothing_of_what_it_has(answer: Answer, reason: str) -> None:
    async with receiving(answer) as receiver:
        with pytest.raises(SinkError, match=r"^cannot ") as caught:
            await missing(receiver, timeout_s=0.3 if reason == "timeout" else 20)
    assert caught.value.reason == reason
