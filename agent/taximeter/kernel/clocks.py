"""The machine's clocks as this process has them: read one after the other, and what the kernel thinks of its calendar.

Owns clock_gettime, adjtimex (which only asks here, and not in a sandbox) and the offsets of a time namespace. Refuses
to judge.
"""

import ctypes
import time
from functools import cache
from pathlib import Path

from taximeter.events import Clock, TimeOffsets
from taximeter.kernel.processes import boot_id

_NS_PER_S = 1_000_000_000
_NS_PER_US = 1_000
#: The clocks are read again, but not for ever, if that took longer than this: something came in between.
_QUICK_NS = 20_000
_TRIES = 4
#: adjtimex(2): what it answers, and the bit of its status, while nobody keeps the clock in step with others.
_TIME_ERROR = 5
_STA_UNSYNC = 0x0040
_ROOM_BYTES = 256


class _Timex(ctypes.Structure):
    """The beginning of struct timex; `modes` 0 asks and sets nothing, which needs no privilege."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),  # microseconds
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("_rest", ctypes.c_char * _ROOM_BYTES),
    )


_libc = ctypes.CDLL(None)


def read_clock() -> Clock:
    """The machine's clocks now."""
    boot, tries, monotonic = boot_id(), 1, time.monotonic_ns()
    while True:
        boottime = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        raw = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        realtime = time.time_ns()
        after = time.monotonic_ns()
        if after - monotonic <= _QUICK_NS or tries == _TRIES:
            return Clock(monotonic, boottime, raw, realtime, boot, after - monotonic, utc_error_ns())
        monotonic, tries = after, tries + 1


def utc_error_ns() -> int | None:
    """How far CLOCK_REALTIME may be off; None where the kernel does not know, or is not to be asked."""
    if not _is_unfiltered():
        return None
    timex = _Timex()
    return error_of(_libc.adjtimex(ctypes.byref(timex)), timex.status, timex.maxerror)


@cache
def _is_unfiltered() -> bool:
    """Whether any system call may be tried here: a sandbox (seccomp) may kill whoever makes one that it forbids."""
    try:
        return "\nSeccomp:\t0\n" in Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return False


def error_of(answer: int, status: int, maxerror_us: int) -> int | None:
    """What adjtimex's answer means: the error counts only while something keeps the clock in step."""
    if answer < 0 or answer == _TIME_ERROR or status & _STA_UNSYNC:
        return None
    return maxerror_us * _NS_PER_US


def time_offsets(path: Path = Path("/proc/self/timens_offsets")) -> TimeOffsets:
    """By how much our clocks are ahead of the machine's own; by nothing where the kernel knows no time namespaces."""
    try:
        rows = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return TimeOffsets()
    found = {name: int(seconds) * _NS_PER_S + int(nanoseconds) for name, seconds, nanoseconds in rows}
    return TimeOffsets(found.get("monotonic", 0), found.get("boottime", 0))
