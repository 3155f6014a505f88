"""Marks, judged: what a worker said, as far as it is believed and allowed.

Owns the rule of belief (contracts, section 3): a worker's own clock counts a little way back, and beyond that only
where it favours the payer. A refusal is counted and changes nothing.
"""

from taximeter import lineage
from taximeter.about import End, Late
from taximeter.events import (
    ActiveMark,
    FinishMark,
    Marked,
    ReadyMark,
    Source,
    StartMark,
    Status,
    StoppingMark,
    StopReason,
    UnitsMark,
)
from taximeter.instance import Instance, Prediction
from taximeter.lifecycle import IllegalInput, Input, Stage
from taximeter.moves import become_ready, finish, join, says_it_stops
from taximeter.predictions import begin, count_units, find, without
from taximeter.records import LATE_FINISH, Witness
from taximeter.spans import settle, settle_late
from taximeter.turn import Turn, arrive, is_late
from taximeter.unread import pass_beside
from taximeter.values import replace

#: A mark that says ready was read by the wrapper, and nothing says how long it had been so.
_SAID = Witness(Source.WRAPPER, None)


def marked(instance: Instance, event: Marked, turn: Turn) -> Instance:
    """The instance after a mark; a one-shot takes only what does not end its own bill."""
    mark = event.mark
    worker = instance.opened.options.worker
    if isinstance(mark, StartMark) and worker:
        return _arrived(_started(instance, event, mark, turn), event, turn)
    if isinstance(mark, FinishMark) and worker:
        return _arrived(_finished(instance, event, mark, turn), event, turn)
    said_ns = _said_ns(instance, event)
    instance = arrive(instance, event.at_ns, turn, held=event.held)
    if isinstance(mark, ReadyMark):
        return become_ready(instance, event.at_ns, _SAID, turn)
    if isinstance(mark, UnitsMark):
        return _kept(instance, count_units(instance, mark.prediction, mark.units, said_ns), turn)
    if isinstance(mark, StoppingMark) and worker:
        return says_it_stops(instance, event.at_ns, mark.reason, turn)
    if isinstance(mark, StoppingMark) and mark.reason is StopReason.DRAIN:
        return instance  # a one-shot's own word of its end is noted, and changes no bill
    if isinstance(mark, ActiveMark) and worker:
        return _activated(instance, event.at_ns, said_ns, turn, mark)
    turn.rejected.append("not_a_worker")
    return instance


def _arrived(instance: Instance, event: Marked, turn: Turn) -> Instance:
    """Go on to when a mark was read, whose word is done: not again, should a cut on the way be left off at."""
    turn.done = (event.at_ns, event.held)
    return arrive(instance, event.at_ns, turn, held=event.held)


def _kept(instance: Instance, outcome: Instance | str, turn: Turn) -> Instance:
    """An outcome that is a word is a refusal."""
    if isinstance(outcome, str):
        turn.rejected.append(outcome)
        return instance
    return outcome


def _said_ns(instance: Instance, event: Marked) -> int:
    """When it was said, in the payer's favour: by its own word, however old.

    Without one it was said before it was read, or, where that was after a silence, before the last sign of life.
    """
    if event.said_ns is not None:
        return min(event.said_ns, event.at_ns)
    return instance.sign_ns if is_late(instance, event.at_ns) else event.at_ns


def _begun_ns(instance: Instance, event: Marked, turn: Turn) -> int:
    """Since when it runs: the sender's word, where it is believed and no line was lost that may have settled more."""
    if not instance.unread:
        return _believed_ns(instance, event, turn)
    return max(event.at_ns, instance.since_ns, instance.cut.at_ns)


def _believed_ns(instance: Instance, event: Marked, turn: Turn) -> int:
    """The sender's word within the belief; an old one counts from its receipt. Never before what is settled or cut."""
    at_ns = event.at_ns
    if event.said_ns is not None and at_ns - event.said_ns <= turn.book.rules_of(instance.rules).belief_ns:
        at_ns = min(event.said_ns, at_ns)
    return max(at_ns, instance.since_ns, instance.cut.at_ns)


def _uncertainty_ns(event: Marked, at_ns: int) -> int | None:
    """How long before its receipt a mark was said; nobody knows where its word of that is none, or is not taken."""
    return event.at_ns - at_ns if event.said_ns == at_ns else None


def _started(instance: Instance, event: Marked, mark: StartMark, turn: Turn) -> Instance:
    if (known := find(instance, mark.prediction)) is not None and known.doubted:
        instance = _ended_before(instance, event, known, turn)
    at_ns = _begun_ns(instance, event, turn)
    prediction = begin(instance, mark, at_ns, _uncertainty_ns(event, at_ns), turn.book)
    if isinstance(prediction, str):
        turn.rejected.append(prediction)
        return instance
    if instance.stage is Stage.PENDING:  # also for what would only load: nothing runs yet that could
        raise IllegalInput(instance.stage, Input.BUSY)
    if mark.parent is not None:
        turn.doubts.extend(lineage.doubts(mark, find(instance, mark.parent)))
    if instance.unread and prediction.active:
        instance = pass_beside(instance, (_believed_ns(instance, event, turn), at_ns), turn, held=event.held)
    instance = settle(arrive(instance, at_ns, turn, held=event.held), at_ns)
    if instance.stage is Stage.BOOT:
        instance = become_ready(instance, at_ns, _SAID, turn)
    return join(instance, prediction)


def _activated(instance: Instance, at_ns: int, said_ns: int, turn: Turn, mark: ActiveMark) -> Instance:
    prediction = find(instance, mark.prediction)
    if prediction is None or prediction.active:
        turn.rejected.append("active_without_load" if prediction else "no_such_prediction")
        return instance
    instance = settle(instance, at_ns)
    loaded = next(open_ for open_ in instance.predictions if open_.id == mark.prediction)
    marked_ns = max(loaded.marked_ns, said_ns)
    return join(without(instance, loaded.id), replace(loaded, active=True, marked_ns=marked_ns, doubted=False))


def _finished(instance: Instance, event: Marked, mark: FinishMark, turn: Turn) -> Instance:
    if find(instance, mark.prediction) is None:
        instance = _revealed(instance, event, turn)
        turn.rejected.append("no_such_prediction")
        return instance
    said_ns = _said_ns(instance, event)
    at_ns = max(said_ns, instance.since_ns, instance.cut.at_ns)
    instance = arrive(instance, at_ns, turn, held=event.held)
    instance = settle(instance, at_ns) if said_ns == at_ns else settle_late(instance, at_ns, said_ns)
    if mark.units:
        instance = _kept(instance, count_units(instance, mark.prediction, mark.units, said_ns), turn)
    prediction = next(open_ for open_ in instance.predictions if open_.id == mark.prediction)
    late = Late(said_ns, at_ns, LATE_FINISH) if said_ns < at_ns else None
    witness = Witness(Source.MARK, _uncertainty_ns(event, at_ns))
    end = End(at_ns, mark.status, final=True, witness=witness, late=late, said=True)
    return finish(instance, prediction, end, turn)


def _ended_before(instance: Instance, event: Marked, doubted: Prediction, turn: Turn) -> Instance:
    """Another one of that id starts: so its end was in the line that was lost."""
    at_ns = max(event.at_ns, instance.since_ns, instance.cut.at_ns)
    instance = settle(arrive(instance, at_ns, turn, held=event.held), at_ns)
    found = next(open_ for open_ in instance.predictions if open_.id == doubted.id)
    witness = Witness(Source.MARK, at_ns - found.marked_ns)
    return finish(instance, found, End(at_ns, Status.ABORTED, final=True, witness=witness), turn)


def _revealed(instance: Instance, event: Marked, turn: Turn) -> Instance:
    """One ends of whose start nobody read: where a line was lost it was in that, and is reckoned with no more."""
    if not instance.hidden:
        return instance
    instance = settle(arrive(instance, event.at_ns, turn, held=event.held), event.at_ns)
    return replace(instance, hidden=instance.hidden - 1)
