"""The naps: which are taken, in which order, and the program that takes them.

Every nap has a number and is started under a path that ends in it (`nap.17`). The exec event of the kernel carries
that path: so a nap is found in the trace whatever started it, through however many processes. Refuses to know tools.
"""

import contextlib
import random
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("nap.c")
IDLE, LOADED = LOADS = "idle", "loaded"


@dataclass(frozen=True, slots=True)
class Nap:
    """One process that a tool is asked to time."""

    number: int
    load: str
    tool: str
    ms: int


def plan(counts: Mapping[str, int], durations_ms: Sequence[int], dice: random.Random) -> list[Nap]:
    """So many naps of every duration under each tool, in random order; first all that are idle, then the loaded."""
    naps: list[Nap] = []
    for load in LOADS:
        half = [(tool, ms) for tool, count in counts.items() for ms in durations_ms for _ in range(count)]
        dice.shuffle(half)
        naps += [Nap(len(naps) + place, load, tool, ms) for place, (tool, ms) in enumerate(half)]
    return naps


def build(folder: Path) -> Path:
    """Compile the nap into `folder`, which is made."""
    folder.mkdir()
    program = folder / "nap"
    subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", program, SOURCE], check=True)
    return program


def path_of(program: Path, number: int) -> Path:
    """The path under which nap `number` is started."""
    return program.with_name(f"{program.name}.{number}")


def link(program: Path, number: int) -> Path:
    """Make that path."""
    path = path_of(program, number)
    path.symlink_to(program)
    return path


@contextlib.contextmanager
def busy(program: Path, cores: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    spinning = [subprocess.Popen([program, "spin"]) for _ in range(cores)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
