"""All instances: facts in, usage records out. The one place where an event changes an instance.

Pure: time arrives in events, rules and prices in the rulebook; the same facts yield the same records, however often
and in however many pieces they are replayed. Refuses to know where facts come from and where records go.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from taximeter import wire
from taximeter.booking import End, instance_record, prediction_records, utc_ns
from taximeter.events import (
    ActiveMark,
    BadMark,
    BecameReady,
    Clock,
    Event,
    Exited,
    FinishMark,
    Heartbeat,
    Lost,
    Marked,
    Opened,
    Placed,
    ReadyMark,
    ReadyTimedOut,
    Signaled,
    Source,
    Spawned,
    StartMark,
    Status,
    Stopping,
    StoppingMark,
    StopReason,
    UnitsMark,
)
from taximeter.instance import Cut, Instance, Prediction
from taximeter.lifecycle import READIED, IllegalInput, Input, Stage, advance
from taximeter.predictions import begin, begin_one_shot, count_units, ended_status, find, without
from taximeter.records import Exit, UsageRecord, Witness
from taximeter.rulebook import Rulebook
from taximeter.spans import phases_at, recount, settle, suspend, times_at

#: Past this silence an end was seen late: what lies behind the last sign of life is unknown (contracts, section 3).
LATE_NS = 2 * wire.HEARTBEAT_NS
#: BOOTTIME and MONOTONIC are read one after the other; only a difference that grows by more than this is suspension.
SUSPEND_NOISE_NS = 10_000_000
#: A pidfd wake-up comes up to this late, at p99 with every core loaded (promises, P3).
WRAPPER_END_NS = 10_000_000

_SIGTERM = 15


@dataclass(frozen=True, slots=True)
class Step:
    """What an event led to: the instance after it, its records, what was refused."""

    instance: Instance
    records: tuple[UsageRecord, ...] = ()
    rejected: tuple[str, ...] = ()  #: bounded words for the metric


def open_instance(opened: Opened, book: Rulebook) -> Instance:
    """The state that an instance's first fact begins."""
    card = book.card_at(utc_ns(opened, opened.at_ns))
    return Instance(
        opened=opened,
        rules=book.current,
        card=card.hash if card else None,
        start_ns=opened.at_ns,
        since_ns=opened.at_ns,
        sign_ns=opened.at_ns,
        offset_ns=opened.clock.boottime - opened.clock.monotonic,
        cut=Cut(opened.at_ns),
    )


def fold(instance: Instance, event: Event, book: Rulebook) -> Step:
    """The instance after `event`, with the records that it led to; what is illegal changes nothing and is named."""
    if instance.stage is Stage.CLOSED:
        return Step(instance, (), ("after_the_end",))
    if isinstance(event, Placed):
        return Step(replace(instance, hardware=event.hardware))
    if isinstance(event, Opened):
        return Step(instance)  # a new segment repeats it
    if event.at_ns is not None and event.at_ns < instance.sign_ns:
        event = replace(event, at_ns=instance.sign_ns)
    out = _Out()
    try:
        after = _HANDLERS[type(event)](instance, event, book, out)
    except IllegalInput as illegal:
        return Step(instance, (), (illegal.reason,))
    return Step(after, tuple(out.records), tuple(out.rejected))


class _Out:
    """What one fold gathers on its way."""

    __slots__ = ("records", "rejected")

    def __init__(self) -> None:
        self.records: list[UsageRecord] = []
        self.rejected: list[str] = []


# --- Time passes -----------------------------------------------------------------------------------------------------


def _arrive(instance: Instance, at_ns: int, book: Rulebook, out: _Out) -> Instance:
    """Make the interim cuts that lie behind `at_ns`, and note a sign of life."""
    while instance.next_cut_ns and instance.next_cut_ns <= at_ns:
        instance = _cut(instance, instance.next_cut_ns, book, out)
    return replace(instance, sign_ns=at_ns) if at_ns > instance.sign_ns else instance


def _cut(instance: Instance, at_ns: int, book: Rulebook, out: _Out) -> Instance:
    """One interim record for every open prediction and for the instance; nothing is settled."""
    end = End(at_ns, Status.PROCESSING, final=False, witness=Witness(instance.start.source, 0))
    kept: list[Prediction] = []
    for prediction, times in zip(instance.predictions, times_at(instance, at_ns), strict=True):
        records = prediction_records(instance, prediction, times, end, book)
        out.records.extend(records)
        instance = replace(instance, records=instance.records + len(records))
        kept.append(replace(prediction, cut_ns=at_ns, cut_times=times, units={}, last_interim=records[0].id))
    phases = phases_at(instance, at_ns)
    out.records.append(instance_record(instance, phases, end, None, book))
    return replace(
        instance,
        records=instance.records + 1,
        predictions=tuple(kept),
        cut=Cut(at_ns, phases, instance.readied, instance.usage.cpu_ns or instance.cut.cpu_ns),
        next_cut_ns=at_ns + book.rules_of(instance.rules).interim_ns,
    )


def _look_at_clock(instance: Instance, clock: Clock) -> Instance:
    """Growth of BOOTTIME - MONOTONIC is time that the machine slept."""
    offset_ns = clock.boottime - clock.monotonic
    grown_ns = offset_ns - instance.offset_ns
    if grown_ns <= SUSPEND_NOISE_NS:
        return instance
    return replace(suspend(instance, grown_ns), offset_ns=offset_ns)


# --- The instance ----------------------------------------------------------------------------------------------------


def _spawned(instance: Instance, event: Spawned, book: Rulebook, _: _Out) -> Instance:
    """The bill runs from spawn-returned: exec lay before it, by `uncertainty_ns` at most."""
    return replace(
        instance,
        stage=advance(instance.stage, Input.SPAWNED),
        start_ns=event.at_ns,
        since_ns=event.at_ns,
        sign_ns=event.at_ns,
        start=Witness(Source.WRAPPER, event.at_ns - event.before_ns),
        cut=Cut(event.at_ns),
        next_cut_ns=event.at_ns + book.rules_of(instance.rules).interim_ns,
    )


def _ready(instance: Instance, event: BecameReady, book: Rulebook, out: _Out) -> Instance:
    return _become_ready(_arrive(instance, event.at_ns, book, out), event.at_ns, event.by, book)


def _become_ready(instance: Instance, at_ns: int, by: str, book: Rulebook) -> Instance:
    first = instance.stage is Stage.BOOT
    after = replace(settle(instance, at_ns), stage=advance(instance.stage, Input.READY))
    after = replace(after, readied=after.readied or after.stage in READIED)
    if not first or instance.opened.options.worker:
        return after
    witness = instance.start if by == "exec" else Witness(Source.WRAPPER, None)
    return _join(after, begin_one_shot(after, at_ns, witness, book))


def _noted(instance: Instance, event: ReadyTimedOut, book: Rulebook, out: _Out) -> Instance:
    """A ready-timeout that passes is noted and stops nothing."""
    return _arrive(instance, event.at_ns, book, out)


def _heartbeat(instance: Instance, event: Heartbeat, book: Rulebook, out: _Out) -> Instance:
    instance = _look_at_clock(_arrive(instance, event.at_ns, book, out), event.clock)
    return replace(instance, usage=event.usage) if event.usage.cpu_ns is not None else instance


def _signaled(instance: Instance, event: Signaled, book: Rulebook, out: _Out) -> Instance:
    instance = _arrive(instance, event.at_ns, book, out)
    if event.by_kernel:
        return replace(instance, interrupted=event.signal)
    if event.signal == _SIGTERM and event.outside:
        return _stop(instance, event.at_ns, instance.opened.options.on_term, book, out)
    return instance


def _stopping(instance: Instance, event: Stopping, book: Rulebook, out: _Out) -> Instance:
    return _stop(_arrive(instance, event.at_ns, book, out), event.at_ns, event.reason, book, out)


def _stop(instance: Instance, at_ns: int, reason: StopReason, book: Rulebook, out: _Out) -> Instance:
    """Asked to stop: predictions go on where it drains, else they end here, and what follows is teardown."""
    if instance.stop is not None:
        return instance
    stage = advance(instance.stage, Input.STOPPING)
    instance = replace(settle(instance, at_ns), stop=reason, stage=stage)
    if reason is StopReason.DRAIN:
        return instance
    status = Status.CANCELED if reason is StopReason.CANCELED else Status.ABORTED
    end = End(at_ns, status, final=True, witness=Witness(Source.WRAPPER, 0))
    for prediction in instance.predictions:
        instance = _finish(instance, prediction, end, book, out)
    return instance


def _exited(instance: Instance, event: Exited, book: Rulebook, out: _Out) -> Instance:
    at_ns = max(event.at_ns, instance.sign_ns)
    instance = _pass_unseen(instance, at_ns, book, out)
    if event.clock is not None:
        instance = _look_at_clock(instance, event.clock)
    if event.usage.cpu_ns is not None or event.usage.rss_peak_bytes is not None:
        instance = replace(instance, usage=event.usage)
    witness = Witness(event.source, WRAPPER_END_NS if not instance.lost else at_ns - instance.sign_ns)
    end = End(at_ns, ended_status(instance, event.code, event.signal), final=True, witness=witness)
    return _close(instance, end, Exit(event.code, event.signal, None, _exit_reason(event), None), book, out)


def _lost(instance: Instance, event: Lost, book: Rulebook, out: _Out) -> Instance:
    """Nobody saw the end: the bill ends with the last sign of life, what may have followed is unknown."""
    sign_ns = instance.sign_ns
    at_ns = sign_ns if event.at_ns is None else max(event.at_ns, sign_ns)
    instance = _pass_unseen(instance, at_ns, book, out, late_ns=0)
    witness = Witness(Source.HEARTBEAT, None if event.at_ns is None else at_ns - sign_ns)
    status = Status.ABORTED if event.at_ns is None else Status.FAILED
    if instance.stop is not None and instance.stop is not StopReason.DRAIN:
        status = Status(instance.stop.value)
    end = End(at_ns, status, final=True, witness=witness)
    return _close(instance, end, Exit(None, None, None, event.reason, None), book, out)


def _pass_unseen(instance: Instance, at_ns: int, book: Rulebook, out: _Out, late_ns: int = LATE_NS) -> Instance:
    """Go on to an end at `at_ns`; after a silence of more than `late_ns` all behind the last sign is unknown."""
    sign_ns = instance.sign_ns
    if at_ns - sign_ns > late_ns and instance.stage is not Stage.PENDING:
        instance = replace(settle(instance, sign_ns), lost=True)
    instance = _arrive(instance, at_ns, book, out)
    return replace(settle(instance, at_ns), sign_ns=sign_ns)


def _close(instance: Instance, end: End, left: Exit, book: Rulebook, out: _Out) -> Instance:
    """Final records of whatever is open, then of the instance."""
    at_ns = end.at_ns
    if instance.stage is Stage.PENDING:
        instance = replace(instance, start_ns=at_ns, since_ns=at_ns, cut=Cut(at_ns))
    if not instance.opened.options.worker and not instance.readied:
        # It never became ready: the prediction is told all the same, with no time and no price.
        untimed = replace(begin_one_shot(instance, at_ns, instance.start, book), active=False)
        instance = replace(instance, predictions=(*instance.predictions, untimed))
    for prediction in instance.predictions:
        instance = _finish(instance, prediction, end, book, out, closing=True)
    closed = replace(instance, stage=advance(instance.stage, Input.ENDED), next_cut_ns=0)
    out.records.append(instance_record(closed, closed.phases, end, left, book))
    return replace(closed, records=closed.records + 1)


def _exit_reason(event: Exited) -> str:
    if event.error is not None:
        return "not_started"
    return "exited" if event.signal is None else "signaled"


# --- Predictions -----------------------------------------------------------------------------------------------------


def _marked(instance: Instance, event: Marked, book: Rulebook, out: _Out) -> Instance:
    mark = event.mark
    worker = instance.opened.options.worker
    if isinstance(mark, StartMark) and worker:
        return _arrive(_started(instance, event, mark, book, out), event.at_ns, book, out)
    if isinstance(mark, FinishMark) and worker:
        return _arrive(_finished(instance, event, mark, book, out), event.at_ns, book, out)
    instance = _arrive(instance, event.at_ns, book, out)
    if isinstance(mark, ReadyMark):
        return _become_ready(instance, event.at_ns, "mark", book)
    if isinstance(mark, UnitsMark):
        return _kept(instance, count_units(instance, mark.prediction, mark.units), out)
    if isinstance(mark, StoppingMark) and (worker or mark.reason is StopReason.DRAIN):
        return _stop(instance, event.at_ns, mark.reason, book, out)
    if isinstance(mark, ActiveMark) and worker:
        return _activated(instance, event.at_ns, mark, out)
    out.rejected.append("not_a_worker")
    return instance


def _kept(instance: Instance, outcome: Instance | str, out: _Out) -> Instance:
    """An outcome that is a word is a refusal."""
    if isinstance(outcome, str):
        out.rejected.append(outcome)
        return instance
    return outcome


def _believed_ns(instance: Instance, event: Marked, book: Rulebook) -> int:
    """When it was: the sender's word within the belief, and an old `finish` too, for that favours the payer.

    An end without a word of its own, read after a silence, bills to the last sign of life. Never before what is
    already settled or cut.
    """
    ends = isinstance(event.mark, FinishMark)
    if event.said_ns is None:
        late = ends and event.at_ns - instance.sign_ns > LATE_NS
        at_ns = instance.sign_ns if late else event.at_ns
    elif ends or event.at_ns - event.said_ns <= book.rules_of(instance.rules).belief_ns:
        at_ns = min(event.said_ns, event.at_ns)
    else:
        at_ns = event.at_ns
    return max(at_ns, instance.since_ns, instance.cut.at_ns)


def _started(instance: Instance, event: Marked, mark: StartMark, book: Rulebook, out: _Out) -> Instance:
    at_ns = _believed_ns(instance, event, book)
    prediction = begin(instance, mark, at_ns, event.at_ns - at_ns, book)
    if isinstance(prediction, str):
        out.rejected.append(prediction)
        return instance
    instance = settle(_arrive(instance, at_ns, book, out), at_ns)
    if instance.stage is Stage.BOOT:
        instance = _become_ready(instance, at_ns, "mark", book)
    return _join(instance, prediction)


def _join(instance: Instance, prediction: Prediction) -> Instance:
    first = prediction.active and not any(other.active for other in instance.predictions)
    stage = advance(instance.stage, Input.BUSY) if first else instance.stage
    return recount(replace(instance, stage=stage, predictions=(*instance.predictions, prediction)))


def _activated(instance: Instance, at_ns: int, mark: ActiveMark, out: _Out) -> Instance:
    prediction = find(instance, mark.prediction)
    if prediction is None or prediction.active:
        out.rejected.append("active_without_load" if prediction else "no_such_prediction")
        return instance
    instance = settle(instance, at_ns)
    loaded = next(open_ for open_ in instance.predictions if open_.id == mark.prediction)
    return _join(without(instance, loaded.id), replace(loaded, active=True))


def _finished(instance: Instance, event: Marked, mark: FinishMark, book: Rulebook, out: _Out) -> Instance:
    if find(instance, mark.prediction) is None:
        out.rejected.append("no_such_prediction")
        return instance
    at_ns = _believed_ns(instance, event, book)
    instance = settle(_arrive(instance, at_ns, book, out), at_ns)
    instance = _kept(instance, count_units(instance, mark.prediction, mark.units), out)
    prediction = next(open_ for open_ in instance.predictions if open_.id == mark.prediction)
    end = End(at_ns, mark.status, final=True, witness=Witness(Source.MARK, event.at_ns - at_ns))
    return _finish(instance, prediction, end, book, out)


def _finish(
    instance: Instance, prediction: Prediction, end: End, book: Rulebook, out: _Out, *, closing: bool = False
) -> Instance:
    """Write the final record of a prediction whose times are settled to `end`, and let it go."""
    records = prediction_records(instance, prediction, prediction.times, end, book)
    out.records.extend(records)
    rest = replace(without(instance, prediction.id), records=instance.records + len(records))
    if closing or not prediction.active or any(other.active for other in rest.predictions):
        return rest
    return replace(rest, stage=advance(rest.stage, Input.FREE))


def _bad_mark(instance: Instance, event: BadMark, book: Rulebook, out: _Out) -> Instance:
    out.rejected.append(event.reason)
    return _arrive(instance, event.at_ns, book, out)


_HANDLERS: Mapping[type, Callable[[Instance, Any, Rulebook, _Out], Instance]] = {
    Spawned: _spawned,
    BecameReady: _ready,
    ReadyTimedOut: _noted,
    Marked: _marked,
    BadMark: _bad_mark,
    Stopping: _stopping,
    Signaled: _signaled,
    Heartbeat: _heartbeat,
    Exited: _exited,
    Lost: _lost,
}
