"""How the devices are and who is on them, as NVML tells. Part of the child.

Owns the questions that are asked every round. Refuses to know which devices there are (identity).
"""

import ctypes
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from taximeter.hardware.nvml import values
from taximeter.hardware.nvml.answers import Pause
from taximeter.hardware.nvml.asking import Asker, Call, LostError, field_of
from taximeter.hardware.nvml.identity import Held
from taximeter.hardware.samples import DeviceSample, ProcessKind, ProcessUse, Xid

_MEMORY_V2 = 0x02000028
_SM, _MEMORY = 1, 2  # clocks
_CORRECTED, _UNCORRECTED, _SINCE_DRIVER = 0, 1, 0
_XID_EVENTS = 0x8
#: Of one round; a device that falls apart reports without end.
_MOST_XIDS = 64
_MOST_XID = 1 << 16
_TIMEOUT = 10

_LISTS: Mapping[ProcessKind, tuple[Call, ...]] = {
    kind: ((f"nvmlDeviceGet{name}RunningProcesses_v3",), (f"nvmlDeviceGet{name}RunningProcesses_v2",))
    for kind, name in (
        (ProcessKind.COMPUTE, "Compute"),
        (ProcessKind.GRAPHICS, "Graphics"),
        (ProcessKind.MPS, "MPSCompute"),
    )
}


def sample(asker: Asker, held: Held, slices: Sequence[Held]) -> Iterator[DeviceSample]:
    """Ask a GPU and its slices; raises LostError where it is gone."""
    on_gpu, on_slices = _processes(asker, held, slices)
    yield _sample(asker, held, *on_gpu)
    for part in slices:
        yield _sample(asker, part, *on_slices[part.device.uuid])


_Uses = tuple[tuple[ProcessUse, ...] | None, bool]


def _sample(asker: Asker, held: Held, processes: tuple[ProcessUse, ...] | None, all_lists: bool) -> DeviceSample:
    uuid, handle, at_ns = held.device.uuid, held.handle, time.monotonic_ns()

    def ask(*variants: Call) -> Any:
        return asker.ask(uuid, *variants, handle=handle)

    rates = ask(("nvmlDeviceGetUtilizationRates",))
    memory = ask(("nvmlDeviceGetMemoryInfo", _MEMORY_V2), ("nvmlDeviceGetMemoryInfo",))
    reasons = ask(("nvmlDeviceGetCurrentClocksEventReasons",), ("nvmlDeviceGetCurrentClocksThrottleReasons",))
    return DeviceSample(
        uuid=uuid,
        at_ns=at_ns,
        utilisation=values.ratio(field_of(rates, "gpu")),
        memory_used_bytes=values.used_bytes(field_of(memory, "used")),
        energy_mj=values.count(ask(("nvmlDeviceGetTotalEnergyConsumption",))),
        power_mw=values.power_mw(ask(("nvmlDeviceGetPowerUsage",))),
        sm_clock_mhz=values.clock_mhz(ask(("nvmlDeviceGetClockInfo", _SM))),
        memory_clock_mhz=values.clock_mhz(ask(("nvmlDeviceGetClockInfo", _MEMORY))),
        throttle_reasons=values.count(reasons),
        ecc_corrected=values.count(ask(("nvmlDeviceGetTotalEccErrors", _CORRECTED, _SINCE_DRIVER))),
        ecc_uncorrected=values.count(ask(("nvmlDeviceGetTotalEccErrors", _UNCORRECTED, _SINCE_DRIVER))),
        processes=processes,
        all_lists=all_lists,
    )


def _processes(asker: Asker, held: Held, slices: Sequence[Held]) -> tuple[_Uses, Mapping[str, _Uses]]:
    """Who is on a GPU and on its slices: the GPU tells of all at once, if we may ask; else each slice for itself."""
    parts = {(part.device.gpu_instance, part.device.compute_instance): part.device.uuid for part in slices}
    found, complete = _lists(asker, held, parts)
    if not slices:
        return (found, complete), {}
    if found is None:
        return (None, False), {part.device.uuid: _lists(asker, part, {}) for part in slices}
    by_uuid: dict[str, list[ProcessUse]] = {uuid: [] for uuid in (held.device.uuid, *parts.values())}
    for use in found:
        by_uuid[use.device].append(use)
    of = {part.device.uuid: (tuple(by_uuid.get(part.device.uuid, ())), complete) for part in slices}
    return (tuple(by_uuid[held.device.uuid]), complete), of


_Parts = Mapping[tuple[int | None, int | None], str]


def _lists(asker: Asker, held: Held, parts: _Parts) -> _Uses:
    """Everybody in any of the three lists; None where the first, that of compute, is not told."""
    uses: list[ProcessUse] = []
    complete = True
    for kind, variants in _LISTS.items():
        entries = asker.ask(held.device.uuid, *variants, handle=held.handle)
        if isinstance(entries, list):
            uses += _uses(asker, entries[: values.MOST_PROCESSES], held.device.uuid, kind, parts)
        elif kind is ProcessKind.COMPUTE:
            return None, False
        else:
            complete = False
    return values.merged(uses)[: values.MOST_PROCESSES], complete


def _uses(asker: Asker, entries: Sequence[Any], uuid: str, kind: ProcessKind, parts: _Parts) -> Iterator[ProcessUse]:
    for entry in entries:
        pid = values.pid(field_of(entry, "pid"))
        if pid is None:
            continue
        where = uuid
        if parts:
            ids = (field_of(entry, "gpuInstanceId"), field_of(entry, "computeInstanceId"))
            where = parts.get(ids, uuid)
            asker.stale = asker.stale or ids not in parts  # on a slice that was cut since
        yield ProcessUse(pid, where, values.used_bytes(field_of(entry, "usedGpuMemory")), kind)


@dataclass(slots=True)
class Xids:
    """The faults that the driver reports; what is there is taken, and never waited for."""

    events: object = None
    pause: Pause = field(default_factory=Pause)

    def take(self, asker: Asker, held: Sequence[Held]) -> tuple[Xid, ...]:
        """What was reported since the last round; a lost device says so at once and again, so then we pause."""
        if not self.pause.over(asker.number):
            return ()
        found: list[Xid] = []
        try:
            if self.events is None:
                self._begin(asker, held)
            while self.events is not None and len(found) < _MOST_XIDS:
                event = asker.ask("events", ("nvmlEventSetWait_v2", 0), handle=self.events, fine=_TIMEOUT)
                if event is None:
                    break
                found += _xids(event, held)
            self.pause.well()
        except LostError:
            self.close(asker)
            self.pause.fail(asker.number)
        return tuple(found)

    def close(self, asker: Asker) -> None:
        """Let go of the events: which devices there are has changed, or one of them is lost."""
        if self.events is not None:
            asker.ask("", ("nvmlEventSetFree",), handle=self.events)
            self.events = None

    def _begin(self, asker: Asker, held: Sequence[Held]) -> None:
        self.events = asker.ask("", ("nvmlEventSetCreate",))
        for one in held if self.events is not None else ():
            if one.device.parent_uuid is None:
                asker.ask("events", ("nvmlDeviceRegisterEvents", _XID_EVENTS), handle=one.handle, then=(self.events,))


def _xids(event: Any, held: Sequence[Held]) -> Iterator[Xid]:
    number = values.number(field_of(event, "eventData"), 1, _MOST_XID)
    address = _address(field_of(event, "device"))
    for one in held:
        if number is not None and address is not None and _address(one.handle) == address:
            yield Xid(one.device.uuid, number, time.monotonic_ns())


def _address(handle: Any) -> int | None:
    """Where a handle points; handles themselves cannot be compared."""
    try:
        return ctypes.cast(handle, ctypes.c_void_p).value
    except (ctypes.ArgumentError, TypeError):
        return None
