"""What can be done to an instance: made ready, given a prediction, asked to stop, ended. Each goes through the table.

Owns the order of records at an end: predictions first, the instance last. Refuses to know which fact asked for it.
"""

from taximeter.about import End
from taximeter.booking import instance_records, prediction_records
from taximeter.corrections import take_back
from taximeter.events import Source, Status, StopReason
from taximeter.freed import take_active_back
from taximeter.hardware.evidence import weigh
from taximeter.instance import Cut, Instance, Prediction, Verdict
from taximeter.late import judge
from taximeter.lifecycle import READIED, Input, Stage, advance
from taximeter.predictions import begin_one_shot
from taximeter.records import Exit, Witness
from taximeter.spans import settle
from taximeter.turn import PIDFD_NS, PausedEnd, Turn
from taximeter.unread import as_certain
from taximeter.values import replace


def become_ready(instance: Instance, at_ns: int, witness: Witness, turn: Turn) -> Instance:
    """The instance can take work from `at_ns` on, as `witness` saw; a one-shot's prediction begins here."""
    first = instance.stage is Stage.BOOT
    stage = advance(instance.stage, Input.READY)
    after = replace(settle(instance, at_ns), stage=stage, readied=instance.readied or stage in READIED)
    if not first or instance.opened.options.worker:
        return after
    return join(after, begin_one_shot(after, at_ns, witness, turn.book))


def join(instance: Instance, prediction: Prediction) -> Instance:
    """The instance with one prediction more; its times are settled to where that one begins.

    Whatever works was ready, also where it had been asked to stop before anybody said so.
    """
    if not prediction.active:
        return replace(instance, predictions=(*instance.predictions, prediction))
    crowd = instance.crowd + 1
    stage = advance(instance.stage, Input.BUSY) if crowd == 1 else instance.stage
    readied = instance.readied or stage in READIED
    predictions = (*instance.predictions, prediction)
    return replace(instance, stage=stage, predictions=predictions, crowd=crowd, readied=readied)


def stop(instance: Instance, at_ns: int, reason: StopReason, turn: Turn) -> Instance:
    """Asked to stop: predictions go on where it drains, else they end here, and what follows is teardown.

    Raises PausedEnd where there is no room for all of them.
    A one-shot is active until it exits, whoever asked it to stop: the stop decides how it ended, not what it ran.
    """
    if instance.stop is not None:
        return instance
    stage = advance(instance.stage, Input.STOPPING)
    instance = replace(settle(instance, at_ns), stop=reason, stop_ns=at_ns, stage=stage)
    if reason is StopReason.DRAIN or not instance.opened.options.worker:
        return instance
    status = Status.CANCELED if reason is StopReason.CANCELED else Status.ABORTED
    return end_rest(instance, End(at_ns, status, final=True, witness=Witness(Source.WRAPPER, PIDFD_NS)), None, turn)


def says_it_stops(instance: Instance, at_ns: int, reason: StopReason, turn: Turn) -> Instance:
    """A worker's own word that it stops.

    Where `run` fixed who pays, that is the customer's code: it may end its predictions, but not say that the platform
    did, nor that whatever it leaves open is the platform's doing; else it would run for free.
    """
    if instance.opened.options.account is None or reason is StopReason.CANCELED:
        return stop(instance, at_ns, reason, turn)
    if reason is StopReason.ABORTED:
        turn.rejected.append("not_yours")
        return instance
    if instance.stop is not None:
        return instance
    return replace(settle(instance, at_ns), stage=advance(instance.stage, Input.STOPPING))


def finish(instance: Instance, prediction: Prediction, end: End, turn: Turn, *, closing: bool = False) -> Instance:
    """Write the final record of a prediction whose times are settled to `end`, and let it go."""
    if instance.unread and not end.said:
        end = as_certain(instance, prediction, end, turn.book)
    records = prediction_records(instance, prediction, prediction.times, end, turn.book)
    if end.late is not None:
        records += take_back(instance, prediction, end, (end.late, records), turn.book)
    turn.records.extend(records)
    others = instance.predictions[1:]  # where all end together they go in their order
    if instance.predictions[0].id != prediction.id:
        others = tuple([other for other in instance.predictions if other.id != prediction.id])
    crowd = instance.crowd - prediction.active
    freed = prediction.active and not closing and not crowd
    after = replace(
        instance,
        predictions=others,
        crowd=crowd,
        records=instance.records + len(records),
        stage=advance(instance.stage, Input.FREE) if freed else instance.stage,
    )
    return take_active_back(after, turn, is_late=end.late is not None) if freed and after.lag_ns else after


def close(instance: Instance, end: End, left: Exit, turn: Turn) -> Instance:
    """Final records of whatever is open, then of the instance. Raises PausedEnd where there is no room for all.

    A worker that went well, and left something open, has failed that, and has itself succeeded.
    """
    at_ns = end.at_ns
    if instance.stage is Stage.PENDING and not instance.lost:  # it could not be started
        instance = replace(instance, start_ns=at_ns, since_ns=at_ns, cut=Cut(at_ns))
    if instance.observed is not None:
        evidence = weigh(instance.hardware, instance.observed, (instance.start_ns, at_ns))
        instance = judge(instance, Verdict(evidence, instance.observed), at_ns, turn.book)
    if not instance.opened.options.worker and not instance.readied:
        # It never became ready: the prediction is told all the same, with no time and no price.
        untimed = replace(begin_one_shot(instance, at_ns, instance.start, turn.book), active=False)
        instance = replace(instance, predictions=(*instance.predictions, untimed))
    return end_rest(instance, end, left, turn)


def end_rest(instance: Instance, end: End, left: Exit | None, turn: Turn) -> Instance:
    """The same of what is still open; of the instance, too, if its command has ended."""
    for prediction in instance.predictions:
        if turn.room is not None and turn.room <= 0:
            raise PausedEnd(instance, end, left)
        instance = finish(instance, prediction, end, turn, closing=left is not None)
        if turn.room is not None:
            turn.room -= 1
    if left is None:
        return instance
    if left.code == 0 and end.status is Status.FAILED:
        end = replace(end, status=Status.SUCCEEDED)
    records = instance_records(instance, instance.phases, end, left, turn.book)
    turn.records.extend(records)
    stage = advance(instance.stage, Input.ENDED)
    return replace(instance, stage=stage, next_cut_ns=0, records=instance.records + len(records))
