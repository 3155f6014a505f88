"""What NVML's numbers and texts mean, and which of them it gives by mistake. Pure.

A value that cannot be true is unknown, never zero: all ones, -16 seen as unsigned (2147483632 or 4294967280),
`None`, text that is no text. Refuses to ask.
"""

import re
from collections.abc import Iterable

from taximeter.hardware.samples import MOST_WATTS, ProcessKind, ProcessUse

#: More devices than any node has: a count beyond it was misread.
MOST_DEVICES = 64
#: Processes on one device.
MOST_PROCESSES = 4096
_MOST_BYTES = 1 << 50
_MOST_PID = 1 << 22  # the kernel's own limit
_MOST_MHZ = 20_000
_MOST_COUNT = 1 << 62
_MOST_ID = 1 << 16
_MOST_MULTIPROCESSORS = 1 << 12
#: Cores of a multiprocessor by compute capability; of newer ones it is not known yet.
_CORES = {"6.0": 64, "6.1": 128, "7.0": 64, "7.5": 64, "8.0": 64}
_CORES |= dict.fromkeys(("8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1"), 128)
_ORDER = tuple(ProcessKind)


def number(value: object, least: int, most: int) -> int | None:
    """Return a number that lies where it may."""
    return value if type(value) is int and least <= value <= most else None


def text(value: object) -> str | None:
    """Return a line of printable text."""
    if not isinstance(value, str):
        return None
    line = value.strip()
    return line[:128] or None if line.isprintable() else None


def total_bytes(value: object) -> int | None:
    """Return a memory's size; none has no byte."""
    return number(value, 1, _MOST_BYTES)


def used_bytes(value: object) -> int | None:
    """Return how much of a memory is used."""
    return number(value, 0, _MOST_BYTES)


def ratio(value: object) -> float | None:
    """Return per cent as a ratio."""
    percent = number(value, 0, 100)
    return None if percent is None else percent / 100


def power_mw(value: object) -> int | None:
    """Return milliwatts."""
    return number(value, 0, MOST_WATTS * 1000)


def clock_mhz(value: object) -> int | None:
    """Return megahertz."""
    return number(value, 0, _MOST_MHZ)


def count(value: object) -> int | None:
    """Return what a 64 bit counter or mask says."""
    return number(value, 0, _MOST_COUNT)


def small(value: object) -> int | None:
    """Return an id, or a number of slices."""
    return number(value, 0, _MOST_ID)


def pci_device_id(value: object) -> str | None:
    """Return the device's half of NVML's device and vendor id."""
    found = number(value, 1 << 16, 0xFFFFFFFE)
    return None if found is None else f"{found >> 16:04X}"


def pci_bus_id(value: object) -> str | None:
    """Return where on the bus a device is, in the form of NVML and lspci."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    found = text(value)
    return found if found and re.fullmatch(r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]", found) else None


def compute_capability(value: object) -> str | None:
    """Return `9.0` for (9, 0)."""
    found = ".".join(str(part) for part in value) if isinstance(value, list | tuple) else ""
    return found if re.fullmatch(r"[1-9][0-9]?\.[0-9]", found) else None


def multiprocessors(cores: object, compute: str | None) -> int | None:
    """Return how many multiprocessors make up so many cores."""
    each = _CORES.get(compute or "")
    found = number(cores, 1, _MOST_MULTIPROCESSORS * 128)
    return found // each if found and each and found % each == 0 else None


def multiprocessor_count(value: object) -> int | None:
    """Return multiprocessors as a slice tells them."""
    return number(value, 1, _MOST_MULTIPROCESSORS)


def split_name(name: str) -> tuple[str, str | None]:
    """Return a slice's GPU and its profile, `3g.40gb`; of a GPU there is no profile."""
    whole, _, profile = name.partition(" MIG ")
    return whole, profile.strip() or None


def profile(gpu_slices: int | None, compute_slices: int | None, memory_mib: object) -> str | None:
    """Return the profile that so many slices and so much memory are called by, where the name does not tell."""
    memory = number(memory_mib, 1, _MOST_BYTES >> 20)
    if not gpu_slices or not memory:
        return None
    part = f"{compute_slices}c." if compute_slices and compute_slices != gpu_slices else ""
    return f"{part}{gpu_slices}g.{(memory + 1023) // 1024}gb"


def pid(value: object) -> int | None:
    """Return a process id: neither 0 nor all ones, which mismatched libraries give."""
    return number(value, 1, _MOST_PID)


def merged(uses: Iterable[ProcessUse]) -> tuple[ProcessUse, ...]:
    """Return each process once a device: with its last list as its kind, and the most memory that any list tells."""
    found: dict[tuple[str, int], ProcessUse] = {}
    for use in uses:
        key = (use.device, use.pid)
        other = found.get(key)
        if other is None:
            found[key] = use
            continue
        known = [size for size in (use.used_bytes, other.used_bytes) if size is not None]
        kind = max(use.kind, other.kind, key=_ORDER.index)
        found[key] = ProcessUse(use.pid, use.device, max(known, default=None), kind)
    return tuple(found.values())
