"""Under which name hardware is sold: an ordered catalogue of rules, matched purely.

Owns the rules and the one way of matching them: the first tier that fits all devices of an instance wins,
and where none fits the tier is `unknown`, which has no price. Refuses to know where devices, environment
and catalogue come from, and what a tier costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from taximeter.hardware.inventory import UNKNOWN_TIER, Device, Evidence, Hardware, Host, Inventory
from taximeter.hardware.visible import resolve

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Range:
    """A closed range of integers; an end that is None is open."""

    minimum: int | None = None
    maximum: int | None = None

    def holds(self, value: int) -> bool:
        """Say whether `value` lies in the range."""
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)

    def text(self) -> str:
        """Return the range in words."""
        if self.minimum is None:
            return f"at most {self.maximum}"
        return f"at least {self.minimum}" if self.maximum is None else f"{self.minimum} to {self.maximum}"


@dataclass(frozen=True, slots=True)
class Tier:
    """One rule: what devices and host must be like to be sold as `slug`. An absent condition always holds."""

    slug: str
    title: str
    count: int  #: devices of the instance
    names: tuple[str, ...] = ()  #: shell patterns of the name that NVML reports; case counts
    memory_mib: Range | None = None  #: of each device
    mig: tuple[str, ...] = ()  #: patterns of the slice's profile
    mig_slices: int | None = None  #: how many slices of its GPU a slice has; without this and `mig` whole GPUs only
    compute: tuple[str, ...] = ()  #: compute capabilities, e.g. "9.0"
    pci: tuple[str, ...] = ()  #: PCI device ids, four hex digits
    host_cpus: Range | None = None
    host_memory_gib: Range | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The tiers in the order in which they are tried."""

    tiers: tuple[Tier, ...]
    source: str = ""  #: the file, for people


@dataclass(frozen=True, slots=True)
class Match:
    """A tier, or `unknown`, and why, in one sentence."""

    tier: str
    rule: str


@dataclass(frozen=True, slots=True)
class Trial:
    """One rule, and what kept devices from being that tier; nothing, where it fits."""

    number: int
    tier: str
    misses: tuple[str, ...]


def place(inventory: Inventory, visible_env: Mapping[str, str], catalogue: Catalogue) -> Hardware:
    """Return the hardware that an instance with this environment runs on, under its tier."""
    if not inventory.devices_known:
        rule = "devices cannot be read: " + "; ".join(inventory.problems)
        return Hardware(UNKNOWN_TIER, 0, rule=rule, settled=False)
    visible = resolve(inventory.devices, visible_env)
    if visible.doubt:
        return Hardware(UNKNOWN_TIER, 0, rule=visible.doubt, settled=False)
    found = match(visible.devices, inventory.host, catalogue)
    rule = f"{found.rule}; {visible.why}" if inventory.devices else found.rule
    return Hardware(found.tier, len(visible.devices), visible.devices, Evidence.DECLARED, rule, visible.settled)


def place_node(inventory: Inventory, catalogue: Catalogue) -> Hardware:
    """Return the tier of an instance that is given everything the node has."""
    return place(inventory, {}, catalogue)


def match(devices: Sequence[Device], host: Host, catalogue: Catalogue) -> Match:
    """Return the first tier that fits all of `devices`, or `unknown` with the rule that came closest."""
    for number, tier in enumerate(catalogue.tiers, 1):
        if not misses(tier, devices, host):
            return Match(tier.slug, f"rule {number}, {tier.slug}: {_fit(tier, devices)}")
    return Match(UNKNOWN_TIER, f"no rule fits {describe(devices)}{_closest(devices, host, catalogue)}")


def explain(devices: Sequence[Device], host: Host, catalogue: Catalogue) -> tuple[Trial, ...]:
    """Return every rule in its order, each with what it misses; the first that misses nothing is the tier."""
    return tuple(
        Trial(number, tier.slug, misses(tier, devices, host)) for number, tier in enumerate(catalogue.tiers, 1)
    )


def misses(tier: Tier, devices: Sequence[Device], host: Host) -> tuple[str, ...]:
    """Return what keeps `devices` from being this tier, one phrase for each condition; empty if it fits."""
    found: list[str] = []
    if len(devices) != tier.count:
        found.append(f"{_number(len(devices))}, expected {tier.count}")
    for device in devices:
        wrong = _device_misses(tier, device)
        if wrong:
            found += wrong
            break  # the first odd one says enough
    if tier.host_cpus and not tier.host_cpus.holds(host.cpus):
        found.append(f"host has {host.cpus} CPUs, expected {tier.host_cpus.text()}")
    if tier.host_memory_gib and not tier.host_memory_gib.holds(host.memory_bytes // GIB):
        found.append(f"host has {host.memory_bytes // GIB} GiB of memory, expected {tier.host_memory_gib.text()}")
    return tuple(found)


def describe(devices: Sequence[Device]) -> str:
    """Return `2 × NVIDIA H100 80GB HBM3`, in the order the names appear; `no device` for none."""
    counted: dict[str, int] = {}
    for device in devices:
        name = f"{device.name} MIG {device.mig_profile}" if device.mig_profile else device.name
        counted[name] = counted.get(name, 0) + 1
    return ", ".join(f"{count} × {name}" for name, count in counted.items()) or "no device"


def _device_misses(tier: Tier, device: Device) -> list[str]:
    found = ["lost, expected one that answers"] if device.lost else []
    if tier.names and not _fits(device.name, tier.names):
        found.append(f"name {device.name!r}, expected {_any(tier.names)}")
    memory_mib = None if device.memory_bytes is None else device.memory_bytes // MIB
    if tier.memory_mib and (memory_mib is None or not tier.memory_mib.holds(memory_mib)):
        found.append(f"{_known(memory_mib)} MiB, expected {tier.memory_mib.text()}")
    if tier.mig and not _fits(device.mig_profile or "", tier.mig):
        found.append(f"MIG slice {_known(device.mig_profile)}, expected {_any(tier.mig)}")
    found += _slice_misses(tier, device)
    if tier.compute and device.compute_capability not in tier.compute:
        found.append(f"compute capability {_known(device.compute_capability)}, expected {_any(tier.compute)}")
    if tier.pci and (device.pci_device_id or "").lower() not in {pci.lower() for pci in tier.pci}:
        found.append(f"PCI id {_known(device.pci_device_id)}, expected {_any(tier.pci)}")
    return found


def _slice_misses(tier: Tier, device: Device) -> list[str]:
    """What a slice must be: so many of its GPU's slices, all of which it computes with, whatever it is called."""
    is_slice = bool(device.mig_profile or device.parent_uuid)
    if tier.mig_slices is None:
        if is_slice and not tier.mig:
            return [f"a MIG slice {device.mig_profile or ''}".rstrip() + ", expected a whole GPU"]
        return []
    if not is_slice:
        return [f"a whole GPU, expected a MIG slice of {tier.mig_slices}"]
    if device.gpu_slices != tier.mig_slices:
        return [f"a MIG slice of {_known(device.gpu_slices)}, expected one of {tier.mig_slices}"]
    if device.compute_slices is not None and device.compute_slices != device.gpu_slices:
        return [f"it computes with {device.compute_slices} of its {device.gpu_slices} slices, expected all of them"]
    return []


def _closest(devices: Sequence[Device], host: Host, catalogue: Catalogue) -> str:
    """Name the rule that nearly fitted: that of most of the names, then with the fewest misses, then of the count."""

    def distance(tier: Tier) -> tuple[int, int, int]:
        return (_strangers(tier, devices), len(misses(tier, devices, host)), abs(tier.count - len(devices)))

    nearest = min(catalogue.tiers, key=distance, default=None)
    if nearest is None:
        return "; the catalogue is empty"
    if devices and _strangers(nearest, devices) == len(devices):
        return "; no rule knows the name"
    return f"; closest {nearest.slug}: {', '.join(misses(nearest, devices, host))}"


def _strangers(tier: Tier, devices: Sequence[Device]) -> int:
    """Count the devices that a rule does not know by name."""
    return sum(not _fits(device.name, tier.names) for device in devices)


def _fit(tier: Tier, devices: Sequence[Device]) -> str:
    """Say what fitted, in the words of the rule."""
    parts = [describe(devices)]
    if tier.memory_mib:
        parts.append(f"{tier.memory_mib.text()} MiB each")
    if tier.host_cpus:
        parts.append(f"host with {tier.host_cpus.text()} CPUs")
    if tier.host_memory_gib:
        parts.append(f"host with {tier.host_memory_gib.text()} GiB")
    return ", ".join(parts)


def _fits(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _any(words: Sequence[str]) -> str:
    return " or ".join(words)


def _known(value: object) -> str:
    return "unknown" if value is None else str(value)


def _number(count: int) -> str:
    return "no device" if count == 0 else "1 device" if count == 1 else f"{count} devices"
