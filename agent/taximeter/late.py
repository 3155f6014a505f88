"""Evidence that comes late: a worker's predictions that ended before it was known on which devices they ran.

Owns how long they are remembered, and their corrections. What is open is corrected at its next record, by what this
last record was billed at (booking). Refuses to know what evidence is.
"""

from taximeter.booking import End, late_correction, record_id
from taximeter.hardware.evidence import UNUSED_NS
from taximeter.instance import Ended, Instance, Prediction
from taximeter.rulebook import Rulebook
from taximeter.sold import billed_hardware
from taximeter.turn import Turn

#: A prediction is remembered for so long, until its instance was first seen and for as long from then on: by then an
#: unused device is settled, and the look that says so was taken.
REMEMBERED_NS = 2 * UNUSED_NS
#: And so many of them, at most: all of them are written with every commit.
MOST_REMEMBERED = 64


def remember(instance: Instance, prediction: Prediction, end: End, book: Rulebook) -> Instance:
    """Keep a prediction that has ended, where another tier may turn out to bill it."""
    declared = instance.hardware
    if declared is None or (declared.settled and not declared.devices):
        return instance
    seen = instance.observed
    if seen is not None and seen.hardware is not None and end.at_ns - seen.since_ns > REMEMBERED_NS:
        return instance._replace(ended=())
    last = prediction._replace(
        cut_ns=end.at_ns,
        cut_times=prediction.times,
        tier=billed_hardware(instance, prediction, book).tier,
        last_interim=record_id(instance.opened.instance, instance.records),
    )
    fresh = [ended for ended in instance.ended if ended.prediction.cut_ns >= end.at_ns - REMEMBERED_NS]
    return instance._replace(ended=(*fresh, Ended(last, end.status))[-MOST_REMEMBERED:])


def correct(instance: Instance, turn: Turn) -> Instance:
    """Correct what has ended and, by what is known now, costs something else."""
    if not instance.ended:
        return instance
    kept: list[Ended] = []
    for ended in instance.ended:
        tier = billed_hardware(instance, ended.prediction, turn.book).tier
        if tier != ended.prediction.tier:
            record = late_correction(instance, ended, turn.book)
            if record is not None:
                turn.records.append(record)
                instance = instance._replace(records=instance.records + 1)
        kept.append(ended._replace(prediction=ended.prediction._replace(tier=tier)))
    return instance._replace(ended=tuple(kept))
