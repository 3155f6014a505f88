"""Who descends from whom, and what each process used: from /proc/PID/stat and statm, which wait for no lock.

Refuses to know instances.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LONGEST_STAT = 4096
#: Nobody nests deeper; a table that was read while it changed may hold a circle.
_DEEPEST = 64


class Process(NamedTuple):
    """One process as it is now; with its start time a pid means one process only."""

    pid: int
    ticks: int  #: its start, in clock ticks since boot
    parent: int
    name: str  #: at most 15 bytes of it
    cpu_ns: int  #: its own
    children_ns: int  #: of those that it waited for


def look_at(pid: int) -> Process | None:
    """The process that has `pid` now; None where it is gone or hidden."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        stat = os.read(fd, _LONGEST_STAT)
    except OSError:  # it has ended in between
        return None
    finally:
        os.close(fd)
    name, _, rest = stat.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    own, children = (int(fields[at]) + int(fields[at + 1]) for at in (11, 13))
    text = name.decode("utf-8", "replace")
    return Process(pid, int(fields[19]), int(fields[1]), text, own * _NS_PER_TICK, children * _NS_PER_TICK)


def everybody() -> dict[int, Process]:
    """Every process that can be seen, by pid."""
    found = (look_at(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def eldest_that_says(name: bytes, ending: bytes) -> Process | None:
    """The oldest of the processes whose environment has `name` with a value that ends so; None where none may be read.

    An environment may be read of one's own processes, and of everybody's by root.
    """
    return min(all_that_say(name, ending), key=lambda process: process.ticks, default=None)


def all_that_say(name: bytes, ending: bytes) -> Iterator[Process]:
    """The processes whose environment has `name` with a value that ends so, as far as they may be read."""
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if any(entry.startswith(name + b"=") and entry.endswith(ending) for entry in environment.split(b"\0")):
            process = look_at(pid)
            if process is not None:
                yield process


def ancestry(pid: int) -> Iterator[Process]:
    """A process and those above it, as far as they can be seen; each is looked at when it is asked for."""
    for _ in range(_DEEPEST):
        process = look_at(pid)
        if process is None:
            return
        yield process
        pid = process.parent


def children_of(table: dict[int, Process]) -> dict[int, list[int]]:
    """Who has which children."""
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    return children


def descendants(
    table: dict[int, Process], roots: set[int], without: set[int], children: dict[int, list[int]] | None = None
) -> set[int]:
    """Everybody below `roots`, and these themselves, as far as they are in the table; nobody below `without`.

    Whoever asks more than once works out the `children` beforehand.
    """
    children = children_of(table) if children is None else children
    found: set[int] = set()
    due = [root for root in roots if root in table]
    while due:
        pid = due.pop()
        if pid not in found and pid not in without:
            found.add(pid)
            due += children.get(pid, ())
    return found


def resident_bytes(pids: set[int]) -> int | None:
    """The memory that processes hold together, what they share counted once; None where none can be seen.

    Which pages are shared by whom only a walk through all of them would tell: what is counted is each one's own, and
    the largest part that any of them may share. So it is never too much.
    """
    own = shared = 0
    seen = False
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/statm").read_bytes().split()
        except OSError:
            continue
        seen = True
        own += (int(fields[1]) - int(fields[2])) * _PAGE
        shared = max(shared, int(fields[2]) * _PAGE)
    return own + shared if seen else None
