"""SIGSTOP of the wrapper, the agent and the command for longer than a heartbeat, and then SIGCONT or SIGKILL.

A wrapper that sleeps vouches for nothing, so its silence is unknown and not billed, and no longer than it was. An agent
that sleeps misses nothing: what happens meanwhile is in the journal, with the kernel, or, where neither tells, unknown.
A command that sleeps stays in its phase: it keeps its hardware.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.require import require_root
from tests.system.agents import Agent, Node, wait_until
from tests.system.faults import (
    HEARTBEAT_NS,
    KERNEL_LATE_NS,
    LATE_NS,
    SECOND,
    SWEEP_ALL,
    Gate,
    booked,
    check_bill,
    check_ledger,
    facts_of,
    finals,
    gate,
    wait_for_fact,
)

#: Longer than the silence after which nobody is believed; TAXIMETER_SWEEP=all: for half a minute.
STALL_NS = 30 * SECOND if SWEEP_ALL else 8 * SECOND // 5
SILENCE_NS = HEARTBEAT_NS + HEARTBEAT_NS // 4


@pytest.fixture
def node(request: pytest.FixtureRequest, taximeter_program: str, tmp_path: Path) -> Node:
    """Without the kernel's witness, where a test does not ask for it."""
    witness = getattr(request, "param", "pidfds")
    if witness == "kernel":
        require_root()
    return Node(
        taximeter_program, tmp_path / "node", config=f"[witness]\nkernel = {str(witness == 'kernel').lower()}\n"
    )


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Gate]:
    with gate(tmp_path / "gate") as at:
        yield at


def stall(pid: int) -> tuple[int, int]:
    """Stop a process for a while; when that was."""
    began_ns = time.monotonic_ns()
    os.kill(pid, signal.SIGSTOP)
    pass_time(began_ns + STALL_NS)
    return began_ns, time.monotonic_ns()


def pass_time(until_ns: int) -> None:
    wait_until(lambda: time.monotonic_ns() >= until_ns, "that time to pass", 60)


def is_active(agent: Agent) -> None:
    wait_until(lambda: agent.metric('taximeter_instances{phase="active"}') == 1, "the run")


def unknown_ns(node: Node, name: str = "run") -> int:
    return sum(data["time"]["unknown_ns"] for data in booked(node)[name])


def record_of(node: Node, name: str = "run") -> dict[str, Any]:
    data: dict[str, Any] = wait_until(lambda: finals(node).get(name), "the record")
    return data


def test_a_wrapper_that_sleeps_and_wakes_leaves_its_silence_unknown_and_no_more(node: Node, opened: Gate) -> None:
    words = ("--prediction", "run", "--", *opened.command("run"))
    with node.agent() as agent, node.spawn(*words) as wrapper:
        opened.hold("run")
        wait_for_fact(node, "run", "heartbeat")
        is_active(agent)
        began_ns, ended_ns = stall(wrapper.pid)
        before = len(facts_of(node, "run"))
        wrapper.send_signal(signal.SIGCONT)
        wait_until(lambda: len(facts_of(node, "run")) > before + 1, "further heartbeats")
        truth = opened.open()["run"]
        assert wrapper.wait(20) == 7
        data = record_of(node)
        assert "instance.adopted" not in agent.log.read_text()
    assert STALL_NS - HEARTBEAT_NS <= unknown_ns(node) <= ended_ns - began_ns + SILENCE_NS + LATE_NS
    check_bill(data, truth, unknown_ns(node))
    assert data["to_date"]["active_ns"] + unknown_ns(node) == data["to_date"]["wall_ns"]
    check_ledger(node)


def test_a_wrapper_that_sleeps_and_is_killed_is_replaced_by_the_agent_without_a_gap(node: Node, opened: Gate) -> None:
    words = ("--prediction", "run", "--", *opened.command("run"))
    with node.agent() as agent, node.spawn(*words) as wrapper:
        opened.hold("run")
        wait_for_fact(node, "run", "spawn")
        is_active(agent)
        stall(wrapper.pid)
        wrapper.kill()
        wait_until(lambda: "instance.adopted" in agent.log.read_text(), "the adoption")
        truth = opened.open()["run"]
        data = record_of(node)
    check_bill(data, truth, 0)
    assert unknown_ns(node) == 0
    check_ledger(node)


def test_a_command_that_ends_while_the_agent_sleeps_is_billed_as_its_wrapper_saw_it(node: Node, opened: Gate) -> None:
    words = ("--prediction", "run", "--", *opened.command("run"))
    with node.agent() as agent, node.spawn(*words) as wrapper:
        opened.hold("run")
        wait_for_fact(node, "run", "spawn")
        is_active(agent)
        agent.process.send_signal(signal.SIGSTOP)
        truth = opened.open()["run"]
        assert wrapper.wait(20) == 7
        pass_time(truth.gone_ns + STALL_NS)
        agent.process.send_signal(signal.SIGCONT)
        data = record_of(node)
    check_bill(data, truth, 0)
    assert unknown_ns(node) == 0
    check_ledger(node)


@pytest.mark.parametrize("node", ["kernel", "pidfds"], indirect=True)
def test_an_orphan_that_ends_while_the_agent_sleeps_costs_nothing_beyond_its_end(node: Node, opened: Gate) -> None:
    """The agent's own stamp of the end comes too late to be believed: only the kernel's was taken in time."""
    words = ("--prediction", "run", "--", *opened.command("run"))
    with node.agent() as agent, node.spawn(*words) as wrapper:
        opened.hold("run")
        wait_for_fact(node, "run", "spawn")
        is_active(agent)
        wrapper.kill()
        wait_until(lambda: "instance.adopted" in agent.log.read_text(), "the adoption")
        agent.process.send_signal(signal.SIGSTOP)
        truth = opened.open()["run"]
        pass_time(truth.gone_ns + STALL_NS)
        agent.process.send_signal(signal.SIGCONT)
        data = record_of(node)
    check_bill(data, truth, 0 if data["timing"]["end"]["source"] == "kernel" else SILENCE_NS + LATE_NS)
    assert data["interval"]["end_ns"] <= truth.gone_ns + KERNEL_LATE_NS or unknown_ns(node) >= STALL_NS
    check_ledger(node)


def test_a_wrapper_that_is_killed_while_the_agent_sleeps_is_replaced_when_it_wakes(node: Node, opened: Gate) -> None:
    words = ("--prediction", "run", "--", *opened.command("run"))
    with node.agent() as agent, node.spawn(*words) as wrapper:
        opened.hold("run")
        wait_for_fact(node, "run", "spawn")
        is_active(agent)
        agent.process.send_signal(signal.SIGSTOP)
        wrapper.kill()
        pass_time(time.monotonic_ns() + STALL_NS)
        agent.process.send_signal(signal.SIGCONT)
        wait_until(lambda: "instance.adopted" in agent.log.read_text(), "the adoption")
        truth = opened.open()["run"]
        data = record_of(node)
    check_bill(data, truth, 0)
    assert unknown_ns(node) == 0
    check_ledger(node)


def test_a_command_that_sleeps_stays_in_its_phase(node: Node, opened: Gate) -> None:
    words = ("--prediction", "run", "--", *opened.command("run"))
    with node.agent() as agent, node.spawn(*words) as wrapper:
        pid = opened.hold("run")
        is_active(agent)
        stall(pid)
        os.kill(pid, signal.SIGCONT)
        truth = opened.open()["run"]
        assert wrapper.wait(20) == 7
        data = record_of(node)
    check_bill(data, truth, 0)
    assert truth.alive_ns - truth.up_ns >= STALL_NS
    assert unknown_ns(node) == 0


#: Sends its marks at once, each with the time at which it says it.
SPEAKS = """
import json, os, sys, time
marks = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR | os.O_NONBLOCK)
for line in sys.stdin:
    mark, name = line.split()
    said = {"mark": mark, "prediction": name, "at": time.monotonic_ns()}
    if mark == "finish":
        said["status"] = "succeeded"
    os.write(marks, json.dumps(said).encode() + b"\\n")
    print(said["at"], flush=True)
"""


@pytest.mark.parametrize("who", ["wrapper", "killed"])
def test_a_prediction_that_ends_while_nobody_reads_is_never_billed_beyond_its_word(node: Node, who: str) -> None:
    """Its wrapper sleeps; the finish waits in the FIFO until the wrapper wakes, or is killed and the agent reads on."""
    words = ("--worker", "--", sys.executable, "-c", SPEAKS)
    with node.agent() as agent, node.spawn(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as wrapper:
        assert wrapper.stdin is not None
        assert wrapper.stdout is not None

        def say(mark: str) -> int:
            wrapper.stdin.write(f"{mark} run\n")
            wrapper.stdin.flush()
            return int(wrapper.stdout.readline())

        began_ns = say("start")
        is_active(agent)
        wrapper.send_signal(signal.SIGSTOP)
        pass_time(began_ns + SECOND)
        ended_ns = say("finish")
        pass_time(ended_ns + STALL_NS)
        wrapper.send_signal(signal.SIGCONT if who == "wrapper" else signal.SIGKILL)
        data = record_of(node)
        wrapper.stdin.close()
    assert data["status"] == "succeeded"
    assert data["to_date"]["share_ns"] <= ended_ns - began_ns
    assert data["interval"]["end_ns"] <= ended_ns or data["time"]["unknown_ns"] >= STALL_NS
    if who == "killed":  # the very process lived on all the time
        assert data["to_date"]["share_ns"] >= ended_ns - began_ns - LATE_NS


def test_an_agent_that_stands_still_is_told_from_none(node: Node) -> None:
    with node.agent() as agent:
        agent.process.send_signal(signal.SIGSTOP)
        said = node.taximeter("status")
        pid = agent.process.pid
    assert said.returncode == 1
    assert f"does not answer (pid {pid})" in said.stdout
    assert f"`kill -CONT {pid}` wakes it" in " ".join(said.stdout.split())
