"""What a line that nobody can read may have said, and what that leaves certain.

It may have been the end of any prediction, the start of one that is active beside the others, or the word that the
platform stops it all. Until something shows which, each of them is reckoned with, so that nobody pays more than
without the damage: what may have ended is billed by its own word alone, and who may be there has a part of the active
time, which is unknown. Refuses to know how a line is read, and which.
"""

from decimal import Decimal

from taximeter.about import End, Late
from taximeter.billing.classes import ONLINE
from taximeter.charging import rate_prediction
from taximeter.events import Status, StopReason, Unread
from taximeter.instance import Instance, Prediction
from taximeter.lifecycle import Stage
from taximeter.records import LINE_UNREAD
from taximeter.rulebook import Rulebook
from taximeter.sold import billed_hardware
from taximeter.spans import settle
from taximeter.turn import Paused, Turn, arrive
from taximeter.values import replace


def unread(instance: Instance, _: Unread, turn: Turn) -> Instance:
    """The instance behind such a line, whose doubts begin where a start in it could have been believed back to.

    What is sold online is so with any number of predictions on it.
    """
    instance = replace(instance, unread=True)
    if instance.stage is Stage.PENDING or not instance.opened.options.worker:
        return instance
    earliest_ns = instance.sign_ns - turn.book.rules_of(instance.rules).belief_ns
    instance = settle(instance, max(earliest_ns, instance.since_ns, instance.cut.at_ns))
    doubted = tuple([replace(open_, doubted=True) for open_ in instance.predictions])
    return replace(instance, predictions=doubted, hidden=instance.hidden + (instance.service_class not in ONLINE))


def pass_beside(instance: Instance, stretch: tuple[int, int], turn: Turn, *, held: bool) -> Instance:
    """Go on to where one begins that was there before, by its own word: the others shared with it since then.

    Its own bill begins at the receipt of its start all the same, since the lost line may have settled all before that.
    """
    since_ns, until_ns = stretch
    if since_ns >= until_ns or instance.service_class in ONLINE:
        return instance
    instance = settle(arrive(instance, since_ns, turn, held=held), since_ns)
    try:
        instance = settle(arrive(_beside(instance, 1), until_ns, turn, held=held), until_ns)
    except Paused as paused:
        raise Paused(_beside(paused.instance, -1), paused.cut) from paused
    return _beside(instance, -1)


def _beside(instance: Instance, more: int) -> Instance:
    return replace(instance, hidden=instance.hidden + more)


def as_certain(instance: Instance, prediction: Prediction, end: End, book: Rulebook) -> End:
    """How a prediction that ends by no word of its own is billed: by the least that it can have come to.

    A worker's may have been stopped by the platform, and so may be a one-shot of which that is what a SIGTERM means, or
    whose own wrapper does not say how it ended.
    """
    options = instance.opened.options
    if options.worker or options.on_term is not StopReason.CANCELED or not end.told:
        status = Status.ABORTED
    else:
        status = min((end.status, Status.CANCELED), key=lambda how: _cost(instance, prediction, how, book))
    if not prediction.doubted:
        return replace(end, status=status)
    told_ns = end.late.told_ns if end.late else end.at_ns
    if instance.lost and end.late is None:
        told_ns = max(instance.sign_ns, instance.cut.at_ns)
    until_ns = min(prediction.marked_ns, end.late.until_ns if end.late else told_ns)
    late = Late(until_ns, told_ns, LINE_UNREAD) if until_ns < told_ns else None
    return replace(end, status=status, late=late)


def _cost(instance: Instance, prediction: Prediction, status: Status, book: Rulebook) -> Decimal:
    hardware = billed_hardware(instance, prediction, book)
    rating = rate_prediction(instance, prediction, prediction.times, status, (book, hardware))
    bills = [bill for bill in (rating.billing, rating.correction) if bill is not None]
    return sum((Decimal(bill.amount or 0) for bill in bills), Decimal(0))
