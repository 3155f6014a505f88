"""What tests that injure Taximeter share: kill sweeps by strace, commands that know when they lived, and the verdict.

Owns how a point of a sweep is named (a system call and its how-many-eth), what a command itself says of its life, and
the laws that every ledger must keep whatever was killed. Refuses to decide what is killed.
"""

import contextlib
import json
import os
import select
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from tests.system.agents import Node, wait_until
from tests.system.rides import stat_fields

SECOND = 1_000_000_000
MS = 1_000_000
HEARTBEAT_NS = SECOND
#: What a witness other than the kernel may be late here, where tests keep the machine busy: far less than a heartbeat.
LATE_NS = 250 * MS
#: The kernel stamps an exit just after it has woken those who wait for it: whoever exits may lose its core in between.
KERNEL_LATE_NS = 50 * MS
#: TAXIMETER_SWEEP=all: every point, else as many as the suite has time for, evenly spread.
SWEEP_ALL = os.environ.get("TAXIMETER_SWEEP") == "all"

_TICK_NS = SECOND // os.sysconf("SC_CLK_TCK")
_One = TypeVar("_One")


# --- Sweeps ---


@dataclass(frozen=True)
class Point:
    """Before which system call of a process it is killed: the `when`-th of that name."""

    call: str
    when: int

    def __str__(self) -> str:
        return f"{self.call}:{self.when}"


def points_of(trace: Path) -> list[Point]:
    """The system calls of one process in the order of their making, from what strace wrote of them."""
    seen: Counter[str] = Counter()
    points: list[Point] = []
    for line in trace.read_text(errors="replace").splitlines():
        call, bracket, _ = line.partition("(")
        if bracket and call.isidentifier():
            seen[call] += 1
            points.append(Point(call, seen[call]))
    return points


def sample(points: Sequence[_One], most: int) -> list[_One]:
    """All, or `most` of them, evenly spread, with the first and the last."""
    if SWEEP_ALL or len(points) <= most:
        return list(points)
    return [points[at * (len(points) - 1) // (most - 1)] for at in range(most)]


# --- Commands whose life is known ---


@dataclass(frozen=True)
class Truth:
    """A command's life as the test itself knows it (CLOCK_MONOTONIC): it began and ended somewhere in these bounds."""

    forked_ns: int  #: not before
    up_ns: int  #: it ran by then
    alive_ns: int  #: it still ran then
    gone_ns: int  #: it was over by then


class Gate:
    """Commands that say that they are up, wait for the gate, and say that they are over; each by a name."""

    # It goes to the gate before it says that it is up: behind a gate that was open once, nobody opens any more.
    _SCRIPT = (
        'exec 3<"$0/gate"; echo $$ >"$0/$1.tmp"; mv "$0/$1.tmp" "$0/$1.up"; read line <&3; echo >"$0/$1.over"; exit 7'
    )

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True)
        self.path = path
        os.mkfifo(path / "gate")
        self._fd = os.open(path / "gate", os.O_RDWR)
        self._held: dict[str, tuple[int, int, int]] = {}  # name -> pidfd, forked, up

    def command(self, name: str) -> list[str]:
        return ["sh", "-c", self._SCRIPT, str(self.path), name]

    def is_up(self, name: str) -> bool:
        return (self.path / f"{name}.up").exists()

    def hold(self, name: str) -> int:
        """Wait until it is up, and watch it; its pid."""
        wait_until(lambda: self.is_up(name), f"command {name}")
        up_ns = time.monotonic_ns()
        pid = int((self.path / f"{name}.up").read_text())
        self._held[name] = (os.pidfd_open(pid), forked_ns(pid), up_ns)
        return pid

    def open(self) -> dict[str, Truth]:
        """Let all go on to their end; what is known of their lives."""
        alive_ns = time.monotonic_ns()
        self._shut()
        return self.ended(alive_ns)

    def ended(self, alive_ns: int) -> dict[str, Truth]:
        """Wait for the end of all that are held."""
        truths: dict[str, Truth] = {}
        poll = select.poll()
        names = {pidfd: name for name, (pidfd, _, _) in self._held.items()}
        for pidfd in names:
            poll.register(pidfd, select.POLLIN)
        deadline_s = time.monotonic() + 30
        while len(truths) < len(names):
            assert time.monotonic() < deadline_s, f"some did not end: {set(names.values()) - truths.keys()}"
            for pidfd, _ in poll.poll(1000):
                name = names[pidfd]
                _, forked, up_ns = self._held[name]
                truths[name] = Truth(forked, up_ns, alive_ns, time.monotonic_ns())
                poll.unregister(pidfd)
                os.close(pidfd)
        self._held.clear()
        return truths

    def is_over(self, name: str) -> bool:
        """Whether it came to its own end."""
        return (self.path / f"{name}.over").exists()

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        (self.path / "gate").unlink()  # first, so that nobody who comes late waits for ever
        self._shut()
        for pidfd, _, _ in self._held.values():
            os.close(pidfd)


def forked_ns(pid: int) -> int:
    """When a living process was forked, rounded down to a tick (CLOCK_MONOTONIC)."""
    asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    return int(stat_fields(pid)[19]) * _TICK_NS - max(0, asleep_ns) - MS


def facts_of(node: Node, prediction: str | None) -> list[dict[str, Any]]:
    """What the journal of a one-shot (None: of a worker) says so far, in whole lines."""
    for path in node.journal.glob("*.ndjson"):
        try:
            whole = path.read_bytes().partition(b"\0")[0].rpartition(b"\n")[0]
        except FileNotFoundError:
            continue  # booked, shipped and removed meanwhile
        facts = [json.loads(line) for line in whole.splitlines()]
        if facts and facts[0]["options"].get("prediction") == prediction:
            return facts
    return []


def wait_for_fact(node: Node, prediction: str, name: str, count: int = 1) -> None:
    """Until the wrapper of a one-shot has written that, so often."""
    wait_until(
        lambda: sum(fact["f"] == name for fact in facts_of(node, prediction)) >= count, f"{name} of {prediction}"
    )


BOOT_ID = "/proc/sys/kernel/random/boot_id"


def rebooted(node: Node, number: int) -> Node:
    """The same node after a reboot: all that is started on it from now on finds another boot id."""
    other, program = node.path / f"boot_id.{number}", node.path / f"taximeter.{number}"
    other.write_text(f"{number:08d}-2222-4333-8444-555555555555\n")
    mounted = f'mount --bind "{other}" {BOOT_ID} && exec "$0" "$@"'
    program.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{mounted}' {node.program} \"$@\"\n")
    program.chmod(0o755)
    return Node(str(program), node.path, node.config)


# --- The verdict ---


def check_ledger(node: Node) -> None:
    """The audit finds nothing: chain, numbering, tiling, sums of time and money."""
    with LedgerReader(node.state / "ledger.db") as reader:
        report = audit(reader)
    assert report.faults == ()


def booked(node: Node) -> dict[str, list[dict[str, Any]]]:
    """The data of every prediction's records, in order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in node.predictions():
        found.setdefault(record["data"]["prediction"], []).append(record["data"])
    return found


def finals(node: Node) -> dict[str, dict[str, Any]]:
    """The data of every final record of a prediction; each is there once."""
    found: dict[str, dict[str, Any]] = {}
    for name, records in booked(node).items():
        last = [data for data in records if data["final"]]
        assert len(last) <= 1, f"{name} was booked {len(last)} times"
        if last:
            found[name] = last[0]
    return found


def billed_ns(data: Mapping[str, Any]) -> int:
    """What a one-shot's customer pays for, to date."""
    to_date: int = data["to_date"]["active_ns"]
    return to_date


def check_bill(data: Mapping[str, Any], truth: Truth, unseen_ns: int) -> None:
    """A one-shot's bill never exceeds the truth, and falls short of it by `unseen_ns` at most (P3, P4)."""
    late_ns = KERNEL_LATE_NS if data["timing"]["end"]["source"] == "kernel" else LATE_NS
    told = json.dumps(data, indent=1)
    assert billed_ns(data) <= truth.gone_ns + late_ns - truth.forked_ns, told
    # Without the kernel the bill runs from when the spawn returned, to a wrapper that may have had to wait for a core.
    start_ns = data["interval"]["end_ns"] - data["to_date"]["wall_ns"]
    assert billed_ns(data) >= truth.alive_ns - max(truth.up_ns, start_ns) - unseen_ns - late_ns, told
    assert data["interval"]["end_ns"] <= truth.gone_ns + late_ns or data["time"]["unknown_ns"], told


@contextlib.contextmanager
def gate(path: Path) -> Iterator[Gate]:
    """A gate; closed at the end, so that no command waits on."""
    opened = Gate(path)
    try:
        yield opened
    finally:
        opened.close()


def strace(*options: str) -> list[str]:
    """What to put before a command; strace must be there."""
    return ["strace", "-qq", *options]


def inject(point: Point) -> tuple[str, ...]:
    """Options of strace that kill whoever comes to this point."""
    return ("-o", "/dev/null", "-e", f"trace={point.call}", "-e", f"inject={point.call}:signal=KILL:when={point.when}")


def killed(program: Sequence[str], point: Point, environment: Mapping[str, str]) -> int:
    """Run `program`, and kill it (it alone) before a system call; what it forks is not touched.

    Returns its status; 0 where it did not come there and lives on.
    """
    words = [*strace(*inject(point)), *program]
    # The command outlives it, and would hold a pipe open.
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # In a session of its own: whoever else began there in that second may be taken for its command.
    process = subprocess.Popen(words, env=dict(environment), start_new_session=True, **quiet)
    try:
        return process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()  # strace lets go of it
        process.wait()
        return 0
