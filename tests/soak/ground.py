"""What a soak runs on: a node on a small disk of its own, runs and servers under it, and what injures them.

Owns the actions and what the soak itself knows of each run: its name is in the path it is started by, so that the
kernel's trace tells when it ran. Refuses to judge.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.soak.receiving import Holding, worker_script
from tests.system.agents import Agent, Node, wait_until
from tests.system.rides import children_of

DISK_BYTES = 96 << 20
SETTINGS = """
[billing]
interim_s = 2
[ledger]
checkpoint_s = 2
[[sinks]]
name = "receiver"
type = "http"
url = "{url}"
timeout_s = 1
[[sinks]]
name = "usage"
type = "file"
path = "usage.ndjson"
"""
LIVING_MAX = 8


@dataclass
class Run:
    """A one-shot or a server, and what was done to it."""

    number: int
    wrapper: subprocess.Popen[bytes]
    notes: Path | None  #: of a server: where it notes its predictions
    harmed: set[str] = field(default_factory=set)
    is_loose: bool = False  #: it began without a disk to write to: nobody has to know of it

    @property
    def name(self) -> str:
        return f"nap.{self.number}"

    @property
    def is_over(self) -> bool:
        return self.wrapper.poll() is not None

    def command(self) -> int | None:
        """Its command's pid, while the wrapper lives."""
        return next(iter(children_of(self.wrapper.pid)), None)


class Ground:
    """A node, its agent and its runs, all of which are shot at."""

    def __init__(self, node: Node, nap: Path, receiver: Holding, dice: random.Random) -> None:
        self.node = node
        self.dice = dice
        self.receiver = receiver
        self.runs: list[Run] = []
        self.orphans: list[int] = []  #: pids of commands whose wrapper was killed
        self.done: Counter[str] = Counter()
        self._nap = nap
        self._agent: Agent | None = None
        self._life = contextlib.ExitStack()
        self._is_full = False
        node.config = SETTINGS.format(url=receiver.url)
        self._actions: list[tuple[Callable[[], bool], int]] = [
            (self.start_run, 24),
            (self.start_server, 6),
            (self.kill_command, 4),
            (self.kill_wrapper, 4),
            (self.kill_both, 2),
            (self.freeze_wrapper, 2),
            (self.kill_agent, 3),
            (self.replace_agent, 1),
            (self.freeze_agent, 2),
            (self.turn_receiver, 2),
            (self.fill_disk, 1),
        ]

    def act(self) -> None:
        """Do one thing at random, and wait for a random moment."""
        (action,) = self.dice.choices([one for one, _ in self._actions], [weight for _, weight in self._actions])
        self.done[action.__name__] += action()
        time.sleep(min(1.0, self.dice.expovariate(8)))
        for run in self.living:
            if self._is_full:
                run.harmed.add("disk")

    @property
    def living(self) -> list[Run]:
        return [run for run in self.runs if not run.is_over]

    # --- What runs ---------------------------------------------------------------------------------------------------

    def start_run(self) -> bool:
        """A one-shot of up to three seconds."""
        return self._start(["--account", "cus_one"], str(int(self.dice.random() ** 2 * 3000)))

    def start_server(self) -> bool:
        """A worker that serves several customers for some seconds."""
        notes = self.node.path.parent / f"notes.{len(self.runs)}"
        seconds = f"{self.dice.uniform(1, 6):.3f}"
        script = [str(worker_script()), str(notes), seconds, str(len(self.runs))]
        return self._start(["--worker"], "-IS", *script, notes=notes, program=Path(sys.executable).resolve())

    def _start(self, options: list[str], *words: str, notes: Path | None = None, program: Path | None = None) -> bool:
        if len(self.living) >= LIVING_MAX:
            return False
        number = len(self.runs)
        path = self._nap.with_name(f"nap.{number}")
        path.symlink_to(program or self._nap)
        if notes is None:
            options = [*options, "--prediction", path.name]
        wrapper = subprocess.Popen(
            [
                self.node.program,
                "run",
                *options,
                "--model",
                "soak/model",
                "--label",
                f"nap={number}",
                "--",
                path,
                *words,
            ],
            env=self.node.environment(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.runs.append(Run(number, wrapper, notes, is_loose=self._is_full))
        return True

    # --- What is done to it ------------------------------------------------------------------------------------------

    def kill_command(self) -> bool:
        """Kill -9 of a command."""
        run, pid = self._target()
        return run is not None and _kill(pid)

    def kill_wrapper(self) -> bool:
        """Kill -9 of a wrapper; its command lives on."""
        run, pid = self._target()
        if run is None:
            return False
        run.harmed.add("wrapper")
        run.wrapper.kill()
        self.orphans += [pid] if pid else []
        return True

    def kill_both(self) -> bool:
        """Kill -9 of both."""
        run, pid = self._target()
        if run is None:
            return False
        run.harmed.add("wrapper")
        run.wrapper.kill()
        return _kill(pid)

    def freeze_wrapper(self) -> bool:
        """Stop a wrapper for a while."""
        run, _ = self._target()
        if run is None:
            return False
        run.harmed.add("frozen")
        self._freeze(run.wrapper.pid)
        return True

    def kill_agent(self) -> bool:
        """Kill -9 of the agent; it comes back at once, or after a while."""
        for run in self.living:
            run.harmed.add("agent")
        self._life.close()
        self._agent = None
        time.sleep(self.dice.choice([0.0, 0.0, self.dice.uniform(0, 3)]))
        self.start_agent()
        return True

    def replace_agent(self) -> bool:
        """Stop the agent in order, and start another, as an upgrade does."""
        assert self._agent is not None
        self._agent.process.send_signal(signal.SIGTERM)
        status = self._agent.process.wait(30)
        assert status == 0, f"the agent ended with {status}: {self._agent.log.read_text()[-4000:]}"
        return self.kill_agent()

    def freeze_agent(self) -> bool:
        """Stop the agent for a while."""
        assert self._agent is not None
        self._freeze(self._agent.process.pid)
        return True

    def turn_receiver(self) -> bool:
        """Have the receiver fall ill, or get well."""
        self.receiver.is_ill = not self.receiver.is_ill
        return True

    def fill_disk(self) -> bool:
        """Leave no room on the node's disk for a second or two; who lives then may lose what happens meanwhile."""
        self._is_full = True
        for run in self.living:
            run.harmed.add("disk")
        ballast = self.node.path / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"\0" * 65_536)
        for _ in range(self.dice.randrange(2, 8)):
            self.start_run()
            time.sleep(0.2)
        ballast.unlink()
        self._is_full = False
        return True

    def _target(self) -> tuple[Run, int | None] | tuple[None, None]:
        living = self.living
        if not living:
            return None, None
        run = self.dice.choice(living)
        return run, run.command()

    def _freeze(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self.dice.uniform(0.1, 3))
            os.kill(pid, signal.SIGCONT)

    # --- Begin and end -----------------------------------------------------------------------------------------------

    def start_agent(self) -> None:
        """Start an agent, and wait until it is ready."""
        self._agent = self._life.enter_context(self.node.agent(ready=False))
        wait_until(self._agent.is_ready, f"a ready agent; it said: {self._agent.log.read_text()[-4000:]}", 60)

    def end(self) -> None:
        """Heal everything, and let all come to its end."""
        self.receiver.is_ill = False
        for run in self.runs:
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wrapper.wait(10)
        for pid in self.orphans:
            wait_until(partial(_is_no_nap, pid), f"the end of {pid}")

    def close(self) -> None:
        """Kill what is left."""
        for run in self.living:
            _kill(run.command())
            run.wrapper.kill()
            run.wrapper.wait()
        self._life.close()


def _is_no_nap(pid: int) -> bool:
    try:
        return b"/nap." not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def _kill(pid: int | None) -> bool:
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


@contextlib.contextmanager
def disk(path: Path) -> Iterator[None]:
    """A small disk at `path`, which is made (root)."""
    path.mkdir()
    size = f"size={DISK_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
