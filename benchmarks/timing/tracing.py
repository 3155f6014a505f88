"""The truth: when the kernel ran each nap, by its own tracepoints, on CLOCK_MONOTONIC.

A nap runs from `sched_process_exec` to the SIGCHLD that its end sends (`signal_generate`): that is in exit_notify,
after its memory was torn down, and is what every parent waits for; `sched_process_exit` comes earlier. The events stay
in a ring of the kernel's, a tracefs instance of our own, until all is over: so looking wakes nobody.
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TRACEFS = Path("/sys/kernel/tracing")
#: A core's ring holds all of a full run (some 200 bytes a nap, and as much for what tools start), several times over.
RING_KB = 32 * 1024
FILTERS = {"sched/sched_process_exec": 'filename ~ "*/nap.*"', "signal/signal_generate": "sig == 17"}
#: A microsecond is the last digit that tracefs prints for clocks that count seconds.
RESOLUTION_NS = 1_000

_LINE = re.compile(r"-(\d+) +\[\d+\] +\S+ +(\d+)\.(\d{6}): (sched_process_exec|signal_generate): (.*)$")
_EXEC = re.compile(r"filename=\S*/nap\.(\d+) pid=(\d+) ")
#: The sender's si_code: it exited, was killed, dumped core. (Stopped and continued children send SIGCHLD, too.)
_END = re.compile(r"sig=17 errno=0 code=[123] ")


class Unavailable(Exception):
    """The kernel's tracepoints cannot be had here."""


class TraceError(Exception):
    """The trace is not what it must be."""


@dataclass(frozen=True, slots=True)
class Life:
    """When a nap ran."""

    exec_ns: int
    end_ns: int

    @property
    def ns(self) -> int:
        return self.end_ns - self.exec_ns


def lives(text: str) -> dict[int, Life]:
    """The life of every nap of a trace, by its number; naps that have not ended are left out.

    The end is the first that comes from the nap's pid after its exec: pids are used again, before and after.
    """
    running: dict[int, tuple[int, int]] = {}
    found: dict[int, Life] = {}
    for line in text.splitlines():
        match = _LINE.search(line)
        if match is None:
            continue
        sender, at_ns, what, details = int(match[1]), int(match[2]) * 10**9 + int(match[3]) * 1000, match[4], match[5]
        started = _EXEC.match(details) if what == "sched_process_exec" else None
        if started:
            number = int(started[1])
            if number in found or number in {other for other, _ in running.values()}:
                raise TraceError(f"cannot time nap {number}: expected to see it started once, and it was twice")
            running[int(started[2])] = (number, at_ns)
        elif _END.match(details) and sender in running:
            number, exec_ns = running.pop(sender)
            found[number] = Life(exec_ns, at_ns)
    return found


class Trace:
    """A ring of the kernel's that holds the events of this run."""

    def __init__(self, filters: Mapping[str, str] = FILTERS) -> None:
        self._filters = filters
        if os.geteuid() != 0:
            raise Unavailable("cannot read the kernel's tracepoints: expected root")
        if not (TRACEFS / "instances").is_dir():
            done = subprocess.run(
                ["mount", "-t", "tracefs", "tracefs", TRACEFS], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise Unavailable(
                    f"cannot mount tracefs: expected a kernel with tracepoints, got: {done.stderr.strip()}"
                )
        self._ring = TRACEFS / "instances" / f"timing-truth-{os.getpid()}"

    def __enter__(self) -> "Trace":
        try:
            self._ring.mkdir()
            (self._ring / "trace_clock").write_text("mono")
            (self._ring / "buffer_size_kb").write_text(str(RING_KB))
            for event, chosen in self._filters.items():
                (self._ring / "events" / event / "filter").write_text(chosen)
                (self._ring / "events" / event / "enable").write_text("1")
        except OSError as error:
            self.close()
            raise Unavailable(
                f"cannot set up {self._ring}: expected a kernel with tracepoints, got: {error}"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the ring back to the kernel."""
        with contextlib.suppress(OSError):
            self._ring.rmdir()

    def read(self) -> str:
        """All events so far; raises TraceError where the ring has lost some."""
        for stats in self._ring.glob("per_cpu/cpu*/stats"):
            said = dict(line.split(": ", 1) for line in stats.read_text().splitlines())
            if int(said["overrun"]) or int(said["dropped events"]):
                raise TraceError(f"cannot trust {stats}: expected every event, and some were lost: {said}")
        return (self._ring / "trace").read_text()
