"""The tools that people time a process with: how each is asked, and what it then says.

A tool writes what it has to say of a nap into a file beside it, in its own words; those are read when all is over.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from timing.timers import Missing, Reading

#: Debian's, built with PGO: what a timer in Python costs should not be the build's fault.
PYTHON = "/usr/bin/python3"
_TIMER = """
import subprocess, sys, time
began_ns = time.perf_counter_ns()
subprocess.run(sys.argv[2:], check=True)
took_ns = time.perf_counter_ns() - began_ns
open(sys.argv[1], "w").write("%.9f" % (took_ns / 1e9))
"""


def seconds(text: str) -> int:
    """Nanoseconds of a decimal number of seconds, exactly."""
    whole, _, rest = text.strip().partition(".")
    return int(whole) * 10**9 + int(f"{rest:0<9.9}")


def of_hyperfine(text: str) -> int:
    """The one time in hyperfine's JSON."""
    took_s: float = json.loads(text)["results"][0]["times"][0]
    return round(took_s * 1e9)


def of_perf(text: str) -> int:
    """The time that went by, from perf's report."""
    match = re.search(r"([0-9.]+) seconds time elapsed", text)
    if match is None:
        raise ValueError(f"cannot read {text!r}: expected `seconds time elapsed`")
    return seconds(match[1])


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that says how long another took."""

    name: str
    package: str  #: Debian's
    command: tuple[str, ...]  #: with {nap}, {ms} and {out} to be filled in
    read: Callable[[str], int]  #: nanoseconds, from what it wrote to {out}

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LC_ALL": "C"}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Whether it can do its work here is found out by having it time something."""
        if shutil.which(self.command[0]) is None:
            raise Missing(f"apt-get install {self.package}")
        with tempfile.TemporaryDirectory() as folder:
            nap = Path(folder) / "sleep"
            nap.symlink_to("/bin/sleep")
            done = subprocess.run(self.words(nap, 0), env=self.environment, capture_output=True, text=True, check=False)
            try:
                self.readings([nap])
            except (OSError, ValueError) as error:
                raise Missing(done.stderr.strip()[-200:] or str(error)) from error
        yield

    def words(self, nap: Path, ms: int) -> list[str]:
        return [word.format(nap=nap, ms=ms, out=_out(nap)) for word in self.command]

    def readings(self, naps: Sequence[Path]) -> Mapping[str, Reading]:
        return {nap.name: Reading(self.read(_out(nap).read_text())) for nap in naps}


def _out(nap: Path) -> Path:
    return nap.with_name(f"{nap.name}.said")


TOOLS = (
    Tool(
        "hyperfine -N",
        "hyperfine",
        ("hyperfine", "-N", "--runs=1", "--style=none", "--export-json={out}", "{nap} {ms}"),
        of_hyperfine,
    ),
    Tool(
        "bash time",
        "bash",
        ("bash", "-c", 'TIMEFORMAT=%3R; {{ time "$0" "$1"; }} 2>"$2"', "{nap}", "{ms}", "{out}"),
        seconds,
    ),
    Tool(
        "Python subprocess",
        "python3",
        (PYTHON, "-I", "-c", _TIMER, "{out}", "{nap}", "{ms}"),
        seconds,
    ),
    Tool(
        "perf stat",
        "linux-perf",
        ("perf", "stat", "-o", "{out}", "{nap}", "{ms}"),
        of_perf,
    ),
    Tool(
        "/usr/bin/time",
        "time",
        ("/usr/bin/time", "-f", "%e", "-o", "{out}", "{nap}", "{ms}"),
        seconds,
    ),
)
