"""Draws the snapshot: what the agent knows now, in the words that every face shows.

Owns the translation from state to view. Refuses to decide anything.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from taximeter import wire
from taximeter.agent.accounts import Account
from taximeter.agent.books import Books
from taximeter.agent.desk import Desk
from taximeter.agent.devices import Devices
from taximeter.agent.doors import Doors
from taximeter.agent.onlooker import Onlooker
from taximeter.agent.placing import Placer
from taximeter.agent.pricing import Prices
from taximeter.agent.pruner import Pruner
from taximeter.agent.sealer import Sealer
from taximeter.clockwork import utc_ns
from taximeter.events import ServiceClass
from taximeter.hardware.inventory import UNKNOWN_TIER, Device
from taximeter.instance import Instance, Prediction
from taximeter.kernel import ProcessEvents
from taximeter.ledger.values import NodeInfo
from taximeter.lifecycle import PHASES
from taximeter.observe.snapshot import (
    MOST_DEVICES,
    DeviceView,
    InstanceView,
    PredictionView,
    Pulse,
    SamplingView,
    SinkView,
    Snapshot,
    WitnessView,
)
from taximeter.records import utc_text
from taximeter.rulebook import Rulebook
from taximeter.shipping.shipper import Hurry, ShipState
from taximeter.sold import billed_hardware, hardware_use

_SET_ASIDE = (
    "the ledger was damaged and is kept as {name}: the agent's log of that start says what went over; move it away "
    "once it was looked at"
)
_LETTERS = "sink {name} refused {count} record{s}, and takes others: `taximeter deadletters list` says which and why"


@dataclass(slots=True)
class Scene:
    """Everything that the snapshot is drawn from."""

    node: NodeInfo
    books: Books
    desk: Desk
    started_s: float  #: seconds since 1970
    devices: Devices
    placer: Placer
    kinds: Mapping[str, str]  #: sink name -> kind
    prices: Prices
    sealer: Sealer
    ships: Mapping[str, ShipState] = field(default_factory=dict)
    hurry: Hurry = field(default_factory=Hurry)
    caught_up: bool = False
    lag_since_s: float | None = None
    trouble: str | None = None  #: of reading journals
    processes: ProcessEvents | None = None  #: the kernel's, where the agent has them
    witness_trouble: str | None = None  #: why it has not
    onlooker: Onlooker | None = None
    doors: Doors | None = None
    pruner: Pruner | None = None
    set_aside: tuple[str, ...] = ()  #: damaged ledgers that lie beside the one in use


class _Drawn:
    """What was open on an instance, drawn once somebody looks: it may be a thousand, and most who ask do not."""

    __slots__ = ("_instance",)

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def __len__(self) -> int:
        return len(self._instance.predictions)

    def __iter__(self) -> Iterator[PredictionView]:
        return (_prediction(self._instance, prediction) for prediction in self._instance.predictions)

    def __contains__(self, view: object) -> bool:
        return any(view == drawn for drawn in self)


def pulse(scene: Scene) -> Pulse:
    """Whether the node is ready, and alive."""
    ready = scene.caught_up and scene.desk.trouble is None and scene.trouble is None
    return Pulse(ready, scene.desk.alive)


def draw(scene: Scene) -> Snapshot:
    """The node at this moment."""
    book, head, how = scene.books.book, scene.desk.head, pulse(scene)
    whole_node = scene.placer.whole_node
    instances = tuple(
        _instance(account.instance, book) for account in scene.books.accounts.values() if account.instance is not None
    )
    return Snapshot(
        node=scene.node.id,
        started_utc=utc_text(int(scene.started_s * 1_000_000_000)),
        started_unix_s=scene.started_s,
        taken_unix_s=time.time(),
        version=wire.VERSION,
        ready=how.ready,
        alive=how.alive,
        region=scene.node.region,
        config=scene.node.config,
        problems=_problems(scene),
        instances=instances,
        refused_marks=scene.books.refusals.counts(),
        counters=scene.books.tally.counters(),
        ledger_id=head.ledger_id,
        ledger_seq=head.seq,
        ledger_hash=head.hash,
        sinks=tuple(_sink(scene, name, state) for name, state in scene.ships.items()),
        hardware=scene.devices.inventory,
        catalogue=scene.placer.catalogue,
        card=book.card_at(time.time_ns()),
        price_list=scene.prices.view,
        terms=book.rules[book.current].classes.terms[ServiceClass.PUBLIC],
        node_tier=whole_node.tier,
        node_tier_rule=whole_node.rule,
        sampling=_sampling(scene.devices, instances),
        witness=_witness(scene),
        denied=scene.doors.count if scene.doors is not None else 0,
        set_aside=len(scene.set_aside),
        reader_lag_s=0.0 if scene.lag_since_s is None else max(0.0, time.monotonic() - scene.lag_since_s),
    )


def _sampling(devices: Devices, instances: Sequence[InstanceView]) -> SamplingView:
    shown = devices.inventory.devices[:MOST_DEVICES]
    names = {device.uuid for device in shown} | set(devices.inventory.missing)
    placed = Counter((uuid, one.tier) for one in instances for uuid in one.devices if uuid in names)
    return SamplingView(
        devices=tuple(_device(devices, device) for device in shown),
        lost=len(devices.lost),
        respawns=devices.respawns,
        hung=devices.hung,
        late=devices.late,
        errors=dict(devices.errors),
        xids={key: number for key, number in devices.xids.items() if key[0] in names},
        instances=placed,
    )


def _device(devices: Devices, device: Device) -> DeviceView:
    sample = devices.latest.get(device.uuid)
    energy = devices.energy.get(device.uuid)
    return DeviceView(
        device,
        sample,
        None if sample is None else max(0.0, (time.monotonic_ns() - sample.at_ns) / 1e9),
        energy.total_mj / 1000 if energy is not None and energy.last.energy_mj is not None else None,
    )


def _witness(scene: Scene) -> WitnessView:
    processes = scene.processes
    if processes is None:
        return WitnessView(trouble=scene.witness_trouble)
    return WitnessView(processes.trouble is None, processes.trouble, processes.events, processes.overruns)


def _problems(scene: Scene) -> tuple[str, ...]:
    doors = scene.doors.trouble if scene.doors is not None else None
    pruner = scene.pruner.trouble if scene.pruner is not None else None
    troubles = (scene.desk.trouble, scene.trouble, doors, scene.sealer.trouble, pruner)
    problems = [trouble for trouble in troubles if trouble]
    problems += [_stuck(name, account) for name, account in scene.books.accounts.items() if account.stuck]
    problems += scene.books.refusals.problems()
    problems += [_SET_ASIDE.format(name=name) for name in scene.set_aside]
    problems += [
        _LETTERS.format(name=name, count=count, s="s"[: count > 1]) for name, count in scene.desk.letters.items()
    ]
    if scene.books.book.card_at(time.time_ns()) is None:
        problems.append("no rate card is in force, so what runs here is not priced yet")
    if scene.prices.refused:
        problems.append(scene.prices.refused)
    if scene.placer.whole_node.tier == UNKNOWN_TIER:
        rule = scene.placer.whole_node.rule
        problems.append(f"no tier is known for this node, so what runs here is not priced: {rule}")
    return tuple(problems)


def _stuck(name: str, account: Account) -> str:
    return f"the journal of {name} is not read on: {account.stuck}"


def _instance(instance: Instance, book: Rulebook) -> InstanceView:
    opened, options = instance.opened, instance.opened.options
    hardware = billed_hardware(instance, None, book)
    use = hardware_use(instance, hardware)
    phase = PHASES.get(instance.stage)
    return InstanceView(
        instance=opened.instance,
        phase=phase.value if phase else instance.stage.value,
        started_utc=utc_text(utc_ns(opened, instance.start_ns)),
        since_utc=utc_text(utc_ns(opened, instance.since_ns, instance.phases.suspended)),
        tier=hardware.tier,
        account=options.account,
        model=options.model,
        version=options.version,
        service_class=instance.service_class.value,
        pool=options.pool,
        worker=options.worker,
        adopted=instance.adopted,
        pid=instance.pid,
        devices=tuple(device.uuid for device in use.devices),
        rule=use.rule,
        evidence=use.evidence,
        declared=use.declared,
        observed=use.observed,
        shared_devices=use.shared_devices,
        predictions=_Drawn(instance),
    )


def _prediction(instance: Instance, prediction: Prediction) -> PredictionView:
    slept_ns = instance.phases.suspended - prediction.times.suspended
    return PredictionView(
        prediction=prediction.id,
        phase="active" if prediction.active else "load",
        started_utc=utc_text(utc_ns(instance.opened, prediction.start_ns, slept_ns)),
        account=prediction.account,
        model=prediction.model,
        version=prediction.version,
        service_class=prediction.service_class.value,
        pool=prediction.pool,
        parent=prediction.parent,
        root=prediction.root,
    )


def _sink(scene: Scene, name: str, state: ShipState) -> SinkView:
    pending = max(0, scene.desk.head.seq - scene.desk.cursors.get(name, 0))
    letters = scene.desk.letters.get(name, 0)
    return SinkView(name, scene.kinds[name], pending, state.shipped, dict(state.failures), state.last_error, letters)
