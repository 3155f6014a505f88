"""Which devices a process can see, from its environment: pure.

Owns the meaning of CUDA_VISIBLE_DEVICES, CUDA_DEVICE_ORDER and NVIDIA_VISIBLE_DEVICES, as CUDA and the
container runtime read them. Refuses to know how devices are listed, and never guesses: where the
environment does not settle which devices are meant, it says so in `doubt`.

    NVIDIA_VISIBLE_DEVICES  what a container was given: unset or `all` = everything, `none`, `void` and
                            empty = nothing, else a list of indices (of a slice `GPU:SLICE`) and UUIDs
    CUDA_VISIBLE_DEVICES    what of that the process asks for: unset = all, empty = none, else indices into
                            what is left, or UUIDs, or unique prefixes of UUIDs; an entry that names nothing
                            cuts the rest, and an entry twice hides everything. Of slices (MIG-<uuid>, or
                            MIG-<GPU's uuid>/<instance>/<compute instance>) a process gets the first

What names no device of its choice settles nothing (`settled`): unset and `all`, which images are built with, let a
process use what it likes, and with `void` or empty the runtime may still be given devices by another way (CDI).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from taximeter.hardware.inventory import Device

CUDA = "CUDA_VISIBLE_DEVICES"
CUDA_ORDER = "CUDA_DEVICE_ORDER"
NVIDIA = "NVIDIA_VISIBLE_DEVICES"

_UUID_PREFIXES = ("GPU-", "MIG-")


@dataclass(frozen=True, slots=True)
class Visible:
    """The devices a process can use, in the order it numbers them."""

    devices: tuple[Device, ...]
    why: str  #: which variable decided, in words
    doubt: str | None = None  #: why this cannot be known for certain; then nobody may put a price on it
    given: tuple[Device, ...] = ()  #: all that a UUID may name, also slices where whole GPUs are counted
    settled: bool = True  #: False: no variable names any, so these are only what it may use


def resolve(devices: Sequence[Device], environ: Mapping[str, str]) -> Visible:
    """Return what of `devices` a process with this environment can use."""
    given = _given(devices, environ.get(NVIDIA))
    asked = environ.get(CUDA)
    if given.doubt or asked is None:
        return given
    entries = [entry.strip() for entry in asked.split(",")]
    if entries[0].startswith(_UUID_PREFIXES):
        return _by_uuid(given.given, entries, asked)
    found = _by_index(given.devices, entries, asked, environ.get(CUDA_ORDER))
    blind = devices and not given.devices and not given.settled and asked.strip()
    return replace(found, settled=False) if blind else found


def usable(devices: Sequence[Device]) -> tuple[Device, ...]:
    """Return what CUDA enumerates: whole GPUs, or a single slice where every GPU is cut into slices.

    A GPU in MIG mode cannot be used itself, though NVML lists it beside its slices.
    """
    ordered = _ordered(devices)
    cut = {device.parent_uuid for device in ordered if device.parent_uuid}
    whole = tuple(device for device in ordered if not (device.parent_uuid or device.mig or device.uuid in cut))
    return whole or tuple(device for device in ordered if device.parent_uuid)[:1]


def _given(devices: Sequence[Device], value: str | None) -> Visible:
    """Apply NVIDIA_VISIBLE_DEVICES: what the container runtime put into the container."""
    if value is None:
        why = f"all devices: neither {CUDA} nor {NVIDIA} is set"
        return Visible(usable(devices), why, given=tuple(devices), settled=not devices)
    words = [word.strip() for word in value.split(",")]
    if words == ["all"]:
        return Visible(usable(devices), f"{NVIDIA}=all", given=tuple(devices), settled=not devices)
    if words == ["none"]:
        return Visible((), f"{NVIDIA}={value}: no device")
    if words in (["void"], [""]):
        return Visible((), f"{NVIDIA}={value}: no device", given=tuple(devices), settled=not devices)
    chosen: list[Device] = []
    for word in words:
        device = _listed(devices, word)
        if device is None:
            doubt = f"{NVIDIA}={value} names {word!r}, which is not a device of this node"
            return Visible((), doubt, doubt)
        if device not in chosen:
            chosen.append(device)
    uuids = {device.uuid for device in chosen}
    chosen += [device for device in devices if device.parent_uuid in uuids and device not in chosen]
    # In a container devices are numbered in bus order, however they were listed.
    return Visible(usable(chosen), f"{NVIDIA}={value}", given=tuple(chosen))


def _listed(devices: Sequence[Device], word: str) -> Device | None:
    """Find the one device that the container runtime would mean by an index or a UUID."""
    if word.isascii() and word.isdigit():
        whole = [device for device in devices if not device.parent_uuid]
        return next((device for device in whole if device.index == int(word)), None)
    if re.fullmatch(r"[0-9]{1,3}:[0-9]{1,3}", word, re.ASCII):
        gpu, at = (int(number) for number in word.split(":"))
        slices = [device for device in devices if device.parent_uuid and device.index == gpu]
        return slices[at] if at < len(slices) else None
    return _unique_prefix(devices, word) if word.startswith(_UUID_PREFIXES) else None


def _by_uuid(devices: tuple[Device, ...], entries: Sequence[str], asked: str) -> Visible:
    """Read a list of UUIDs or unique prefixes; the first entry's kind binds the others."""
    kind = entries[0][:4]
    chosen: list[Device] = []
    for entry in entries:
        device = _by_name(devices, entry) if entry.startswith(kind) else None
        if device is None:
            break
        if device in chosen:
            return Visible((), f"{CUDA}={asked} names a device twice: none is visible")
        chosen.append(device)
    if not chosen:
        # The process would see nothing; but then nobody would have named a device: rather we do not know it.
        doubt = f"{CUDA}={asked} names {entries[0]!r}, which is not a device of this node or not a single one"
        return Visible((), doubt, doubt)
    single = chosen[:1] if chosen[0].parent_uuid else chosen
    return Visible(tuple(single), f"{CUDA}={asked}")


def _by_name(devices: Sequence[Device], entry: str) -> Device | None:
    """Find the one device that CUDA would mean by a UUID, its beginning, or a slice's place on its GPU."""
    match = re.fullmatch(r"MIG-(GPU-[^/]+)/([0-9]{1,3})/([0-9]{1,3})", entry, re.ASCII)
    if match is None:
        return _unique_prefix(devices, entry)
    place = (match[1], int(match[2]), int(match[3]))
    return next((d for d in devices if (d.parent_uuid, d.gpu_instance, d.compute_instance) == place), None)


def _by_index(devices: tuple[Device, ...], entries: Sequence[str], asked: str, order: str | None) -> Visible:
    """Read a list of indices as CUDA does: leading digits count, a negative or missing one cuts the rest."""
    numbers: list[int] = []
    for entry in entries:
        number = _leading_number(entry)
        if number is None:
            break
        if number in numbers:
            return Visible((), f"{CUDA}={asked} names a device twice: none is visible")
        numbers.append(number)
    chosen: list[Device] = []
    for number in numbers:
        if number >= len(devices):
            break
        chosen.append(devices[number])
    if 0 < len(chosen) < len(devices) and order != "PCI_BUS_ID" and not _alike(devices):
        doubt = (
            f"{CUDA}={asked} counts in CUDA's own order (fastest first), which is unknown for unlike devices: "
            f"set {CUDA_ORDER}=PCI_BUS_ID, or name UUIDs"
        )
        return Visible((), doubt, doubt)
    return Visible(tuple(chosen), f"{CUDA}={asked}" + ("" if chosen else ": no device"))


def _leading_number(entry: str) -> int | None:
    """Return what C's strtoul would, as CUDA uses it (`1gpu2` is 1); None for a negative or no number."""
    match = re.match(r"\+?([0-9]{1,9})", entry)
    return int(match[1]) if match else None


def _unique_prefix(devices: Sequence[Device], prefix: str) -> Device | None:
    """Return the only device whose UUID starts so; None if there is none, or more than one."""
    found = [device for device in devices if device.uuid.startswith(prefix)]
    exact = [device for device in found if device.uuid == prefix]
    return (exact or found)[0] if len(exact or found) == 1 else None


def _alike(devices: Sequence[Device]) -> bool:
    return len({(device.name, device.memory_bytes, device.mig_profile) for device in devices}) <= 1


def _ordered(devices: Sequence[Device]) -> list[Device]:
    """Bus order, each device once: NVML may list one twice while indices move."""
    unique = {device.uuid: device for device in devices}
    return sorted(unique.values(), key=lambda device: (device.index, device.uuid))
