"""Evidence that comes late: a worker's predictions that ended before it was known on which devices they ran.

Owns for how long that may still change what they cost, and their corrections. They are kept nowhere but in their
records: whoever calls reads those again, in slices, and each slice's corrections are booked with how far that got. What
is open is corrected at its next record, by what this last record was billed at (booking). Refuses to know what
evidence is, and to read anything.
"""

from collections.abc import Iterable

from taximeter.billing.classes import ONLINE
from taximeter.corrections import late_correction
from taximeter.events import Observed
from taximeter.hardware.evidence import UNUSED_NS
from taximeter.instance import Ended, Instance, Review, Reviewed, Verdict
from taximeter.recall import number_of
from taximeter.records import UsageRecord
from taximeter.rulebook import Rulebook
from taximeter.sold import billed_hardware, tiers
from taximeter.values import replace

#: It is known where an instance runs once it has been seen for so long: by then an unused device is settled, and the
#: look that says so was taken. What had ended by then keeps its price.
SETTLED_NS = 2 * UNUSED_NS


def judge(instance: Instance, verdict: Verdict, at_ns: int, book: Rulebook) -> Instance:
    """The instance by another verdict; where that changes what has ended on it, its records are to be reviewed."""
    before = Verdict(instance.evidence, instance.observed)
    if _is_settled(instance.observed, at_ns):
        instance = replace(instance, settled=instance.records)
    return _with_review(_by(instance, verdict), before, book)


def review(
    instance: Instance, ended: Iterable[tuple[int, Ended]], at: int, book: Rulebook
) -> tuple[Instance, list[UsageRecord]]:
    """Correct what costs something else by the verdict of the review, of what its records up to `at` say has ended.

    With each goes the number of its record.
    """
    work, before = instance.review, instance.reviewed
    if work is None:
        return instance, []
    then, reviewed = (None, 0) if before is None else (_by(instance, before.by), before.until)
    records: list[UsageRecord] = []
    for number, last in ended:
        one = last if then is None or number >= reviewed else _billed_as(then, last, book)
        record = late_correction(_by(instance, work.by), one, book)
        if record is not None:
            records.append(record)
            instance = replace(instance, records=instance.records + 1)
    if at < work.until:
        return replace(instance, review=replace(work, at=at)), records
    done = replace(instance, review=None, reviewed=Reviewed(work.by, work.until))
    if work.again and done.settled < done.records:
        return replace(done, review=_review_of(done)), records
    return _with_review(done, work.by, book), records


def take_over(instance: Instance) -> Instance:
    """The state that an older agent had kept: it remembered some of what had ended, and had corrected all of that."""
    if not instance.ended:
        return instance
    first = min(number_of(one.prediction.last_interim or "0") for one in instance.ended)
    reviewed = Reviewed(Verdict(instance.evidence, instance.observed), instance.records)
    return replace(instance, ended=(), settled=first, reviewed=reviewed)


def _is_settled(observed: Observed | None, at_ns: int) -> bool:
    return observed is not None and observed.hardware is not None and at_ns - observed.since_ns > SETTLED_NS


def _with_review(instance: Instance, before: Verdict, book: Rulebook) -> Instance:
    """Begin a review where another tier bills than did by the verdict `before`; one that goes on is followed by it."""
    options = instance.opened.options
    if not options.worker or instance.service_class in ONLINE or instance.settled >= instance.records:
        return instance
    if tiers(instance, book) == tiers(_by(instance, before), book):
        return instance
    work = instance.review
    return replace(instance, review=_review_of(instance) if work is None else replace(work, again=True))


def _review_of(instance: Instance) -> Review:
    return Review(Verdict(instance.evidence, instance.observed), instance.settled, instance.records)


def _by(instance: Instance, verdict: Verdict) -> Instance:
    return replace(instance, evidence=verdict.evidence, observed=verdict.observed)


def _billed_as(instance: Instance, ended: Ended, book: Rulebook) -> Ended:
    billed = billed_hardware(instance, ended.prediction, book)
    return replace(ended, prediction=replace(ended.prediction, tier=billed.tier, devices=billed.count))
