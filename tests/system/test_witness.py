"""The kernel's own stamps in records: of short runs, in pid namespaces, and of what a killed wrapper could not say."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.require import require_program, require_root
from tests.system.agents import Agent, Node, wait_until
from tests.system.rides import children_of

MS = 1_000_000
#: Says for how long it lived by its own clock, from its first line on.
LIVES = "import time; began_ns = time.monotonic_ns(); time.sleep(0.05); print(time.monotonic_ns() - began_ns)"


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    require_root()
    return Node(taximeter_program, tmp_path / "node")


def final(node: Node) -> list[dict[str, Any]]:
    return [record["data"] for record in node.predictions() if record["data"]["final"]]


def test_a_run_under_a_living_agent_is_stamped_by_the_kernel(node: Node) -> None:
    with node.agent():
        for _ in range(20):
            node.run("--", "true")
        ended = wait_until(lambda: len(final(node)) == 20 and final(node), "the records")
    timing = [(data["timing"]["start"]["source"], data["timing"]["end"]["source"]) for data in ended]
    assert set(timing) == {("kernel", "kernel")}


def test_the_kernels_time_lies_between_the_commands_own_and_the_waiters(node: Node) -> None:
    with node.agent():
        lived_ns = int(node.run("--", sys.executable, "-c", LIVES).stdout)
        (data,) = wait_until(lambda: final(node), "the record")
    whole_ns = data["interval"]["end_ns"] - data["interval"]["start_ns"]
    assert lived_ns < whole_ns < lived_ns + 2000 * MS


def test_a_run_that_was_over_before_there_was_an_agent_has_its_wrappers_word(node: Node) -> None:
    node.run("--", "true")
    with node.agent():
        (data,) = wait_until(lambda: final(node), "the record")
    assert (data["timing"]["start"]["source"], data["timing"]["end"]["source"]) == ("wrapper", "wrapper")


def test_a_run_that_began_before_the_agent_ends_by_the_kernels_stamp(node: Node) -> None:
    with node.spawn("--", "cat", stdin=subprocess.PIPE) as run:
        wait_until(lambda: list(node.journal.glob("*.ndjson")), "the journal")
        with node.agent() as agent:
            is_active(agent)
            assert run.stdin is not None
            run.stdin.close()
            (data,) = wait_until(lambda: final(node), "the record")
    assert (data["timing"]["start"]["source"], data["timing"]["end"]["source"]) == ("wrapper", "kernel")


def test_a_run_in_a_pid_namespace_is_found_by_its_wrappers_lock(node: Node) -> None:
    unshare = require_program("unshare", "util-linux")
    words = [unshare, "--pid", "--fork", "--mount-proc", node.program, "run", "--", "cat"]
    with node.agent() as agent:
        with subprocess.Popen(words, env=node.environment(), stdin=subprocess.PIPE) as run:
            is_active(agent)
            assert run.stdin is not None
            run.stdin.close()
            assert run.wait(20) == 0
        (data,) = wait_until(lambda: final(node), "the record")
    assert (data["timing"]["start"]["source"], data["timing"]["end"]["source"]) == ("kernel", "kernel")


def test_an_orphan_in_a_pid_namespace_is_adopted_by_its_pid_here(node: Node) -> None:
    """The first process of the namespace is a shell, so that the namespace outlives the wrapper.

    Whoever exits may lose its core before the kernel stamps that: more than 10 ms later what the agent saw itself is
    nearer. So it may take another try to see that the kernel tells of the right one.
    """
    with node.agent() as agent:
        for tries in range(1, 5):
            orphan_in_a_pid_namespace(node, agent, tries)
            records = wait_until(lambda tries=tries: len(final(node)) == tries and final(node), "the record")
            assert {data["time"]["unknown_ns"] for data in records} == {0}
            if records[-1]["timing"]["end"]["source"] == "kernel":
                break
    assert records[-1]["timing"]["end"]["source"] == "kernel"


def orphan_in_a_pid_namespace(node: Node, agent: Agent, adoptions: int) -> None:
    """A run there whose wrapper is killed, and which ends once it was adopted."""
    unshare = require_program("unshare", "util-linux")
    script = f"exec 3<&0; {node.program} run -- cat <&3 & read line; wait"
    words = [unshare, "--pid", "--fork", "--mount-proc", "sh", "-c", script]
    with subprocess.Popen(words, env=node.environment(), stdin=subprocess.PIPE) as shell:
        is_active(agent)
        (first,) = children_of(shell.pid)
        wrapper = wait_until(lambda: wrapper_below(first), "the wrapper")
        os.kill(wrapper, signal.SIGKILL)
        wait_until(lambda: agent.log.read_text().count("instance.adopted") == adoptions, "the adoption")
        assert shell.stdin is not None
        shell.stdin.close()
        shell.wait(20)


def wrapper_below(pid: int) -> int | None:
    """The child of a shell that has a child itself."""
    return next((child for child in children_of(pid) if children_of(child)), None)


def test_a_command_whose_wrapper_was_killed_before_it_could_say_so_is_billed_all_the_same(node: Node) -> None:
    """The second line of a journal says that the command runs; the wrapper is killed as it begins to write it."""
    strace = require_program("strace")
    inject = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", "inject=pwrite64:signal=KILL:when=2"]
    words = [strace, *inject, node.program, "run", "--", "cat"]
    with node.agent() as agent, subprocess.Popen(words, env=node.environment(), stdin=subprocess.PIPE) as run:
        wait_until(lambda: "instance.adopted" in agent.log.read_text(), "the adoption")
        is_active(agent)
        assert run.stdin is not None
        run.stdin.close()
        (data,) = wait_until(lambda: final(node), "the record")
        run.wait(20)
    assert (data["timing"]["start"]["source"], data["timing"]["end"]["source"]) == ("kernel", "kernel")
    assert data["time"]["unknown_ns"] == 0


def test_the_agent_says_whether_it_hears_the_kernel(node: Node) -> None:
    with node.agent() as agent:
        assert agent.metric("taximeter_kernel_witness") == 1
        assert json.loads(node.taximeter("status", "--json").stdout)["witness"]["kernel"] is True


def test_without_the_witness_the_agent_says_so(node: Node) -> None:
    node.config = "[witness]\nkernel = false\n"
    with node.agent() as agent:
        assert agent.metric("taximeter_kernel_witness") == 0
        assert "wrappers and pidfds" in node.taximeter("status").stdout


def is_active(agent: Agent) -> None:
    wait_until(lambda: agent.metric('taximeter_instances{phase="active"}') == 1, "an active instance")


#: A command that stops its wrapper, has a child ask that to stop, and has buried the child when the wrapper wakes.
DODGER = """
import os, signal, subprocess, sys, time
wrapper = os.getppid()
os.kill(wrapper, signal.SIGSTOP)
while open(f"/proc/{wrapper}/stat").read().rpartition(")")[2].split()[0] != "T": time.sleep(0.001)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
subprocess.run(["sh", "-c", f"kill -TERM {wrapper}"], check=True)
os.kill(wrapper, signal.SIGCONT)
while True:
    time.sleep(0.01)
"""


def test_no_command_ends_as_stopped_from_outside_by_a_child_that_is_gone(node: Node) -> None:
    with node.agent():
        node.run("--on-term", "aborted", "--account", "cus_1", "--", sys.executable, "-c", DODGER)
        (data,) = wait_until(lambda: final(node), "the record")
    assert (data["status"], data["billing"]["status"]) == ("succeeded", "rated")


def test_what_an_outsider_that_is_gone_stops_is_stopped_from_outside(node: Node) -> None:
    words = ("--on-term", "aborted", "--", "sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done")
    with node.agent():
        with node.spawn(*words, stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == "up\n"
            subprocess.run(["sh", "-c", f"kill -TERM {run.pid}"], check=True)
            assert run.wait(20) == 0
        (data,) = wait_until(lambda: final(node), "the record")
    assert (data["status"], data["billing"]["status"]) == ("aborted", "free")
