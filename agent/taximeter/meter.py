"""All instances: facts in, usage records out. The one place where an event changes an instance.

Pure: time arrives in events, rules and prices in the rulebook; the same facts yield the same records, however often
and in however many pieces they are replayed. Refuses to know where facts come from and where records go.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from taximeter import signs
from taximeter.about import End
from taximeter.beginning import begun, ready, spawned
from taximeter.clockwork import reading, utc_ns
from taximeter.endings import exited, lost
from taximeter.events import (
    Alive,
    BadMark,
    BecameReady,
    Clock,
    Event,
    Exited,
    Heartbeat,
    Held,
    Lost,
    Marked,
    Measured,
    Observed,
    Opened,
    OwnerEnded,
    OwnersHeld,
    ReadyTimedOut,
    Signaled,
    Spawned,
    Stopping,
    Unread,
)
from taximeter.hardware.inventory import Evidence, Hardware
from taximeter.instance import Cut, Instance
from taximeter.lifecycle import IllegalInput, Stage
from taximeter.marking import marked
from taximeter.moves import end_rest
from taximeter.owners import owner_ended, owners_held
from taximeter.records import Exit, UsageRecord
from taximeter.rulebook import Rulebook
from taximeter.turn import (
    Paused,
    PausedEnd,
    Turn,
    arrive,
    mark_faults,
    reckon,
)
from taximeter.unread import unread
from taximeter.values import Value, replace


class Pause(Value):
    """Where facts were left off at, in the midst of a cut, or of the end, of many predictions."""

    rest: tuple[Event, ...]  #: whose first makes that cut, and is to be taken again, or has only to arrive (`done`)
    cut: int  #: so many predictions have their record of it
    before: Instance
    records: int  #: so many of them were there before
    done: tuple[int, bool] | None = None
    closing: tuple[End, Exit | None] | None = None  #: how whatever is still open is to be ended, and the command
    moved: int | None = None  #: what the clocks did before that fact, as bits, if that is marked and said


class Step(Value):
    """What facts led to: the instance after them, its records, what was refused of which kind of fact."""

    instance: Instance
    records: tuple[UsageRecord, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()  #: kind of event and a bounded word, for the metric
    faults: tuple[str, ...] = ()  #: of the clocks, a bounded word each
    doubts: tuple[str, ...] = ()  #: of who called whom, a bounded word each
    mismatch: bool = False  #: it turns out to have used what it did not declare, or the reverse
    pause: Pause | None = None  #: there is more: `go_on` before all else


def open_instance(opened: Opened, book: Rulebook, hardware: Hardware | None = None) -> Instance:
    """The state that an instance's first fact begins, on the hardware where the agent placed it."""
    card = book.card_at(utc_ns(opened, opened.at_ns))
    return Instance(
        opened=opened,
        rules=book.current,
        card=card.hash if card else None,
        hardware=hardware,
        start_ns=opened.at_ns,
        since_ns=opened.at_ns,
        sign_ns=opened.at_ns,
        offset_ns=opened.clock.boottime - opened.clock.monotonic,
        cut=Cut(opened.at_ns),
        reading=reading(opened.clock),
    )


def fold(
    instance: Instance, events: Iterable[Event], book: Rulebook, now: Clock | None = None, most: int | None = None
) -> Step:
    """The instance after `events`, with the records that they led to; what is illegal changes nothing and is named.

    `now` is what the agent reads of the machine's clocks: the best word on how far UTC labels may be off, where the
    agent may ask for that; else it is the wrapper's. After `most` interim records of predictions it is left off at.
    """
    return _fold(Step(instance), Pause(tuple(events), 0, instance, 0), Turn(book, room=most), now)


def fold_all(told: Sequence[tuple[Instance, Sequence[Event]]], book: Rulebook, now: Clock | None = None) -> list[Step]:
    """The same for each of many instances, in one piece: each one's first fact, then each one's second, and so on.

    No instance knows of another, so their order means nothing; but facts of a kind go the same way through the code,
    which then stays in the processor's caches.
    """
    rides = [_Ride(instance, Turn(book), now) for instance, _ in told]
    due = [(ride, events, ride.begin(events)) for ride, (_, events) in zip(rides, told, strict=True)]
    while due := [(ride, events, at) for ride, events, at in due if at < len(events)]:
        for ride, events, at in due:
            ride.take(events[at])
        due = [(ride, events, at + 1) for ride, events, at in due]
    return [ride.step() for ride in rides]


class _Ride:
    """One of many instances on its way through some facts."""

    __slots__ = ("_instance", "_known", "_refused", "_turn")

    def __init__(self, instance: Instance, turn: Turn, now: Clock | None) -> None:
        self._turn = turn
        self._refused: list[tuple[str, str]] = []
        self._known = instance.evidence
        if now is not None and now.utc_error_ns is not None:
            turn.knows_utc = True
            instance = reckon(instance, now)
        self._instance = instance

    def begin(self, events: Sequence[Event]) -> int:
        """Go on by as many of its first facts as can be taken at once; gives how many."""
        self._instance, taken = begun(self._instance, events, self._turn)
        return taken

    def take(self, event: Event) -> None:
        """Go on by one fact; one that is illegal changes nothing."""
        turn = self._turn
        written = len(turn.records)
        try:
            self._instance = _take(self._instance, event, turn)
        except IllegalInput as illegal:
            del turn.records[written:]
            turn.rejected.append(illegal.reason)
        if turn.rejected:
            self._refused.extend((type(event).__name__, reason) for reason in turn.rejected)
            turn.rejected.clear()

    def step(self) -> Step:
        """What they all led to."""
        turn, instance = self._turn, self._instance
        mismatch = instance.evidence is Evidence.MISMATCH is not self._known
        refused, faults, doubts = tuple(self._refused), tuple(turn.faults), tuple(turn.doubts)
        return Step(instance, tuple(turn.records), refused, faults, doubts, mismatch)


def go_on(step: Step, book: Rulebook, now: Clock | None = None, most: int | None = None) -> Step:
    """Take on what was left off at, by the same rules: it leads to what it had led to in one piece.

    Until that is whole nothing of it is to be kept, for no fact says that somebody paused.
    """
    if step.pause is None:
        return step
    turn = Turn(book, list(step.records), faults=list(step.faults), doubts=list(step.doubts), room=most)
    turn.cut = step.pause.cut
    return _fold(step, step.pause, turn, now)


def _fold(step: Step, left: Pause, turn: Turn, now: Clock | None) -> Step:
    instance, before, records, written = step.instance, left.before, turn.records, left.records
    if now is not None and now.utc_error_ns is not None:
        turn.knows_utc = True
        instance, before = reckon(instance, now), reckon(before, now)
    refused, known = list(step.rejected), instance.evidence
    pause: Pause | None = None
    for taken, event in enumerate(left.rest):
        if taken:
            before, written = instance, len(records)
        doubts = len(turn.doubts)
        try:
            instance = _take(instance, event, turn) if taken else _take_on(instance, left, turn)
        except IllegalInput as illegal:
            instance = before
            del records[written:]
            turn.rejected.append(illegal.reason)
        except PausedEnd as ending:
            instance = ending.instance
            pause = Pause(left.rest[taken:], 0, before, written, None, (ending.end, ending.left), turn.moved)
        except Paused as paused:
            instance = paused.instance
            pause = Pause(left.rest[taken:], paused.cut, before, written, turn.done, None, turn.moved)
            if turn.done is None:  # all but what the clocks did is found and said again
                del turn.doubts[doubts:], turn.rejected[:]
        if turn.rejected:
            refused.extend((type(event).__name__, reason) for reason in turn.rejected)
            turn.rejected.clear()
        if pause is not None:
            break
    mismatch = step.mismatch or instance.evidence is Evidence.MISMATCH is not known
    return Step(instance, tuple(records), tuple(refused), tuple(turn.faults), tuple(turn.doubts), mismatch, pause)


def _take_on(instance: Instance, left: Pause, turn: Turn) -> Instance:
    """Take the first fact, or go on with it where it was left off at."""
    if left.done is not None:
        turn.done, turn.may_pause = left.done, True
        return arrive(instance, left.done[0], turn, held=left.done[1])
    if left.closing is not None:
        return end_rest(instance, *left.closing, turn)
    return _take(instance, left.rest[0], turn, left.moved)


def _take(instance: Instance, event: Event, turn: Turn, moved: int | None = None) -> Instance:
    """Take a fact; once more, where it was left off at in the midst of it: by then it was known what the clocks did."""
    if instance.stage is Stage.CLOSED:
        turn.rejected.append("after_the_end")
        return instance
    kind, at_ns = type(event), event.at_ns
    settled_ns = max(instance.sign_ns, instance.since_ns)
    if at_ns is not None and at_ns < settled_ns and kind not in _LOOKS:
        event = replace(event, at_ns=settled_ns)
    turn.moved, turn.done = moved or 0, None
    turn.may_pause = kind in _PAUSABLE
    if moved is None and kind in _READINGS and (clock := cast("_Reading", event).clock) is not None:
        instance = mark_faults(instance, clock, turn)
    return _HANDLERS[kind](instance, event, turn)


#: What the agent looked at beside time: such a fact tells of a moment that may have passed, and settles nothing.
_LOOKS = frozenset({Observed, Measured, Held, OwnerEnded, OwnersHeld})

#: Facts that come with a fresh look at the clocks; a segment's opening repeats the first one's.
_Reading = Heartbeat | Alive | Exited | Lost
_READINGS = frozenset({Heartbeat, Alive, Exited, Lost})

#: Facts whose cut may be made in pieces: before it they change nothing but what `_fold` takes back.
_PAUSABLE = frozenset({Heartbeat, Marked, BadMark, Signaled, Stopping, OwnerEnded})

_HANDLERS: Mapping[type, Callable[[Instance, Any, Turn], Instance]] = {
    Opened: signs.opened_again,
    Spawned: spawned,
    BecameReady: ready,
    ReadyTimedOut: signs.noted,
    Marked: marked,
    BadMark: signs.bad_mark,
    Stopping: signs.stopping,
    Signaled: signs.signaled,
    Heartbeat: signs.heartbeat,
    Alive: signs.alive,
    Observed: signs.observed,
    Measured: signs.measured,
    Held: signs.held,
    OwnerEnded: owner_ended,
    OwnersHeld: owners_held,
    Exited: exited,
    Lost: lost,
    Unread: unread,
}
