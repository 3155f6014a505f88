"""Real servers under `taximeter run --worker`, with a real agent and real clients: each request has its record."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from taximeter.records import RecordType
from tests.require import require_program
from tests.system.agents import Node, wait_until
from tests.system.ports import held_port

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
EXAMPLE = ("--app-dir", str(ROOT / "examples" / "asgi"), "serve:app")
APPS = ("--app-dir", str(ROOT), "tests.system.asgi_apps:starlette")


@dataclass
class Served:
    """A server under the meter, and what the ledger says of it."""

    node: Node
    process: "subprocess.Popen[str]"
    client: httpx.Client

    def post_anew(self, path: str, **kwargs: Any) -> httpx.Response:
        """A request on a connection of its own."""
        return httpx.post(self.client.base_url.join(path), timeout=30, **kwargs)

    def record(self, answer: httpx.Response) -> dict[str, Any]:
        """The record of the prediction that an answer names."""
        return self.record_of(answer.headers["taximeter-prediction"])

    def record_of(self, prediction: str) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [one for one in self.node.predictions() if one["data"]["prediction"] == prediction]

        (record,) = wait_until(found, f"the record of {prediction}")
        return {"subject": record["subject"], **record["data"]}

    def marks(self) -> list[dict[str, Any]]:
        """What its journal has of marks."""
        (journal,) = self.node.journal.glob("*.ndjson")
        lines = journal.read_bytes().partition(b"\0")[0].splitlines(keepends=True)
        facts = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [json.loads(base64.b64decode(fact["raw"])) for fact in facts if fact["f"] == "mark"]


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as port:
        yield port


@contextlib.contextmanager
def served(
    node: Node, *uvicorn: str, ready: str | None = None, options: tuple[str, ...] = (), **settings: str
) -> Iterator[Served]:
    """A server that answers; stopped as a platform stops one."""
    with held_port() as port:
        url = f"http://127.0.0.1:{port}"
        said = [f"TAXIMETER_ASGI_{name.upper()}={value}" for name, value in settings.items()]
        command = [
            "env",
            *said,
            sys.executable,
            "-m",
            "uvicorn",
            *uvicorn,
            "--port",
            str(port),
            "--log-level",
            "warning",
        ]
        words = ("--worker", "--on-term", "drain", "--ready", ready or f"{url}/health", *options, "--", *command)
        with node.spawn(*words) as process, httpx.Client(base_url=url, timeout=30) as client:

            def answers() -> bool:
                assert process.poll() is None, "the server ended"
                with contextlib.suppress(httpx.TransportError):
                    return bool(client.get("/health"))
                return False

            wait_until(answers, "a server that answers")
            yield Served(node, process, client)
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.fixture(scope="module")
def node(taximeter_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(taximeter_program, tmp_path_factory.mktemp("asgi") / "node")
    with node.agent():
        yield node


@pytest.fixture(scope="module")
def example(node: Node) -> Iterator[Served]:
    with served(node, *EXAMPLE, options=("--model", "examples/novelist")) as server:
        yield server


@pytest.fixture(scope="module")
def apps(node: Node) -> Iterator[Served]:
    with served(node, *APPS, admit="1") as server:
        yield server


@pytest.fixture
def own_node(taximeter_program: str, tmp_path: Path) -> Node:
    return Node(taximeter_program, tmp_path / "node")


ORDER = {"prompt": "Anne Elliot had been", "max_tokens": 12, "seed": 1}


# The example


def test_a_plain_request_is_a_prediction_with_its_tokens(example: Served) -> None:
    answer = example.client.post("/v1/completions", json=ORDER, headers={"taximeter-account": "cus_1"})
    assert answer.json()["usage"] == {"prompt_tokens": 4, "completion_tokens": 12, "total_tokens": 16}
    record = example.record(answer)
    assert (record["subject"], record["model"], record["status"]) == ("cus_1", "examples/novelist", "succeeded")
    assert record["units"] == {"token_input": "4", "token_output": "12"}
    assert record["time"]["active_ns"] > 0
    assert record["billing"]["status"] == "rated"


def test_a_streamed_request_is_one_with_the_tokens_of_its_last_event(example: Served) -> None:
    pieces = []
    with example.client.stream("POST", "/v1/completions", json={**ORDER, "max_tokens": 200, "stream": True}) as answer:
        pieces = list(answer.iter_lines())
    assert pieces[-2] == "data: [DONE]"
    record = example.record(answer)
    assert (record["status"], record["units"]) == ("succeeded", {"token_input": "4", "token_output": "200"})


def test_a_stream_is_what_it_is_without_a_meter(example: Served) -> None:
    plain = example.client.post("/v1/completions", json=ORDER).json()["choices"][0]["text"]
    streamed = example.client.post("/v1/completions", json={**ORDER, "stream": True}).text
    texts = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    assert "".join(one["choices"][0]["text"] for one in texts[:-1]).strip() == plain


def test_a_request_that_is_refused_is_a_failed_prediction(example: Served) -> None:
    answer = example.client.post("/v1/completions", content=b"x")
    assert answer.status_code == 400
    assert example.record(answer)["status"] == "failed"


def test_a_health_check_is_no_prediction(example: Served) -> None:
    assert "taximeter-prediction" not in example.client.get("/health").headers


def test_headers_say_whose_it_is_and_what_asked_for_it(example: Served) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {
        "taximeter-prediction": "p-headers",
        "taximeter-account": "cus_2",
        "taximeter-class": "training",
        "taximeter-version": "3f2a",
        "taximeter-pool": "novels",
        "taximeter-parent": "p-parent",
        "taximeter-root": "p-root",
        "traceparent": trace,
    }
    answer = example.client.post("/v1/completions", json=ORDER, headers=headers)
    assert answer.headers["taximeter-prediction"] == "p-headers"
    record = example.record(answer)
    said = {name: record[name] for name in ("class", "version", "pool", "parent", "root", "traceparent")}
    assert said == {
        "class": "training",
        "version": "3f2a",
        "pool": "novels",
        "parent": "p-parent",
        "root": "p-root",
        "traceparent": trace,
    }


def test_worst_headers_leave_a_prediction_that_is_billed(example: Served) -> None:
    names = ("account", "version", "pool", "parent", "root")
    headers = {f"taximeter-{name}": '"' * 256 for name in names} | {"taximeter-class": "x" * 9000}
    record = example.record(example.client.post("/v1/completions", json=ORDER, headers=headers))
    assert (record["status"], record["class"]) == ("succeeded", "public")


def test_requests_at_once_are_predictions_of_their_own(example: Served) -> None:
    start = threading.Barrier(8)

    def one(number: int) -> httpx.Response:
        start.wait(30)
        body = {**ORDER, "max_tokens": 100 + number, "stream": True}
        headers = {"taximeter-account": f"cus_at_once_{number}"}
        return example.post_anew("/v1/completions", json=body, headers=headers)

    with ThreadPoolExecutor(8) as pool:
        records = [example.record(answer) for answer in pool.map(one, range(8))]
    assert [record["subject"] for record in records] == [f"cus_at_once_{number}" for number in range(8)]
    assert [record["units"]["token_output"] for record in records] == [str(100 + number) for number in range(8)]
    assert {record["parent"] for record in records} == {None}
    assert len({record["prediction"] for record in records}) == 8


def test_a_connection_that_is_kept_makes_no_request_the_parent_of_the_next(example: Served) -> None:
    body = json.dumps({**ORDER, "stream": True}).encode()
    request = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\ntaximeter-prediction: %b\r\n%b\r\n%b"
    url = example.client.base_url
    with socket.create_connection((url.host, url.port or 80), 30) as connection:
        connection.sendall(request % (len(body), b"p-first", b"", body))
        connection.sendall(request % (len(body), b"p-second", b"connection: close\r\n", body))
        while connection.recv(65_536):
            pass
    assert [example.record_of(one)["parent"] for one in ("p-first", "p-second")] == [None, None]


# Applications that fail, stream on, or work on


def test_a_client_that_leaves_in_mid_stream_cancels_it_and_pays_for_what_was_made(apps: Served) -> None:
    with apps.client.stream("POST", "/endless") as answer:
        for count, _ in enumerate(answer.iter_lines()):
            if count > 20:
                break
    record = apps.record(answer)
    assert record["status"] == "canceled"
    assert record["units"]["token_input"] == "3"
    assert int(record["units"]["token_output"]) >= 10


def test_an_application_that_raises_fails_the_prediction(apps: Served) -> None:
    answer = apps.client.post("/fails", headers={"taximeter-prediction": "p-fails"})
    assert answer.status_code == 500
    assert apps.record_of("p-fails")["status"] == "failed"


def test_an_error_in_a_stream_that_began_well_fails_it(apps: Served) -> None:
    answer = apps.client.post("/breaks_off")
    assert answer.status_code == 200
    assert apps.record(answer)["status"] == "failed"


def test_a_call_downstream_bears_headers_by_which_it_is_linked(apps: Served) -> None:
    headers = {"taximeter-account": "cus_3", "taximeter-parent": "p-parent", "taximeter-root": "p-root"}
    answer = apps.client.post("/tells_downstream", headers=headers)
    ours = answer.headers["taximeter-prediction"]
    assert answer.json()["headers"] == {
        "taximeter-parent": ours,
        "taximeter-root": "p-root",
        "taximeter-account": "cus_3",
    }
    assert apps.record(answer)["units"] == {"image": "2"}


def test_an_account_that_is_denied_is_not_served(apps: Served) -> None:
    denied = apps.node.path / "run" / "denied" / "cus_none"
    denied.touch()
    refused = apps.client.post("/steps", headers={"taximeter-account": "cus_none"})
    denied.unlink()
    assert (refused.status_code, refused.headers["content-type"]) == (402, "application/problem+json")
    assert apps.client.post("/steps", headers={"taximeter-account": "cus_none"}).status_code != 402


def test_what_is_done_after_the_answer_is_no_part_of_the_prediction(apps: Served) -> None:
    answer = apps.client.post("/goes_on")
    assert apps.record(answer)["status"] == "succeeded"  # it is booked, and the work goes on
    apps.client.post("/stop")


# Servers


def test_fastapi_takes_it_as_a_middleware(node: Node) -> None:
    with served(node, "--app-dir", str(ROOT), "tests.system.asgi_apps:fastapi") as server:
        statuses = {}
        for query in ("count=7", "count=101", "count=x"):
            answer = server.client.post(f"/predict?{query}")
            record = server.record(answer)
            statuses[answer.status_code] = (record["model"], record["status"], record["units"])
    units = {"token_input": "1", "token_output": "7"}
    assert statuses[200] == ("acme/fast", "succeeded", units)
    assert statuses[429] == statuses[422] == ("acme/fast", "failed", {})


def test_an_application_without_a_framework_or_a_lifespan_takes_it(node: Node) -> None:
    with served(node, "--app-dir", str(ROOT), "tests.system.asgi_apps:pure") as server:
        assert server.record(server.client.post("/"))["status"] == "succeeded"


def test_the_servers_startup_says_ready_and_its_shutdown_that_it_stops(own_node: Node) -> None:
    with served(own_node, *EXAMPLE, ready="notify") as server:
        assert [mark["mark"] for mark in server.marks()] == ["ready"]
    assert [mark["mark"] for mark in server.marks()] == ["ready", "stopping"]
    with own_node.agent():
        (record,) = own_node.records(RecordType.INSTANCE)
    time = record["data"]["time"]
    assert time["boot_ns"] > 0
    assert time["idle_ns"] > 0
    assert time["active_ns"] == 0


def test_two_workers_are_one_instance_and_each_tells_its_own(own_node: Node) -> None:
    with served(own_node, *APPS, "--workers", "2") as server:

        def both() -> bool:
            server.post_anew("/tells_downstream")
            return len({mark["pid"] for mark in server.marks() if mark["mark"] == "start"}) == 2

        wait_until(both, "both workers to answer")
    assert "stopping" not in {mark["mark"] for mark in server.marks()}
    with own_node.agent():
        records = wait_until(own_node.predictions, "records")
        (instance,) = own_node.records(RecordType.INSTANCE)
    assert {record["data"]["status"] for record in records} == {"succeeded"}
    assert sum(record["data"]["time"]["share_ns"] for record in records) == instance["data"]["time"]["active_ns"]


def test_without_a_meter_a_server_serves_the_same(port: int) -> None:
    argv = [sys.executable, "-m", "uvicorn", *APPS, "--port", str(port), "--log-level", "warning"]
    with subprocess.Popen(argv) as process:

        def answer() -> httpx.Response | None:
            with contextlib.suppress(httpx.TransportError):
                return httpx.post(f"http://127.0.0.1:{port}/breaks_off", timeout=30)
            return None

        assert wait_until(answer, "an answer").status_code == 200
        process.terminate()


def test_what_the_page_shows_works(tmp_path: Path, port: int) -> None:
    require_program("curl")
    page = (ROOT / "docs" / "metering-servers.md").read_text()
    shown = re.search(r"<!-- run: server -->\n```console\n(.*?)```", page, re.DOTALL)
    assert shown
    waits = (
        'for _ in $(seq 300); do [ -e "$TAXIMETER_STATE_DIR/run/agent" ] && break; sleep 0.1; done',
        f"for _ in $(seq 300); do curl -sf http://127.0.0.1:{port}/health && break; sleep 0.1; done",
        "for _ in $(seq 300); do taximeter receipt p1 2>/dev/null | grep -q succeeded && break; sleep 0.1; done",
        "",
    )
    lines = [line[2:].replace("8000", str(port)) for line in shown[1].splitlines()]
    lines[1] = lines[1].replace("serve:app", f"serve:app --port {port}")
    script = "set -eu\ntrap 'kill $(jobs -p); wait' EXIT\n" + "".join(
        f"{line}\n{wait}\n" for line, wait in zip(lines, waits, strict=True)
    )
    (tmp_path / "agent.toml").write_text('[listen]\naddress = "127.0.0.1:0"\n')
    environment = {
        **os.environ,
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "TAXIMETER_CONFIG": str(tmp_path / "agent.toml"),
        "TAXIMETER_STATE_DIR": str(tmp_path / "state"),
        "TAXIMETER_RUN_DIR": str(tmp_path / "state" / "run"),
    }
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for said in ("cus_7", "examples/novelist", "token_input 3", "token_output 64"):
        assert said in done.stdout
