"""A pid is a process only with its start time and its boot: a machine that was rebooted, and a pid that was recycled.

Injects another boot id (a file that is mounted over the kernel's, in a mount namespace of the agent's own), with all
that lived before dead, or, what no reboot leaves behind, alive under the very same pid; and, in a pid namespace, some
other process under the pid of a command that ended while no agent looked.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taximeter.journal import writer_pid
from tests.require import require_program, require_root
from tests.system.agents import Node, wait_until
from tests.system.faults import (
    LATE_NS,
    SECOND,
    Point,
    billed_ns,
    check_ledger,
    facts_of,
    finals,
    gate,
    inject,
    points_of,
    rebooted,
    strace,
    wait_for_fact,
)
from tests.system.rides import children_of, state_of

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    require_root()
    require_program("unshare", "util-linux")
    return Node(taximeter_program, tmp_path / "node")


def instance_of(node: Node, prediction: str) -> dict[str, Any]:
    """The last record of the instance that a one-shot ran on."""
    instance = finals(node)[prediction]["instance"]
    (last,) = [r["data"] for r in node.records() if r["data"].get("instance") == instance and "exit" in r["data"]]
    return last


def test_what_ran_when_the_machine_went_down_is_aborted_at_its_last_sign_of_life(node: Node, tmp_path: Path) -> None:
    with gate(tmp_path / "gate") as opened:
        words = ("--prediction", "run", "--account", "cus_1", "--", *opened.command("run"))
        with node.spawn(*words) as wrapper:
            pid = opened.hold("run")
            with node.agent() as agent:
                wait_until(lambda: agent.metric('taximeter_instances{phase="active"}') == 1, "the run")
                wait_for_fact(node, "run", "heartbeat")
                agent.process.kill()
            wrapper.kill()
            alive_ns = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            truth = opened.ended(alive_ns)["run"]
        after = rebooted(node, 1)
        with after.agent():
            wait_until(lambda: "run" in finals(node), "the record")
            after.run("--prediction", "next", "--", "true")
            wait_until(lambda: "next" in finals(node), "a run of the new boot")
    data = finals(node)["run"]
    assert (data["status"], instance_of(node, "run")["exit"]["reason"]) == ("aborted", "rebooted")
    assert data["billing"]["lines"] == []  # aborted is not billed in class public
    assert data["interval"]["end_ns"] <= truth.gone_ns
    assert billed_ns(data) >= truth.alive_ns - truth.up_ns - SECOND - LATE_NS
    assert finals(node)["next"]["status"] == "succeeded"
    assert finals(node)["next"]["interval"]["boot_id"] != data["interval"]["boot_id"]
    check_ledger(node)


def test_a_process_of_the_same_pid_and_start_time_is_not_adopted_in_another_boot(node: Node, tmp_path: Path) -> None:
    with gate(tmp_path / "gate") as opened, node.spawn("--prediction", "run", "--", *opened.command("run")) as wrapper:
        opened.hold("run")
        wait_for_fact(node, "run", "spawn")
        wrapper.kill()
        wrapper.wait()
        with rebooted(node, 1).agent() as agent:
            wait_until(lambda: "run" in finals(node), "the record")
            assert "instance.adopted" not in agent.log.read_text()
        assert finals(node)["run"]["status"] == "aborted"
        assert opened.open()["run"].gone_ns > 0
    assert billed_ns(finals(node)["run"]) <= 2 * SECOND
    check_ledger(node)


def test_reboots_one_after_the_other_leave_a_record_of_each(node: Node, tmp_path: Path) -> None:
    at = node
    with gate(tmp_path / "gate") as opened:
        for number in range(3):
            name = f"run {number}"
            with at.spawn("--prediction", name, "--", *opened.command(name)) as wrapper:
                pid = opened.hold(name)
                wait_for_fact(node, name, "spawn")
                wrapper.kill()
                os.kill(pid, signal.SIGKILL)
            at = rebooted(node, number + 1) if node.path.exists() else at
        with at.agent():
            wait_until(lambda: len(finals(node)) == 3, "their records")
    assert {data["status"] for data in finals(node).values()} == {"aborted"}
    assert len({data["interval"]["boot_id"] for data in finals(node).values()}) == 3
    check_ledger(node)


#: Runs as the first process of a pid namespace: {path} is where, {root} where the tests are.
RECYCLES = """
import json, os, signal, subprocess, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.system.agents import Node, wait_until
from tests.system.faults import facts_of, finals, gate, wait_for_fact

def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

def is_gone(pid):
    reap()
    return not os.path.exists(f"/proc/{{pid}}")

path = Path({path!r})
node = Node({program!r}, path / "node")
with gate(path / "gate") as opened:
    words = [node.program, "run", "--prediction", "run", "--", *opened.command("run")]
    wrapper = subprocess.Popen(words, env=node.environment())
    pid = opened.hold("run")
    wait_for_fact(node, "run", "spawn")
    if {heard}:
        agent = node.agent()
        with agent as living:
            wait_until(lambda: living.metric('taximeter_instances{{phase="active"}}') == 1, "the run")
    alive_ns = time.monotonic_ns()
    wrapper.kill()
    wrapper.wait()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid), "the end of the command")
    gone_ns = time.monotonic_ns()
    # The clock ticks on, so that the other one has another start time; then the next pid is the same again.
    wait_until(lambda: time.monotonic_ns() > gone_ns + 30_000_000, "a later tick")
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    other = subprocess.Popen(["sleep", "600"])
    with node.agent() as living:
        wait_until(lambda: finals(node), "the record")
        log = living.log.read_text()
    print(json.dumps({{"pid": pid, "other": other.pid, "lives": other.poll() is None, "log": log,
        "alive_ns": alive_ns, "gone_ns": gone_ns, "data": finals(node)["run"]}}))
    other.kill()
"""


@pytest.mark.parametrize("heard", [True, False], ids=["known", "new"])
def test_a_recycled_pid_inherits_nothing(node: Node, tmp_path: Path, heard: bool) -> None:
    script = RECYCLES.format(root=str(ROOT), path=str(tmp_path), program=node.program, heard=heard)
    alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run([*alone, sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["other"] == told["pid"], "the pid was not recycled"
    assert told["lives"]
    assert "instance.adopted" not in told["log"]
    data = told["data"]
    assert (data["status"], data["timing"]["end"]["source"]) == ("failed", "heartbeat")
    assert data["interval"]["start_ns"] + billed_ns(data) <= told["gone_ns"]
    check_ledger(Node(node.program, tmp_path / "node"))


#: Forks once when it is told to, and once only: `sleep`.
FORKS = ["sh", "-c", "read line; sleep 600 & read line; kill $!"]
#: In a pid namespace of its own, by strace: a wrapper whose pid is $1 or a little more, and which stops before a spawn.
STOPS = 'echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid && shift && exec "$@"'


@contextlib.contextmanager
def stopped_wrapper(node: Node, point: Point, wanted: int) -> Iterator[str]:
    """A wrapper in a pid namespace that takes itself for `wanted`, and has not started its command; its prediction.

    The namespace is gone at the end.
    """
    alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", STOPS, "sh"]
    stop = strace(*(word.replace("signal=KILL", "signal=STOP") for word in inject(point)))
    for ahead in range(8):  # strace forks now and then before it starts what it traces
        name = f"none {ahead}"
        words = [*alone, str(wanted - ahead), *stop, node.program, "run", "--prediction", name, "--", "true"]
        with subprocess.Popen(words, env=node.environment()) as process:
            try:
                opening = wait_until(lambda name=name: facts_of(node, name), "the opening")[0]
                if opening["pid"] == wanted:
                    yield name
                    return
            finally:
                process.kill()
        for path in node.journal.iterdir():
            path.unlink()
    raise AssertionError(f"no process of the namespace had pid {wanted}")


def test_who_has_the_pid_that_a_wrapper_has_in_its_namespace_is_not_billed_for_its_command(
    node: Node, tmp_path: Path
) -> None:
    """The kernel tells of whatever that one forks; the wrapper itself is killed before it starts anything."""
    require_program("strace")
    node.run("--", "true")
    trace = tmp_path / "trace"
    subprocess.run([*strace("-o", str(trace)), node.program, "run", "--", "true"], env=node.environment(), check=True)
    points = points_of(trace)
    spawn = [point.call for point in points].index("mknodat")
    before = (
        next(at for at, point in enumerate(points) if at > spawn and point.call in ("clone3", "clone", "vfork")) - 1
    )
    for path in node.journal.iterdir():
        path.unlink()
    with (
        subprocess.Popen(FORKS, stdin=subprocess.PIPE) as other,
        node.agent() as agent,
        stopped_wrapper(node, points[before], other.pid) as name,
    ):
        assert other.stdin is not None
        (journal,) = node.journal.glob("*.0.ndjson")
        wrapper = wait_until(lambda: writer_pid(str(journal)), "the wrapper")
        wait_until(lambda: state_of(wrapper) in ("T", "t"), "it to stop")
        other.stdin.write(b"\n")
        other.stdin.flush()
        wait_until(lambda: children_of(other.pid), "the other's child")
        os.kill(wrapper, signal.SIGKILL)
        wait_until(lambda: name in finals(node), "the record")
        log = agent.log.read_text()
        other.stdin.close()
    assert "instance.unfound" in log
    assert "instance.adopted" not in log
    data = finals(node)[name]
    assert (billed_ns(data), data["billing"]["lines"]) == (0, [])
    check_ledger(node)
