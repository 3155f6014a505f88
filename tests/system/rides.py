"""Real `taximeter run`s for tests: the installed program, a state directory of its own, and what its journal says."""

import contextlib
import json
import os
import select
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The program under test: $TAXIMETER_BIN, else the one beside the interpreter that runs the tests.
PROGRAM = os.environ.get("TAXIMETER_BIN") or str(Path(sysconfig.get_path("scripts")) / "taximeter")
PYTHON = sys.executable
_PATIENCE_S = 30.0


def wait_until(happened: Callable[[], Any], what: str) -> Any:
    """What `happened` returns once it is true; the test fails where that takes too long."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        result = happened()
        if result:
            return result
        assert time.monotonic() < deadline_s, f"waited {_PATIENCE_S:g} s in vain for {what}"
        time.sleep(0.005)  # between two looks, not instead of one


def stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def state_of(pid: int) -> str:
    """R, S, T, Z, ...; empty once it is gone."""
    return (stat_fields(pid) or [""])[0]


def is_shown(fd: int, patience_s: float) -> bool:
    """Whether a descriptor, of any number, is readable within that time: a pidfd shows the end of its process so."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(patience_s * 1000))


def children_of(pid: int) -> list[int]:
    """Children of a process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def watched(wrapper: int) -> bool:
    """Whether the wrapper sleeps in its loop; what was sent before would be dealt with as well, only later."""
    with contextlib.suppress(FileNotFoundError):  # a descriptor that was open only for a moment
        return any("signalfd" in os.readlink(fd) for fd in Path(f"/proc/{wrapper}/fd").iterdir())
    return False


@dataclass
class Rides:
    """A state directory and the runs on it."""

    path: Path

    @property
    def journal(self) -> Path:
        return self.path / "state" / "journal"

    @property
    def run_directory(self) -> Path:
        return self.path / "run"

    def environment(self, **more: str) -> dict[str, str]:
        places = {"TAXIMETER_STATE_DIR": str(self.path / "state"), "TAXIMETER_RUN_DIR": str(self.run_directory)}
        return {**os.environ, **places, **more}

    def words(self, *words: str) -> list[str]:
        return [PROGRAM, "run", *words]

    def run(self, *words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """`taximeter run WORDS`, finished."""
        kwargs = {"env": self.environment(), "capture_output": True, "text": True, "timeout": 60, **kwargs}
        return subprocess.run(self.words(*words), **kwargs)

    @contextlib.contextmanager
    def start(self, *words: str, **kwargs: Any) -> Iterator[subprocess.Popen[str]]:
        """`taximeter run WORDS`, started; killed with its command where the test leaves it running."""
        kwargs = {"env": self.environment(), "stdout": subprocess.PIPE, "text": True, **kwargs}
        with subprocess.Popen(self.words(*words), **kwargs) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    for pid in [*children_of(process.pid), process.pid]:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, 9)

    def command_of(self, process: subprocess.Popen[str]) -> int:
        """The pid of the command that runs under a started wrapper."""
        spawn = wait_until(lambda: self.facts("spawn"), "the spawn fact")
        assert spawn[0]["pid"] in children_of(process.pid)
        pid: int = spawn[0]["pid"]
        return pid

    def wait_for(self, name: str) -> dict[str, Any]:
        """The first fact of that name, once it is there."""
        found: list[dict[str, Any]] = wait_until(lambda: self.facts(name), f"the fact {name}")
        return found[0]

    def facts(self, name: str | None = None) -> list[dict[str, Any]]:
        """Facts of all journals so far, in order; with `name`, those alone."""
        found = [json.loads(line) for line in self.lines()]
        return [fact for fact in found if name in (None, fact["f"])]

    def lines(self) -> list[bytes]:
        """Whole lines of all journals so far."""
        paths = sorted(self.journal.glob("*.ndjson"))
        return [
            line
            for path in paths
            for line in path.read_bytes().partition(b"\0")[0].splitlines(True)
            if line[-1:] == b"\n"
        ]
