"""What two looks at the devices mean for those who were on them: pure.

Owns the rule by which energy is shared among instances, and which devices an instance was seen on. Refuses to know
processes and the time of day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from taximeter.hardware.inventory import Device, Evidence, Hardware, Inventory
from taximeter.hardware.samples import DeviceSample, Samples, energy_between
from taximeter.hardware.tiers import Catalogue, match

#: Power is not taken to have been the same for longer than this.
LONGEST_NS = 120_000_000_000


def drawn(earlier: DeviceSample, later: DeviceSample) -> tuple[int, str] | None:
    """Return the millijoules between two looks and how they are known; None where nothing can be believed.

    By the device's counter; where it has none, from the power at both looks.
    """
    if earlier.energy_mj is not None and later.energy_mj is not None:
        used_mj = energy_between(earlier, later)
        return None if used_mj is None else (used_mj, "counter")
    passed_ns = later.at_ns - earlier.at_ns
    if earlier.power_mw is None or later.power_mw is None or not 0 <= passed_ns <= LONGEST_NS:
        return None
    return (earlier.power_mw + later.power_mw) * passed_ns // 2_000_000_000, "power"


def meter_of(uuid: str, inventory: Inventory, samples: Mapping[str, DeviceSample]) -> str:
    """Return the device that measures the energy of `uuid`: of a slice that measures none, its GPU."""
    sample = samples.get(uuid)
    if sample is not None and (sample.energy_mj is not None or sample.power_mw is not None):
        return uuid
    parent = next((device.parent_uuid for device in inventory.devices if device.uuid == uuid), None)
    return parent or uuid


def place_seen(inventory: Inventory, uuids: Sequence[str], declared: Hardware | None, catalogue: Catalogue) -> Hardware:
    """Return what an instance was seen on, under its tier. A device counts as what it was before it was lost.

    Where NVML tells of a process only that it is on a GPU that is cut, it is on the slices of it that were declared.
    """
    known = {device.uuid: device for device in (*(declared.devices if declared else ()), *inventory.devices)}
    found: dict[str, Device] = {}
    for uuid in uuids:
        device = known.get(uuid, Device(uuid, "unknown", None))
        slices = [one for one in (declared.devices if declared else ()) if one.parent_uuid == uuid]
        for one in slices or [device]:
            found[one.uuid] = replace(one, lost=False)
    devices = tuple(sorted(found.values(), key=lambda device: (device.index, device.uuid)))
    matched = match(devices, inventory.host, catalogue)
    return Hardware(matched.tier, len(devices), devices, Evidence.OBSERVED, f"{matched.rule}; seen by NVML")


def is_told(uuids: Sequence[str], samples: Samples) -> bool:
    """Say whether a look would have shown a process on each of these devices, had there been one."""
    found = {sample.uuid: sample for sample in samples.devices}
    return all(
        (sample := found.get(uuid)) is not None and sample.processes is not None and sample.all_lists for uuid in uuids
    )
