"""Wrappers that are killed: their commands go on, and so does the bill, by the agent's own eyes.

Injects kill -9 of wrappers, of commands, of agents, and of several of them at once; the truth of a command's life is
what the command itself and the test saw of it.
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

from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from tests.require import require_root
from tests.system.agents import SEALED, Agent, Node, wait_until
from tests.system.faults import LATE_NS, facts_of, forked_ns
from tests.system.rides import Rides

SECOND = 1_000_000_000
#: Says when it began, ends when it is told to, with the status that it is told.
LIVES = "import sys, time; print(time.monotonic_ns(), flush=True); status = int(input()); sys.exit(status)"
#: Says marks when it is told to: a line is one mark.
SPEAKS = """
import os, sys
marks = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR | os.O_NONBLOCK)
print("up", flush=True)
for line in sys.stdin:
    os.write(marks, line.encode())
"""
PIDFDS = "[witness]\nkernel = false\n"


@pytest.fixture(params=[True, False], ids=["kernel", "pidfds"])
def node(request: pytest.FixtureRequest, taximeter_program: str, tmp_path: Path) -> Node:
    if request.param:
        require_root()
    return Node(taximeter_program, tmp_path / "node", config="" if request.param else PIDFDS)


@contextlib.contextmanager
def command(node: Node, *options: str, script: str = LIVES) -> Iterator["Command"]:
    """A wrapped command, under way; dead at the end."""
    words = [*options, "--", sys.executable, "-c", script]
    with node.spawn(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as wrapper:
        assert wrapper.stdout is not None
        first = wrapper.stdout.readline()
        pid = spawned_pid(node)
        try:
            yield Command(wrapper, pid, first.strip())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def spawned_pid(node: Node) -> int:
    def found() -> int | None:
        for path in node.journal.glob("*.ndjson"):
            for line in path.read_bytes().partition(b"\0")[0].splitlines():
                with contextlib.suppress(ValueError):
                    if (fact := json.loads(line))["f"] == "spawn":
                        return int(fact["pid"])
        return None

    pid: int = wait_until(found, "the spawn fact")
    return pid


class Command:
    """A command that outlives its wrapper, if it has to."""

    def __init__(self, wrapper: subprocess.Popen[str], pid: int, first: str) -> None:
        self.wrapper = wrapper
        self.pid = pid
        self.first = first
        self.forked_ns = forked_ns(pid)  #: not before

    def say(self, line: str) -> None:
        assert self.wrapper.stdin is not None
        self.wrapper.stdin.write(line + "\n")
        self.wrapper.stdin.flush()

    def end(self, status: int) -> int:
        """Tell it to end; the time by which it certainly had."""
        pidfd = os.pidfd_open(self.pid)
        self.say(str(status))
        wait_until(lambda: has_ended(pidfd), "the end of the command")
        os.close(pidfd)
        return time.monotonic_ns()

    def orphan(self) -> None:
        """Kill its wrapper."""
        self.wrapper.kill()
        wait_until(lambda: self.wrapper.poll() is not None, "the end of the wrapper")


def has_ended(pidfd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def booked(node: Node) -> dict[str, Any]:
    """The one final record of the one prediction."""
    return wait_until(lambda: [record for record in node.predictions() if record["data"]["final"]], "the record")[0]


def is_held(agent: Agent, phase: str = "active") -> None:
    wait_until(lambda: agent.metric(f'taximeter_instances{{phase="{phase}"}}') == 1, f"an instance that is {phase}")


def is_sound(node: Node) -> bool:
    with LedgerReader(node.state / "ledger.db") as reader:
        return not audit(reader).faults


def witness_of(node: Node) -> str:
    return "agent" if node.config == PIDFDS else "kernel"


def test_a_command_whose_wrapper_is_killed_is_billed_to_its_end(node: Node) -> None:
    with node.agent() as agent, command(node) as run:
        is_held(agent)
        run.orphan()
        ended_ns = run.end(7)
        data = booked(node)["data"]
    assert ended_ns - int(run.first) - SECOND < data["time"]["active_ns"] <= ended_ns - run.forked_ns + LATE_NS
    assert (data["time"]["unknown_ns"], data["timing"]["end"]["source"]) == (0, witness_of(node))
    assert is_sound(node)


def test_the_status_of_an_orphan_is_known_where_the_kernel_tells_it(node: Node) -> None:
    with node.agent() as agent, command(node) as run:
        is_held(agent)
        run.orphan()
        run.end(7)
        booked(node)
        (last,) = [record for record in node.records() if record["data"].get("exit")]
    assert last["data"]["exit"]["code"] in (7, None)
    assert last["data"]["exit"]["reason"] == ("exited" if last["data"]["exit"]["code"] == 7 else "unseen")


def test_a_wrapper_and_its_command_that_are_killed_at_once_are_billed_to_that_moment(node: Node) -> None:
    with node.agent() as agent, command(node) as run:
        is_held(agent)
        before_ns = time.monotonic_ns()
        for pid in (run.wrapper.pid, run.pid):
            os.kill(pid, signal.SIGKILL)
        data = booked(node)["data"]
    assert data["timing"]["end"]["source"] == witness_of(node)
    assert 0 <= data["interval"]["end_ns"] - before_ns < 5 * SECOND
    assert data["time"]["unknown_ns"] == 0


def test_an_agent_that_comes_later_takes_up_what_lives_without_a_wrapper(node: Node) -> None:
    with command(node) as run:
        run.orphan()
        with node.agent() as agent:
            is_held(agent)
            ended_ns = run.end(0)
            data = booked(node)["data"]
    assert data["time"]["unknown_ns"] == 0
    assert data["time"]["active_ns"] <= ended_ns - run.forked_ns + LATE_NS
    assert data["interval"]["end_ns"] >= int(run.first)


def test_what_an_orphan_says_before_an_agent_comes_leaves_none_of_its_time_unknown(node: Node) -> None:
    with command(node, "--worker", script=SPEAKS) as run:
        run.say('{"mark":"start","prediction":"a"}')
        wait_until(lambda: facts_of(node, None)[-1]["f"] == "mark", "the start to be written down")
        run.orphan()
        run.say('{"mark":"units","prediction":"a","units":{"image":2}}')
        said_ns = time.monotonic_ns()
        wait_until(lambda: time.monotonic_ns() > said_ns + 2 * SECOND, "a silence")
        with node.agent() as agent:
            is_held(agent)
            run.say('{"mark":"finish","prediction":"a","status":"succeeded"}')
            data = booked(node)["data"]
    assert (data["units"], data["time"]["unknown_ns"]) == ({"image": "2"}, 0)
    assert data["time"]["share_ns"] > 2 * SECOND


def test_what_ended_while_nobody_looked_is_billed_to_its_last_sign_of_life(node: Node) -> None:
    with command(node) as run:
        for pid in (run.wrapper.pid, run.pid):
            os.kill(pid, signal.SIGKILL)
        run.wrapper.wait()
    facts = Rides(node.path).facts()
    (began_ns,) = [fact["t"] for fact in facts if fact["f"] == "spawn"]
    with node.agent():
        data = booked(node)["data"]
    assert data["timing"]["end"]["source"] == "heartbeat"
    assert data["time"]["active_ns"] == facts[-1]["t"] - began_ns
    assert data["time"]["unknown_ns"] > 0


def test_an_agent_that_is_killed_and_comes_back_bills_an_orphan_without_a_gap(node: Node) -> None:
    with command(node) as run:
        for _ in range(3):
            with node.agent() as agent:
                is_held(agent)
                if run.wrapper.poll() is None:
                    run.orphan()
                    wait_until(lambda: "instance.adopted" in agent.log.read_text(), "the adoption")
                agent.process.kill()
        with node.agent() as agent:
            is_held(agent)
            ended_ns = run.end(0)
            data = booked(node)["data"]
    assert data["time"]["unknown_ns"] == 0
    assert -LATE_NS <= ended_ns - data["interval"]["end_ns"] < 5 * SECOND
    assert is_sound(node)


def test_a_worker_goes_on_to_be_heard_without_its_wrapper(node: Node) -> None:
    with node.agent() as agent, command(node, "--worker", script=SPEAKS) as run:
        run.say('{"mark":"start","prediction":"a"}')
        is_held(agent)
        run.orphan()
        wait_until(lambda: "instance.adopted" in agent.log.read_text(), "the adoption")
        run.say('{"mark":"finish","prediction":"a","status":"succeeded","units":{"image":2}}')
        data = booked(node)["data"]
    assert (data["status"], data["units"]) == ("succeeded", {"image": "2"})


def test_what_a_worker_said_to_a_stopped_wrapper_is_not_lost_with_it(node: Node) -> None:
    with node.agent() as agent, command(node, "--worker", script=SPEAKS) as run:
        run.say('{"mark":"ready"}')
        is_held(agent, "idle")
        run.wrapper.send_signal(signal.SIGSTOP)
        for at in range(100):
            run.say(f'{{"mark":"start","prediction":"p{at}"}}')
            run.say(f'{{"mark":"finish","prediction":"p{at}","status":"succeeded"}}')
        run.say("")  # an empty line is no mark; once it was read, so were those before it
        wait_until(lambda: "\n" and unread(run.pid) == 0, "the worker to have said it all")
        run.orphan()
        wait_until(lambda: len(node.predictions()) == 100, "the records")
    assert {record["data"]["status"] for record in node.predictions()} == {"succeeded"}


def unread(pid: int) -> int:
    """Bytes that wait in the standard input of a process, a pipe."""
    import array
    import fcntl
    import termios

    with open(f"/proc/{pid}/fd/0", "rb") as pipe:
        waiting = array.array("i", [0])
        fcntl.ioctl(pipe, termios.FIONREAD, waiting)
        return waiting[0]


def test_an_end_takes_what_was_said_last_with_it(node: Node) -> None:
    with node.agent() as agent, command(node, "--worker", script=SPEAKS) as run:
        run.say('{"mark":"start","prediction":"a"}')
        is_held(agent)
        run.orphan()
        run.say('{"mark":"finish","prediction":"a","status":"succeeded"}')
        assert run.wrapper.stdin is not None
        run.wrapper.stdin.close()
        data = booked(node)["data"]
    assert data["status"] == "succeeded"


def test_nothing_is_left_of_an_orphan_once_it_is_booked(node: Node) -> None:
    node.config += SEALED
    with node.agent() as agent, command(node) as run:
        is_held(agent)
        run.orphan()
        run.end(0)
        booked(node)
        wait_until(lambda: not list(node.journal.iterdir()), "an empty journal directory")
    assert is_sound(node)


def test_an_orderly_stop_of_the_agent_keeps_an_orphan(node: Node) -> None:
    with command(node) as run:
        with node.agent() as agent:
            is_held(agent)
            run.orphan()
            wait_until(lambda: "instance.adopted" in agent.log.read_text(), "the adoption")
            assert agent.stop() == 0
        with node.agent() as agent:
            is_held(agent)
            run.end(0)
            data = booked(node)["data"]
    assert data["time"]["unknown_ns"] == 0
