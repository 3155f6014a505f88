"""Which devices there are, as NVML tells. Part of the child.

Owns the questions that are asked once, and what becomes of a device that was here and is not. Refuses to know how
a device is doing (sampling).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from taximeter.hardware.inventory import Device
from taximeter.hardware.nvml import values
from taximeter.hardware.nvml.asking import Asker, LostError, field_of
from taximeter.hardware.nvml.protocol import Reading

_MOST_SLICES = 8


@dataclass(frozen=True, slots=True)
class Held:
    """A device that answers, with NVML's handle of it."""

    device: Device
    handle: object


@dataclass(slots=True)
class Look:
    """What one look at all devices found."""

    held: list[Held] = field(default_factory=list)
    dark: list[Device] = field(default_factory=list)  #: counted by NVML, but they do not answer
    problems: list[str] = field(default_factory=list)
    counted: bool = True  #: False: NVML does not even say how many there are
    driver_version: str | None = None
    nvml_version: str | None = None


def look(asker: Asker, known: Mapping[str, Device]) -> Look:
    """Ask for everything that stays as it is; `known` has the GPUs that told it before, by UUID."""
    found = Look()
    found.driver_version = values.text(asker.ask("", ("nvmlSystemGetDriverVersion",)))
    found.nvml_version = values.text(asker.ask("", ("nvmlSystemGetNVMLVersion",)))
    count = asker.ask("", ("nvmlDeviceGetCount",))
    if values.number(count, 0, values.MOST_DEVICES) is None:
        said = (
            f"NVML counts {count} devices" if count is not None else f"NVML does not count its devices ({asker.said})"
        )
        found.problems.append(f"{said}: expected 0 to {values.MOST_DEVICES}")
        found.counted = False
        return found
    for index in range(count):
        _look_at(asker, index, known, found)
    return found


def reading(found: Look, known: Mapping[str, Device]) -> Reading:
    """Put what was found together with what is known to be missing."""
    unique: dict[str, Device] = {}  # indices may move while we count
    for device in sorted([*(one.device for one in found.held), *found.dark], key=lambda device: device.index):
        unique.setdefault(device.uuid, device)
    gone = tuple(uuid for uuid in known if uuid not in unique)
    problems = [*found.problems, *(f"NVML counts {uuid} no more: it was here" for uuid in gone)]
    versions = (found.driver_version, found.nvml_version)
    return Reading(tuple(unique.values()), *versions, tuple(problems), found.counted, gone)


def _look_at(asker: Asker, index: int, known: Mapping[str, Device], found: Look) -> None:
    """Look at a GPU and its slices. One that does not answer keeps its place in the order, and fits no tier."""
    kept = len(found.held)
    try:
        handle = asker.ask(f"index {index}", ("nvmlDeviceGetHandleByIndex", index))
        if handle is not None:
            device = _gpu(asker, handle, index, known, found)
            found.held.append(Held(device, handle))
            if device.mig:
                _slices(asker, handle, device, found)
            return
    except LostError:
        del found.held[kept:]
    found.problems.append(f"NVML does not tell the device {index}: {asker.said}")
    before = next((device for device in known.values() if device.index == index), None)
    found.dark.append(replace(before or Device(f"unknown-{index}", "unknown", None, index), lost=True))


def _gpu(asker: Asker, handle: object, index: int, known: Mapping[str, Device], found: Look) -> Device:
    uuid = values.text(asker.ask(f"index {index}", ("nvmlDeviceGetUUID",), handle=handle))
    if uuid is None:
        found.problems.append(f"NVML does not tell the UUID of device {index}: {asker.said}")
        uuid = f"unknown-{index}"
    mig = _mig(asker.ask(uuid, ("nvmlDeviceGetMigMode",), handle=handle))
    before = known.get(uuid)
    if before is not None and before.memory_bytes is not None and before.name != "unknown":
        return replace(before, index=index, mig=mig, lost=False)
    name, memory_bytes = _name(asker, uuid, handle, found), _memory(asker, uuid, handle, found)
    pci = asker.ask(uuid, ("nvmlDeviceGetPciInfo",), handle=handle)
    compute = values.compute_capability(asker.ask(uuid, ("nvmlDeviceGetCudaComputeCapability",), handle=handle))
    cores = asker.ask(uuid, ("nvmlDeviceGetNumGpuCores",), handle=handle)
    return Device(
        uuid=uuid,
        name=name,
        memory_bytes=memory_bytes,
        index=index,
        pci_device_id=values.pci_device_id(field_of(pci, "pciDeviceId")),
        compute_capability=compute,
        pci_bus_id=values.pci_bus_id(field_of(pci, "busId")),
        multiprocessors=values.multiprocessors(cores, compute),
        mig=mig,
    )


def _mig(mode: Any) -> bool | None:
    return bool(mode[0] == 1) if isinstance(mode, list | tuple) and mode and mode[0] in (0, 1) else None


def _name(asker: Asker, uuid: str, handle: object, found: Look) -> str:
    name = values.text(asker.ask(uuid, ("nvmlDeviceGetName",), handle=handle))
    if name is None:
        found.problems.append(f"NVML does not tell the name of {uuid}: {asker.said}")
    return name or "unknown"


def _memory(asker: Asker, uuid: str, handle: object, found: Look) -> int | None:
    memory = asker.ask(uuid, ("nvmlDeviceGetMemoryInfo",), handle=handle)
    total_bytes = values.total_bytes(field_of(memory, "total"))
    if total_bytes is None:
        found.problems.append(f"NVML does not tell the memory of {uuid}: {asker.said}")
    return total_bytes


def _slices(asker: Asker, handle: object, gpu: Device, found: Look) -> None:
    slots = values.number(asker.ask(gpu.uuid, ("nvmlDeviceGetMaxMigDeviceCount",), handle=handle), 0, _MOST_SLICES)
    for slot in range(_MOST_SLICES if slots is None else slots):
        part = asker.ask(gpu.uuid, ("nvmlDeviceGetMigDeviceHandleByIndex", slot), handle=handle)
        if part is not None:
            found.held.append(Held(_slice(asker, part, gpu, slot, found), part))
    if found.held[-1].device.parent_uuid != gpu.uuid:
        told = f"NVML tells no slice of {gpu.uuid}, which is in MIG mode"
        found.problems.append(f"{told}: there is none, or the agent may not read /dev/nvidia-caps")


def _slice(asker: Asker, handle: object, gpu: Device, slot: int, found: Look) -> Device:
    uuid = values.text(asker.ask(f"{gpu.uuid} slice {slot}", ("nvmlDeviceGetUUID",), handle=handle))
    if uuid is None:
        found.problems.append(f"NVML does not tell the UUID of slice {slot} of {gpu.uuid}: {asker.said}")
        uuid = f"unknown-{gpu.index}-{slot}"
    attributes = asker.ask(uuid, ("nvmlDeviceGetAttributes_v2",), handle=handle)
    gpu_slices = values.number(field_of(attributes, "gpuInstanceSliceCount"), 1, _MOST_SLICES)
    compute_slices = values.number(field_of(attributes, "computeInstanceSliceCount"), 1, _MOST_SLICES)
    memory_mib = field_of(attributes, "memorySizeMB")
    _, profile = values.split_name(_name(asker, uuid, handle, found))
    return Device(
        uuid=uuid,
        name=gpu.name,
        memory_bytes=_memory(asker, uuid, handle, found),
        index=gpu.index,
        pci_device_id=gpu.pci_device_id,
        compute_capability=gpu.compute_capability,
        mig_profile=profile or values.profile(gpu_slices, compute_slices, memory_mib) or "unknown",
        parent_uuid=gpu.uuid,
        pci_bus_id=gpu.pci_bus_id,
        multiprocessors=values.multiprocessor_count(field_of(attributes, "multiprocessorCount")),
        gpu_instance=values.small(asker.ask(uuid, ("nvmlDeviceGetGpuInstanceId",), handle=handle)),
        compute_instance=values.small(asker.ask(uuid, ("nvmlDeviceGetComputeInstanceId",), handle=handle)),
        gpu_slices=gpu_slices,
        compute_slices=compute_slices,
    )
