"""The kernel's doors: what changed in a directory (inotify), and which process a pid is (/proc, pidfds).

Owns the system calls that Python lacks. Refuses to wait, and to know journals and instances.
"""

from taximeter.kernel.notes import Changes, DirectoryWatch
from taximeter.kernel.processes import boot_id, open_process, start_ticks

__all__ = ["Changes", "DirectoryWatch", "boot_id", "open_process", "start_ticks"]
