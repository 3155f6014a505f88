"""Early charges and prepaid credit, for real: runs that cross a threshold, agents that are killed, refusals."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from taximeter.records import RecordType
from tests.require import require_program
from tests.system.agents import Agent, Node, wait_until
from tests.system.rides import PROGRAM, children_of

pytestmark = pytest.mark.system

#: A second costs a dollar.
RATES = """
version = "test"
effective = 2026-01-01T00:00:00Z
currency = "USD"
[tiers]
cpu = "1"
"""
CHARGES = '[hardware]\nnvml = false\n[charges]\nthresholds = ["0.2", "0.4"]\n'
PREPAID = '[hardware]\nnvml = false\n[credit]\nprepaid = ["cus_7"]\n'
#: Some 50 ms, and so five cents.
RIDE = (sys.executable, "-c", "import time; time.sleep(0.05)")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "rates.toml").write_text(RATES)
    return Node(PROGRAM, tmp_path / "node", head='rates = "rates.toml"')


def booked(node: Node, many: int) -> None:
    wait_until(lambda: len(node.predictions()) >= many, f"{many} predictions in the ledger")


def verdict(node: Node) -> list[str]:
    with LedgerReader(node.state / "ledger.db") as reader:
        return [f"{fault.seq}: {fault.what}" for fault in audit(reader).faults]


def test_runs_that_cross_a_threshold_are_told_once_also_where_the_agent_is_killed_around_it(node: Node) -> None:
    node.config, chance, runs = CHARGES, random.Random(7), 0
    for _ in range(10):
        with node.agent() as agent:
            for _ in range(2):
                node.run("--account", "cus_7", "--", *RIDE)
                runs += 1
            time.sleep(chance.random() * 0.05)  # anywhere around the commits
            agent.process.send_signal(signal.SIGKILL)
            agent.process.wait()
    with node.agent():
        booked(node, runs)
    told = [record["data"] for record in node.records(RecordType.THRESHOLD)]
    assert [(one["account"], one["threshold"]) for one in told] == [("cus_7", "0.2"), ("cus_7", "0.4")]
    assert verdict(node) == []


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_an_agent_that_is_killed_at_any_write_or_sync_of_a_commit_tells_a_threshold_once(node: Node, call: str) -> None:
    require_program("strace")
    node.config = CHARGES
    with node.agent():
        pass  # makes the ledger
    for when in range(1, 21, 2):
        node.run("--account", "cus_7", "--", *RIDE)
        killed_at(node, f"{call}:signal=KILL:when={when}")
    with node.agent():
        booked(node, 10)
    assert [record["data"]["threshold"] for record in node.records(RecordType.THRESHOLD)] == ["0.2", "0.4"]
    assert verdict(node) == []


def killed_at(node: Node, point: str) -> None:
    """An agent that is killed at this point, or has nothing more to do."""
    words = [
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={point.partition(':')[0]}",
        "-e",
        f"inject={point}",
    ]
    config = str(node.path / "agent.toml")
    with subprocess.Popen([*words, PROGRAM, "agent", "--config", config], env=node.environment()) as process:
        said = node.path / "run" / "agent"
        wait_until(lambda: process.poll() is not None or is_ready(said, children_of(process.pid)), "a kill", 60)
        for pid in children_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_ready(said: Path, pids: list[int]) -> bool:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return json.loads(said.read_text())["pid"] in pids
    return False


def taken(node: Node, *words: str) -> dict[str, Any]:
    done = node.taximeter(*words, "--json")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def refused(node: Node) -> bool:
    return (node.path / "run" / "denied" / "cus_7").exists()


def ride(node: Node) -> int:
    return node.run("--account", "cus_7", "--", *RIDE).returncode


def test_a_prepaid_account_runs_on_credit_is_refused_without_and_runs_again(node: Node) -> None:
    node.config = PREPAID
    with node.agent() as agent:
        assert ride(node) == 77
        granted = taken(node, "grant", "cus_7", "0.01", "USD", "--id", "g1")
        assert (granted["new"], refused(node)) == (True, False)
        assert ride(node) == 0  # which costs more than is there: nothing that runs is stopped
        wait_until(lambda: refused(node), "a refusal")
        (usd,) = taken(node, "account", "cus_7")["currencies"]
        assert usd["balance"].startswith("-0.")
        assert agent.metric("taximeter_accounts_denied") == 1
        assert ride(node) == 77
        assert node.run("--account", "cus_8", "--", *RIDE).returncode == 0
        taken(node, "grant", "cus_7", "100", "USD", "--id", "g2", "--expires", "2199-01-01")
        assert taken(node, "grant", "cus_7", "100", "USD", "--id", "g2", "--expires", "2199-01-01")["new"] is False
        assert node.taximeter("grant", "cus_7", "101", "USD", "--id", "g2").returncode == 1
        assert ride(node) == 0
    assert verdict(node) == []


def test_what_was_refused_is_refused_over_kills_and_restarts(node: Node) -> None:
    node.config = PREPAID
    for how in (Agent.stop, kill):
        with node.agent() as agent:
            wait_until(lambda: refused(node), "a refusal")
            how(agent)
        assert ride(node) == 77
    node.config = '[hardware]\nnvml = false\n[credit]\nwithout_agent = "refuse"\n'
    with node.agent():
        assert (refused(node), ride(node)) == (False, 0)
    assert ride(node) == 77


def kill(agent: Agent) -> None:
    agent.process.kill()
    agent.process.wait()


def test_a_refusal_comes_soon_after_the_run_that_used_up_the_credit(node: Node) -> None:
    node.config = PREPAID
    with node.agent():
        taken(node, "grant", "cus_7", "0.01", "USD", "--id", "g1")
        ride(node)
        ended_s = time.time()
        wait_until(lambda: refused(node), "a refusal")
        late_s = os.stat(node.path / "run" / "denied" / "cus_7").st_mtime - ended_s
        assert late_s < 2
