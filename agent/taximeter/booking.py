"""From state to usage records: what a prediction or an instance used since its last record, and what that costs.

Owns the published shape of `data` and who is the payer. Refuses to change any state, and to know which time is charged
(charging), and at which tier (sold).
"""

import dataclasses
from collections.abc import Iterator, Mapping

from taximeter.billing.classes import ONLINE
from taximeter.billing.rating import Rating
from taximeter.charging import (
    rate_ended,
    rate_freed,
    rate_instance,
    rate_less,
    rate_piece,
    rate_prediction,
    units_before,
)
from taximeter.clockwork import utc_ns
from taximeter.events import NOTHING, Options, ServiceClass, Status
from taximeter.hardware.inventory import Hardware
from taximeter.instance import Ended, Freed, Instance, Phases, Piece, Prediction, Times
from taximeter.intervals import Moment, concurrency, instance_time, interval, prediction_time, timing
from taximeter.records import (
    FREED,
    PLATFORM,
    RERATED,
    UNATTRIBUTED,
    Billing,
    Exit,
    HardwareUse,
    RecordType,
    UsageRecord,
    Witness,
)
from taximeter.resources import of_instance, of_prediction
from taximeter.rulebook import Rulebook
from taximeter.sold import as_published, billed_by, billed_hardware, hardware_use, published_class
from taximeter.values import Value, replace

#: Why a record is corrected: another tier bills than was thought.
EVIDENCE = "evidence"
_NO_PHASES = Phases()
_NO_TIME: Mapping[str, int] = {"active_ns": 0, "share_ns": 0}


class Late(Value):
    """Where a prediction truly ended, which was found out when more of it had been told: that is taken back."""

    until_ns: int
    told_ns: int  #: so far its time is told as any other's
    reason: str


class Stretch(Value):
    """What is corrected: from where to where, the last record of it, and the tier that this was billed at."""

    began: Moment
    until: Moment
    last: str | None
    tier: str | None
    freed: Freed | None = None  #: what of it turned out to be no active time; None: no time changes


class End(Value):
    """Where and how an interval ends."""

    at_ns: int
    status: Status
    final: bool
    witness: Witness
    late: Late | None = None
    said: bool = False  #: by the prediction's own word
    told: bool = True  #: by whoever knows how: not by the last sign of life, or by who saw no more than that it ended


def prediction_records(
    instance: Instance, prediction: Prediction, times: Times, end: End, book: Rulebook
) -> tuple[UsageRecord, ...]:
    """The record of `prediction` since its last cut, and a correction where its end changes what was billed before."""
    hardware = billed_hardware(instance, prediction, book)
    rating = rate_prediction(instance, prediction, times, end.status, (book, hardware))
    began, use = _began(instance, prediction, times), _use(instance, prediction, hardware, book)
    published = published_class(prediction, book.card_of(prediction.card))
    data = _prediction_data(instance, prediction, (began, times), end, (rating.billing, use), published)
    record = _record(instance, RecordType.PREDICTION, prediction, began, data)
    if rating.sold_ns is not None:
        record = replace(record, sold_ns=rating.sold_ns)
    if rating.correction is None:
        return (record,)
    run = _of_run(prediction, _cut_of(instance))
    correction = _correction((instance, prediction), run, end, (rating.correction, use), book.source)
    return (record, replace(correction, sold_ns=rating.resold_ns))


def instance_records(
    instance: Instance, phases: Phases, end: End, left: Exit | None, book: Rulebook
) -> tuple[UsageRecord, ...]:
    """The record of `instance` since its last cut, and a correction where its end changes what was billed before."""
    hardware = billed_hardware(instance, None, book)
    rating = rate_instance(instance, phases, end.status, (book, hardware))
    use = _use(instance, None, hardware, book)
    data = _instance_data(instance, phases, end, (rating.billing, use))
    if left is not None:
        data["exit"] = left
    began = Moment(instance.cut.at_ns, instance.cut.phases.suspended)
    record = _record(instance, RecordType.INSTANCE, None, began, data)
    corrections = [_piece_correction(instance, piece, began, end, book) for piece, began in _pieces(instance)]
    if rating.correction is not None:
        corrections.append((_since_cut(instance), rating.correction, use))
    due = [correction for correction in corrections if correction is not None]
    return (
        record,
        *(
            _correction((instance, None), stretch, end, (billing, told), book.source, behind)
            for behind, (stretch, billing, told) in enumerate(due, 1)
        ),
    )


def _pieces(instance: Instance) -> Iterator[tuple[Piece, Moment]]:
    """What is over under earlier rate cards, each with where it began."""
    began = Moment(instance.start_ns, 0)
    for piece in instance.pieces:
        yield piece, began
        began = Moment(piece.at_ns, piece.until.suspended)


def _piece_correction(
    instance: Instance, piece: Piece, began: Moment, end: End, book: Rulebook
) -> tuple[Stretch, Billing, HardwareUse] | None:
    """What the end, or other hardware, changes of what is over under an earlier rate card."""
    hardware = billed_by(instance, piece.card, book)
    billing = rate_piece(instance, piece, end.status, (book, hardware)).correction
    if billing is None:
        return None
    stretch = Stretch(began, Moment(piece.at_ns, piece.until.suspended), piece.interim, piece.tier)
    use = as_published(hardware_use(instance, hardware), instance.opened.options.model, book.card_of(piece.card))
    return stretch, billing, use


def _since_cut(instance: Instance) -> Stretch:
    """What an instance's interim records have told under the rate card in force."""
    began = Moment(instance.start_ns, 0)
    if instance.pieces:
        began = Moment(instance.pieces[-1].at_ns, instance.pieces[-1].until.suspended)
    return Stretch(began, _cut_of(instance), instance.cut.interim, instance.cut.tier)


def _of_run(prediction: Prediction, until: Moment) -> Stretch:
    """All that a prediction's records have told."""
    began = Moment(prediction.start_ns, until.slept_ns - prediction.cut_times.suspended)
    return Stretch(began, until, prediction.last_interim, prediction.tier)


def _use(instance: Instance, prediction: Prediction | None, hardware: Hardware, book: Rulebook) -> HardwareUse:
    """What a record says of the hardware, held against what its model is published with."""
    about, state = (prediction, prediction) if prediction else (instance.opened.options, instance)
    return as_published(hardware_use(instance, hardware), about.model, book.card_of(state.card))


def _cut_of(instance: Instance) -> Moment:
    """Where the last interim records ended: whatever has one was cut there."""
    return Moment(instance.cut.at_ns, instance.cut.phases.suspended)


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
    instance: Instance,
    prediction: Prediction,
    since: tuple[Moment, Times],
    end: End,
    bill: tuple[Billing, HardwareUse],
    published: ServiceClass | None,
) -> dict[str, object]:
    (began, times), (billing, use) = since, bill
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
    data = _told(instance, None, end)
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


def _record(
    instance: Instance,
    kind: RecordType,
    prediction: Prediction | None,
    began: Moment,
    data: Mapping[str, object],
    behind: int = 0,
) -> UsageRecord:
    opened = instance.opened
    about: Options | Prediction = prediction or opened.options
    theirs = prediction is not None or instance.service_class in ONLINE
    return UsageRecord(
        record_id(opened.instance, instance.records + behind),
        kind,
        (about.account or UNATTRIBUTED) if theirs else PLATFORM,
        utc_ns(opened, began.at_ns, began.slept_ns),
        data,
        opened.instance,
        prediction.id if prediction else None,
        about.root,
        about.account,
        about.model,
    )


def _correction(
    of: tuple[Instance, Prediction | None],
    stretch: Stretch,
    end: End,
    bill: tuple[Billing, HardwareUse],
    source: str,
    behind: int = 1,
) -> UsageRecord:
    """A signed delta: the end put another multiplier on what interim records had billed, or evidence another price.

    No time changes, but where an instance's was freed. It follows, `behind` it by one, the record that brought the end.
    """
    (instance, prediction), (billing, use), freed = of, bill, stretch.freed
    why = end.status if stretch.tier == use.tier else EVIDENCE
    data = _told(instance, prediction, end)
    del data["final"]
    data |= {
        "corrects": {"source": source, "id": stretch.last},
        "reason": why if freed is None else FREED,
        "interval": interval(instance.opened, stretch.began, stretch.until),
        "time": _NO_TIME
        if freed is None
        else {"idle_ns": freed.idle, "active_ns": -freed.idle - freed.teardown, "teardown_ns": freed.teardown},
        "hardware": use,
        "billing": billing,
    }
    return _record(instance, RecordType.CORRECTION, prediction, stretch.began, data, behind)


def late_correction(instance: Instance, ended: Ended, book: Rulebook) -> UsageRecord | None:
    """What another tier changes of a prediction whose last record is written; nothing where that bills no time."""
    prediction, hardware = ended.prediction, billed_hardware(instance, ended.prediction, book)
    rating = rate_ended(instance, ended, (book, hardware))
    if rating.correction is None:
        return None
    run = _of_run(prediction, Moment(prediction.cut_ns, ended.slept_ns))
    use = _use(instance, prediction, hardware, book)
    end = End(prediction.cut_ns, ended.status, final=True, witness=prediction.start)
    correction = _correction((instance, prediction), run, end, (rating.correction, use), book.source, behind=0)
    return replace(correction, sold_ns=rating.resold_ns)


def rerated_correction(
    instance: Instance, prediction: Prediction, card: str, rating: Rating, book: Rulebook
) -> UsageRecord:
    """What another card changes of what an open prediction's records have billed; on what they were billed on."""
    now = replace(prediction, card=card)
    hardware = billed_hardware(instance, now, book)
    if (prediction.tier, prediction.devices) != (hardware.tier, hardware.count):
        # What other evidence changes comes with the next record.
        hardware = dataclasses.replace(hardware, tier=prediction.tier or hardware.tier, count=prediction.devices)
    run = _of_run(prediction, _cut_of(instance))
    end = End(instance.cut.at_ns, Status.PROCESSING, final=False, witness=prediction.start)
    data = _told(instance, prediction, end)
    del data["final"]
    data |= {
        "corrects": {"source": book.source, "id": prediction.last_interim},
        "reason": RERATED,
        "interval": interval(instance.opened, run.began, run.until),
        "time": _NO_TIME,
        "units_to_date": units_before(prediction),
        "attributes": prediction.attributes,
        "hardware": _use(instance, now, hardware, book),
        "billing": rating.correction,
    }
    record = _record(instance, RecordType.CORRECTION, prediction, run.began, data)
    return replace(record, sold_ns=rating.resold_ns if prediction.pool is not None else None)


def take_back(
    instance: Instance, prediction: Prediction, end: End, told: tuple[Late, tuple[UsageRecord, ...]], book: Rulebook
) -> tuple[UsageRecord, ...]:
    """The correction of what was told of a prediction beyond its true end, behind its last records; none of no time.

    No share is known of a part of a stretch: as much is taken back as it can have been. That is exact where it ran
    alone, and favours the payer where it did not.
    """
    (late, records), times = told, prediction.times
    beyond_ns = late.told_ns - max(late.until_ns, prediction.start_ns)
    active_ns, share_ns = min(times.active, beyond_ns), min(times.share, beyond_ns)
    load_ns = min(times.load, beyond_ns - active_ns)  # which came before all that was active
    if not (active_ns or load_ns):
        return ()
    left = replace(times, load=times.load - load_ns, active=times.active - active_ns, share=times.share - share_ns)
    hardware = billed_hardware(instance, prediction, book)
    rating = rate_less(instance, prediction, left, end.status, (book, hardware))
    slept_ns = instance.phases.suspended
    began = Moment(late.told_ns - beyond_ns, slept_ns)
    data = _told(instance, prediction, end)
    del data["final"]
    data |= {
        "corrects": {"source": book.source, "id": records[0].id},
        "reason": late.reason,
        "interval": interval(instance.opened, began, Moment(late.told_ns, slept_ns)),
        "time": {"load_ns": -load_ns, "active_ns": -active_ns, "share_ns": -share_ns},
        "units_to_date": prediction.units_to_date,
        "attributes": prediction.attributes,
        "to_date": {"load_ns": left.load, "active_ns": left.active, "share_ns": left.share},
        "hardware": _use(instance, prediction, hardware, book),
        "billing": rating.billing,
    }
    correction = _record(instance, RecordType.CORRECTION, prediction, began, data, behind=len(records))
    return (replace(correction, sold_ns=rating.sold_ns),)


def freed_correction(
    instance: Instance, piece: Piece, more: Freed, ends: tuple[int, int], book: Rulebook
) -> UsageRecord | None:
    """The correction of an instance's time between two ends that was told as active; None where that bills nothing."""
    hardware = billed_by(instance, piece.card, book)
    if piece.tier not in (None, hardware.tier):
        hardware = dataclasses.replace(
            hardware, tier=piece.tier
        )  # what other evidence changes comes with the next record
    billing = rate_freed(instance, piece, more, (book, hardware))
    if billing is None:
        return None
    began, until = (Moment(at_ns, instance.phases.suspended) for at_ns in ends)
    use = as_published(hardware_use(instance, hardware), instance.opened.options.model, book.card_of(piece.card))
    end = End(until.at_ns, Status.PROCESSING, final=False, witness=instance.start)
    stretch = Stretch(began, until, piece.interim, piece.tier, more)
    return _correction((instance, None), stretch, end, (billing, use), book.source, behind=0)


def _start(start: Witness, start_ns: int, from_ns: int) -> Witness:
    """An interim record begins where the last one was cut: at an exact instant, by definition."""
    return start if from_ns == start_ns else Witness(start.source, 0)


def _began(instance: Instance, prediction: Prediction, times: Times) -> Moment:
    """Where a prediction's record begins; of sleep it knows its own, its instance all."""
    slept_ns = times.suspended - prediction.cut_times.suspended
    return Moment(prediction.cut_ns, instance.phases.suspended - slept_ns)
