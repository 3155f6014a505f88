"""Whether a pid is still that process: start times, pidfds, and which boot this is.

Owns /proc's and the pidfd's answers about one process. Refuses to wait: a pidfd is given to the event loop, which says
when it is readable. Refuses to know instances.
"""

import os
from pathlib import Path

from taximeter.errors import TaximeterError


def start_ticks(pid: int) -> int | None:
    """When `pid` was started, in clock ticks since boot (field 22 of its stat); None where it is gone or hidden."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command's name may hold anything, spaces and parentheses included: count from its last parenthesis.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


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


def boot_id() -> str:
    """Which boot this is: pids, start times and CLOCK_MONOTONIC mean nothing beyond it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
