"""The kernel's doors: notes of a directory (inotify), processes (/proc, pidfds, the proc connector), the clocks.

Owns the system calls that Python lacks. Refuses to wait, and to know journals and instances.
"""

from taximeter.kernel.capabilities import give_up_net_admin
from taximeter.kernel.cgroups import group_of
from taximeter.kernel.clocks import read_clock, time_offsets, utc_error_ns
from taximeter.kernel.connector import STAMP_WITHIN_NS, ProcessEvents
from taximeter.kernel.group import End, Start
from taximeter.kernel.kin import (
    Process,
    all_that_say,
    ancestry,
    children_of,
    descendants,
    eldest_that_says,
    everybody,
    look_at,
    resident_bytes,
)
from taximeter.kernel.notes import Changes, DirectoryWatch
from taximeter.kernel.processes import (
    below,
    boot_id,
    exit_status,
    host_pid,
    is_alive,
    is_kernels_own,
    open_process,
    own_pid,
    pid_namespace,
    start_ticks,
    whose,
    words,
)
from taximeter.kernel.usage import usage_of

__all__ = [
    "STAMP_WITHIN_NS",
    "Changes",
    "DirectoryWatch",
    "End",
    "Process",
    "ProcessEvents",
    "Start",
    "all_that_say",
    "ancestry",
    "below",
    "boot_id",
    "children_of",
    "descendants",
    "eldest_that_says",
    "everybody",
    "exit_status",
    "give_up_net_admin",
    "group_of",
    "host_pid",
    "is_alive",
    "is_kernels_own",
    "look_at",
    "open_process",
    "own_pid",
    "pid_namespace",
    "read_clock",
    "resident_bytes",
    "start_ticks",
    "time_offsets",
    "usage_of",
    "utc_error_ns",
    "whose",
    "words",
]
