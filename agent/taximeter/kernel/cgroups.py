"""What a control group used, of either version: processor time also of what has ended unwaited for, and memory.

Owns the files of cgroup v2 and of v1's cpuacct and memory. Refuses to know whose group it is; the root group is
everybody's, and no group at all.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_US = 1_000
_PROC = Path("/proc")


class Group(NamedTuple):
    """A control group now, with those below it."""

    pids: frozenset[int]
    cpu_ns: int
    resident_bytes: int | None  #: without the page cache


def group_of(pid: int, proc: Path = _PROC) -> Group | None:
    """The group that accounts for `pid`'s processor time; None for the root, and where nothing can be read."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
        mounts = (proc / "self" / "mountinfo").read_text().splitlines()
        return _unified(lines, mounts) or _legacy(lines, mounts)
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _unified(lines: Iterable[str], mounts: Iterable[str]) -> Group | None:
    directory = _directory(lines, mounts, "")
    if directory is None or not (directory / "cpu.stat").exists():
        return None
    memory = None
    if (directory / "memory.stat").exists():
        known = _fields(directory / "memory.stat")
        memory = known["anon"] + known["file_mapped"]
    return Group(_pids(directory), _fields(directory / "cpu.stat")["usage_usec"] * _US, memory)


def _legacy(lines: Iterable[str], mounts: Iterable[str]) -> Group | None:
    directory, other = (_directory(lines, mounts, name) for name in ("cpuacct", "memory"))
    if directory is None:
        return None
    pids, memory = _pids(directory), None
    if other is not None and _pids(other) == pids:
        known = _fields(other / "memory.stat")
        memory = known["total_rss"] + known["total_mapped_file"]
    return Group(pids, int((directory / "cpuacct.usage").read_text()), memory)


def _directory(lines: Iterable[str], mounts: Iterable[str], controller: str) -> Path | None:
    """Where the group is that a line of /proc/PID/cgroup names; it may lie outside of what is mounted here."""
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            break
    else:
        return None
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        wanted = kind == "cgroup" and controller in options.split(",") if controller else kind == "cgroup2"
        if wanted and (path + "/").startswith(root.rstrip("/") + "/"):
            below = path[len(root.rstrip("/")) :].strip("/")
            return Path(point) / below if below and ".." not in below.split("/") else None
    return None


def _pids(directory: Path) -> frozenset[int]:
    found = [int(word) for word in (directory / "cgroup.procs").read_text().split()]
    for path in directory.iterdir():
        if path.is_dir():
            found += _pids(path)
    return frozenset(found)


def _fields(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split(None, 1) for line in path.read_text().splitlines())}
