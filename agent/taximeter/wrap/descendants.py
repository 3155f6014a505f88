"""What the command leaves running when it ends: processes that descend from it and live on.

Owns the counting. Orphans are our children from the moment that we are a subreaper; those of the first milliseconds
went to some ancestor of ours, and are known by the marks FIFO in their environment. Refuses to touch them: they would
live on without us, too.
"""

import posix

from taximeter import wire
from taximeter.wrap import proc
from taximeter.wrap.entry import read_file
from taximeter.wrap.run import Run

#: Processes left running that are counted: more is as bad, and looking at each takes time.
_COUNTED = 1000
#: The latest children of an ancestor that are looked at; the kernel lists them as they came.
_LATEST = 64
_MAX_GENERATIONS = 128
_STATE, _THREADS, _START = 0, 17, 19  # fields of /proc/PID/stat, as in proc


class Strays:
    """Orphans of the command that got away before we took them in; pid and start make each of them unique."""

    def __init__(self, run: Run) -> None:
        """Find those that are there. A run without a journal has none that could be told from others."""
        self._found: list[tuple[int, int]] = []
        born, own_pid = proc.start_ticks(run.pid), posix.getpid()
        if born is None or run.fifo_path is None:
            return
        mark = f"\0{wire.ENV_MARKS}={run.fifo_path}\0".encode("utf-8", "surrogateescape")
        for ancestor in _ancestors(own_pid):
            for pid in _children_of(ancestor)[-_LATEST:]:
                start = proc.start_ticks(pid)
                if pid != own_pid and start is not None and start >= born and _carries(pid, mark):
                    self._found.append((pid, start))

    def living(self) -> list[int]:
        """Those that live now."""
        return [pid for pid, start in self._found if proc.start_ticks(pid) == start and _lives(pid)]


def count(strays: list[int]) -> int | None:
    """How many processes live that descend from us, or are or descend from strays; None where no kernel says so."""
    if not posix.access(f"/proc/self/task/{posix.getpid()}/children", posix.F_OK):
        return None
    found, parents = len(strays), [posix.getpid(), *strays]
    while parents and found < _COUNTED:
        children = _children_of(parents.pop())
        parents.extend(children)
        found += sum([_lives(child) for child in children])
    return min(found, _COUNTED)


def _ancestors(pid: int) -> list[int]:
    found: list[int] = []
    while (pid := proc.parent(pid)) and len(found) < _MAX_GENERATIONS:
        found.append(pid)
    return found


def _children_of(pid: int) -> list[int]:
    """Children of all threads of a process; none of one that is gone."""
    found: list[int] = []
    try:
        for thread in posix.listdir(f"/proc/{pid}/task"):
            found.extend(map(int, read_file(f"/proc/{pid}/task/{thread}/children").split()))
    except OSError:
        pass
    return found


def _lives(pid: int) -> bool:
    """Whether a process lives: a zombie with further threads does, and so does what we may not look at."""
    fields = proc.stat_fields(pid)
    if fields is None:
        return posix.access(f"/proc/{pid}", posix.F_OK)
    return fields[_STATE] not in (b"Z", b"X") or int(fields[_THREADS]) > 1


def _carries(pid: int, mark: bytes) -> bool:
    try:
        return mark in b"\0" + read_file(f"/proc/{pid}/environ")
    except OSError:
        return False
