"""Looks who is on the devices, and what instances' processes use, and has that booked as the agent's own facts.

Owns the rhythm: each round of samples as it comes; processes every ten seconds while anything is open. Evidence only:
no time is taken from it, and what nobody looked at is booked as ever. Refuses to know what it means for a bill.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import anyio
import anyio.to_thread

from taximeter import kernel
from taximeter.agent.accounts import Account
from taximeter.agent.kinship import Kinship
from taximeter.agent.sights import Sight
from taximeter.agent.telling import Telling
from taximeter.events import Exited, Held, Lost, Measured, Observed
from taximeter.hardware.attribution import drawn, meter_of
from taximeter.hardware.inventory import Inventory
from taximeter.hardware.samples import DeviceSample, Samples
from taximeter.hardware.tiers import Catalogue
from taximeter.instance import Instance
from taximeter.lifecycle import Stage
from taximeter.resources import apportion
from taximeter.spans import phases_at

logger = logging.getLogger(__name__)

#: How often processes are looked at, in seconds. What lives for less is told by its wrapper.
LOOK_S = 10.0
#: What a group may have used before the instance, and ticks that round.
_SLACK_NS = 250_000_000
_TICKS = os.sysconf("SC_CLK_TCK")
_NS = 1_000_000_000


@dataclass(slots=True)
class _Round:
    """Who was where, at one look."""

    uses: dict[str, dict[str, list[int | None]]] = field(default_factory=dict)  #: instance -> UUID -> bytes a process
    strangers: set[str] = field(default_factory=set)  #: UUIDs with processes of nobody here


class _Family(NamedTuple):
    """One instance's processes at a look."""

    name: str
    pids: set[int]
    wrapper: kernel.Process | None
    has_group: bool | None  #: whether its control group was its own until now; None: nobody looked yet


class _Used(NamedTuple):
    """What such a family used."""

    name: str
    cpu_ns: int
    resident_bytes: int | None
    has_group: bool


class Onlooker:
    """The agent's eyes on what instances use."""

    def __init__(
        self, directory_fd: int, telling: Telling, current: Callable[[], Inventory], catalogue: Catalogue
    ) -> None:
        self._telling = telling
        self._books = telling.books
        self._current = current
        self._catalogue = catalogue
        self._kin = Kinship(directory_fd)
        self._sights: dict[str, Sight] = {}
        self._before: dict[str, DeviceSample] = {}

    async def run(self) -> None:
        """Look at processes, now and then."""
        while True:
            await anyio.sleep(LOOK_S)
            if not self._books.accounts:
                continue
            try:
                table = await anyio.to_thread.run_sync(kernel.everybody)
                families, at_ns = self._families(table), time.monotonic_ns()
                self._take(await anyio.to_thread.run_sync(_used, families, table), at_ns)
            except OSError as error:  # no descriptor left, say: the next look may have one
                logger.warning("processes.not_seen: %s", error)

    def heard(self, samples: Samples) -> None:
        """Take in a round of samples of the devices."""
        accounts = self._books.accounts
        after = {sample.uuid: sample for sample in samples.devices}
        if accounts:
            self._refresh()
            found = self._find(samples)
            self._share_energy(found, after)
            for name, uses in found.uses.items():
                self._see(name, uses, samples)
            self._share_devices()
            for name in self._sights:
                if name not in found.uses:
                    self._sights[name].here = frozenset()
                self._tell(name, accounts[name])
        self._before = after

    def measure(self, table: dict[int, kernel.Process]) -> None:
        """Take in who runs, and what each has used; `run` does so without keeping the loop."""
        self._take(_used(self._families(table), table), time.monotonic_ns())

    def _families(self, table: dict[int, kernel.Process]) -> list[_Family]:
        self._refresh()
        trees = self._kin.trees(self._books.accounts, table)
        known = {name: sight.has_group for name, sight in self._sights.items()}
        return [_Family(name, pids, self._kin.wrapper(name, table), known.get(name)) for name, pids in trees.items()]

    def _take(self, used: Sequence[_Used], at_ns: int) -> None:
        self._refresh()
        for one in used:
            account = self._books.accounts.get(one.name)
            if account is not None and account.instance is not None:  # else it has ended meanwhile
                sight = self._sight(one.name, account.instance)
                sight.has_group = one.has_group
                sight.work(one.cpu_ns, one.resident_bytes, at_ns)
        for name in list(self._sights):
            self._tell(name, self._books.accounts[name])

    def last_words(
        self, name: str, instance: Instance, _: Exited | Lost | None = None
    ) -> Sequence[Observed | Measured | Held]:
        """What is still to be told of an instance whose end is about to be booked."""
        sight = self._sights.pop(name, None)
        return () if sight is None else self._news(sight, instance, last=True)

    def _refresh(self) -> None:
        accounts = self._books.accounts
        self._kin.refresh(accounts)
        for name in self._sights.keys() - accounts.keys():
            del self._sights[name]

    def _find(self, samples: Samples) -> _Round:
        found = _Round()
        # A process that began after the look has its pid from one that has ended.
        slept_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        for device in samples.devices:
            latest_ticks = (device.at_ns + slept_ns) * _TICKS // _NS + 1
            for use in device.processes or ():
                name, process = self._kin.instance_of(use.pid, latest_ticks)
                if name is not None:
                    found.uses.setdefault(name, {}).setdefault(use.device, []).append(use.used_bytes)
                elif process is not None:
                    found.strangers.add(use.device)
        return found

    def _sight(self, name: str, instance: Instance) -> Sight:
        sight = self._sights.get(name)
        if sight is None:
            sight = self._sights[name] = Sight.of(instance)
        return sight

    def _see(self, name: str, uses: dict[str, list[int | None]], samples: Samples) -> None:
        instance = self._books.accounts[name].instance
        if instance is not None:
            sight = self._sight(name, instance)
            sight.see(uses, samples, instance.hardware)
            sight.hold([size for sizes in uses.values() for size in sizes], samples.at_ns)
            sight.active_ns = _active_ns(instance, samples.at_ns)

    def _share_energy(self, found: _Round, after: dict[str, DeviceSample]) -> None:
        """Part what each device drew since the last look among those who were on it at both, by their active time."""
        inventory = self._current()
        parties: dict[str, dict[str, int]] = {}  # device that measures -> instance -> weight
        strangers = {meter_of(uuid, inventory, after) for uuid in found.strangers}
        slices = {device.uuid: device.gpu_slices or 1 for device in inventory.devices}
        for name, uses in found.uses.items():
            sight, instance = self._sights.get(name), self._books.accounts[name].instance
            if instance is None:
                continue
            active_ns = _active_ns(instance, max((after[uuid].at_ns for uuid in uses if uuid in after), default=0))
            grown_ns = active_ns - (sight.active_ns if sight else 0)
            for uuid in uses:
                weights = parties.setdefault(meter_of(uuid, inventory, after), {})
                weights[name] = weights.get(name, 0) + max(grown_ns, 0) * slices.get(uuid, 1)
        for meter, weights in parties.items():
            earlier, later = self._before.get(meter), after.get(meter)
            used = drawn(earlier, later) if earlier and later else None
            if used is not None and earlier and later:
                rest = [later.at_ns - earlier.at_ns] if meter in strangers else []
                parts = apportion(used[0], [*weights.values(), *rest])
                for name, part_mj in zip(weights, parts, strict=False):
                    sight = self._sights.get(name)
                    if sight is not None and any(meter_of(uuid, inventory, after) == meter for uuid in sight.here):
                        sight.draw(part_mj, used[1])

    def _share_devices(self) -> None:
        """Note whose devices others were given, or are on, as well."""
        on: dict[str, list[str]] = {}
        for name, account in self._books.accounts.items():
            if account.instance is not None and account.instance.stage is not Stage.PENDING:
                for uuid in self._devices_of(name, account.instance):
                    on.setdefault(uuid, []).append(name)
        for uuid, names in on.items():
            if len(names) > 1:
                for name in names:
                    instance = self._books.accounts[name].instance
                    if instance is not None:
                        self._sight(name, instance).shared[uuid] = None

    def _devices_of(self, name: str, instance: Instance) -> set[str]:
        hardware, sight = instance.hardware, self._sights.get(name)
        given = {device.uuid for device in hardware.devices} if hardware and hardware.settled else set()
        return given | (sight.here if sight else frozenset())

    def _tell(self, name: str, account: Account) -> None:
        if account.instance is not None:
            events = self._news(self._sights[name], account.instance, last=False)
            if events:
                self._telling.book_look(name, events)

    def _news(self, sight: Sight, instance: Instance, *, last: bool) -> list[Observed | Measured | Held]:
        observed = sight.observed(self._current(), self._catalogue, instance, last=last)
        measured = sight.measured(time.monotonic_ns(), last=last)
        return [event for event in (observed, *sight.held(instance), measured) if event is not None]


def _used(families: Sequence[_Family], table: dict[int, kernel.Process]) -> list[_Used]:
    """What each family used; reads files, so it is work for a thread."""
    return [_used_by(family, table) for family in families]


def _used_by(family: _Family, table: dict[int, kernel.Process]) -> _Used:
    """Processor time and memory of a tree: of its control group, where that is its own; else of who lives, summed.

    A group is an instance's own if nobody else is in it, now and at each look before, and at the first look had used
    hardly more than the tree: whoever was there earlier would be counted, too.
    """
    name, pids, wrapper, known = family
    cpu_ns = sum(table[pid].cpu_ns + table[pid].children_ns for pid in pids) + (wrapper.children_ns if wrapper else 0)
    group = kernel.group_of(wrapper.pid) if wrapper is not None and known is not False else None
    if wrapper is None or group is None or not _is_of(group.pids, pids | {wrapper.pid}):
        return _Used(name, cpu_ns, kernel.resident_bytes(pids), has_group=False)
    own_ns = group.cpu_ns - wrapper.cpu_ns
    if not known and own_ns - cpu_ns > _SLACK_NS:
        return _Used(name, cpu_ns, kernel.resident_bytes(pids), has_group=False)
    if group.resident_bytes is None:
        return _Used(name, max(own_ns, cpu_ns), kernel.resident_bytes(pids), has_group=True)
    others = group.resident_bytes - (kernel.resident_bytes({wrapper.pid}) or 0)
    return _Used(name, max(own_ns, cpu_ns), max(others, 0), has_group=True)


def _is_of(members: frozenset[int], family: set[int]) -> bool:
    """Whether all that are in a group descend from a family; some may have been born since that was counted."""
    return all(any(one.pid in family for one in kernel.ancestry(pid)) for pid in members - family)


def _active_ns(instance: Instance, at_ns: int) -> int:
    return phases_at(instance, max(at_ns, instance.since_ns)).active
