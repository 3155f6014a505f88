"""Real children of real workers: whose prediction ends when which process does, and what that costs its customer.

Each with the agent's pidfds alone, and with the kernel's process events where these may be had.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taximeter.records import RecordType
from tests.require import require_program, require_root
from tests.system.agents import Agent, Node, wait_until
from tests.system.faults import KERNEL_LATE_NS, LATE_NS, MS, SECOND, check_ledger, facts_of, finals

PER_S = Decimal("0.0001")  #: the price of the tier `cpu`

#: Does what it is told, a line each: `mark JSON` says it; `fork NAME` has a child that says everything after `|` by
#: itself (and `pid` with it) and then waits, `brief NAME` one that ends at once; `spawn` one that runs another program.
WORKER = r"""
import json, os, subprocess, sys, time
marks = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR | os.O_NONBLOCK)
CHILD = (
    "import json, os, sys, time; marks = os.open(os.environ['TAXIMETER_MARKS'], os.O_RDWR)\n"
    "for mark in json.loads(sys.argv[1]):\n"
    "    os.write(marks, json.dumps({**mark, 'pid': os.getpid(), 'at': time.monotonic_ns()}).encode() + b'\\n')\n"
    "print(os.getpid(), flush=True)\n"
    "time.sleep(60)\n"
)
def say(mark):
    os.write(marks, json.dumps({**mark, "at": time.monotonic_ns()}).encode() + b"\n")
def child(said):
    for mark in json.loads(said):
        if mark is None:
            time.sleep(0.02)
        else:
            say({**mark, "pid": os.getpid()})
say({"mark": "ready"})
for line in sys.stdin:
    what, _, said = line.strip().partition(" ")
    if what == "mark":
        say(json.loads(said))
        print("said", flush=True)
    elif what == "spawn":
        subprocess.Popen([sys.executable, "-c", CHILD, said])
    else:
        pid = os.fork()
        if pid == 0:
            child(said)
            if what == "fork":
                os.write(1, f"{os.getpid()}\n".encode())
                time.sleep(60)
            os._exit(0)
        if what == "brief":
            os.waitpid(pid, 0)
            print(pid, flush=True)
"""


@pytest.fixture(params=["pidfd", "kernel"])
def node(request: pytest.FixtureRequest, taximeter_program: str, tmp_path: Path) -> Node:
    if request.param == "kernel":
        require_root()
        return Node(taximeter_program, tmp_path / "node")
    return Node(taximeter_program, tmp_path / "node", config="[witness]\nkernel = false\n")


def start(name: str, **told: Any) -> dict[str, Any]:
    return {"mark": "start", "prediction": name, **told}


def finish(name: str, **told: Any) -> dict[str, Any]:
    return {"mark": "finish", "prediction": name, "status": "succeeded", **told}


class Worker:
    """A worker that is being told what to do."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.began_ns = (0, 0)  #: its last child was not there before, and had said all by then

    def tell(self, what: str, said: Any) -> str:
        """Its answer: of children, the pid that they have themselves."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what} {json.dumps(said)}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def says(self, **mark: Any) -> None:
        self.tell("mark", mark)

    def child(self, *marks: dict[str, Any], by: str = "fork") -> int:
        before_ns = time.monotonic_ns()
        pid = int(self.tell(by, marks))
        self.began_ns = (before_ns, time.monotonic_ns())
        return pid

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


@contextmanager
def worker(node: Node, *before: str) -> Iterator[Worker]:
    words = ("--worker", "--account", "cus_1", "--", *before, sys.executable, "-c", WORKER)
    with node.spawn(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Worker(process)


def until_final(node: Node, name: str) -> dict[str, Any]:
    return wait_until(lambda: finals(node).get(name), f"the end of {name}")


def until_held(agent: Agent, *pids: int) -> None:
    """Until the agent has a pidfd of each of these."""

    def held() -> set[int]:
        found = set()
        for fd in Path(f"/proc/{agent.process.pid}/fdinfo").iterdir():
            try:
                lines = fd.read_text().splitlines()
            except OSError:
                continue
            found |= {int(line.split()[1]) for line in lines if line.startswith("Pid:")}
        return found

    wait_until(lambda: held() >= set(pids), f"{pids} to be held")


def kill(pid: int) -> int:
    """Kill it; since when it is dead at the latest, by CLOCK_MONOTONIC."""
    os.kill(pid, signal.SIGKILL)
    return time.monotonic_ns()


def billed(node: Node, name: str) -> Decimal:
    """What all records of a prediction come to."""
    records = [record["data"] for record in node.records() if record["data"].get("prediction") == name]
    return sum((Decimal(data["billing"]["amount"] or "0") for data in records), Decimal(0))


def owed(time_ns: int) -> Decimal:
    return Decimal(time_ns) / SECOND * PER_S


def late_ns(node: Node) -> int:
    return LATE_NS if "false" in node.config else KERNEL_LATE_NS


def check_failed_at(agent: Agent, name: str, killed_ns: int, one: Worker) -> None:
    """It failed when its process was killed, by the best witness, and is billed until then, if it ran alone."""
    node, data = agent.node, until_final(agent.node, name)
    assert data["status"] == "failed"
    source, overruns = data["timing"]["end"]["source"], agent.metric("taximeter_kernel_overruns_total")
    assert source == ("agent" if "false" in node.config else "kernel"), f"{overruns:g} overruns"
    check_bill(node, name, killed_ns, one)


def check_bill(node: Node, name: str, killed_ns: int, one: Worker) -> None:
    before_ns, said_ns = one.began_ns
    assert owed(killed_ns - said_ns - 50 * MS) <= billed(node, name) <= owed(killed_ns - before_ns + late_ns(node))


def close(node: Node, one: Worker) -> None:
    one.end()
    wait_until(lambda: [r for r in node.records(RecordType.INSTANCE) if "exit" in r["data"]], "the worker's end")
    check_ledger(node)


@pytest.mark.parametrize("by", ["fork", "spawn"])
def test_what_a_child_had_begun_fails_where_it_died_and_the_rest_goes_on(node: Node, by: str) -> None:
    with node.agent() as agent, worker(node) as one:
        pid = one.child(start("a"), by=by)
        until_held(agent, pid)
        check_failed_at(agent, "a", kill(pid), one)
        one.says(**start("b"))
        one.says(**finish("b"))
        assert until_final(node, "b")["status"] == "succeeded"
        assert agent.metric('taximeter_orphaning_processes_total{end="seen"}') == 1
        close(node, one)


def test_predictions_that_overlap_pay_their_shares_when_one_child_of_many_dies(node: Node) -> None:
    with node.agent() as agent, worker(node) as one:
        begun_ns = time.monotonic_ns()
        pids = [one.child(start(name)) for name in "abcd"]
        until_held(agent, *pids)
        killed_ns = kill(pids[1])
        assert until_final(node, "b")["status"] == "failed"
        for name in "acd":
            one.says(**finish(name))
        ended_ns = time.monotonic_ns()
        assert {until_final(node, name)["status"] for name in "acd"} == {"succeeded"}
        assert billed(node, "b") <= owed(killed_ns - begun_ns + late_ns(node))
        assert sum((billed(node, name) for name in "abcd"), Decimal(0)) <= owed(ended_ns - begun_ns)
        close(node, one)


def test_a_detached_prediction_outlives_its_process(node: Node) -> None:
    with node.agent(), worker(node) as one:
        one.child(start("a", detached=True), by="brief")
        one.child(start("b"), by="brief")
        assert until_final(node, "b")["status"] == "failed"
        one.says(**finish("a"))
        assert until_final(node, "a")["status"] == "succeeded"
        close(node, one)


def test_children_that_finish_and_end_at_once_never_fail(node: Node) -> None:
    """Whoever sees the end before the last word waits for that."""
    names = [f"p{number}" for number in range(100)]
    with node.agent(), worker(node) as one:
        for name in names:
            one.child(start(name), finish(name), by="brief")
        wait_until(lambda: len(finals(node)) == len(names), "all of them")
        assert {data["status"] for data in finals(node).values()} == {"succeeded"}
        close(node, one)


def test_a_child_that_is_held_and_finishes_as_it_ends_has_finished(node: Node) -> None:
    with node.agent() as agent, worker(node) as one:
        for number in range(10):
            name = f"p{number}"
            one.child(start(name), *[None] * 5, finish(name), by="brief")
        wait_until(lambda: len(finals(node)) == 10, "all of them")
        assert {data["status"] for data in finals(node).values()} == {"succeeded"}
        assert agent.metric('taximeter_orphaning_processes_total{end="seen"}') == 0
        close(node, one)


def test_a_child_that_begins_and_dies_at_once_costs_no_more_than_it_lived(node: Node) -> None:
    with node.agent(), worker(node) as one:
        begun_ns = time.monotonic_ns()
        one.child(start("a"), by="brief")
        lived_ns = time.monotonic_ns() - begun_ns
        assert until_final(node, "a")["status"] == "failed"
        assert billed(node, "a") <= owed(lived_ns)
        close(node, one)


def test_nobody_pays_for_what_a_stranger_is_said_to_do(node: Node) -> None:
    """The pid of a process that is not the instance's."""
    with node.agent() as agent, worker(node) as one:
        one.says(**start("a", pid=os.getpid()))
        data = until_final(node, "a")
        assert (data["status"], data["time"]["active_ns"], billed(node, "a")) == ("failed", 0, 0)
        assert agent.metric('taximeter_orphaning_processes_total{end="not_of_the_instance"}') == 1
        close(node, one)


def test_a_worker_that_is_killed_fails_all_that_is_open_on_it_and_is_billed_until_then(node: Node) -> None:
    with node.agent() as agent, worker(node) as one:
        pid = one.child(start("a"))
        until_held(agent, pid)
        (command,) = [fact["pid"] for fact in facts_of(node, None) if fact["f"] == "spawn"]
        killed_ns = kill(command)
        assert until_final(node, "a")["status"] == "failed"
        check_bill(node, "a", killed_ns, one)
        kill(pid)
        check_ledger(node)


def test_a_child_that_died_while_there_was_no_agent_is_billed_to_its_last_mark(node: Node) -> None:
    with node.agent() as agent, worker(node) as one:
        pid = one.child(start("a"), {"mark": "units", "prediction": "a", "units": {"image": 1}})
        until_held(agent, pid)
        agent.process.kill()
        agent.process.wait()
        alone_ns = time.monotonic_ns()
        wait_until(lambda: time.monotonic_ns() > alone_ns + SECOND, "a second in which it runs")
        kill(pid)
        with node.agent() as later:
            data = until_final(node, "a")
            assert (data["status"], data["timing"]["end"]["source"]) == ("failed", "mark")
            assert data["time"]["unknown_ns"] > SECOND - 100 * MS
            assert billed(node, "a") <= owed(one.began_ns[1] - one.began_ns[0])
            assert later.metric('taximeter_orphaning_processes_total{end="unseen"}') == 1
            close(node, one)


def test_the_next_agent_holds_the_children_that_live(node: Node) -> None:
    with worker(node) as one:
        with node.agent() as agent:
            pid = one.child(start("a"))
            until_held(agent, pid)
            agent.process.kill()
        with node.agent() as agent:
            until_held(agent, pid)
            check_failed_at(agent, "a", kill(pid), one)
            close(node, one)


def test_a_child_that_dies_under_a_wrapper_that_was_killed_ends_what_it_had_begun(node: Node) -> None:
    with node.agent() as agent, worker(node) as one:
        pid = one.child(start("a"))
        until_held(agent, pid)
        one.process.kill()
        wait_until(lambda: list(node.journal.glob("*.heard")), "its adoption")
        check_failed_at(agent, "a", kill(pid), one)
        other = one.child(start("b"))  # told to the agent itself
        until_held(agent, other)
        kill(other)
        assert until_final(node, "b")["status"] == "failed"
        close(node, one)


def test_a_child_that_dies_while_its_wrapper_stands_still_is_not_billed_for_the_silence(node: Node) -> None:
    """Stopped for three seconds, in the second of which it dies."""
    with node.agent() as agent, worker(node) as one:
        begun_ns = time.monotonic_ns()
        pid = one.child(start("a"))
        until_held(agent, pid)
        one.process.send_signal(signal.SIGSTOP)
        stopped_ns = time.monotonic_ns()
        wait_until(lambda: time.monotonic_ns() > stopped_ns + 2 * SECOND, "two seconds of silence")
        kill(pid)
        wait_until(lambda: time.monotonic_ns() > stopped_ns + 3 * SECOND, "three")
        one.process.send_signal(signal.SIGCONT)
        assert until_final(node, "a")["status"] == "failed"
        assert billed(node, "a") <= owed(stopped_ns - begun_ns)
        close(node, one)


def test_a_pid_is_what_the_worker_has_in_its_own_namespace(node: Node) -> None:
    require_root()
    unshare = require_program("unshare")
    with node.agent() as agent, worker(node, unshare, "--pid", "--fork", "--kill-child") as one:
        own_pid = one.child(start("a"))
        here = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _takes(path, own_pid)]
        until_held(agent, *here)
        check_failed_at(agent, "a", kill(here[0]), one)
        close(node, one)


def _takes(process: Path, pid: int) -> bool:
    """Whether it has that pid in a namespace of its own."""
    try:
        status = (process / "status").read_text()
    except OSError:
        return False
    pids = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
    return len(pids) > 1 and int(pids[-1]) == pid
