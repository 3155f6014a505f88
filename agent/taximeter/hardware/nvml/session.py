"""One process's sight of the devices, round by round. Part of the child.

Owns when NVML is initialised, when devices are looked at anew, and what a device's loss means for the others. Refuses
to know which call told what (identity, sampling).
"""

import time
from dataclasses import replace
from typing import Any

from taximeter.hardware.inventory import Device
from taximeter.hardware.nvml.answers import Answer, Pause
from taximeter.hardware.nvml.asking import Asker, LostError, SessionError
from taximeter.hardware.nvml.identity import Held, Look, look, reading
from taximeter.hardware.nvml.protocol import Reading, Report, unknown
from taximeter.hardware.nvml.sampling import Xids, sample
from taximeter.hardware.samples import DeviceSample, Samples

#: Which devices there are is asked anew so often; what changes in between is found when a device is sampled.
_LOOK_NS = 60_000_000_000
#: To find a driver that comes costs next to nothing, so it is tried at every eighth round at least.
_MOST_START_PAUSE = 8
#: While a device is lost, NVML is initialised again at every sixteenth round at least.
_MOST_LOOK_PAUSE = 16
_LIBRARY_NOT_FOUND, _DRIVER_NOT_LOADED = 12, 9


class Session:
    """What is known, and how to learn more of it."""

    def __init__(self, nvml: Any) -> None:
        self._asker = Asker(nvml)
        self._found: Look | None = None  # None while NVML is not initialised
        self._known: dict[str, Device] = {}  # GPUs that were seen since NVML was there, by UUID
        self._told: Reading | None = None
        self._looked_ns = 0
        self._looks = Pause(_MOST_LOOK_PAUSE)
        self._starts = Pause(_MOST_START_PAUSE)
        self._xids = Xids()

    def round(self, number: int, budget_ns: int) -> Report:
        """Look where that is due, and sample; nothing more is sampled once `budget_ns` have passed."""
        began_ns = time.monotonic_ns()
        asker = self._asker
        asker.number, asker.restarted = number, False
        try:
            try:
                told, samples = self._round(began_ns, budget_ns)
            except SessionError as error:
                if error.answer is not Answer.RESTART:
                    raise
                self._forget()
                asker.restarted = True
                told, samples = self._round(began_ns, budget_ns)
        except SessionError as error:
            self._forget()
            self._known.clear()
            self._starts.fail(number)
            told, samples = _without(error), None
            if error.answer is Answer.REPLACE:
                return Report(number, told, None, asker.take_errors(), replace=True)
        changed = told if told is not None and told != self._told else None
        self._told = told or self._told
        return Report(number, changed, samples, asker.take_errors())

    def close(self) -> None:
        """Let go of the driver: who holds it open keeps it from being replaced."""
        if self._found is not None:
            self._asker.stop()

    def _round(self, began_ns: int, budget_ns: int) -> tuple[Reading | None, Samples | None]:
        asker = self._asker
        asker.until_ns = None
        if self._found is None:
            if not self._starts.over(asker.number):
                return None, None
            asker.start()
            self._found = Look(counted=False)
            self._starts.well()
            asker.refusals.forget()
        if self._is_due(began_ns):
            self._look(began_ns)
        asker.until_ns = began_ns + budget_ns
        samples = self._sample()
        asker.until_ns = None
        return reading(self._found, self._known), samples

    def _is_due(self, now_ns: int) -> bool:
        found = self._found
        if not self._looked_ns:
            return True
        if self._doubt or self._asker.stale or found is None or not found.held:
            return self._looks.over(self._asker.number)
        return now_ns - self._looked_ns >= _LOOK_NS

    @property
    def _doubt(self) -> bool:
        """Whether a device was here that does not answer."""
        found = self._found
        if found is None:
            return False
        here = {held.device.uuid for held in found.held}
        return bool(found.dark) or any(uuid not in here for uuid in self._known)

    def _look(self, now_ns: int) -> None:
        asker = self._asker
        before = self._found
        if self._looked_ns and (self._doubt or before is None or not before.held):
            # NVML counts devices when it is initialised: one that comes, or comes back, is not seen before.
            asker.stop()
            asker.start()
            asker.refusals.forget()
            self._xids.events = None
        found = look(asker, self._known)
        if not found.counted and before is not None and before.counted:
            self._looks.fail(asker.number)
            asker.refusals.forget()  # to count is not given up
            return  # it was counted before: rather an old truth than none
        if before is None or _uuids(found) != _uuids(before):
            self._xids.close(asker)
        self._found, self._looked_ns, asker.stale = found, now_ns, False
        gpus = (held.device for held in found.held if held.device.parent_uuid is None)
        self._known |= {device.uuid: device for device in gpus if not device.uuid.startswith("unknown-")}
        if self._doubt or not found.held:
            self._looks.fail(asker.number)

    def _sample(self) -> Samples | None:
        found, asker = self._found, self._asker
        if found is None or not found.held:
            return None
        at_ns = time.monotonic_ns()
        gpus = [held for held in found.held if held.device.parent_uuid is None]
        first = asker.number % len(gpus)  # where time is short, each comes first in turn
        devices: list[DeviceSample] = []
        lost = False
        for held in (*gpus[first:], *gpus[:first]):
            if asker.is_late:
                break
            slices = [part for part in found.held if part.device.parent_uuid == held.device.uuid]
            try:
                devices += list(sample(asker, held, slices))
            except LostError:
                self._lose(held, slices)
                lost = True
        xids = self._xids.take(asker, found.held)
        if lost or asker.stale:
            self._looks.fail(asker.number)
        elif not self._doubt:
            self._looks.well()
        return Samples(at_ns, tuple(sorted(devices, key=lambda device: device.uuid)), xids)

    def _lose(self, held: Held, slices: list[Held]) -> None:
        """Drop the handles of a device that is lost; the others go on."""
        found = self._found
        if found is not None:
            gone = [held, *slices]
            found.held = [one for one in found.held if one not in gone]
            found.dark += [replace(one.device, lost=True) for one in gone]
            found.problems.append(f"NVML has lost {held.device.uuid}: {self._asker.said}")
        self._xids.close(self._asker)

    def _forget(self) -> None:
        if self._found is not None:
            self._asker.stop()
        self._found, self._looked_ns, self._xids.events = None, 0, None


def _uuids(found: Look) -> set[str]:
    return {held.device.uuid for held in found.held}


def _without(error: SessionError) -> Reading:
    """What is known of a node whose NVML does not answer."""
    if error.code == _LIBRARY_NOT_FOUND:
        return Reading(problems=("no NVML on this machine: GPUs, if it has any, cannot be seen",))
    if error.code == _DRIVER_NOT_LOADED:
        return Reading(problems=("the NVIDIA driver is not loaded: no process can use a GPU now",))
    return unknown(f"NVML cannot be initialised: {error}")
