"""Kill -9 of wrappers, commands and agents at random moments: nobody pays for more than ran, and little is lost.

Injects SIGKILL into a wrapper, a command, both at once, and the agent, which comes back at once or after a while, or is
stopped in order and replaced, with several runs alive. The truth of each command's life is the test's own: when it was
forked (the kernel's ticks), when it had said that it was up, when a pidfd of the test's showed its end. The order of
kills comes from a seed, which is printed. TAXIMETER_SOAK=N tries N seeds.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.require import require_root
from tests.system.agents import Node, wait_until
from tests.system.faults import (
    HEARTBEAT_NS,
    SECOND,
    Truth,
    booked,
    check_bill,
    check_ledger,
    finals,
    forked_ns,
    wait_for_fact,
)
from tests.system.rides import is_shown

SEEDS = range(int(os.environ.get("TAXIMETER_SOAK", "1")))
ACTIONS = 24
#: A run is left alone for so long after its start: the agent has to hear of it first.
SETTLED_NS = SECOND // 2
SCRIPT = 'echo $$ >"$0.tmp"; mv "$0.tmp" "$0"; read line; exit 3'


@dataclass
class Run:
    """One run, and what the test itself knows of it."""

    name: str
    wrapper: subprocess.Popen[str]
    pid: int
    pidfd: int
    forked_ns: int
    up_ns: int
    is_orphan: bool = False  #: its wrapper was killed
    alive_ns: int = 0  #: it certainly ran then
    gone_ns: int = 0  #: it was over by then; 0: it lives
    unseen_ns: int = 0  #: so long nobody looked before it ended


class Range:
    """A node, an agent that is there most of the time, and runs that are shot at."""

    def __init__(self, node: Node, path: Path, chance: random.Random) -> None:
        self.node = node
        self.path = path
        self.chance = chance
        self.runs: list[Run] = []
        self.wrappers: list[subprocess.Popen[str]] = []  #: of runs that did not come up, too
        self.agent = contextlib.ExitStack()
        self.down_ns = time.monotonic_ns()  #: since when there is no agent; 0: there is one
        self.actions: list[tuple[Callable[[], None], int]] = [
            (self.start, 8),
            (self.kill_command, 4),
            (self.kill_wrapper, 6),
            (self.kill_both, 3),
            (self.end, 4),
            (self.kill_agent, 3),
            (self.start_agent, 6),
            (self.upgrade_agent, 2),
        ]

    def act(self) -> None:
        (action,) = self.chance.choices([one for one, _ in self.actions], [weight for _, weight in self.actions])
        print(action.__name__)
        action()

    def start(self) -> None:
        if len(self.living) >= 6:
            return
        name = f"run {len(self.runs)}"
        up = self.path / name
        words = [self.node.program, "run", "--prediction", name, "--", "sh", "-c", SCRIPT, str(up)]
        wrapper = subprocess.Popen(words, env=self.node.environment(), stdin=subprocess.PIPE, text=True)
        self.wrappers.append(wrapper)
        wait_until(up.exists, f"{name} to be up")
        up_ns = time.monotonic_ns()
        pid = int(up.read_text())
        self.runs.append(Run(name, wrapper, pid, os.pidfd_open(pid), forked_ns(pid), up_ns))
        wait_for_fact(self.node, name, "spawn")

    @property
    def living(self) -> list[Run]:
        return [run for run in self.runs if not run.gone_ns]

    def target(self) -> Run | None:
        """A run that is old enough to be shot at, if there is one."""
        old = [run for run in self.living if time.monotonic_ns() - run.up_ns > SETTLED_NS]
        return self.chance.choice(old) if old else None

    def kill_command(self) -> None:
        if run := self.target():
            self.see_end(run, lambda: os.kill(run.pid, 9))

    def kill_wrapper(self) -> None:
        if run := self.target():
            run.wrapper.kill()
            run.is_orphan = True

    def kill_both(self) -> None:
        if run := self.target():
            run.wrapper.kill()
            run.is_orphan = True
            self.see_end(run, lambda: os.kill(run.pid, 9))

    def end(self) -> None:
        if run := self.target():
            assert run.wrapper.stdin is not None
            self.see_end(run, run.wrapper.stdin.close)

    def see_end(self, run: Run, injure: Callable[[], None]) -> None:
        run.alive_ns = time.monotonic_ns()
        injure()
        assert is_shown(run.pidfd, 20), f"{run.name} did not end"
        run.gone_ns = time.monotonic_ns()
        if run.is_orphan and self.down_ns:
            # Neither a wrapper nor an agent saw it: the last sign of life is all that there is.
            run.unseen_ns = run.gone_ns - min(self.down_ns, run.gone_ns) + 2 * HEARTBEAT_NS
        with contextlib.suppress(BrokenPipeError):
            run.wrapper.stdin.close() if run.wrapper.stdin else None

    def kill_agent(self) -> None:
        if not self.down_ns:
            self.down_ns = time.monotonic_ns()
            self.agent.close()
            for run in self.runs:
                if run.is_orphan and self.down_ns - run.gone_ns < HEARTBEAT_NS:
                    run.unseen_ns = 2 * HEARTBEAT_NS  # it saw that end, and may not have had the time to book it

    def upgrade_agent(self) -> None:
        if not self.down_ns:
            assert self.stop_agent() == 0
            self.kill_agent()
            self.start_agent()

    def start_agent(self) -> None:
        if self.down_ns:
            self.stop_agent = self.agent.enter_context(self.node.agent()).stop
            self.down_ns = 0

    def close(self) -> None:
        self.agent.close()
        for run in self.runs:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(run.pidfd, signal.SIGKILL)
            os.close(run.pidfd)
        for wrapper in self.wrappers:
            wrapper.kill()
            wrapper.communicate()


@contextlib.contextmanager
def shooting_range(node: Node, path: Path, chance: random.Random) -> Iterator[Range]:
    path.mkdir()
    opened = Range(node, path, chance)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("witness", ["kernel", "pidfds"])
def test_whoever_is_killed_when_the_bill_is_for_what_ran(
    taximeter_program: str, tmp_path: Path, witness: str, seed: int
) -> None:
    print("seed", seed)
    if witness == "kernel":
        require_root()
    config = "[billing]\ninterim_s = 1\n" + ("" if witness == "kernel" else "[witness]\nkernel = false\n")
    node = Node(taximeter_program, tmp_path / "node", config=config)
    chance = random.Random(f"{witness} {seed}")
    with shooting_range(node, tmp_path / "range", chance) as shot_at:
        shot_at.start_agent()
        for _ in range(3):
            shot_at.start()
        for _ in range(ACTIONS):
            shot_at.act()
            until_ns = time.monotonic_ns() + int(chance.expovariate(4) * SECOND)
            wait_until(lambda until_ns=until_ns: time.monotonic_ns() >= until_ns, "a random moment")
        shot_at.start_agent()
        for run in shot_at.living:
            shot_at.see_end(run, lambda run=run: os.kill(run.pid, 9))
        wait_until(lambda: len(finals(node)) == len(shot_at.runs), "everything that ran")
    check_ledger(node)
    done = finals(node)
    for run in shot_at.runs:
        print(run)
        check_bill(done[run.name], Truth(run.forked_ns, run.up_ns, run.alive_ns, run.gone_ns), run.unseen_ns)
        unknown_ns = sum(data["time"]["unknown_ns"] for data in booked(node)[run.name])
        # A record of who was lost goes on until the agent found out, which may be long after.
        assert unknown_ns == 0 or run.unseen_ns, done[run.name]
