"""Who is denied is not served, where that is asked for: by the real client, and files as the agent has them."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taximeter import client
from taximeter.asgi import Meter
from taximeter.asgi.ride import App, Receive, Scope, Send
from tests.asgi.conversation import Server, answer, request, serve
from tests.client.fifo import Fifo, opened


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    with opened(tmp_path) as fifo:
        yield fifo


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run directory, where cus_7 is denied."""
    (tmp_path / "run" / "denied").mkdir(parents=True)
    (tmp_path / "run" / "denied" / "cus_7").touch()
    monkeypatch.setenv("TAXIMETER_RUN_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


def of(account: str, model: str | None = None) -> Scope:
    said = {"taximeter_account": account} | ({"taximeter_model": model} if model else {})
    return request(**said)


def status(server: Server) -> int:
    (start,) = (message for message in server.heard if message["type"].endswith("response.start"))
    return int(start["status"])


async def untouched(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError


def test_a_denied_account_is_refused_with_402_before_the_application_sees_it(fifo: Fifo, run: Path) -> None:
    server = serve(untouched, of("cus_7"), admit=True)
    assert status(server) == 402
    assert fifo.lines() == []


def test_the_refusal_is_problem_json_and_says_nothing_of_the_node(fifo: Fifo, run: Path) -> None:
    server = serve(untouched, of("cus_7"), admit=True)
    said = json.loads(server.body)
    assert (said["status"], said["title"]) == (402, "Payment Required")
    assert str(run) not in server.body.decode()
    assert dict(server.headers) == {
        b"content-type": b"application/problem+json",
        b"content-length": str(len(server.body)).encode(),
    }


def test_another_account_is_served(fifo: Fifo, run: Path) -> None:
    assert status(serve(answer(b"{}"), of("cus_8"), admit=True)) == 200
    assert [mark["mark"] for mark in fifo.marks()] == ["start", "finish"]


def test_nobody_is_refused_where_it_is_not_asked_for(fifo: Fifo, run: Path) -> None:
    assert status(serve(answer(b"{}"), of("cus_7"))) == 200
    assert len(fifo.lines()) == 2


def test_a_denied_model_is_refused_to_its_account_alone(fifo: Fifo, run: Path) -> None:
    (run / "denied" / "cus_8@acme%2Fm").touch()
    denied = serve(untouched, of("cus_8", "acme/m"), admit=True)
    assert (status(denied), b"limit" in denied.body) == (402, True)
    assert status(serve(answer(b"{}"), of("cus_8", "acme/n"), admit=True)) == 200
    assert status(serve(answer(b"{}"), of("cus_9", "acme/m"), admit=True)) == 200


def test_what_a_setting_names_is_asked_for_as_what_a_header_does(fifo: Fifo, run: Path) -> None:
    assert status(serve(untouched, request(), admit=True, account="cus_7")) == 402


def test_a_node_that_needs_its_agent_answers_503_without(fifo: Fifo, run: Path) -> None:
    (run / "refuse-without-agent").touch()
    assert status(serve(untouched, of("cus_8"), admit=True)) == 503
    (run / "agent").write_text(f'{{"url":"","pid":{os.getpid()}}}')
    assert status(serve(answer(b"{}"), of("cus_8"), admit=True)) == 200


def test_an_id_that_was_refused_may_come_again(fifo: Fifo, run: Path) -> None:
    meter = Meter(answer(b"{}"), admit=True)
    for _ in range(2):
        server = Server()
        asyncio.run(server.call(meter, request(taximeter_account="cus_7", taximeter_prediction="p1")))
        assert status(server) == 402
    (run / "denied" / "cus_7").unlink()
    server = Server()
    asyncio.run(server.call(meter, request(taximeter_account="cus_7", taximeter_prediction="p1")))
    assert (b"taximeter-prediction", b"p1") in server.headers


def test_a_refusal_that_the_application_itself_meets_is_its_own(fifo: Fifo, run: Path) -> None:
    async def asks(scope: Scope, receive: Receive, send: Send) -> None:
        client.prediction(account="cus_7", admit=True).start()

    with pytest.raises(client.Refused):
        serve(asks, of("cus_8"), admit=True)
    assert fifo.marks()[-1]["status"] == "failed"


def test_without_a_meter_nobody_is_refused(run: Path) -> None:
    assert status(serve(answer(b"{}"), of("cus_7"), admit=True)) == 200


def websocket(app: App, **scope: Any) -> Server:
    server = Server()
    whole = {"type": "websocket", "path": "/v1/realtime", "headers": [(b"taximeter-account", b"cus_7")], **scope}
    meter = Meter(app, admit=True, websockets=True)
    asyncio.run(server.call(meter, whole, {"type": "websocket.connect"}))
    return server


def test_a_websocket_is_closed_before_it_is_accepted(fifo: Fifo, run: Path) -> None:
    server = websocket(untouched)
    assert server.heard == [{"type": "websocket.close", "code": 1008, "reason": ""}]


def test_a_websocket_whose_server_can_say_why_is_answered_as_a_request(fifo: Fifo, run: Path) -> None:
    server = websocket(untouched, extensions={"websocket.http.response": {}})
    start, body = server.heard
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 402)
    assert json.loads(body["body"])["status"] == 402
