"""`taximeter.client` in real workers under a real wrapper: what each way of predicting comes to in the ledger."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taximeter.records import RecordType
from tests.system.agents import Agent, Node, wait_until
from tests.system.rides import PYTHON, Rides, state_of

pytestmark = pytest.mark.system

#: Predicts in every way that there is; each prediction is called by its way.
WORKER = Path(__file__).parent / "client_ways.py"


@pytest.fixture(scope="module")
def agent(taximeter_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """The agent of all workers of this module."""
    with Node(taximeter_program, tmp_path_factory.mktemp("client") / "node").agent() as agent:
        yield agent


@pytest.fixture(scope="module")
def booked(agent: Agent) -> dict[str, dict[str, Any]]:
    """The last record of each prediction of that worker, by its id."""
    node = agent.node
    done = node.run("--worker", "--model", "acme/sum", "--", sys.executable, str(WORKER))
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    wait_until(lambda: [r for r in node.records(RecordType.INSTANCE) if r["data"]["final"]], "the instance's record")
    return {record["data"]["prediction"]: record["data"] for record in node.predictions() if record["data"]["final"]}


def test_every_way_of_predicting_is_booked(booked: dict[str, dict[str, Any]]) -> None:
    ways = {name: data["status"] for name, data in booked.items()}
    others = ("raised", "task-canceled")
    assert {name: status for name, status in ways.items() if name in others} == {
        "raised": "failed",
        "task-canceled": "canceled",
    }
    assert {name for name, status in ways.items() if status == "succeeded"} == {
        *("plain", "nested", "downstream", "loading", "decorated", "generated", "task-0", "task-1", "task-2"),
        *("thread-0", "thread-1", "thread-2", "forked", "spawned", "handed-over", "echoed"),
    }


def test_nothing_that_the_client_says_is_rejected(agent: Agent, booked: dict[str, dict[str, Any]]) -> None:
    _, metrics = agent.get("/metrics")
    assert [line for line in metrics.splitlines() if line.startswith(b"taximeter_rejected_marks_total{")] == []


def test_a_record_has_what_the_worker_said(booked: dict[str, dict[str, Any]]) -> None:
    plain = booked["plain"]
    said = ("account", "model", "version", "class", "attributes", "units", "parent", "root", "traceparent")
    assert {key: plain[key] for key in said} == {
        "account": "cus_7",
        "model": "acme/sum",
        "version": "3f2a",
        "class": "public",
        "attributes": {"resolution": "1080p"},
        "units": {"token_input": "3", "token_output": "3", "image": "0.5"},
        "parent": None,
        "root": "plain",
        "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    }


def test_times_are_the_workers_own(booked: dict[str, dict[str, Any]]) -> None:
    sources = {data["timing"][end]["source"] for data in booked.values() for end in ("start", "end")}
    assert sources == {"mark"}
    assert booked["plain"]["timing"]["end"]["uncertainty_ns"] is not None


@pytest.mark.parametrize("name", ["nested", "downstream"])
def test_what_a_prediction_calls_has_it_as_parent(booked: dict[str, dict[str, Any]], name: str) -> None:
    assert (booked[name]["parent"], booked[name]["root"], booked[name]["account"]) == ("plain", "plain", "cus_7")


def test_load_is_apart_from_what_is_active(booked: dict[str, dict[str, Any]]) -> None:
    assert booked["loading"]["class"] == "fast_boot"
    assert booked["loading"]["time"]["load_ns"] > 0
    assert booked["loading"]["time"]["active_ns"] > 0


def test_tasks_at_once_share_what_they_took(booked: dict[str, dict[str, Any]]) -> None:
    times = [booked[f"task-{n}"]["time"] for n in range(3)]
    assert all(0 < time["share_ns"] < time["active_ns"] for time in times)


def finals(node: Node, prefix: str) -> dict[str, str]:
    return {
        record["data"]["prediction"]: record["data"]["status"]
        for record in node.predictions()
        if record["data"]["final"] and record["data"]["prediction"].startswith(prefix)
    }


def test_a_process_that_dies_with_a_prediction_fails_it(agent: Agent) -> None:
    code = "import os\nfrom taximeter import client\nclient.prediction('left-open').start()\nos.kill(os.getpid(), 9)"
    agent.node.run("--worker", "--", sys.executable, "-c", code)
    assert wait_until(lambda: finals(agent.node, "left-open"), "its record") == {"left-open": "failed"}


FLOODS = """
import sys
from taximeter import client
client.ready()
sys.stdin.readline()
for n in range(12_000):
    with client.prediction(f"flood-{n:05}"):
        pass
    if n % 100 == 0 and client.dropped():
        break
print(n, client.dropped(), flush=True)
sys.stdin.readline()
"""


def test_a_wrapper_that_is_stopped_costs_the_worker_no_time_and_no_end(tmp_path: Path) -> None:
    rides = Rides(tmp_path)
    with rides.start("--worker", "--", PYTHON, "-c", FLOODS, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        rides.wait_for("mark")
        os.kill(process.pid, signal.SIGSTOP)
        wait_until(lambda: state_of(process.pid) == "T", "the wrapper to be stopped")
        process.stdin.write("\n")
        process.stdin.flush()
        count, dropped = map(int, process.stdout.readline().split())
        os.kill(process.pid, signal.SIGCONT)
        begun = count + 1 - dropped
        wait_until(lambda: len(rides.facts("mark")) >= 1 + 2 * begun, "all that was kept")
        process.communicate("\n")
    assert 0 < dropped < 12_000
    assert len(rides.facts("mark")) == 1 + 2 * begun


def test_outside_of_a_wrapped_process_it_does_nothing(tmp_path: Path) -> None:
    code = """
import os
from taximeter import client
before = set(os.listdir("/proc/self/fd"))
with client.prediction(model="acme/sum") as prediction:
    prediction.add(image=1)
print(len(prediction.id), client.dropped(), set(os.listdir("/proc/self/fd")) == before)
"""
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "36 0 True\n"
