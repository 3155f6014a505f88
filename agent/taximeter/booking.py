"""From state to usage records: what a prediction or an instance used since its last record, and what that costs.

Owns the published shape of their `data`. Refuses to change any state, and to know which time is charged (charging), at
which tier (sold), who pays (about), and what becomes of what was told before (corrections).
"""

from taximeter.about import End, cut_of, filed, identity, use_of
from taximeter.charging import rate_instance, rate_prediction
from taximeter.corrections import online_corrections, run_correction
from taximeter.events import NOTHING, ServiceClass
from taximeter.instance import Instance, Phases, Prediction, Times
from taximeter.intervals import Moment, concurrency, instance_time, interval, prediction_time, timing
from taximeter.records import Billing, Exit, HardwareUse, RecordType, UsageRecord, Witness
from taximeter.resources import of_instance, of_prediction
from taximeter.rulebook import Rulebook
from taximeter.sold import billed_hardware, published_class
from taximeter.values import replace

_NO_PHASES = Phases()


def prediction_records(
    instance: Instance, prediction: Prediction, times: Times, end: End, book: Rulebook
) -> tuple[UsageRecord, ...]:
    """The record of `prediction` since its last cut, and a correction where its end changes what was billed before."""
    hardware = billed_hardware(instance, prediction, book)
    rating = rate_prediction(instance, prediction, times, end.status, (book, hardware))
    began, use = _began(instance, prediction, times), use_of(instance, prediction, hardware, book)
    published = published_class(prediction, book.card_of(prediction.card))
    data = _prediction_data(instance, prediction, (began, times), end, (rating.billing, use), published)
    record = filed(instance, RecordType.PREDICTION, prediction, began, data)
    if rating.sold_ns is not None:
        record = replace(record, sold_ns=rating.sold_ns)
    correction = run_correction(instance, prediction, end, (rating, use), book.source)
    return (record,) if correction is None else (record, correction)


def instance_records(
    instance: Instance, phases: Phases, end: End, left: Exit | None, book: Rulebook
) -> tuple[UsageRecord, ...]:
    """The record of `instance` since its last cut, and a correction where its end changes what was billed before."""
    hardware = billed_hardware(instance, None, book)
    rating = rate_instance(instance, phases, end.status, (book, hardware))
    use = use_of(instance, None, hardware, book)
    data = _instance_data(instance, phases, end, (rating.billing, use))
    if left is not None:
        data["exit"] = left
    began = cut_of(instance)
    record = filed(instance, RecordType.INSTANCE, None, began, data)
    return (record, *online_corrections(instance, end, (rating, use), book))


def _prediction_data(
    instance: Instance,
    prediction: Prediction,
    since: tuple[Moment, Times],
    end: End,
    bill: tuple[Billing, HardwareUse],
    published: ServiceClass | None,
) -> dict[str, object]:
    (began, times), (billing, use) = since, bill
    before, cut_ns, opened = prediction.cut_times, prediction.cut_ns, instance.opened
    data = identity(instance, prediction, end)
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
    if prediction.last_interim is not None:
        data["units_to_date"] = prediction.units_to_date
    data["attributes"] = prediction.attributes
    data["labels"] = opened.options.labels
    data["hardware"] = use
    data["resources"] = of_prediction(instance, prediction, end.at_ns)
    if published is not None:
        data["published_class"] = published
    data["billing"] = billing
    start = _start(prediction.start, prediction.start_ns, cut_ns)
    data["timing"] = timing(instance, start, end.witness, prediction.faults)
    data["traceparent"] = prediction.traceparent
    return data


def _instance_data(
    instance: Instance, phases: Phases, end: End, bill: tuple[Billing, HardwareUse]
) -> dict[str, object]:
    cut, opened = instance.cut, instance.opened
    billing, use = bill
    before = cut.phases
    data = identity(instance, None, end)
    began, ended = Moment(cut.at_ns, before.suspended), Moment(end.at_ns, phases.suspended)
    data["interval"] = interval(opened, began, ended)
    data["time"] = instance_time(cut.at_ns, end.at_ns, before, phases)
    data["to_date"] = instance_time(instance.start_ns, end.at_ns, _NO_PHASES, phases)
    data["concurrency"] = concurrency(phases.crowd - before.crowd, phases.active - before.active, instance.crowd_max)
    data["units"] = NOTHING
    data["attributes"] = NOTHING
    data["labels"] = opened.options.labels
    data["hardware"] = use
    data["resources"] = of_instance(instance)
    data["billing"] = billing
    start = _start(instance.start, instance.start_ns, cut.at_ns)
    data["timing"] = timing(instance, start, end.witness, instance.faults)
    data["traceparent"] = opened.traceparent
    return data


def _start(start: Witness, start_ns: int, from_ns: int) -> Witness:
    """An interim record begins where the last one was cut: at an exact instant, by definition."""
    return start if from_ns == start_ns else Witness(start.source, 0)


def _began(instance: Instance, prediction: Prediction, times: Times) -> Moment:
    """Where a prediction's record begins; of sleep it knows its own, its instance all."""
    slept_ns = times.suspended - prediction.cut_times.suspended
    return Moment(prediction.cut_ns, instance.phases.suspended - slept_ns)
