"""The run: every nap is taken under its timer, and what was said of it is put beside the truth.

Owns the order of things. Refuses to know how a tool, Taximeter or the kernel is asked (tools, slurm, meters, tracing).
"""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from timing import crosscheck, naps, tracing
from timing.meters import SETTINGS, Meter
from timing.samples import Sample
from timing.slurm import Slurm
from timing.timers import Missing, Reading, Timer
from timing.tools import TOOLS

#: A nap is begun so often. Naps of 100 and of 1000 ms leave about the same rest by it, 20 to 30 ms: so long ones, which
#: sleep while short ones come and go, end when one start is over and the next not due. One by one would take an hour.
PACE_S, AT_ONCE = 0.07, 32
#: What counts in whole seconds is seen to be so in fewer naps.
SHARES = {"Slurm sacct": 0.1}


@dataclass(frozen=True, slots=True)
class Taken:
    """A nap that was taken, and when its timer was started and gone, by this process's clock."""

    nap: naps.Nap
    path: Path
    before_ns: int
    after_ns: int


def measure(durations_ms: Sequence[int], each: int) -> tuple[list[str], list[Sample]]:
    """One run: what is to be said of it, and a sample for each nap."""
    with tempfile.TemporaryDirectory(prefix="timing-truth-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        notes = [crosscheck.agree(naps.build(folder / "check"))]
        trace = stack.enter_context(tracing.Trace())
        timers: dict[str, Timer] = {}
        for timer in _timers(folder):
            try:
                stack.enter_context(timer.running())
                timers[timer.name] = timer
            except Missing as error:
                notes.append(f"{timer.name} is left out: {error}")
        program = naps.build(folder / "bench")
        counts = {name: max(1, round(each * SHARES.get(name, 1))) for name in timers}
        todo = naps.plan(counts, durations_ms, random.Random(0))
        taken: list[Taken] = []
        for load in naps.LOADS:
            with naps.busy(program, _cores() if load == naps.LOADED else 0):
                some, note = _take([nap for nap in todo if nap.load == load], program, timers)
            taken += some
            notes.append(f"{load}: {note}")
        lives = tracing.lives(trace.read())
        return notes, [sample for timer in timers.values() for sample in _samples(timer, taken, lives)]


def _timers(folder: Path) -> Iterator[Timer]:
    """All that there may be, in the order in which they are shown."""
    for place, name in enumerate(SETTINGS):
        yield Meter(name, folder / f"state.{place}")
    yield from TOOLS
    yield Slurm(folder / "slurm")


def _take(todo: Sequence[naps.Nap], program: Path, timers: Mapping[str, Timer]) -> tuple[list[Taken], str]:
    """Take naps, one each PACE_S, and say how busy that kept the machine."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        began_s, before_s = time.monotonic(), _cpu_s()
        begun: list[Future[Taken]] = []
        for place, nap in enumerate(todo):
            time.sleep(max(0.0, began_s + place * PACE_S - time.monotonic()))
            begun.append(pool.submit(_take_one, nap, naps.link(program, nap.number), timers[nap.tool]))
            _progress(f"{nap.load}: {place + 1} of {len(todo)} naps")
            if place >= AT_ONCE and begun[place - AT_ONCE].done():
                begun[place - AT_ONCE].result()  # what failed is told now, not after all the others
        taken = [one.result() for one in begun]
        took_s, used_s = time.monotonic() - began_s, _cpu_s() - before_s
    _progress("")
    return taken, f"{len(taken)} naps in {took_s:.0f} s; cores {used_s / took_s / _cores():.0%} busy"


def _take_one(nap: naps.Nap, path: Path, timer: Timer) -> Taken:
    words, environment = timer.words(path, nap.ms), timer.environment
    before_ns = time.monotonic_ns()
    done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    after_ns = time.monotonic_ns()
    if done.returncode != 0:
        raise SystemExit(f"cannot time {words}: expected exit status 0, got {done.returncode}: {done.stderr!r}")
    return Taken(nap, path, before_ns, after_ns)


def _samples(timer: Timer, taken: Iterable[Taken], lives: Mapping[int, tracing.Life]) -> Iterator[Sample]:
    """What one timer said, beside the truth."""
    mine = [one for one in taken if one.nap.tool == timer.name]
    readings = timer.readings([one.path for one in mine])
    for one in mine:
        life = lives.get(one.nap.number)
        if life is None:
            raise tracing.TraceError(f"cannot find {one} in the trace: expected its exec and its end")
        # The trace's clock is this process's.
        if (
            not one.before_ns - tracing.RESOLUTION_NS
            <= life.exec_ns
            <= life.end_ns
            <= one.after_ns + tracing.RESOLUTION_NS
        ):
            raise tracing.TraceError(f"cannot trust the trace's clock: expected {life} to lie within {one}")
        yield _sample(one.nap, life, readings[one.path.name])


def _sample(nap: naps.Nap, life: tracing.Life, said: Reading) -> Sample:
    start, end = said.start, said.end
    return Sample(
        *(nap.load, nap.tool, nap.ms, life.exec_ns, life.end_ns, said.wall_ns, said.billed_ns),
        *((None, None, None) if start is None else (start.at_ns, start.source, start.stated_ns)),
        *((None, None, None) if end is None else (end.at_ns, end.source, end.stated_ns)),
    )


def _progress(said: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{said:40}\r", end="", file=sys.stderr, flush=True)


def _cores() -> int:
    return os.cpu_count() or 1


def _cpu_s() -> float:
    """Seconds that all cores together have worked since boot."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
