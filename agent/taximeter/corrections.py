"""Corrections: signed deltas to what records have told, where the end, the evidence or another card says otherwise.

A record that is written stays as it is. Refuses to know why it turned out so (late, freed, overdue, rerating), and to
change any state.
"""

import dataclasses
from collections.abc import Iterator, Mapping

from taximeter.about import End, Late, cut_of, filed, identity, use_of
from taximeter.billing.rating import Rating
from taximeter.charging import rate_ended, rate_freed, rate_less, rate_piece, units_before
from taximeter.events import Status
from taximeter.instance import Ended, Freed, Instance, Piece, Prediction
from taximeter.intervals import Moment, interval
from taximeter.records import FREED, RERATED, Billing, HardwareUse, RecordType, UsageRecord
from taximeter.rulebook import Rulebook
from taximeter.sold import as_published, billed_by, billed_hardware, hardware_use
from taximeter.values import Value, replace

#: Why a record is corrected: another tier bills than was thought.
EVIDENCE = "evidence"
_NO_TIME: Mapping[str, int] = {"active_ns": 0, "share_ns": 0}


class Stretch(Value):
    """What is corrected: from where to where, the last record of it, and the tier that this was billed at."""

    began: Moment
    until: Moment
    last: str | None
    tier: str | None
    freed: Freed | None = None  #: what of it turned out to be no active time; None: no time changes


def run_correction(
    instance: Instance, prediction: Prediction, end: End, told: tuple[Rating, HardwareUse], source: str
) -> UsageRecord | None:
    """What the end of a prediction changes of what its interim records have billed; behind its last record."""
    rating, use = told
    if rating.correction is None:
        return None
    run = _of_run(prediction, cut_of(instance))
    correction = _correction((instance, prediction), run, end, (rating.correction, use), source)
    return replace(correction, sold_ns=rating.resold_ns)


def online_corrections(
    instance: Instance, end: End, told: tuple[Rating, HardwareUse], book: Rulebook
) -> tuple[UsageRecord, ...]:
    """What the end of an instance changes of what its records have billed, card by card; behind its last record."""
    rating, use = told
    corrections = [_piece_correction(instance, piece, began, end, book) for piece, began in _pieces(instance)]
    if rating.correction is not None:
        corrections.append((_since_cut(instance), rating.correction, use))
    due = [correction for correction in corrections if correction is not None]
    return tuple(
        [
            _correction((instance, None), stretch, end, (billing, on), book.source, behind)
            for behind, (stretch, billing, on) in enumerate(due, 1)
        ]
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
    return Stretch(began, cut_of(instance), instance.cut.interim, instance.cut.tier)


def _of_run(prediction: Prediction, until: Moment) -> Stretch:
    """All that a prediction's records have told."""
    began = Moment(prediction.start_ns, until.slept_ns - prediction.cut_times.suspended)
    return Stretch(began, until, prediction.last_interim, prediction.tier)


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
    data = identity(instance, prediction, end)
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
    return filed(instance, RecordType.CORRECTION, prediction, stretch.began, data, behind)


def late_correction(instance: Instance, ended: Ended, book: Rulebook) -> UsageRecord | None:
    """What another tier changes of a prediction whose last record is written; nothing where that bills no time."""
    prediction, hardware = ended.prediction, billed_hardware(instance, ended.prediction, book)
    rating = rate_ended(instance, ended, (book, hardware))
    if rating.correction is None:
        return None
    run = _of_run(prediction, Moment(prediction.cut_ns, ended.slept_ns))
    use = use_of(instance, prediction, hardware, book)
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
    run = _of_run(prediction, cut_of(instance))
    end = End(instance.cut.at_ns, Status.PROCESSING, final=False, witness=prediction.start)
    data = identity(instance, prediction, end)
    del data["final"]
    data |= {
        "corrects": {"source": book.source, "id": prediction.last_interim},
        "reason": RERATED,
        "interval": interval(instance.opened, run.began, run.until),
        "time": _NO_TIME,
        "units_to_date": units_before(prediction),
        "attributes": prediction.attributes,
        "hardware": use_of(instance, now, hardware, book),
        "billing": rating.correction,
    }
    record = filed(instance, RecordType.CORRECTION, prediction, run.began, data)
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
    data = identity(instance, prediction, end)
    del data["final"]
    data |= {
        "corrects": {"source": book.source, "id": records[0].id},
        "reason": late.reason,
        "interval": interval(instance.opened, began, Moment(late.told_ns, slept_ns)),
        "time": {"load_ns": -load_ns, "active_ns": -active_ns, "share_ns": -share_ns},
        "units_to_date": prediction.units_to_date,
        "attributes": prediction.attributes,
        "to_date": {"load_ns": left.load, "active_ns": left.active, "share_ns": left.share},
        "hardware": use_of(instance, prediction, hardware, book),
        "billing": rating.billing,
    }
    correction = filed(instance, RecordType.CORRECTION, prediction, began, data, behind=len(records))
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
