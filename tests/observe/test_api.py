"""The HTTP API over real sockets: who may ask what, in which format, and what becomes of bad manners."""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
from starlette.types import ASGIApp

from taximeter.billing.rates import parse_card
from taximeter.errors import ConfigError, LedgerError
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch, Ledger
from taximeter.ledger.values import HOUR_NS, PoolHour, PoolTime
from taximeter.observe import api, server
from taximeter.observe.filters import FILTERS
from taximeter.observe.guard import OPEN_PATHS, is_local
from taximeter.observe.queries import Queries
from taximeter.observe.snapshot import Pulse, Snapshot
from taximeter.records import utc_text
from tests.core.stories import SECOND, card
from tests.observe import histories
from tests.observe.histories import INSTANCE
from tests.observe.nodes import BUSY, IDLE, TOKEN, ledger_of
from tests.require import require_root

pytestmark = pytest.mark.anyio

KNOCK = {"authorization": f"Bearer {TOKEN}"}
CLOSED_PATHS = ("/v1/status", "/v1/instances", "/v1/records", "/v1/receipts/p1", "/v1/devices", "/v1/devices/explained")


@dataclass
class Node:
    """A node that serves; its view can be changed."""

    port: int
    client: httpx.AsyncClient
    view: list[Snapshot]

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers=KNOCK | headers)

    async def say(self, text: bytes, until: bytes = b"\r\n\r\n") -> bytes:
        """What a raw socket hears on saying `text`: up to `until`, or to the end of the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            with anyio.fail_after(10):
                writer.write(text)
                await writer.drain()
                return await reader.readuntil(until)
        except asyncio.IncompleteReadError as error:
            return error.partial
        except ConnectionError:
            return b""
        finally:
            writer.close()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[LedgerReader]:
    opened = ledger_of(tmp_path, histories.shared_worker(), "usage")
    yield opened
    opened.close()


@asynccontextmanager
async def serving(app: object, host: str = "127.0.0.1") -> AsyncIterator[int]:
    async with anyio.create_task_group() as tasks:
        yield await tasks.start(api.serve, app, host, 0)
        tasks.cancel_scope.cancel()


@pytest.fixture
async def node(reader: LedgerReader) -> AsyncIterator[Node]:
    view = [BUSY]
    app = api.build(lambda: view[0], Queries(reader), TOKEN)
    async with serving(app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        yield Node(port, client, view)


async def test_whoever_asks_for_health_has_nothing_drawn(reader: LedgerReader) -> None:
    def draw() -> Snapshot:
        raise AssertionError("a snapshot was drawn")

    app = api.build(draw, Queries(reader), TOKEN, pulse=lambda: Pulse(ready=False, alive=True))
    async with serving(app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert [(await client.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 503]


# --- Who may ask -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
async def test_open_paths_need_no_token(node: Node, path: str) -> None:
    assert (await node.client.get(path)).status_code == 200


@pytest.mark.parametrize("path", CLOSED_PATHS)
async def test_closed_paths_open_to_the_token(node: Node, path: str) -> None:
    assert (await node.get(path)).status_code == 200


@pytest.mark.parametrize("path", CLOSED_PATHS)
@pytest.mark.parametrize(
    "credentials",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}, {"authorization": TOKEN},
     {"authorization": "Bearer"}, {"authorization": f"Bearer {TOKEN}x"}, {"x-api-key": "wrong"},
     {"x-api-key": f"Bearer {TOKEN}"}, {"x-api-key": TOKEN, "authorization": "Bearer wrong"}],
    ids=["none", "wrong", "basic", "bare", "empty", "longer", "key", "key of a bearer", "key and another"],
)  # fmt: skip
async def test_closed_paths_stay_closed_without_it(node: Node, path: str, credentials: dict[str, str]) -> None:
    answer = await node.client.get(path, headers=credentials)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_the_token_may_come_as_the_platforms_clients_send_theirs(node: Node) -> None:
    assert (await node.client.get("/v1/status", headers={"x-api-key": TOKEN})).status_code == 200


async def test_two_credentials_are_none(node: Node) -> None:
    twice = [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer other")]
    assert (await node.client.get("/v1/status", headers=twice)).status_code == 401


async def test_a_token_that_is_no_ascii_is_only_wrong(node: Node) -> None:
    answer = await node.say(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401")


async def test_a_path_that_does_not_exist_is_closed_too(node: Node) -> None:
    assert (await node.client.get("/v1/secrets")).status_code == 401


def test_an_api_without_a_token_cannot_be_made(reader: LedgerReader) -> None:
    with pytest.raises(ValueError, match="expected a token"):
        api.build(lambda: IDLE, Queries(reader), "")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9847", "127.0.0.1.evil.example", "[2001:db8::1]", "0"])
async def test_a_foreign_host_is_misdirected(node: Node, host: str) -> None:
    assert (await node.client.get("/metrics", headers={"host": host})).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.8.8:80", "[::1]", "[::1]:9847"])
def test_loopback_has_many_names(host: str) -> None:
    assert is_local(host)


async def test_away_from_loopback_every_host_is_served(reader: LedgerReader) -> None:
    app = api.build(lambda: IDLE, Queries(reader), TOKEN, loopback=False)
    async with serving(app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/metrics", headers={"host": "gpu-node-7.example"})).status_code == 200


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x", False)]
)
def test_listening_on_loopback_is_known(host: str, expected: bool) -> None:
    assert api.is_loopback(host) is expected


# --- Answers ---------------------------------------------------------------------------------------------------------


async def test_healthz_is_well_while_the_agent_is(node: Node) -> None:
    assert (await node.client.get("/healthz")).json() == {"alive": True}


async def test_healthz_is_not_when_the_agent_says_so(node: Node) -> None:
    node.view[0] = replace(BUSY, alive=False)
    assert (await node.client.get("/healthz")).status_code == 503


async def test_readyz_waits_for_the_agent_to_catch_up(node: Node) -> None:
    node.view[0] = replace(BUSY, ready=False)
    assert (await node.client.get("/readyz")).status_code == 503


async def test_readyz_tells_no_secrets(node: Node) -> None:
    node.view[0] = replace(BUSY, problems=("cannot read /etc/taximeter/token",))
    assert b"token" not in (await node.client.get("/readyz")).content


async def test_metrics_are_the_snapshots(node: Node) -> None:
    answer = await node.client.get("/metrics")
    assert "taximeter_ledger_head 20.0" in answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_metrics_are_openmetrics_to_who_asks(node: Node) -> None:
    answer = await node.client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")


async def test_status_tells_how_the_time_of_pools_was_used_lately(node: Node, tmp_path: Path) -> None:
    hour = time.time_ns() // HOUR_NS
    then, now = (
        PoolTime(idle=SECOND),
        PoolTime(boot=SECOND, active=3 * SECOND, load=7, sold=3 * SECOND, returned=SECOND),
    )
    pools = (PoolHour(hour - 25, "old", then), PoolHour(hour - 24, "sdxl", now), PoolHour(hour, "llama", then))
    ledger = Ledger.open(tmp_path / "ledger.db", histories.NODE)
    ledger.commit(Batch((), (), pools=pools))
    ledger.close()
    told = (await node.get("/v1/status")).json()["pools"]
    assert [(one["pool"], one["sold_ratio"]) for one in told] == [("sdxl", 0.5), ("llama", 0.0)]
    assert (told[0]["wall_ns"], told[0]["sold_ns"], told[0]["load_ns"]) == (4 * SECOND, 2 * SECOND, 7)
    assert told[0]["since_utc"] == utc_text((hour - 24) * HOUR_NS)


async def test_status_tells_ledger_sinks_and_instances(node: Node) -> None:
    status = (await node.get("/v1/status")).json()
    assert (status["ledger"]["seq"], status["instances"]) == (len(histories.shared_worker()), {"active": 1, "idle": 1})
    assert [sink["pending"] for sink in status["sinks"]] == [0, 7]


async def test_instances_are_listed_with_their_predictions(node: Node) -> None:
    first, second = (await node.get("/v1/instances")).json()
    assert (first["class"], first["predictions"][0]["prediction"], second["phase"]) == ("public", "p-open", "idle")


async def test_every_rule_is_explained_to_who_has_the_token(node: Node) -> None:
    told = (await node.get("/v1/devices/explained")).json()
    assert [item["trials"][0]["misses"] for item in told["devices"]] == [["1 device, expected 0"]] * 2
    assert [item["evidence"] for item in told["instances"]] == ["declared", "declared"]
    assert told["node"]["tier"] == "two"
    assert (await node.client.get("/v1/devices/explained")).status_code == 401


async def test_hardware_tells_tier_and_why(node: Node) -> None:
    hardware = (await node.get("/v1/devices")).json()
    assert (hardware["tier"], hardware["rule"], len(hardware["devices"])) == ("gpu-h100-2x", "two of them", 2)


def with_models(*names: str) -> Snapshot:
    said = [{"name": name, "namespace": f"acme/{name}", "amount": "0.03", "unit": "image"} for name in names]
    return replace(BUSY, card=parse_card(card().content() | {"models": said}, "test"))


async def names(node: Node, path: str = "/v1/models") -> list[str]:
    return [model["name"] for model in (await node.client.get(path)).json()]


async def test_models_are_listed_to_anybody(node: Node) -> None:
    node.view[0] = with_models("a", "b")
    answer = await node.client.get("/v1/models")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert [model["pricing"]["amount"] for model in answer.json()] == [0.03, 0.03]


@pytest.mark.parametrize("path", ["/v1/model/a", "/v1/models/a", "/v1/models/acme/a", "/v1/model/acme%2Fa"])
async def test_a_model_is_found_by_either_path_and_either_name(node: Node, path: str) -> None:
    node.view[0] = with_models("a")
    assert (await node.client.get(path)).json()["name"] == "a"


async def test_a_model_that_is_not_there_is_not_found(node: Node) -> None:
    answer = await node.client.get("/v1/models/nope")
    assert (answer.status_code, "expected one that /v1/models lists" in answer.json()["detail"]) == (404, True)


async def test_the_list_of_models_is_not_read_anew_for_everybody_who_asks(node: Node) -> None:
    node.view[0] = with_models("a")
    assert await names(node) == ["a"]
    node.view[0] = with_models("a", "b")
    assert await names(node) == ["a"]


async def test_the_list_of_models_is_read_anew_once_it_is_old(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MODELS_KEPT_S", 0.0)
    monkeypatch.setattr(api, "_MODELS_SHARE", 0)
    node.view[0] = with_models("a")
    assert await names(node) == ["a"]
    node.view[0] = with_models("a", "b")
    assert await names(node) == ["a", "b"]


async def test_an_estimate_is_for_those_who_have_the_token(node: Node) -> None:
    assert (await node.get("/v1/estimates/acme/sdxl?version=1")).json()["version"] == "1"
    assert (await node.client.get("/v1/estimates/acme/sdxl")).status_code == 401
    assert (await node.get("/v1/estimates/acme/sdxl?vresion=1")).status_code == 400


async def test_a_receipt_is_found(node: Node) -> None:
    assert (await node.get("/v1/receipts/p1")).json()["account"] == "cus_7"


async def test_a_receipt_in_one_line_is_plain_text(node: Node) -> None:
    answer = await node.get("/v1/receipts/p1", accept="text/plain")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert answer.text.startswith("ran ")
    assert answer.text.count("\n") == 1


async def test_a_receipt_in_one_line_is_not_there_before_the_last_record(node: Node) -> None:
    answer = await node.get("/v1/receipts/p-open", accept="text/plain")
    assert (answer.status_code, answer.text[:9]) == (202, "pending: ")


async def test_an_id_with_a_slash_is_an_id(node: Node) -> None:
    answer = await node.get("/v1/receipts/acme%2Fp%201")
    assert (answer.status_code, "acme/p 1" in answer.json()["detail"]) == (404, True)


async def test_records_are_an_array(node: Node) -> None:
    assert len((await node.get("/v1/records")).json()) == len(histories.shared_worker())


async def test_records_are_the_stored_bytes_a_line_each(node: Node, reader: LedgerReader) -> None:
    answer = await node.get("/v1/records", accept="application/x-ndjson")
    assert answer.content.splitlines() == list(reader.records())


async def test_no_records_are_an_empty_array(node: Node) -> None:
    assert (await node.get("/v1/records?account=nobody")).json() == []


@pytest.mark.parametrize(
    ("question", "count"),
    [
        ("account=cus_7", 1),
        ("model=acme/sdxl", 1),
        ("prediction=p2", 1),
        (f"instance={INSTANCE}", 3),
        ("root=p1", 2),
        ("type=instance", 1),
        ("type=taximeter.usage.prediction.v1", 2),
        ("limit=2", 2),
        ("newest=1", 1),
        ("after=1", 2),
        ("since=2026-11-22T10:00:00.3Z", 2),
        ("since=2027-01-01T00:00:00Z", 0),
        ("since=2026-11-22", 3),
        ("since=2026-11-22T10:00:00", 3),
        ("since=1s", 0),
        ("account=cus_7&type=instance", 0),
    ],
)
async def test_records_are_filtered(node: Node, question: str, count: int) -> None:
    assert len((await node.get(f"/v1/records?{question}")).json()) == count


@pytest.mark.parametrize(
    "question",
    ["limit=0", "limit=1001", "limit=-1", "limit=ten", "limit=1e3", "limit=%D9%A3", "since=yesterday", "type=guess",
     "since=2026-13-01T00:00:00Z", "since=2026-11-22T10", "sinse=x", "after=-1", "after=9223372036854775808",
     "newest=0", "since=", "limit="],
)  # fmt: skip
async def test_a_question_that_is_put_wrongly_is_told_what_was_expected(node: Node, question: str) -> None:
    answer = await node.get(f"/v1/records?{question}")
    assert (answer.status_code, "expected" in answer.json()["detail"]) == (400, True)


async def test_every_filter_is_named_to_who_guesses(node: Node) -> None:
    detail = (await node.get("/v1/records?guess=1")).json()["detail"]
    assert all(name in detail for name in FILTERS)


async def test_errors_are_problems_in_json(node: Node) -> None:
    answer = await node.get("/nowhere")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["status"], answer.json()["title"]) == (404, "Not Found")


@pytest.mark.parametrize(("method", "path"), [("GET", "/nowhere"), ("POST", "/v1/records")])
async def test_refusals_are_in_our_words(node: Node, method: str, path: str) -> None:
    answer = await node.client.request(method, path, headers=KNOCK)
    assert answer.json()["detail"].startswith(f"cannot {method} '{path}': expected ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
async def test_other_methods_are_not_allowed(node: Node, method: str) -> None:
    answer = await node.client.request(method, "/v1/records", headers=KNOCK)
    assert (answer.status_code, "GET" in answer.headers["allow"]) == (405, True)


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/v1/records", "/v1/status"])
async def test_head_is_get_without_a_body(node: Node, path: str) -> None:
    answer = await node.client.head(path, headers=KNOCK)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_answers_are_dated_and_not_kept(node: Node) -> None:
    headers = (await node.client.get("/healthz")).headers
    assert (headers["cache-control"], headers["x-content-type-options"], "date" in headers) == (
        "no-store",
        "nosniff",
        True,
    )


async def test_a_ledger_that_cannot_be_read_is_said_to_be(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object, __: object) -> None:
        raise LedgerError("cannot read ledger: the disk is gone")

    monkeypatch.setattr(Queries, "records", broken)
    answer = await node.get("/v1/records")
    assert (answer.status_code, "disk is gone" in answer.json()["detail"]) == (503, True)


async def test_a_bug_stays_behind_the_door(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("very private")

    monkeypatch.setattr(Queries, "status", broken)
    answer = await node.get("/v1/status")
    assert (answer.status_code, b"private" in answer.content) == (500, False)
    assert "very private" in caplog.text


async def test_many_questions_at_once_all_get_their_answer(node: Node) -> None:
    codes: list[int] = []

    async def ask() -> None:
        codes.append((await node.get("/v1/records")).status_code)

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(ask)
    assert codes == [200] * 50


# --- Bad manners -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 1_100_000,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
    ids=["tls", "hosts", "no-host", "both", "lengths", "coding", "bytes", "header", "url", "nonsense"],
)  # fmt: skip
async def test_what_is_no_http_is_refused_and_the_node_goes_on(node: Node, text: bytes) -> None:
    answer = await node.say(text)
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"414", b"431", b"501")
    assert (await node.client.get("/healthz")).status_code == 200


async def test_both_length_and_chunks_smuggle_nothing(node: Node) -> None:
    inner = (
        b"0\r\n\r\nGET /v1/status HTTP/1.1\r\nHost: localhost\r\n" + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
    answer = await node.say(head + inner, until=b"no such bytes")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "path", ["/../etc/passwd", "/v1/../metrics", "/%2e%2e/x", "/v1/records%00", "//metrics", "/v1/"]
)
async def test_odd_paths_lead_nowhere(node: Node, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    assert (await node.say(head.encode())).split(b" ")[1] == b"404"


async def test_a_header_that_drips_in_is_cut_off(reader: LedgerReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADER_S", 0.3)
    async with serving(api.build(lambda: IDLE, Queries(reader), TOKEN)) as port:
        incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)

        async def drip() -> None:
            while True:
                outgoing.write(b"G")
                await anyio.sleep(0.01)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drip)
            assert await rest_of(incoming) == b""
            tasks.cancel_scope.cancel()
        outgoing.close()


async def rest_of(incoming: asyncio.StreamReader) -> bytes:
    """What comes until the other side ends the connection, however rudely."""
    heard = b""
    with anyio.fail_after(10), suppress(ConnectionResetError):
        while part := await incoming.read(1000):
            heard += part
    return heard


async def test_a_slow_header_after_a_first_request_is_cut_off_too(
    reader: LedgerReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEADER_S", 0.3)
    async with serving(api.build(lambda: IDLE, Queries(reader), TOKEN)) as port:
        incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
        outgoing.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await incoming.readuntil(b"}")
        outgoing.write(b"GET /heal")
        assert await rest_of(incoming) == b""
        outgoing.close()


async def test_a_body_that_never_ends_is_not_listened_to(node: Node) -> None:
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", node.port)
    outgoing.write(b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def go_on_and_on() -> None:
        while True:
            outgoing.write(b"1000\r\n" + b"z" * 0x1000 + b"\r\n")
            await outgoing.drain()
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(10), pytest.raises(ConnectionError):
        await go_on_and_on()
    outgoing.close()
    assert incoming is not None


async def test_connections_on_which_nobody_says_anything_keep_nobody_out(
    reader: LedgerReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 8)
    async with serving(api.build(lambda: IDLE, Queries(reader), TOKEN)) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(30)]
        incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
        outgoing.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with anyio.fail_after(5):
            assert (await incoming.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        assert await rest_of(held[0][0]) == b""  # whoever was silent for the longest made room
        for _, other in [*held, (incoming, outgoing)]:
            other.close()


async def test_a_connection_that_is_kept_and_idle_makes_room_before_one_that_is_answered(
    reader: LedgerReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 8)
    async with serving(api.build(lambda: IDLE, Queries(reader), TOKEN)) as port:
        held = []
        for _ in range(30):
            incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
            held.append(outgoing)
            outgoing.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with anyio.fail_after(5):
                assert (await incoming.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        for outgoing in held:
            outgoing.close()


async def test_connections_on_which_nobody_reads_the_answer_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 8)
    much = b"x" * 16_000_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(much))]})
        await send({"type": "http.response.body", "body": much})

    held = []
    async with serving(app) as port:
        for _ in range(20):
            incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
            held.append(outgoing)
            outgoing.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with anyio.fail_after(5):  # of what comes then, asyncio's reader takes 128 KiB at most
                assert (await incoming.readexactly(12)) == b"HTTP/1.1 200"
        for outgoing in held:
            outgoing.transport.abort()


# --- The server ------------------------------------------------------------------------------------------------------


async def test_a_port_that_is_taken_is_a_config_error_that_names_it(reader: LedgerReader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1:{port}.*expected"):
            await api.serve(api.build(lambda: IDLE, Queries(reader), TOKEN), "127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("nohost.invalid", 0), ("127.0.0.1", 70_000)])
async def test_an_address_that_is_not_ours_is_a_config_error(host: str, port: int) -> None:
    with pytest.raises(ConfigError, match="cannot listen"):
        await api.serve(lambda *_: None, host, port)


ASKING = """
import os, socket, sys
path, uid, token = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.setgroups([])
os.setgid(65534)
os.setuid(uid)
asked = socket.socket(socket.AF_UNIX)
asked.connect(path)
asked.sendall(f"GET /v1/records HTTP/1.1\\r\\nHost: localhost\\r\\n{token}Connection: close\\r\\n\\r\\n".encode())
print(asked.makefile().readline().split()[1])
"""


async def asked_by(path: Path, uid: int, *, token: bool = False) -> int:
    header = f"Authorization: Bearer {TOKEN}\r\n" if token else ""
    done = await anyio.run_process([sys.executable, "-c", ASKING, str(path), str(uid), header], check=True)
    return int(done.stdout)


@asynccontextmanager
async def serving_unix(app: ASGIApp, path: Path) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        await tasks.start(api.serve_unix, app, path)
        yield
        tasks.cancel_scope.cancel()


async def test_on_a_unix_socket_the_kernel_says_who_needs_no_token(reader: LedgerReader) -> None:
    require_root()
    with tempfile.TemporaryDirectory() as folder:  # which others may look into, unlike a test's own
        os.chmod(folder, 0o755)
        await check_who_needs_a_token(reader, Path(folder) / "http.sock")


async def check_who_needs_a_token(reader: LedgerReader, path: Path) -> None:
    async with serving_unix(api.build(lambda: IDLE, Queries(reader), TOKEN), path):
        assert os.stat(path).st_mode & 0o777 == 0o660
        assert await asked_by(path, 0) == 200
        os.chmod(path, 0o666)  # as if the group let it in
        assert await asked_by(path, 65_534) == 401
        assert await asked_by(path, 65_534, token=True) == 200
    assert path.name not in os.listdir(path.parent)


async def test_a_socket_that_a_killed_agent_left_makes_room(reader: LedgerReader, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with (
        serving_unix(api.build(lambda: IDLE, Queries(reader), TOKEN), path),
        httpx.AsyncClient(base_url="http://localhost", transport=transport) as client,
    ):
        assert (await client.get("/v1/records")).status_code == 200


async def test_another_file_in_the_place_of_the_socket_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "http.sock").write_text("mine")
    with pytest.raises(ConfigError, match=r"cannot listen on .*http\.sock: Address already in use: expected"):
        await api.serve_unix(lambda *_: None, tmp_path / "http.sock")
    assert (tmp_path / "http.sock").read_text() == "mine"


async def test_it_listens_on_ipv6_as_well(reader: LedgerReader) -> None:
    async with (
        serving(api.build(lambda: IDLE, Queries(reader), TOKEN), "::1") as port,
        httpx.AsyncClient(base_url=f"http://[::1]:{port}") as client,
    ):
        assert (await client.get("/healthz")).status_code == 200


async def test_the_body_of_an_answer_does_not_wait_until_its_head_is_acknowledged(node: Node) -> None:
    took_s = []
    for _ in range(10):
        began = time.monotonic()
        await node.client.get("/healthz")
        took_s.append(time.monotonic() - began)
    assert min(took_s[1:]) < 0.03, "expected TCP_NODELAY: a delayed acknowledgement takes 40 ms"


async def test_it_leaves_signal_handlers_alone(reader: LedgerReader) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with serving(api.build(lambda: IDLE, Queries(reader), TOKEN)):
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def stopped_within(app: object, misbehave: Callable[[int], object]) -> float:
    """How long it took to stop after `misbehave` had its way, in seconds."""
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(api.serve, app, "127.0.0.1", 0)
        kept = await misbehave(port)  # type: ignore[misc]
        began = time.monotonic()
        tasks.cancel_scope.cancel()
    kept.close()
    return time.monotonic() - began


async def test_it_stops_within_a_second_though_a_client_keeps_its_connection(reader: LedgerReader) -> None:
    async def keep(port: int) -> asyncio.StreamWriter:
        incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
        outgoing.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await incoming.readuntil(b"}")
        return outgoing

    assert await stopped_within(api.build(lambda: IDLE, Queries(reader), TOKEN), keep) < 1.0


async def test_it_stops_within_a_second_though_a_client_does_not_read() -> None:
    async def flood(scope: object, receive: object, send: Callable[..., object]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[misc]
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})  # type: ignore[misc]

    async def ignore(port: int) -> asyncio.StreamWriter:
        incoming, outgoing = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        outgoing.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await incoming.readuntil(b"\r\n\r\n")
        return outgoing

    assert await stopped_within(flood, ignore) < 1.0


async def test_a_request_under_way_is_answered_before_it_stops() -> None:
    entered, go = anyio.Event(), anyio.Event()

    async def slow(scope: object, receive: object, send: Callable[..., object]) -> None:
        entered.set()
        await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[misc]
        await send({"type": "http.response.body", "body": b"done"})  # type: ignore[misc]

    async with anyio.create_task_group() as outer, httpx.AsyncClient() as client:
        answers: list[str] = []
        async with anyio.create_task_group() as tasks:
            port = await tasks.start(api.serve, slow, "127.0.0.1", 0)

            async def ask() -> None:
                answers.append((await client.get(f"http://127.0.0.1:{port}/")).text)

            outer.start_soon(ask)
            await entered.wait()
            tasks.cancel_scope.cancel()
            go.set()
    assert answers == ["done"]


def test_what_the_api_answers_is_what_the_cli_reads_without_an_agent(reader: LedgerReader) -> None:
    with_agent, without = Queries(reader, lambda: BUSY).status(), Queries(reader).status()
    assert with_agent.keys() == without.keys()
    assert with_agent["node"].keys() == without["node"].keys()
    assert json.loads(json.dumps(without)) == without


def test_a_sound_ledger_passes_the_audit(reader: LedgerReader) -> None:
    report = Queries(reader).verify()
    assert (report["ok"], report["records"], report["faults"]) == (True, 3, [])


def test_without_an_agent_nothing_is_known_to_run(reader: LedgerReader) -> None:
    assert Queries(reader).instances() == []


def test_without_an_agent_nobody_has_looked_at_the_hardware(reader: LedgerReader) -> None:
    assert Queries(reader).devices()["tier"] is None
