"""Predictions end with the process that started them, where that is not the command itself.

Owns what an end that was seen, one that nobody saw, and the command's own end do to what a child had begun. Refuses to
know how processes are watched.
"""

from collections.abc import Sequence

from taximeter.about import End, Late
from taximeter.events import OwnerEnded, OwnersHeld, Source, Status, StopReason
from taximeter.instance import Instance, Prediction
from taximeter.moves import finish
from taximeter.records import OWNER_ENDED, OWNER_UNSEEN, Witness
from taximeter.spans import settle_late
from taximeter.turn import KERNEL_NS, PIDFD_NS, Turn, arrive, take_room
from taximeter.values import replace

#: To settle the times of so many predictions takes as long as to end one.
_SETTLED = 64


def owner_ended(instance: Instance, event: OwnerEnded, turn: Turn) -> Instance:
    """What the process had begun is over: where it was seen to end, else at the last word on each."""
    owned = [open_ for open_ in instance.predictions if open_.owner == event.pid and open_.start_ns <= event.until_ns]
    if not owned:
        return instance
    status = _status(instance, event.ended_ns)
    if event.ended_ns is None:
        return _end_unseen(instance, owned, instance.sign_ns, status, turn)
    at_ns = max(event.ended_ns, instance.since_ns, instance.cut.at_ns)
    # Whoever goes on without a wrapper is in the hands of the agent that tells this: no silence of its own is unknown.
    instance = settle_late(arrive(instance, at_ns, turn, held=instance.adopted), at_ns, event.ended_ns)
    within_ns = KERNEL_NS if event.source is Source.KERNEL else PIDFD_NS
    late = Late(event.ended_ns, at_ns, OWNER_ENDED) if event.ended_ns < at_ns else None
    end = End(at_ns, status, True, Witness(event.source, within_ns + at_ns - event.ended_ns), late)
    for prediction in owned:
        take_room(instance, turn)
        instance = _end(instance, prediction.id, end, turn)
    return instance


def _status(instance: Instance, ended_ns: int | None) -> Status:
    """What a stop leaves undone ends as at the command's own end; a crash before it was the worker's own."""
    if instance.stop is None or (ended_ns is not None and ended_ns < instance.stop_ns):
        return Status.FAILED
    return Status.CANCELED if instance.stop is StopReason.CANCELED else Status.ABORTED


def owners_held(instance: Instance, event: OwnersHeld, _: Turn) -> Instance:
    """Who of the owners is known to live to the end."""
    return replace(instance, held=event.pids)


def end_unheld(instance: Instance, at_ns: int, status: Status, turn: Turn) -> Instance:
    """The command ends at `at_ns`: of a process that nobody held, nobody knows whether it lived until then."""
    unheld = _unheld(instance)
    return _end_unseen(instance, unheld, at_ns, status, turn) if unheld else instance


def last_word_ns(instance: Instance) -> int:
    """The last word on any of those: times are settled to it, so the command's end is told to be no earlier."""
    return max((open_.marked_ns for open_ in _unheld(instance)), default=0)


def _unheld(instance: Instance) -> list[Prediction]:
    return [open_ for open_ in instance.predictions if open_.owner is not None and open_.owner not in instance.held]


def _end_unseen(instance: Instance, owned: Sequence[Prediction], until_ns: int, status: Status, turn: Turn) -> Instance:
    """Each is billed to the last word on it; what is left until `until_ns` is unknown."""
    for prediction in sorted(owned, key=lambda open_: open_.marked_ns):
        take_room(instance, turn, 1 + len(instance.predictions) // _SETTLED)
        last_ns = prediction.marked_ns
        told_ns = max(last_ns, instance.since_ns, instance.cut.at_ns)
        instance = settle_late(instance, told_ns, last_ns)
        late = Late(last_ns, told_ns, OWNER_UNSEEN) if last_ns < told_ns else None
        end_ns = max(told_ns, until_ns)
        end = End(end_ns, status, True, Witness(Source.MARK, end_ns - last_ns), late)
        instance = _end(instance, prediction.id, end, turn, unknown_ns=end_ns - told_ns)
    return instance


def _end(instance: Instance, name: str, end: End, turn: Turn, unknown_ns: int = 0) -> Instance:
    prediction = next(open_ for open_ in instance.predictions if open_.id == name)
    times = prediction.times
    ended = replace(prediction, times=replace(times, unknown=times.unknown + unknown_ns))
    return finish(instance, ended, end, turn)
