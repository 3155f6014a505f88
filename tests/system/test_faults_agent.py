"""Kill -9 of the agent at its system calls, while it books, ships and cleans up: everything is billed once and whole.

Injects SIGKILL, by strace, before the N-th system call of one of the agent's threads: those that read journals, write
the ledger, ship, remove what was shipped, wait. Each agent that is killed so is followed by the next on the same node,
while runs come and go, one command lives through it all with its wrapper, and one without. TAXIMETER_SWEEP=all kills at
every single one of these calls.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.require import require_program
from tests.system.agents import SEALED, Node, wait_until
from tests.system.faults import (
    SWEEP_ALL,
    Point,
    booked,
    check_bill,
    check_ledger,
    finals,
    gate,
    inject,
    sample,
    strace,
    wait_for_fact,
)
from tests.system.rides import children_of

pytestmark = [pytest.mark.timeout(0)] * SWEEP_ALL  # every point takes as long as it takes

#: The calls that an agent does its work with, by what they are for; its start is a thousand others.
WORK = {
    "ledger": ("pwrite64", "fdatasync"),
    "reader": ("pread64", "openat", "fcntl", "getdents64"),
    "shipper": ("write", "fsync", "unlinkat", "unlink", "rename"),
    "loop": ("epoll_wait", "epoll_ctl", "recvmmsg", "sendto"),
}
MOST_OF_EACH = 5


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    require_program("strace")
    return Node(taximeter_program, tmp_path / "node", config="[billing]\ninterim_s = 1\n" + SEALED)


@contextlib.contextmanager
def traced(node: Node, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """An agent under strace; it and strace are gone at the end."""
    node.path.mkdir(exist_ok=True)
    config = node.path / "agent.toml"
    config.write_text(f'[listen]\naddress = "127.0.0.1:0"\n{node.config}')
    words = [*strace("-f", *options), node.program, "agent", "--config", str(config)]
    with (node.path / "agent.log").open("a") as log:
        process = subprocess.Popen(words, env=node.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        for pid in children_of(process.pid):  # an agent that was not reached by its point; strace itself heeds nothing
            os.kill(pid, signal.SIGKILL)
        process.wait(20)


def begins(node: Node, process: subprocess.Popen[bytes]) -> bool:
    """Wait until this agent is ready, or dead."""
    said = node.path / "run" / "agent"
    before = said.stat().st_mtime_ns if said.exists() else 0
    return bool(
        wait_until(
            lambda: process.poll() is not None or (said.exists() and said.stat().st_mtime_ns != before),
            "the agent to be ready or dead",
        )
    )


def points_of_the_work(node: Node, path: Path) -> list[Point]:
    """The calls of an agent that has a little of everything to do, thread by thread, each point once.

    From the first file of its own on: what came before only loaded it.
    """
    calls = ",".join(call for calls in WORK.values() for call in calls)
    with traced(node, "-o", str(path), "-e", f"trace={calls}") as process:
        begins(node, process)
        node.run("--prediction", "traced", "--", "true")
        wait_until(lambda: "traced" in finals(node), "its record")
        wait_until(lambda: not list(node.journal.glob("*.ndjson")), "the journal to go")
    made: Counter[tuple[str, str]] = Counter()
    begun, points = False, dict[Point, None]()
    for line in path.read_text(errors="replace").splitlines():
        thread, _, rest = line.partition(" ")
        call, bracket, words = rest.strip().partition("(")
        if bracket and call.isidentifier():
            begun = begun or str(node.state) in words
            made[thread, call] += 1
            if begun:
                points[Point(call, made[thread, call])] = None
    return list(points)


def chosen(points: Sequence[Point]) -> list[Point]:
    return [
        point
        for calls in WORK.values()
        for point in sample([point for point in points if point.call in calls], MOST_OF_EACH)
    ]


def test_killed_at_any_call_of_its_work_it_bills_everything_once_and_whole(node: Node, tmp_path: Path) -> None:
    points = chosen(points_of_the_work(node, tmp_path / "trace"))
    reached = 0
    with (
        gate(tmp_path / "gate") as opened,
        node.spawn("--prediction", "whole", "--", *opened.command("whole")) as whole,
        node.spawn("--prediction", "orphan", "--", *opened.command("orphan")) as wrapper,
    ):
        opened.hold("whole")
        opened.hold("orphan")
        wait_for_fact(node, "orphan", "spawn")
        wrapper.kill()
        for point in points:
            node.run("--prediction", f"waits {point}", "--", "true")
            with traced(node, *inject(point)) as process:
                begins(node, process)
                node.run("--prediction", f"comes {point}", "--", "false")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                reached += process.poll() is not None
            check_ledger(node)
        with node.agent() as agent:
            wait_until(lambda: agent.metric('taximeter_instances{phase="active"}') == 2, "the two that live")
            truths = opened.open()
            assert whole.wait(20) == 7
            wait_until(lambda: len(finals(node)) == 2 * len(points) + 3, "everything that ran")
            wait_until(lambda: agent.metric('taximeter_outbox_pending{sink="usage"}') == 0, "everything to be shipped")
            wait_until(lambda: not list(node.journal.glob("*.ndjson")), "the journals to go")
            assert agent.stop() == 0
    assert reached > len(points) // 2, "the sweep missed most of its points"
    check_ledger(node)
    done = finals(node)
    for name, status in (("waits", "succeeded"), ("comes", "failed")):
        assert {done[f"{name} {point}"]["status"] for point in points} == {status}
    for name, truth in truths.items():
        check_bill(done[name], truth, 0)
        assert sum(data["time"]["unknown_ns"] for data in booked(node)[name]) == 0
    lines = [json.loads(line) for line in (node.state / "usage.ndjson").read_text().splitlines()]
    assert lines == node.records()


def test_killed_while_it_begins_a_ledger_it_leaves_one_that_the_next_goes_on_with(
    taximeter_program: str, tmp_path: Path
) -> None:
    node = Node(taximeter_program, tmp_path / "traced", config=SEALED)
    node.run("--", "true")
    points = points_of_the_work(node, tmp_path / "trace")
    for number, point in enumerate(sample(points, 6)):
        node = Node(taximeter_program, tmp_path / str(number))
        node.run("--prediction", "run", "--", "true")
        with traced(node, *inject(point)) as process:
            begins(node, process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        with node.agent() as agent:
            wait_until(lambda node=node: "run" in finals(node), f"the record, after a kill before {point}")
            assert agent.stop() == 0
        check_ledger(node)
