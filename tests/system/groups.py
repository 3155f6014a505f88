"""Memory cgroups for tests, of whichever version this machine has its memory in."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.require import lacking, require_root
from tests.system.rides import wait_until

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


class Group:
    """A memory cgroup of our own."""

    def __init__(self, path: Path, limit_bytes: int | None) -> None:
        self.path = path
        path.mkdir()
        if limit_bytes is not None:
            limit = "memory.limit_in_bytes" if _is_v1() else "memory.max"
            (path / limit).write_text(str(limit_bytes))

    def enter(self, *words: str) -> list[str]:
        """The words of a command that runs in this group."""
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.path), *words]

    def remove(self) -> None:
        """Remove it once it is empty."""

        def removed() -> bool:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            return not self.path.exists()

        wait_until(removed, f"{self.path} to be empty")


@contextlib.contextmanager
def memory_group(name: str, limit_bytes: int | None = None, within: Group | None = None) -> Iterator[Group]:
    """A group with that memory limit; skips where this machine has none to give."""
    require_root()
    if within is None:
        top = _V1 if _is_v1() else _V2
        if not _is_v1() and "memory" not in _read(_V2 / "cgroup.subtree_control"):
            lacking("needs a memory cgroup: echo +memory > /sys/fs/cgroup/cgroup.subtree_control")
    else:
        top = within.path
        if not _is_v1():
            (top / "cgroup.subtree_control").write_text("+memory")
    try:
        group = Group(top / f"taximeter-{os.getpid()}-{name}", limit_bytes)
    except OSError as error:
        lacking(f"needs to make a memory cgroup below {top}: {error}")
    try:
        yield group
    finally:
        group.remove()


def kills_on_this_node() -> str:
    """How many processes the kernel has killed for want of memory, whoever they were."""
    return _read(Path("/proc/vmstat")).partition("\noom_kill ")[2].partition("\n")[0]


def _is_v1() -> bool:
    return (_V1 / "memory.oom_control").exists()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
