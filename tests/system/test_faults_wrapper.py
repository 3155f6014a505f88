"""Kill -9 of the wrapper at each of its system calls: nothing that runs is harmed, and the bill is honest.

Injects SIGKILL, by strace, before the N-th system call of `taximeter run`: of the shell that finds a Python, of the
start, of the spawn, of the watching, and of the end. Before the command was started it never runs; from then on it runs
to its own end, and an agent, there at the time or started later, bills it as it was seen. TAXIMETER_SWEEP=all kills at
every single one.
"""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from taximeter.records import RecordType
from tests.require import require_program, require_root
from tests.system.agents import Node, wait_until
from tests.system.faults import (
    HEARTBEAT_NS,
    MS,
    SWEEP_ALL,
    Gate,
    Point,
    Truth,
    billed_ns,
    check_bill,
    check_ledger,
    finals,
    gate,
    killed,
    points_of,
    sample,
    strace,
)

pytestmark = [pytest.mark.timeout(0)] * SWEEP_ALL  # every point takes as long as it takes

PIDFDS = "[witness]\nkernel = false\n"
#: How often a wrapper makes these depends on who is faster, and on where its heap lies; strace makes the first execve.
VARYING = ("wait4", "waitid", "rt_sigtimedwait", "brk", "execve")

NOTHING = {"to_date": {"active_ns": 0}}
#: How the record of an instance ends that nobody saw end.
LOST = ("failed", "wrapper_lost", "heartbeat")


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    require_program("strace")
    return Node(taximeter_program, tmp_path / "node")


@dataclass(frozen=True)
class Start:
    """What a wrapper asks of the kernel until it first waits for its command."""

    before: Sequence[Point]  #: nothing runs yet
    unsaid: Sequence[Point]  #: the command runs, and the journal does not say so yet
    said: Sequence[Point]

    @property
    def chosen(self) -> list[Point]:
        return [*sample(self.before, 10), *sample(self.unsaid, 8), *sample(self.said, 10)]


def trace_start(node: Node, path: Path) -> Start:
    node.run("--", "true")  # makes what only a first run has to make
    trace = path / "trace"
    with gate(path / "traced") as opened:
        words = [node.program, "run", "--prediction", "traced", "--", *opened.command("traced")]
        process = subprocess.Popen([*strace("-o", str(trace)), *words], env=node.environment())
        try:
            opened.hold("traced")
            wait_until(lambda: "epoll_wait(" in trace.read_text(), "the wrapper to wait")
        finally:
            opened.open()
            process.wait(20)
    points = [point for point in points_of(trace) if point.call not in VARYING]
    calls = [point.call for point in points]
    made = calls.index("mknodat")
    spawn = next(at for at, call in enumerate(calls) if at > made and call in ("clone3", "clone", "vfork"))
    said = calls.index("pwrite64", spawn)
    # The first one is strace's own, of the program itself.
    return Start(points[1 : spawn + 1], points[spawn + 1 : said + 1], points[said + 1 : calls.index("epoll_wait") + 1])


def kill_at_each(node: Node, opened: Gate, start: Start, through: Sequence[str] = ()) -> list[Point]:
    """Kill a wrapper at each chosen point; whatever it had started by then waits at the gate. Those that it came to.

    The command is run by what it goes `through`.
    """
    reached: list[Point] = []
    for point in start.chosen:
        name = str(point)
        words = [node.program, "run", "--prediction", name, "--", *through, *opened.command(name)]
        if killed(words, point, node.environment()) == -9:
            reached.append(point)
            if point not in start.before:
                opened.hold(name)
    assert len(reached) > len(start.chosen) * 3 // 4, f"the sweep missed too many: {set(start.chosen) - set(reached)}"
    return reached


def check_commands(opened: Gate, start: Start, reached: Sequence[Point], truths: dict[str, Truth]) -> None:
    """What was started came to its own end, and nothing else ran."""
    for point in reached:
        assert opened.is_up(str(point)) == opened.is_over(str(point)) == (point not in start.before), point
    assert len(truths) == sum(point not in start.before for point in reached)


def test_killed_at_any_call_of_its_start_it_costs_nobody_a_nanosecond_that_the_kernel_saw(
    node: Node, tmp_path: Path
) -> None:
    require_root()
    start = trace_start(node, tmp_path)
    with gate(tmp_path / "gate") as opened, node.agent():
        reached = kill_at_each(node, opened, start)
        truths = opened.open()
        wait_until(lambda: truths.keys() <= finals(node).keys(), "their records")
    check_commands(opened, start, reached, truths)
    for name, data in finals(node).items():
        if name in truths:
            check_bill(data, truths[name], 0)
            assert data["time"]["unknown_ns"] == 0
            assert (data["timing"]["start"]["source"], data["timing"]["end"]["source"]) == ("kernel", "kernel")
    check_ledger(node)


@pytest.mark.parametrize("is_there", [True, False], ids=["agent", "agent_later"])
def test_killed_at_any_call_of_its_start_it_leaves_a_command_that_is_billed_as_far_as_it_was_seen(
    node: Node, tmp_path: Path, is_there: bool
) -> None:
    """Who had not yet said that its command runs leaves one that is known by the FIFO in its environment."""
    node.config = PIDFDS
    start = trace_start(node, tmp_path)
    with gate(tmp_path / "gate") as opened:
        reached = [] if is_there else kill_at_each(node, opened, start)
        with node.agent() as agent:
            reached = reached or kill_at_each(node, opened, start)
            said = {str(point) for point in reached if point in start.said}
            left = sum(point not in start.before for point in reached)
            wait_until(lambda: agent.log.read_text().count("instance.adopted") >= left, "the adoptions", 60)
            truths = opened.open()
            wait_until(lambda: all(billed_ns(finals(node).get(name, NOTHING)) for name in truths), "their records")
    check_commands(opened, start, reached, truths)
    for name, data in finals(node).items():
        if name in truths:
            check_bill(data, truths[name], 0)
            assert data["time"]["unknown_ns"] == 0
            assert data["timing"]["start"]["source"] == ("wrapper" if name in said else "agent")
        elif name in {str(point) for point in reached}:
            assert (billed_ns(data), data["billing"]["lines"]) == (0, [])
    check_ledger(node)


@pytest.mark.parametrize("through", [(), ("setsid",)], ids=["session", "other_session"])
def test_killed_before_its_word_of_a_command_that_nobody_may_look_for_it_leaves_a_life_that_is_unknown(
    node: Node, tmp_path: Path, through: tuple[str, ...]
) -> None:
    """As of an agent with a user of its own and no word from the kernel: it may read nobody's environment."""
    require_root()
    node.config = PIDFDS
    node.through = (require_program("setpriv", "util-linux"), "--bounding-set", "-sys_ptrace,-sys_admin,-perfmon")
    start = trace_start(node, tmp_path)
    with gate(tmp_path / "gate") as opened, node.agent() as agent:
        reached = kill_at_each(node, opened, Start([], start.unsaid, []), through)
        names = {str(point) for point in reached}
        wait_until(lambda: agent.log.read_text().count("instance.unfound") >= len(names), "it to be missed")
        assert not names & finals(node).keys()
        truths = opened.open()
        wait_until(lambda: names <= finals(node).keys(), "their records")
    assert truths.keys() == names
    lost = {data["instance"]: data for data in (record["data"] for record in node.records(RecordType.INSTANCE))}
    for name in names:
        data = finals(node)[name]
        assert (billed_ns(data), data["billing"]["lines"]) == (0, [])
        own = lost[data["instance"]]
        assert (own["status"], own["exit"]["reason"], own["timing"]["end"]["source"]) == LOST
        assert 0 < own["time"]["unknown_ns"] == own["time"]["wall_ns"]
        assert own["interval"]["start_ns"] < truths[name].up_ns
        assert own["interval"]["end_ns"] > truths[name].alive_ns
    check_ledger(node)


@pytest.mark.parametrize("witness", ["kernel", "pidfds"])
def test_killed_at_any_call_of_its_end_it_takes_nothing_of_the_end_with_it(
    node: Node, tmp_path: Path, witness: str
) -> None:
    if witness == "kernel":
        require_root()
    node.config = PIDFDS if witness == "pidfds" else ""
    node.run("--", "true")
    trace = tmp_path / "trace"
    words = [node.program, "run", "--prediction", "traced", "--", "sleep", "0.2"]
    subprocess.run([*strace("-o", str(trace)), *words], env=node.environment(), check=True)
    points = [point for point in points_of(trace) if point.call not in VARYING]
    waited = max(at for at, point in enumerate(points) if point.call == "epoll_wait")
    around_ns: dict[str, int] = {}
    with node.agent():
        for point in points[waited:]:
            began_ns = time.monotonic_ns()
            words = [node.program, "run", "--prediction", str(point), "--", "sleep", "0.2"]
            if killed(words, point, node.environment()) == -9:  # else it was over before it was waited for
                around_ns[str(point)] = time.monotonic_ns() - began_ns
        assert len(around_ns) > len(points[waited:]) // 2
        wait_until(lambda: around_ns.keys() <= finals(node).keys(), "their records")
    for name, longest_ns in around_ns.items():
        data = finals(node)[name]
        assert data["time"]["unknown_ns"] == 0
        assert billed_ns(data) < longest_ns + HEARTBEAT_NS // 2
        assert billed_ns(data) >= (200 * MS if witness == "kernel" else 100 * MS)
    check_ledger(node)
