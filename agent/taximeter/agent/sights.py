"""What the agent has seen of one instance so far: on which devices, and what it used.

Owns the memory between two looks, and what of it is news to tell. All of it only grows, so what is told late or twice
takes nothing back. Refuses to know how anything is seen.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from taximeter.events import Held, Measured, Observed
from taximeter.hardware.attribution import is_told, place_seen
from taximeter.hardware.evidence import UNUSED_NS
from taximeter.hardware.inventory import Hardware, Inventory
from taximeter.hardware.samples import Samples
from taximeter.hardware.tiers import Catalogue
from taximeter.instance import Instance, Prediction
from taximeter.resources import peaks_until
from taximeter.values import replace

#: What is used is told this often, where it has changed; and with the end.
TOLD_NS = 30_000_000_000


@dataclass(slots=True)
class Sight:
    """One open instance, as it was seen."""

    devices: dict[str, None] = field(default_factory=dict)  #: UUIDs, in the order in which they were seen first
    shared: dict[str, None] = field(default_factory=dict)
    since_ns: int = 0  #: since then each look would have shown it on what it declares
    at_ns: int = 0  #: the last look that showed it
    hardware: Hardware | None = None  #: `devices`, placed
    here: frozenset[str] = frozenset()  #: what it was on at the last look
    active_ns: int = 0  #: how long it had been active at that look
    memory_peak_bytes: int | None = None
    energy_mj: int | None = None
    energy_source: str | None = None
    cpu_ns: int | None = None
    rss_peak_bytes: int | None = None
    measured_ns: int = 0  #: when any of these was last taken
    has_group: bool | None = None  #: whether its control group is its own; None: nobody looked yet
    _placed: int = 0  #: how many of `devices` are in `hardware`
    _told: tuple[object, ...] = ()
    _told_measure: Measured | None = None
    _looks: list[Held] = field(default_factory=list)  #: at its memory, not told yet

    @staticmethod
    def of(instance: Instance) -> "Sight":
        """What an earlier agent has told of it, to go on from."""
        observed, measured = instance.observed, instance.measured
        sight = Sight()
        if observed is not None:
            hardware = observed.hardware
            sight.hardware = hardware
            sight.devices = dict.fromkeys(device.uuid for device in (hardware.devices if hardware else ()))
            sight._placed = len(sight.devices)
            sight.shared = dict.fromkeys(observed.shared)
            sight.since_ns, sight.at_ns = observed.since_ns, observed.at_ns
            sight._told = sight._news(instance.hardware)
        if measured is not None:
            sight.memory_peak_bytes = measured.gpu_memory_peak_bytes
            sight.energy_mj, sight.energy_source = measured.energy_mj, measured.energy_source
            sight.cpu_ns, sight.rss_peak_bytes = measured.cpu_ns, measured.rss_peak_bytes
            sight.measured_ns = measured.at_ns
            sight._told_measure = measured
        return sight

    def see(self, uuids: Iterable[str], samples: Samples, declared: Hardware | None) -> None:
        """Take in a look that showed it on some devices."""
        self.here = frozenset(uuids)
        self.devices |= dict.fromkeys(sorted(self.here))
        told = is_told([device.uuid for device in (declared.devices if declared else ())], samples)
        if not self.since_ns or not told:
            self.since_ns = samples.at_ns
        self.at_ns = self.measured_ns = samples.at_ns

    def hold(self, used_bytes: Sequence[int | None], at_ns: int) -> None:
        """Take in how much memory its processes hold on all devices; who does not tell makes the sum unknown."""
        known = [size for size in used_bytes if size is not None]
        if known and len(known) == len(used_bytes):
            self.memory_peak_bytes = max(self.memory_peak_bytes or 0, sum(known))
            self._looks.append(Held(at_ns, sum(known), on_devices=True))

    def draw(self, energy_mj: int, source: str) -> None:
        """Add its part of a device's energy; what is partly integrated is said to be so."""
        self.energy_mj = (self.energy_mj or 0) + energy_mj
        self.energy_source = source if self.energy_source in (None, source) else "power"

    def work(self, cpu_ns: int, resident_bytes: int | None, at_ns: int) -> None:
        """Take in what its process tree has used; of what has ended unwaited for, the sum forgets, so it only grows."""
        self.cpu_ns = max(self.cpu_ns or 0, cpu_ns)
        if resident_bytes is not None:
            self.rss_peak_bytes = max(self.rss_peak_bytes or 0, resident_bytes)
            self._looks.append(Held(at_ns, resident_bytes))
        self.measured_ns = max(self.measured_ns, at_ns)

    def observed(
        self, inventory: Inventory, catalogue: Catalogue, instance: Instance, *, last: bool
    ) -> Observed | None:
        """What is new of where it was seen; with its `last` words also how long it was seen at all."""
        declared = instance.hardware
        if len(self.devices) > self._placed:
            self.hardware, self._placed = (
                place_seen(inventory, tuple(self.devices), declared, catalogue),
                len(self.devices),
            )
        news = self._news(declared)
        before = instance.observed
        is_longer = last and before is not None and before.at_ns < self.at_ns
        if news == self._told and not (is_longer and self._unused(declared)):
            return None
        if not self.devices and not self.shared:
            return None
        self._told = news
        return Observed(self.at_ns, self.since_ns, self.hardware, tuple(self.shared))

    def measured(self, now_ns: int, *, last: bool) -> Measured | None:
        """What is new of what it used."""
        measure = Measured(
            self.measured_ns,
            self.cpu_ns,
            self.rss_peak_bytes,
            self.memory_peak_bytes,
            self.energy_mj,
            self.energy_source,
        )
        before = self._told_measure
        if not self.measured_ns or (before is not None and replace(before, at_ns=measure.at_ns) == measure):
            return None
        if before is not None and not last and now_ns - before.at_ns < TOLD_NS:
            return None
        self._told_measure = measure
        return measure

    def held(self, instance: Instance) -> list[Held]:
        """The looks at memory since this was last asked, where one of a worker's predictions had not held as much."""
        looks, self._looks = self._looks, []
        if not instance.opened.options.worker:
            return []
        return [look for look in looks if any(_is_higher(look, instance, open_) for open_ in instance.predictions)]

    def _news(self, declared: Hardware | None) -> tuple[object, ...]:
        settled = self._unused(declared) and self.at_ns - self.since_ns >= UNUSED_NS
        return (tuple(self.devices), tuple(self.shared), settled)

    def _unused(self, declared: Hardware | None) -> bool:
        """Whether something that it declared was never used, while others were."""
        if declared is None or not declared.settled or self.hardware is None:
            return False
        seen = {device.uuid for device in self.hardware.devices}
        return any(device.uuid not in seen for device in declared.devices)


def _is_higher(look: Held, instance: Instance, prediction: Prediction) -> bool:
    if prediction.start_ns > look.at_ns:
        return False
    peaks = peaks_until(instance, prediction, look.at_ns)
    known = peaks.devices if look.on_devices else peaks.node
    return known is None or look.size_bytes > known
