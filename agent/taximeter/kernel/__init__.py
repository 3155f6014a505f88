"""The kernel's doors: notes of a directory (inotify), one process (/proc, pidfds), all of them (the proc connector).

Owns the system calls that Python lacks. Refuses to wait, and to know journals and instances.
"""

from taximeter.kernel.connector import STAMP_WITHIN_NS, ProcessEvents
from taximeter.kernel.groups import End, Start
from taximeter.kernel.notes import Changes, DirectoryWatch
from taximeter.kernel.processes import boot_id, exit_status, host_pid, is_alive, open_process, start_ticks
from taximeter.kernel.usage import usage_of

__all__ = [
    "STAMP_WITHIN_NS",
    "Changes",
    "DirectoryWatch",
    "End",
    "ProcessEvents",
    "Start",
    "boot_id",
    "exit_status",
    "host_pid",
    "is_alive",
    "open_process",
    "start_ticks",
    "usage_of",
]
