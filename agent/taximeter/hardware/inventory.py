"""What a node has: devices and host, and what of it an instance was given. Values only; ground.

Refuses to know how any of it was read (nvml, host) and what it is called when it is sold (tiers).
"""

from dataclasses import dataclass
from enum import StrEnum


class Evidence(StrEnum):
    """How it is known which devices an instance used."""

    DECLARED = "declared"
    OBSERVED = "observed"
    BOTH = "both"
    MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU, as NVML names it."""

    uuid: str
    name: str
    memory_bytes: int | None  #: None is unknown, never zero
    index: int = 0  #: NVML's order (PCI bus); not stable over reboots
    pci_device_id: str | None = None  #: four hex digits, e.g. "2330"
    compute_capability: str | None = None  #: e.g. "9.0"
    mig_profile: str | None = None
    parent_uuid: str | None = None
    pci_bus_id: str | None = None  #: e.g. "00000000:65:00.0"; a slice has its GPU's
    multiprocessors: int | None = None  #: SMs
    gpu_instance: int | None = None  #: of a slice: its ids on its GPU
    compute_instance: int | None = None
    gpu_slices: int | None = None  #: of a slice: how many slices of its GPU its GPU instance has
    compute_slices: int | None = None  #: of a slice: how many of these it computes with itself
    mig: bool | None = None  #: of a GPU: whether it is cut, so that only its slices run anything; None: cannot be
    lost: bool = False  #: it was here, and does not answer now: it keeps its place and fits no tier


@dataclass(frozen=True, slots=True)
class Host:
    """The machine around the devices."""

    cpus: int
    memory_bytes: int
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything a node has, and what could not be read of it."""

    host: Host
    devices: tuple[Device, ...] = ()
    problems: tuple[str, ...] = ()  #: sentences for people, e.g. why there is no NVML
    driver_version: str | None = None
    nvml_version: str | None = None
    devices_known: bool = True  #: False: there may be devices, but NVML would not tell; then no tier is certain
    missing: tuple[str, ...] = ()  #: UUIDs of GPUs that were here, and that NVML counts no more


@dataclass(frozen=True, slots=True)
class Hardware:
    """What one instance ran on, under the name it is sold by."""

    tier: str
    count: int
    devices: tuple[Device, ...] = ()
    evidence: Evidence = Evidence.DECLARED
    rule: str = ""  #: why this tier: the rule that matched, in words
    settled: bool = True  #: False: the environment names no devices, or none that can be told apart

    def __hash__(self) -> int:  # type: ignore[explicit-override]
        """Told apart by its name alone: it is looked up with every record, and devices are many fields."""
        return hash((self.tier, self.count))


#: Where no rule matches: an alert, no price, never a guess.
UNKNOWN_TIER = "unknown"
