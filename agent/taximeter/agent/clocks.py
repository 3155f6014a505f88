"""The machine's clocks, read together: the agent's own."""

import time

from taximeter import kernel
from taximeter.events import Clock


def read_clock() -> Clock:
    """The machine's clocks now."""
    return Clock(
        time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW),
        time.clock_gettime_ns(time.CLOCK_REALTIME),
        kernel.boot_id(),
    )
