"""The nats sink before a server that is none, or that means ill: a bounded word, in time, and nothing given away."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg

from taximeter.errors import SinkError
from taximeter.shipping.sinks import open_sink
from taximeter.shipping.sinks.jetstream import NotStored, fault_in, read
from taximeter.shipping.sinks.nats import NatsSink
from taximeter.shipping.sinks.nats_creds import _JWT, creds_of
from tests.shipping.nats_keys import ACCOUNT, USER, Key
from tests.shipping.outbox import until
from tests.shipping.receiver import events

pytestmark = pytest.mark.anyio

INFO = b'INFO {"server_id":"x","version":"2.9.10","headers":true,"max_payload":1048576}\r\n'


@dataclass
class Impostor:
    """Says what a test has it say, and keeps what it hears."""

    url: str = ""
    heard: bytearray = field(default_factory=bytearray)


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Impostor], Awaitable[None]]


@asynccontextmanager
async def posing(talk: Talk) -> AsyncIterator[Impostor]:
    impostor, tasks = Impostor(), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer, impostor)
            await listen(reader, writer, impostor)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    impostor.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield impostor
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, impostor: Impostor) -> None:
    while data := await reader.read(65_536):
        impostor.heard += data


def saying(*lines: bytes) -> Talk:
    """Says the first line at once, each other one after it has heard something."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, impostor: Impostor) -> None:
        for number, line in enumerate(lines):
            impostor.heard += await reader.read(65_536) if number else b""
            writer.write(line)
            await writer.drain()

    return talk


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, impostor: Impostor) -> None:
    writer.close()


async def deafen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, impostor: Impostor) -> None:
    """Let in, and read nothing from then on."""
    writer.write(INFO + b"PONG\r\n")
    await asyncio.Event().wait()


def answering(answer: bytes, count: int = 100) -> Talk:
    """Lets in, and gives so many messages this answer."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, impostor: Impostor) -> None:
        writer.write(INFO + b"PONG\r\n")
        while data := await reader.read(65_536):
            impostor.heard += data
            for reply in re.findall(rb"HPUB \S+ (\S+) ", impostor.heard)[:count]:
                writer.write(b"MSG %b 1 %d\r\n%b\r\n" % (reply, len(answer), answer))

    return talk


async def refused(talk: Talk, timeout_s: float = 20) -> SinkError:
    async with posing(talk) as impostor:
        sink = NatsSink("billing", impostor.url, "usage", timeout_s=timeout_s)
        with pytest.raises(SinkError) as caught, anyio.fail_after(10):
            await sink.send(events(100))
        await sink.close()
    return caught.value


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (saying(), "timeout"),
        (saying(INFO), "timeout"),
        (saying(INFO, b"PONG\r\n"), "timeout"),
        (deafen, "timeout"),
        (hang_up, "connection"),
        (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "connection"),
        (saying(b"INFO []\r\n"), "connection"),
        (saying(b"INFO {" + b" " * 100_000 + b"}\r\n"), "connection"),
        (saying(INFO, b"PONG\r\n", b"\xff\x00 no protocol at all\r\n" * 100), "connection"),
        (saying(INFO, b"-ERR 'Authorization Violation'\r\n"), "refused"),
        (saying(INFO, b"PONG\r\n", b"-ERR 'User Authentication Expired'\r\n"), "refused"),
        (answering(b'{"error":{"code":503,"err_code":10077,"description":"full"}}'), "server_error"),
        (answering(b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence"}}', 1), "timeout"),
        (answering(b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence"}}'), "server_error"),
        (answering(b'{"error":{"code":400,"err_code":10164,"description":"wrong last sequence"}}'), "server_error"),
        (answering(b'{"stream":"usage","seq":1}', 99), "timeout"),
        (answering(b'{"error":null}'), "connection"),
        (answering(b"[]"), "connection"),
        (answering(b'{"stream":"\xff"}'), "connection"),
        (saying(INFO, b"PONG\r\n", b"-ERR 'Maximum Connections Exceeded'\r\n"), "connection"),
    ],
    ids=[
        "mute",
        "silent",
        "no-acks",
        "deaf",
        "hang-up",
        "http",
        "list",
        "long",
        "garbage",
        "who",
        "expired",
        "full-stream",
        "has-one",
        "has-all",
        "soon",
        "one-lacks",
        "null",
        "array",
        "utf-8",
        "full",
    ],
)
async def test_whatever_the_server_is_the_reason_is_a_bounded_word(talk: Talk, reason: str) -> None:
    assert (await refused(talk, 0.3 if reason == "timeout" else 20)).reason == reason


async def test_what_a_server_says_is_told_in_one_printable_line() -> None:
    told = str(await refused(saying(INFO, b"-ERR '" + b"\x1b[31m" + b"y" * 9999 + b"'\r\n")))
    assert "?[31m" in told
    assert len(told) < 400


async def test_where_tls_is_asked_for_nothing_is_said_to_a_server_that_has_none(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    async with posing(saying(INFO, b"PONG\r\n")) as impostor:
        sink = NatsSink("billing", impostor.url.replace("nats", "tls"), "usage", token_file=tmp_path / "token")
        with pytest.raises(SinkError) as caught:
            await sink.send(events(1))
        await sink.close()
        assert impostor.heard == b""
    assert caught.value.reason == "tls"
    assert "expected TLS" in str(caught.value)


async def test_a_server_that_goes_while_nothing_is_sent_is_left_alone() -> None:
    async with posing(answering(b'{"stream":"usage"}')) as impostor:
        sink = NatsSink("billing", impostor.url, "usage")
        await sink.send(events(1))
        link = sink._link
        assert link is not None
        assert link.is_up
        assert library_tasks()
    await until(lambda: not library_tasks())  # none that would connect again
    assert not link.is_up
    await sink.close()


def library_tasks() -> list[str]:
    """What the library does in the background."""
    names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith(("Client.", "Subscription."))]


async def test_nobody_there_is_a_connect_error() -> None:
    async with posing(hang_up) as impostor:
        pass
    sink = NatsSink("billing", impostor.url, "usage")
    with pytest.raises(SinkError, match="expected a NATS server there") as caught:
        await sink.send(events(1))
    assert caught.value.reason == "connect"


async def test_a_missing_token_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    sink = NatsSink("billing", "nats://127.0.0.1:1", "usage", token_file=tmp_path / "no-token")
    with pytest.raises(SinkError, match="no-token") as caught:
        await sink.send(events(1))
    assert caught.value.reason == "token"


@pytest.mark.parametrize("spoil", ["", "gone", "empty", "checksum", "account", "binary"])
async def test_credentials_that_are_none_are_an_error_without_them(tmp_path: Path, spoil: str) -> None:
    key, path = Key(ACCOUNT if spoil == "account" else USER), tmp_path / "node.creds"
    seed = key.seed[:-3] + "AAA" if spoil == "checksum" else key.seed
    if spoil != "gone":
        path.write_bytes({"empty": b"", "binary": b"\xff" * 99}.get(spoil, seed.encode()))
    if not spoil:
        assert creds_of(path).user == key.public
        return
    sink = NatsSink("billing", "nats://127.0.0.1:1", "usage", creds_file=path)
    with pytest.raises(SinkError, match=r"node\.creds.*: expected a NATS credentials file") as caught:
        await sink.send(events(1))
    assert caught.value.reason == "token"
    assert seed not in str(caught.value)


def test_a_sink_of_this_kind_is_opened_by_its_name() -> None:
    assert isinstance(open_sink("billing", "nats", url="nats://127.0.0.1:1", subject="usage"), NatsSink)


def test_who_does_not_ship_there_does_not_load_the_library() -> None:
    look = "import sys, taximeter.agent.service; print(sorted({'httpx', 'nats'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@given(st.binary() | st.from_regex(rb"SU[A-Z2-7]{56}") | st.from_regex(_JWT))
def test_whatever_is_in_a_credentials_file_it_is_read_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("creds") / "node.creds"
    path.write_bytes(content)
    with suppress(ValueError):
        assert creds_of(path).user.startswith("U")


@given(st.binary() | st.from_regex(rb'\{"(stream|error)":[^}]*\}'))
def test_whatever_a_server_answers_it_is_an_acknowledgement_or_a_reason(answer: bytes) -> None:
    try:
        fault = fault_in(read(Msg(Client(), "x", data=answer)))
    except NotStored as error:
        fault = error
    assert fault is None or fault.reason in {"connection", "server_error", "rejected"}
