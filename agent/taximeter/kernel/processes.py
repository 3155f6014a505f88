"""Whether a pid is still that process, how it ended, which pid it has here, and which boot this is.

Owns /proc's and the pidfd's answers about one process. Refuses to wait: a pidfd is given to the event loop, which says
when it is readable. Refuses to know instances.
"""

import fcntl
import os
import select
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from taximeter.errors import TaximeterError

#: struct pidfd_info as it was first (64 bytes): mask, (cgroup, pids, uids and gids), exit code.
_PIDFD_INFO = struct.Struct("=Q52xi")
_PIDFD_INFO_EXIT = 1 << 3
#: _IOWR(0xFF, 11, struct pidfd_info): the size in the number is the version, and newer kernels know older ones.
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO.size << 16 | 0xFF << 8 | 11
#: In field 9 of a stat: a thread of the kernel's own.
_PF_KTHREAD = 0x0020_0000


def start_ticks(pid: int) -> int | None:
    """When `pid` was started, in clock ticks since boot (field 22 of its stat); None where it is gone or hidden."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def open_process(pid: int, ticks: int) -> int | None:
    """A pidfd of exactly the process that had `pid` and start time `ticks`; None where that one is gone or hidden.

    The descriptor is readable once the process has ended; the caller closes it. It is opened before the start time is
    compared, so that a pid recycled in between inherits nothing.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        message = f"cannot hold process {pid}: expected a pidfd from the kernel, got: {error.strerror}"
        raise TaximeterError(message) from error
    if start_ticks(pid) != ticks:
        os.close(fd)
        return None
    return fd


def is_alive(pid: int, ticks: int) -> bool:
    """Whether exactly the process that had `pid` and start time `ticks` runs: one thread of it at least."""
    fd = open_process(pid, ticks)
    if fd is None:
        return False
    try:
        readable = select.poll()
        readable.register(fd, select.POLLIN)
        return not readable.poll(0)
    finally:
        os.close(fd)


def exit_status(pidfd: int) -> int | None:
    """How the process ended, as wait gives it, of any process and not only of children (Linux 6.15).

    None before its parent has waited for it (its pidfd then says POLLHUP, not only POLLIN), and where the kernel cannot
    say.
    """
    info = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, 0))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, status = _PIDFD_INFO.unpack(info)
    return status if mask & _PIDFD_INFO_EXIT else None


def host_pid(wrapper_pid: int, pid: int, ticks: int) -> int | None:
    """The pid here of that child of `wrapper_pid` (a pid here) which has `pid` for its parent, in its pid namespace.

    `ticks` is its start time as seen from here. None where it is gone, hidden, or never was.
    """
    depth = len(_namespace_pids(wrapper_pid))
    for child in _children(wrapper_pid):
        pids = _namespace_pids(child)
        if depth and pids[depth - 1 : depth] == [pid] and start_ticks(child) == ticks:
            return child
    return None


def own_pid(pid: int) -> int | None:
    """What a process takes for its own pid, in the innermost namespace that it is in; None where it is gone."""
    pids = _namespace_pids(pid)
    return pids[-1] if pids else None


def pid_namespace(pid: int) -> str | None:
    """Which pid namespace a process is in, as /proc names it (`pid:[4026531836]`); None where that may not be seen."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def words(pid: int) -> list[str]:
    """The words that a process was begun by, as it shows them to everybody; none where it is gone, or the kernel's."""
    try:
        shown = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [word.decode("utf-8", "surrogateescape") for word in shown.split(b"\0")[:-1]]


def is_kernels_own(pid: int) -> bool:
    """Whether it is a thread of the kernel, which runs no command; it says that it is root's, and in session 0."""
    fields = _stat(pid)
    return bool(fields) and int(fields[6]) & _PF_KTHREAD != 0


def whose(pid: int) -> tuple[int, int] | None:
    """The real user of a process, and its session: the pid of that one's leader as the process itself knows it.

    Everybody may read that of everybody. 0 is a session whose leader is out of its sight; None: it is gone.
    """
    status = _status(pid)
    users, sessions = _numbers(status, b"Uid"), _numbers(status, b"NSsid")
    return (users[0], sessions[-1]) if users and sessions else None


def below(roots: Iterable[int], most: int = 4096) -> Iterator[int]:
    """The processes below these, nearest first; no more than `most`."""
    due = deque(roots)
    seen = set(due)
    while due and len(seen) < most:
        for child in _children(due.popleft()):
            if child not in seen:
                seen.add(child)
                due.append(child)
                yield child


def boot_id() -> str:
    """Which boot this is: pids, start times and CLOCK_MONOTONIC mean nothing beyond it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _children(pid: int) -> Iterator[int]:
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            yield from (int(child) for child in (thread / "children").read_bytes().split())
    except OSError:  # gone, or a kernel without CONFIG_PROC_CHILDREN
        return


def _namespace_pids(pid: int) -> list[int]:
    """The pids of one process: here, and in each pid namespace that it is in, down to its own."""
    return _numbers(_status(pid), b"NSpid")


def _stat(pid: int) -> list[bytes]:
    """The fields of its stat from the third on; none where it is gone or hidden."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    # The command's name may hold anything, spaces and parentheses included: count from its last parenthesis.
    return stat[stat.rindex(b")") + 2 :].split()


def _status(pid: int) -> bytes:
    """What /proc says of a process; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return b""


def _numbers(status: bytes, key: bytes) -> list[int]:
    """The numbers of one line of it."""
    _, found, rest = status.partition(b"\n" + key + b":")
    return [int(one) for one in rest.partition(b"\n")[0].split()] if found else []
