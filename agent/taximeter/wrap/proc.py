"""What /proc says of a process: its start, its state, its terminal, what it used, and whose child it is.

Owns the reading of /proc/PID/stat and status. Refuses to guess: what cannot be read is None.
"""

import posix

from taximeter.wrap.entry import read_file

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from resource import struct_rusage

#: Links of a chain of parents; more is no family but a mistake.
_MAX_GENERATIONS = 128
_KIB = 1024
_PAGE_BYTES = posix.sysconf("SC_PAGESIZE")
_NS_PER_S = 1_000_000_000

# Fields of /proc/PID/stat after the name in brackets, which may hold anything: the first is the state.
_STATE, _PARENT, _GROUP, _TTY, _FOREGROUND, _FLAGS, _UTIME, _THREADS, _START, _PENDING = (
    0,
    1,
    2,
    4,
    5,
    6,
    11,
    17,
    19,
    28,
)
_PF_EXITING = 4
_SIGKILL_PENDING = 1 << 8


def stat_fields(pid: int) -> list[bytes] | None:
    """Fields of /proc/PID/stat from the state on, or None if there is no such process to be seen."""
    try:
        return read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with the boot id this makes its pid unique."""
    fields = stat_fields(pid)
    return None if fields is None else int(fields[_START])


def has_ended(pid: int) -> bool:
    """Whether a child of ours has ended; its status is left to whoever waits for it."""
    return posix.waitid(posix.P_PID, pid, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT) is not None


def is_stopped(pid: int) -> bool:
    """Whether the process is stopped by job control."""
    fields = stat_fields(pid)
    return fields is not None and fields[_STATE] == b"T"


def is_ending(pid: int) -> bool:
    """Whether the process is killed already, or on its way out: taking down a large memory takes its time."""
    fields = stat_fields(pid)
    if fields is None:
        return True
    return bool(int(fields[_FLAGS]) & _PF_EXITING or int(fields[_PENDING]) & _SIGKILL_PENDING)


def last_begun() -> int | None:
    """The latest pid that was given out in our pid namespace, to a process or a thread."""
    try:
        return int(read_file("/proc/loadavg").split()[-1])
    except (OSError, ValueError, IndexError):
        return None


def foreground_group() -> int | None:
    """The process group in the foreground of our controlling terminal; None if we have none."""
    fields = stat_fields(posix.getpid())
    return None if fields is None or fields[_TTY] == b"0" else int(fields[_FOREGROUND])


def parent(pid: int) -> int:
    """The process that it is a child of; 0 where that is out of sight."""
    fields = stat_fields(pid)
    return 0 if fields is None else int(fields[_PARENT])


def group(pid: int) -> int | None:
    """The process group that the process is in."""
    fields = stat_fields(pid)
    return None if fields is None else int(fields[_GROUP])


def descends(pid: int, ancestor: int) -> bool:
    """Whether `pid` is visibly `ancestor` or a descendant of it."""
    for _ in range(_MAX_GENERATIONS):
        if pid == ancestor:
            return True
        fields = stat_fields(pid)
        if fields is None:
            return False
        pid = int(fields[_PARENT])
        if pid <= 1:
            return pid == ancestor
    return False


def is_unfiltered() -> bool:
    """Whether any system call may be tried here: a sandbox (seccomp) may kill whoever makes one that it forbids."""
    try:
        return b"\nSeccomp:\t0\n" in read_file("/proc/self/status")
    except OSError:
        return False


def cpu_ns(pid: int) -> int | None:
    """Processor time of the process and the children it waited for."""
    fields = stat_fields(pid)
    if fields is None:
        return None
    ticks = sum(map(int, fields[_UTIME : _UTIME + 4]))
    return ticks * _NS_PER_S // posix.sysconf("SC_CLK_TCK")


def cpu_used_ns(used: "struct_rusage") -> int:
    """Processor time as getrusage gives it first, user and system: in float seconds that are whole microseconds."""
    return (round(used[0] * 1_000_000) + round(used[1] * 1_000_000)) * 1_000


def rss_bytes(pid: int) -> int | None:
    """The memory that the process holds now."""
    try:
        return int(read_file(f"/proc/{pid}/statm").split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return None


def rss_peak_bytes(pid: int) -> int | None:
    """The most memory that the process ever held; None once it is gone, or for want of /proc."""
    try:
        peak = read_file(f"/proc/{pid}/status").partition(b"\nVmHWM:")[2]
    except OSError:
        return None
    return int(peak.split(None, 1)[0]) * _KIB if peak else None
