"""What a process used so far, as /proc tells it. Refuses to know whose process it is."""

import os
from pathlib import Path

_NS_PER_S = 1_000_000_000
_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024
# Fields of /proc/PID/stat behind the name in brackets: utime, stime, cutime, cstime.
_TIMES = slice(11, 15)


def usage_of(pid: int) -> tuple[int | None, int | None]:
    """Processor time of `pid` and of children that it waited for (ns), its peak memory (bytes); None: hidden."""
    cpu_ns = peak_bytes = None
    try:
        times = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[_TIMES]
        cpu_ns = sum(map(int, times)) * _NS_PER_S // _TICKS
        peak = Path(f"/proc/{pid}/status").read_bytes().partition(b"\nVmHWM:")[2]
        peak_bytes = int(peak.split(None, 1)[0]) * _KIB if peak else None
    except (OSError, ValueError, IndexError):
        pass
    return cpu_ns, peak_bytes
