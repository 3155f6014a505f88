"""The worker to copy (examples/worker): several customers' fine-tunes on one base model, in turn and at once."""

import base64
import contextlib
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taximeter.records import RecordType
from tests.conftest import ROOT
from tests.system.agents import Node, wait_until
from tests.system.rides import children_of

pytestmark = pytest.mark.system

SERVE = ROOT / "examples" / "worker" / "serve.py"


@dataclass
class Server:
    """The example, listening."""

    process: "subprocess.Popen[str]"
    url: str

    def predict(self, model: str, account: str, prediction: str, words: int = 40) -> dict[str, Any]:
        body = json.dumps({"model": model, "prompt": "She was", "words": words}).encode()
        headers = {"taximeter-account": account, "taximeter-prediction": prediction}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/predict", body, headers), timeout=60) as answer:
            said: dict[str, Any] = json.load(answer)
            return said


@contextlib.contextmanager
def served(node: Node) -> Iterator[Server]:
    words = ("--worker", "--pool", "prose", "--ready", "notify", "--on-term", "drain")
    argv = [*words, "--", sys.executable, str(SERVE), "--port", "0"]
    with node.spawn(*argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield Server(process, process.stdout.readline().split()[-1])


@pytest.fixture(scope="module")
def booked(taximeter_program: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The last records of one life of it: by prediction, and of the instance as `instance`."""
    node = Node(taximeter_program, tmp_path_factory.mktemp("worker") / "node")
    with node.agent():
        with served(node) as server, ThreadPoolExecutor(3) as customers:
            # Long enough that its end is not before its beginning is read, however late that is.
            server.predict("examples/sea", "cus_sea", "first", 2000)
            server.predict("examples/sea", "cus_sea", "second")
            models = ("examples/sea", "examples/vanity", "examples/letters")
            list(customers.map(lambda n: server.predict(models[n], f"cus_{n}", f"at-once-{n}", 400), range(3)))
            begun = customers.submit(server.predict, "examples/sea", "cus_sea", "drained", 2000)
            wait_until(lambda: [line for line in marks(node) if b'"drained"' in line], "it to have begun")
            server.process.send_signal(signal.SIGTERM)
            assert begun.result()["text"]
            assert server.process.wait(30) == 0
        wait_until(lambda: [r for r in node.records(RecordType.INSTANCE) if r["data"]["final"]], "its record")
        records = [record["data"] for record in node.records() if record["data"].get("final")]
    return {data["prediction"] or "instance": data for data in records}


def marks(node: Node) -> list[bytes]:
    return [
        base64.b64decode(json.loads(line)["raw"])
        for path in node.journal.glob("*.ndjson")
        for line in path.read_bytes().partition(b"\0")[0].splitlines()
        if b'"f":"mark"' in line
    ]


def test_each_prediction_is_its_customers(booked: dict[str, dict[str, Any]]) -> None:
    said = {name: (data["account"], data["model"], data["class"], data["pool"]) for name, data in booked.items()}
    assert said["first"] == ("cus_sea", "examples/sea", "fast_boot", "prose")
    assert said["at-once-1"] == ("cus_1", "examples/vanity", "fast_boot", "prose")
    assert {data["status"] for data in booked.values()} == {"succeeded"}


def test_its_units_are_the_words_it_read_and_wrote(booked: dict[str, dict[str, Any]]) -> None:
    assert booked["first"]["units"] == {"token_input": "2", "token_output": "2000"}


def test_who_asks_first_waits_for_the_load_and_does_not_pay_for_it(booked: dict[str, dict[str, Any]]) -> None:
    first, second = booked["first"], booked["second"]
    assert first["time"]["load_ns"] > 3 * second["time"]["load_ns"]
    # One whose beginning is read only at its end, by a wrapper that waits for a core, costs nothing: not so all.
    meters = {line["meter"] for data in booked.values() for line in data["billing"]["lines"]}
    assert meters == {"share"}


def test_boot_and_idle_are_the_platforms(booked: dict[str, dict[str, Any]]) -> None:
    instance = booked["instance"]
    assert instance["account"] is None
    assert instance["time"]["boot_ns"] > 0
    assert instance["exit"]["code"] == 0


def test_shares_add_up_to_what_the_pool_was_active(booked: dict[str, dict[str, Any]]) -> None:
    shares = sum(data["time"]["share_ns"] for name, data in booked.items() if name != "instance")
    assert shares == booked["instance"]["to_date"]["active_ns"]


def test_what_was_begun_is_finished_after_a_sigterm(booked: dict[str, dict[str, Any]]) -> None:
    assert booked["drained"]["units"]["token_output"] == "2000"


def test_a_request_that_makes_no_sense_is_no_prediction(taximeter_program: str, tmp_path: Path) -> None:
    node = Node(taximeter_program, tmp_path / "node")
    with served(node) as server:
        for body in (b"", b"[]", b'{"model":"none","prompt":""}', b'{"model":"examples/sea","prompt":3}'):
            with pytest.raises(urllib.error.HTTPError, match="400") as refused:
                urllib.request.urlopen(f"{server.url}/predict", body, timeout=30)
            refused.value.close()
        assert not [line for line in marks(node) if b'"start"' in line]
        assert children_of(server.process.pid)
