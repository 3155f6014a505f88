"""What devices said of themselves at one moment, and who was on them. Values only; ground.

A value that a device did not tell, or that cannot be true, is None: unknown, never zero. Refuses to know how it was
read (nvml) and what it means for an instance (evidence, resources).
"""

from dataclasses import dataclass
from enum import StrEnum

#: No device draws more, so a counter that ran faster was misread (a GB200 superchip is specified at 2.7 kW).
MOST_WATTS = 5_000


class ProcessKind(StrEnum):
    """In which of NVML's lists a process stood; in the last of these where in several."""

    GRAPHICS = "graphics"
    COMPUTE = "compute"
    MPS = "mps"  #: a client of CUDA's multi-process service (its server is of kind compute)


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """A process that has a context on a device; the pid is one of the agent's own pid namespace."""

    pid: int
    device: str  #: UUID: of the slice where the GPU is cut and the slice is known, else of the GPU
    used_bytes: int | None
    kind: ProcessKind


@dataclass(frozen=True, slots=True)
class DeviceSample:
    """One device at one moment; of a slice NVML tells the memory and the processes, hardly ever more."""

    uuid: str
    at_ns: int  #: CLOCK_MONOTONIC when the device began to be asked
    utilisation: float | None = None  #: 0 to 1: how much of the last second (or sixth of one) some kernel ran
    memory_used_bytes: int | None = None
    energy_mj: int | None = None  #: the driver's counter since it was loaded, in millijoules: see `energy_between`
    power_mw: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    throttle_reasons: int | None = None  #: NVML's bit mask; 0 is none, 1 is idle
    ecc_corrected: int | None = None  #: since the driver was loaded
    ecc_uncorrected: int | None = None
    processes: tuple[ProcessUse, ...] | None = None  #: None: it would not tell, so anybody may be on it
    all_lists: bool = True  #: False: one of the lists (compute, graphics, MPS) was refused, so there may be more


@dataclass(frozen=True, slots=True)
class Xid:
    """A fault that the driver reported of a device, by NVIDIA's number."""

    uuid: str
    number: int
    at_ns: int  #: CLOCK_MONOTONIC when it was read, up to one sampling later than it happened


@dataclass(frozen=True, slots=True)
class Samples:
    """One round over all devices. A device that is lost, or did not answer, is not in it."""

    at_ns: int  #: CLOCK_MONOTONIC when the round began
    devices: tuple[DeviceSample, ...] = ()
    xids: tuple[Xid, ...] = ()

    def device(self, uuid: str) -> DeviceSample | None:
        """The sample of one device."""
        return next((device for device in self.devices if device.uuid == uuid), None)

    def of_process(self, pid: int) -> tuple[ProcessUse, ...]:
        """Every device that a process is on."""
        return tuple(use for device in self.devices for use in device.processes or () if use.pid == pid)


def energy_between(earlier: DeviceSample, later: DeviceSample) -> int | None:
    """Millijoules between two samples of a device by its counter; None where there is none that can be believed.

    A counter that ran backwards began anew with the driver: what was used until then is not known.
    """
    if earlier.energy_mj is None or later.energy_mj is None:
        return None
    used_mj = later.energy_mj - earlier.energy_mj
    passed_ms = (later.at_ns - earlier.at_ns) // 1_000_000 + 1_000  # the driver counts in steps of its own
    return used_mj if 0 <= used_mj <= MOST_WATTS * passed_ms else None
