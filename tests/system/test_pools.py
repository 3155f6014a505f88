"""A pool, for real: one base model, fine-tunes of three customers one after another and at once, and who pays what."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taximeter.records import RecordType
from tests.system.agents import Agent, Node, wait_until
from tests.system.faults import LATE_NS, SECOND, check_ledger, finals

pytestmark = pytest.mark.system

#: Does what it is told, a word a line, and says when it had said so to the meter.
TOLD = """
import sys, time
from taximeter import client
client.ready()
runs = {}
for line in sys.stdin:
    what, name, *account = line.split()
    if what == "start":
        told = {"account": account[0], "version": f"of-{account[0]}", "service_class": "fast_boot"}
        runs[name] = client.prediction(name, **told).start()
    elif what == "active":
        runs[name].active()
    elif what == "finish":
        runs[name].finish()
    print(time.monotonic_ns(), flush=True)
"""
POOL = (
    "--worker",
    "--ready",
    "notify",
    "--pool",
    "sdxl",
    "--model",
    "acme/sdxl",
    "--",
    sys.executable,
    "-P",
    "-c",
    TOLD,
)
PRICE = Decimal("0.0001")
CUSTOMERS = {"a": "cus_a", "b": "cus_b", "c": "cus_c"}


class Story:
    """What a worker was told, and when it did that at the earliest and at the latest."""

    def __init__(self, wrapper: "subprocess.Popen[str]") -> None:
        self._wrapper = wrapper
        self.at: dict[str, tuple[int, int]] = {}

    def tell(self, what: str, wait_s: float = 0.0) -> None:
        """Tell it, `wait_s` after the last word."""
        until_s = time.monotonic() + wait_s
        wait_until(lambda: time.monotonic() >= until_s, "some time to pass")
        assert self._wrapper.stdin is not None
        assert self._wrapper.stdout is not None
        said_ns = time.monotonic_ns()
        self._wrapper.stdin.write(what + "\n")
        self._wrapper.stdin.flush()
        done_ns = int(self._wrapper.stdout.readline())
        self.at[" ".join(what.split()[:2])] = said_ns, done_ns

    def between(self, first: str, last: str) -> tuple[int, int]:
        """How much passed, at least and at most; a wrapper that gets no core takes a mark's word later."""
        return self.at[last][0] - self.at[first][1] - LATE_NS, self.at[last][1] - self.at[first][0] + LATE_NS


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    return Node(taximeter_program, tmp_path / "node", config="[billing]\ninterim_s = 1\n[hardware]\nnvml = false\n")


@pytest.fixture
def agent(node: Node) -> Iterator[Agent]:
    with node.agent() as agent:
        yield agent


@pytest.fixture
def story(node: Node, agent: Agent) -> Story:
    """`a` loads and runs alone; then `b`, and `c` loads beside it and runs with it, and on after it."""
    with node.spawn(*POOL, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as wrapper:
        story = Story(wrapper)
        story.tell("start a cus_a")
        story.tell("active a", 0.3)
        story.tell("finish a", 0.4)
        story.tell("start b cus_b", 0.2)
        story.tell("active b", 0.2)
        story.tell("start c cus_c", 0.1)
        story.tell("active c", 0.5)
        story.tell("finish b", 0.6)
        story.tell("finish c", 0.3)
        assert wrapper.stdin is not None
        wrapper.stdin.close()
        assert wrapper.wait(30) == 0
    wait_until(lambda: [one for one in node.records(RecordType.INSTANCE) if one["data"]["final"]], "its last record")
    return story


def data_of(node: Node, kind: RecordType, name: str | None = None) -> list[dict[str, Any]]:
    return [one["data"] for one in node.records(kind) if one["data"]["prediction"] == name]


def total(records: list[dict[str, Any]], part: str) -> int:
    return sum(data["time"][part] for data in records)


def test_fine_tunes_of_three_customers_share_a_pool(node: Node, agent: Agent, story: Story) -> None:
    runs = {name: data_of(node, RecordType.PREDICTION, name) for name in CUSTOMERS}
    own = data_of(node, RecordType.INSTANCE)
    check_ledger(node)
    for name, records in runs.items():
        for part, bounds in {
            "load_ns": story.between(f"start {name}", f"active {name}"),
            "active_ns": story.between(f"active {name}", f"finish {name}"),
        }.items():
            assert bounds[0] <= total(records, part) <= bounds[1], (name, part)
        assert {(data["account"], data["version"], data["class"], data["pool"]) for data in records} == {
            (CUSTOMERS[name], f"of-{CUSTOMERS[name]}", "fast_boot", "sdxl")
        }
        # Of load nobody pays anything, of active time its customer the share.
        billed = sum((Decimal(data["billing"]["amount"]) for data in records), Decimal(0))
        assert billed == PRICE * total(records, "share_ns") / SECOND
    assert total(runs["a"], "share_ns") == total(runs["a"], "active_ns")
    assert total(runs["b"], "share_ns") < total(runs["b"], "active_ns")
    assert sum(total(records, "share_ns") for records in runs.values()) == total(own, "active_ns")
    assert {data["concurrency"]["max"] for data in runs["a"]} <= {0, 1}
    assert 2 in {data["concurrency"]["max"] for data in runs["c"]}
    # The pool's own time is the platform's, apart from all of that.
    assert {one["subject"] for one in node.records(RecordType.INSTANCE)} == {"platform"}
    assert {data["billing"]["status"] for data in own} == {"informative"}
    assert total(own, "boot_ns") > 0
    assert total(own, "idle_ns") > 3 * SECOND // 10


def test_what_was_sold_of_a_pool_is_told_over_restarts_of_the_agent(node: Node, agent: Agent, story: Story) -> None:
    own = data_of(node, RecordType.INSTANCE)
    shares = sum(total(data_of(node, RecordType.PREDICTION, name), "share_ns") for name in CUSTOMERS)
    sold = agent.metric('taximeter_pool_sold_seconds_total{pool="sdxl"}')
    assert sold == pytest.approx(shares / 1e9)
    (pool,) = told_of_pools(node)
    assert (pool["pool"], pool["wall_ns"], pool["sold_ns"]) == ("sdxl", total(own, "wall_ns"), shares)
    assert pool["sold_ratio"] == round(shares / pool["wall_ns"], 4)
    assert (
        sum(pool[f"{phase}_ns"] for phase in ("boot", "idle", "active", "teardown", "suspended", "unknown"))
        == (pool["wall_ns"])
    )
    agent.process.kill()
    agent.process.wait()
    assert told_of_pools(node) == [pool]
    with node.agent() as again:
        assert told_of_pools(node) == [pool]
        assert again.metric('taximeter_pool_sold_seconds_total{pool="sdxl"}') == 0


def told_of_pools(node: Node) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(node.taximeter("status", "--json").stdout)["pools"]
    return told


def test_a_node_that_burns_takes_an_interval_with_it_and_no_more(node: Node) -> None:
    """Everything is killed at once; what counts is what had been shipped by then."""
    shipped = node.state / "usage.ndjson"

    def told(kind: RecordType) -> list[dict[str, Any]]:
        lines = shipped.read_bytes().splitlines(True) if shipped.exists() else []
        records = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [record["data"] for record in records if record["type"] == kind]

    with node.agent() as agent, node.spawn(*POOL, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as wrapper:
        story = Story(wrapper)
        story.tell("start a cus_a")
        story.tell("active a")
        story.tell("start b cus_b")  # it only loads
        wait_until(lambda: len(told(RecordType.INSTANCE)) >= 4, "some interim records")
        command = command_of(wrapper)
        burns_ns = time.monotonic_ns()
        for pid in (agent.process.pid, wrapper.pid, command):
            os.kill(pid, signal.SIGKILL)
        agent.process.wait()
        wrapper.wait()
        untold_ns = SECOND + SECOND + LATE_NS  # the interval, the heartbeat that passes its end, and who had no core
        for kind, name in ((RecordType.INSTANCE, None), (RecordType.PREDICTION, "a"), (RecordType.PREDICTION, "b")):
            records = [data for data in told(kind) if data["prediction"] == name]
            assert burns_ns - records[-1]["interval"]["end_ns"] <= untold_ns
            for part, to_date in records[-1]["to_date"].items():
                assert total(records, part) == to_date
    with node.agent():
        wait_until(lambda: set(finals(node)) == {"a", "b"}, "what was left to be booked")
    check_ledger(node)


def command_of(wrapper: "subprocess.Popen[str]") -> int:
    """The pid of the command."""
    return int(Path(f"/proc/{wrapper.pid}/task/{wrapper.pid}/children").read_text().split()[0])
