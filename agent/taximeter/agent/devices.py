"""Keeps the node's inventory current, and has the latest samples of its devices.

    devices.inventory          what there is: a new value whenever it changes, the same object while it does not
    devices.samples            the latest round; None before the first, and where there is nothing to sample
    devices.listen(heard)      `heard(samples)` is called on the loop after each round: it must not wait

Owns the cadence, and what is counted over the agent's life. A device that does not answer keeps what it was last known
to be, and its samples grow old. Refuses to know how NVML is asked (hardware.nvml) and what samples are evidence of.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import anyio

from taximeter.config.model import HardwareSettings
from taximeter.hardware.host import read_host
from taximeter.hardware.inventory import Host, Inventory
from taximeter.hardware.nvml.answers import APPLICATION_XIDS
from taximeter.hardware.nvml.door import Door
from taximeter.hardware.nvml.protocol import OFF, Reading, Report, unknown
from taximeter.hardware.samples import MOST_WATTS, DeviceSample, Samples, energy_between

logger = logging.getLogger(__name__)

Heard = Callable[[Samples], None]


@dataclass(slots=True)
class Energy:
    """What a device has used since the agent first sampled it; it only grows, whatever the driver's counter does."""

    last: DeviceSample
    total_mj: int = 0

    def add(self, sample: DeviceSample) -> None:
        """Take in a newer sample."""
        if sample.energy_mj is None:
            return
        used_mj = energy_between(self.last, sample)
        if used_mj is None and self.last.energy_mj is not None and sample.energy_mj < self.last.energy_mj:
            # The driver was loaded anew in between: at least what it has counted since then.
            passed_ms = (sample.at_ns - self.last.at_ns) // 1_000_000
            used_mj = sample.energy_mj if sample.energy_mj <= MOST_WATTS * passed_ms else None
        self.total_mj += used_mj or 0
        self.last = sample


class Devices:
    """The agent's sight of the devices."""

    def __init__(self, settings: HardwareSettings, host: Host, door: Door | None) -> None:
        self._settings = settings
        self._host = host
        self._door = door
        self._reading = OFF if door is None else unknown("NVML was not asked yet")
        self._heard: list[Heard] = []
        self.inventory: Inventory = self._reading.inventory(host)
        self.samples: Samples | None = None
        self.latest: dict[str, DeviceSample] = {}  #: by UUID, of devices that are here; of one that is lost, its last
        self.energy: dict[str, Energy] = {}  #: by UUID, of devices that are here
        self.errors: Counter[str] = Counter()  #: NVML's, by name
        self.xids: Counter[tuple[str, str]] = Counter()  #: by UUID and whose fault: "device" or "application"

    @property
    def respawns(self) -> int:
        """How often the reader was replaced."""
        return max(0, self._door.spawned - 1) if self._door else 0

    @property
    def hung(self) -> int:
        """Readers that hang in the driver and were left behind."""
        return self._door.hung if self._door else 0

    @property
    def late(self) -> int:
        """Rounds that were given up."""
        return self._door.late if self._door else 0

    @property
    def lost(self) -> tuple[str, ...]:
        """UUIDs of the devices that were here, and do not answer."""
        dark = (device.uuid for device in self.inventory.devices if device.lost)
        return (*dark, *self.inventory.missing)

    def listen(self, heard: Heard) -> None:
        """Call `heard` with the samples of every round to come."""
        self._heard.append(heard)

    async def look(self) -> None:
        """Ask once, and take in what is told; takes as long as a round may, and raises nothing."""
        if self._door is None:
            return
        report = await self._door.ask()
        if report is not None:
            self._take(report)
        self._settle(self._door.trouble)

    async def run(self) -> None:
        """Look again and again."""
        while self._door is not None:
            began_s = time.monotonic()
            await self.look()
            passed_s = time.monotonic() - began_s
            await anyio.sleep(max(self._settings.sample_s - passed_s, self._settings.sample_s / 10))

    def close(self) -> None:
        """Let the reader go; waits for nothing."""
        if self._door is not None:
            self._door.close()

    def _take(self, report: Report) -> None:
        self.errors.update(report.errors)
        if report.reading is not None:
            self._reading = _believed(self._reading, report.reading)
        if report.samples is None:
            return
        self.samples = report.samples
        for sample in report.samples.devices:
            self.latest[sample.uuid] = sample
            energy = self.energy.get(sample.uuid)
            if energy is None:
                self.energy[sample.uuid] = Energy(sample)
            else:
                energy.add(sample)
        for xid in report.samples.xids:
            kind = "application" if xid.number in APPLICATION_XIDS else "device"
            self.xids[xid.uuid, kind] += 1
            logger.warning("hardware.xid number=%d device=%s fault_of=%s", xid.number, xid.uuid, kind)
        for heard in self._heard:
            heard(report.samples)

    def _settle(self, trouble: str | None) -> None:
        """Have the inventory say what is known now; it stays the same object while it says the same."""
        reading = self._reading
        if trouble is not None:
            known = reading.problems if reading.known else ()
            reading = replace(reading, problems=tuple(dict.fromkeys((*known, trouble))))
        inventory = reading.inventory(self._host)
        if inventory == self.inventory:
            return
        for problem in inventory.problems:
            if problem not in self.inventory.problems:
                logger.warning("hardware.problem: %s", problem)
        if inventory.devices != self.inventory.devices:
            logger.info("hardware.devices %s", ", ".join(_said(inventory)) or "none")
        self.inventory = inventory
        here = {device.uuid for device in inventory.devices} | set(inventory.missing)
        self.latest = {uuid: sample for uuid, sample in self.latest.items() if uuid in here}
        self.energy = {uuid: energy for uuid, energy in self.energy.items() if uuid in here}
        self.xids = Counter({key: number for key, number in self.xids.items() if key[0] in here})


def open_devices(settings: HardwareSettings) -> Devices:
    """The devices of this node, not asked yet."""
    return Devices(settings, read_host(), Door(settings.deadline_s) if settings.nvml else None)


def _believed(before: Reading, now: Reading) -> Reading:
    """What devices are does not change because NVML stops telling it: rather an old truth than none."""
    if now.known or not before.known:
        return now
    return replace(before, problems=now.problems)


def _said(inventory: Inventory) -> list[str]:
    return [f"{device.uuid}{' (lost)' if device.lost else ''}" for device in inventory.devices]
