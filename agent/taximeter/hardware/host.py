"""The machine around the devices. The only door to psutil.

Owns how many CPUs and how much memory the host has: the host's, whatever share of it this process may use.
Refuses to know devices and tiers.
"""

import platform

import psutil  # type: ignore[import-untyped, unused-ignore]

from taximeter.errors import HardwareError
from taximeter.hardware.inventory import Host


def read_host() -> Host:
    """Return the host's logical CPUs, its memory in bytes and its architecture."""
    try:
        cpus = psutil.cpu_count(logical=True)
        memory_bytes = psutil.virtual_memory().total
    except (psutil.Error, OSError) as error:
        raise HardwareError(f"cannot read the host's CPUs and memory: expected /proc to tell them ({error})") from error
    if not cpus:
        raise HardwareError("cannot count the host's CPUs: expected /proc/cpuinfo or sysconf to tell")
    return Host(cpus, memory_bytes, platform.machine())
