"""From state to usage records: what a prediction or an instance used since its last record, and what that costs.

Owns the published shape of `data`, who is the payer, and which time is charged. Refuses to change any state.
"""

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from taximeter.billing.classes import ONLINE, Quantity
from taximeter.billing.rating import Charge, Rating, informative, rate_time
from taximeter.clockwork import utc_ns
from taximeter.events import NOTHING, Options, ServiceClass, Status
from taximeter.hardware.inventory import UNKNOWN_TIER, Hardware
from taximeter.instance import Instance, Phases, Prediction, Times
from taximeter.intervals import Moment, concurrency, instance_time, interval, prediction_time, timing
from taximeter.records import (
    PLATFORM,
    UNATTRIBUTED,
    Billing,
    DeviceUse,
    Exit,
    HardwareUse,
    RecordType,
    Resources,
    UsageRecord,
    Witness,
)
from taximeter.rulebook import Rulebook

_ONE = Decimal(1)
_NO_PHASES = Phases()
_NO_RESOURCES = Resources(cpu_ns=None, rss_peak_bytes=None, gpu_memory_peak_bytes=None, energy_mj=None)
_UNKNOWN_HARDWARE = HardwareUse(UNKNOWN_TIER, 0, (), "declared", "the hardware was not looked at")


class End(NamedTuple):
    """Where and how an interval ends."""

    at_ns: int
    status: Status
    final: bool
    witness: Witness


def prediction_records(
    instance: Instance, prediction: Prediction, times: Times, end: End, book: Rulebook
) -> tuple[UsageRecord, ...]:
    """The record of `prediction` since its last cut, and a correction where its end changes what was billed before."""
    rating = _rate_prediction(instance, prediction, times, end, book)
    began = _began(instance, prediction, times)
    data = _prediction_data(instance, prediction, (began, times), end, rating.billing)
    record = _record(instance, RecordType.PREDICTION, prediction, began, data)
    if rating.correction is None:
        return (record,)
    return (record, _correction(instance, prediction, end, rating.correction, book.source))


def instance_records(
    instance: Instance, phases: Phases, end: End, left: Exit | None, book: Rulebook
) -> tuple[UsageRecord, ...]:
    """The record of `instance` since its last cut, and a correction where its end changes what was billed before."""
    rating = _rate_instance(instance, phases, end, book)
    data = _instance_data(instance, phases, end, rating.billing)
    if left is not None:
        data["exit"] = left
    began = Moment(instance.cut.at_ns, instance.cut.phases.suspended)
    record = _record(instance, RecordType.INSTANCE, None, began, data)
    if rating.correction is None:
        return (record,)
    return (record, _correction(instance, None, end, rating.correction, book.source))


def record_id(instance: str, number: int) -> str:
    """The id of an instance's record: deterministic, so that a replay yields the same, and of fixed width."""
    return f"{instance}-{number:08d}"


def _told(instance: Instance, prediction: Prediction | None, end: End) -> dict[str, object]:
    """Who and what a record is about; of a prediction, or of the instance itself."""
    about: Options | Prediction = prediction or instance.opened.options
    service_class = prediction.service_class if prediction else instance.service_class
    return {
        "account": about.account,
        "model": about.model,
        "version": about.version,
        "class": service_class,
        "pool": about.pool,
        "kind": "training" if service_class is ServiceClass.TRAINING else "inference",
        "instance": instance.opened.instance,
        "prediction": prediction.id if prediction else None,
        "parent": about.parent,
        "root": about.root,
        "status": end.status,
        "final": end.final,
    }


def _prediction_data(
    instance: Instance, prediction: Prediction, since: tuple[Moment, Times], end: End, billing: Billing
) -> dict[str, object]:
    began, times = since
    before, cut_ns, opened = prediction.cut_times, prediction.cut_ns, instance.opened
    data = _told(instance, prediction, end)
    data["interval"] = interval(opened, began, Moment(end.at_ns, instance.phases.suspended))
    data["time"] = prediction_time(cut_ns, end.at_ns, before, times)
    data["to_date"] = {
        "wall_ns": end.at_ns - prediction.start_ns + times.suspended,
        "load_ns": times.load,
        "active_ns": times.active,
        "share_ns": times.share,
    }
    data["concurrency"] = concurrency(times.crowd - before.crowd, times.active - before.active, prediction.crowd_max)
    data["units"] = prediction.units
    data["attributes"] = prediction.attributes
    data["labels"] = opened.options.labels
    data["hardware"] = _hardware(instance)
    data["resources"] = _NO_RESOURCES if opened.options.worker else _resources(instance)
    data["billing"] = billing
    start = _start(prediction.start, prediction.start_ns, cut_ns)
    data["timing"] = timing(instance, start, end.witness, prediction.faults)
    data["traceparent"] = prediction.traceparent
    return data


def _instance_data(instance: Instance, phases: Phases, end: End, billing: Billing) -> dict[str, object]:
    cut, opened = instance.cut, instance.opened
    before = cut.phases
    data = _told(instance, None, end)
    began, ended = Moment(cut.at_ns, before.suspended), Moment(end.at_ns, phases.suspended)
    data["interval"] = interval(opened, began, ended)
    data["time"] = instance_time(cut.at_ns, end.at_ns, before, phases)
    data["to_date"] = instance_time(instance.start_ns, end.at_ns, _NO_PHASES, phases)
    data["concurrency"] = concurrency(phases.crowd - before.crowd, phases.active - before.active, instance.crowd_max)
    data["units"] = NOTHING
    data["attributes"] = NOTHING
    data["labels"] = opened.options.labels
    data["hardware"] = _hardware(instance)
    data["resources"] = _resources(instance)
    data["billing"] = billing
    start = _start(instance.start, instance.start_ns, cut.at_ns)
    data["timing"] = timing(instance, start, end.witness, instance.faults)
    data["traceparent"] = opened.traceparent
    return data


def _record(
    instance: Instance, kind: RecordType, prediction: Prediction | None, began: Moment, data: Mapping[str, object]
) -> UsageRecord:
    opened = instance.opened
    about: Options | Prediction = prediction or opened.options
    ahead = 1 if kind is RecordType.CORRECTION else 0  # a correction follows the record that brought the end
    theirs = prediction is not None or instance.service_class in ONLINE
    return UsageRecord(
        record_id(opened.instance, instance.records + ahead),
        kind,
        (about.account or UNATTRIBUTED) if theirs else PLATFORM,
        utc_ns(opened, *began),
        data,
        opened.instance,
        prediction.id if prediction else None,
        about.root,
        about.account,
        about.model,
    )


def _correction(
    instance: Instance, prediction: Prediction | None, end: End, billing: Billing, source: str
) -> UsageRecord:
    """A signed delta: the end put another multiplier on what interim records had billed; no time changes."""
    cut = Moment(instance.cut.at_ns, instance.cut.phases.suspended)  # whatever has one was cut there
    began = Moment(instance.start_ns, 0)
    if prediction is not None:
        began = Moment(prediction.start_ns, cut.slept_ns - prediction.cut_times.suspended)
    data = _told(instance, prediction, end)
    del data["final"]
    data |= {
        "corrects": {"source": source, "id": prediction.last_interim if prediction else instance.cut.interim},
        "reason": end.status,
        "interval": interval(instance.opened, began, cut),
        "time": {"active_ns": 0, "share_ns": 0},
        "hardware": _hardware(instance),
        "billing": billing,
    }
    return _record(instance, RecordType.CORRECTION, prediction, began, data)


def _rate_prediction(instance: Instance, prediction: Prediction, times: Times, end: End, book: Rulebook) -> Rating:
    card, service_class = book.card_of(prediction.card), prediction.service_class
    if service_class in ONLINE or instance.service_class in ONLINE:
        return Rating(informative(card))
    terms = book.rules_of(instance.rules).classes.terms[service_class]
    factor = terms.on(end.status)
    cut = prediction.cut_times
    before, now = (cut.share, times.share) if terms.quantity is Quantity.SHARE else (cut.active, times.active)
    charges = (
        Charge("load", cut.load, times.load, terms.load * factor, terms.load),
        Charge(terms.quantity, before, now, terms.active * factor, terms.active),
    )
    return rate_time(charges, _tier(instance), card)


def _rate_instance(instance: Instance, phases: Phases, end: End, book: Rulebook) -> Rating:
    """Boot, idle and teardown by their multipliers; active only where the instance is what is sold."""
    card, cut, before = book.card_of(instance.card), instance.cut, instance.cut.phases
    service_class = instance.service_class
    terms = book.rules_of(instance.rules).classes.terms[service_class]
    online = service_class in ONLINE
    if not online and not (terms.boot or terms.idle or terms.teardown):
        return Rating(informative(card))
    factor = terms.on(end.status) if online else _ONE
    boot_before, boot_now = before.boot if cut.readied else 0, phases.boot if instance.readied else 0
    charges = (
        Charge("boot", boot_before, boot_now, terms.boot * factor, terms.boot),
        Charge("idle", before.idle, phases.idle, terms.idle * factor, terms.idle),
        Charge("active", before.active, phases.active, terms.active * factor, terms.active),
        Charge("teardown", before.teardown, phases.teardown, terms.teardown * factor, terms.teardown),
    )
    own = charges if online else tuple(charge for charge in charges if charge.meter != "active")
    return rate_time(own, _tier(instance), card)


def _tier(instance: Instance) -> str:
    return instance.hardware.tier if instance.hardware else UNKNOWN_TIER


def _start(start: Witness, start_ns: int, from_ns: int) -> Witness:
    """An interim record begins where the last one was cut: at an exact instant, by definition."""
    return start if from_ns == start_ns else Witness(start.source, 0)


def _began(instance: Instance, prediction: Prediction, times: Times) -> Moment:
    """Where a prediction's record begins; of sleep it knows its own, its instance all."""
    slept_ns = times.suspended - prediction.cut_times.suspended
    return Moment(prediction.cut_ns, instance.phases.suspended - slept_ns)


def _hardware(instance: Instance) -> HardwareUse:
    return _use_of(instance.hardware) if instance.hardware else _UNKNOWN_HARDWARE


@lru_cache(maxsize=256)
def _use_of(hardware: Hardware) -> HardwareUse:
    devices = tuple(DeviceUse(device.uuid, device.name, device.memory_bytes) for device in hardware.devices)
    return HardwareUse(hardware.tier, hardware.count, devices, hardware.evidence, hardware.rule)


def _resources(instance: Instance) -> Resources:
    cpu_ns, rss_peak_bytes = instance.usage
    return {
        "cpu_ns": None if cpu_ns is None else max(cpu_ns - instance.cut.cpu_ns, 0),
        "rss_peak_bytes": rss_peak_bytes,
        "gpu_memory_peak_bytes": None,
        "energy_mj": None,
    }
