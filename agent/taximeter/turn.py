"""One event's passage through the meter: what it gathers on its way, and what time alone does to an instance.

Owns interim cuts, silence and sleep. A cut only looks, so it changes no nanosecond (spans). Refuses to know why an
event came.
"""

from dataclasses import dataclass, field

from taximeter import clockwork, wire
from taximeter.about import End
from taximeter.billing.classes import ONLINE
from taximeter.booking import instance_records, prediction_records
from taximeter.events import Clock, Status
from taximeter.instance import Cut, Freed, Instance
from taximeter.lifecycle import Stage
from taximeter.records import Exit, UsageRecord, Witness
from taximeter.resources import cpu_to_date, told
from taximeter.rulebook import Rulebook
from taximeter.sold import billed_by, billed_hardware
from taximeter.spans import note_crowd, phases_at, settle, suspend, times_at
from taximeter.values import replace

#: After this silence a heartbeat was missed: what lies behind the last sign of life is unknown (contracts, section 3).
LATE_NS = wire.HEARTBEAT_NS + wire.HEARTBEAT_NS // 4
#: So many interim records are made up for at once: a day of minutes of one prediction. Beyond it one record of each
#: tells of the whole time, so that a worker with many open, of which nobody told for long, keeps the loop no longer.
MOST_RECORDS = 1_440
#: How far off a kernel's stamp may be from when it was so (promises, P3: at p99, with every core loaded).
KERNEL_NS = 100_000
#: A process waits up to this long for a core, at p99 with every core loaded: so late a pidfd wakes who waits for it,
#: and so far a spawn returns before or after the exec (promises, P3).
PIDFD_NS = 10_000_000


@dataclass(slots=True)
class Turn:
    """What is in force, and what one fold has gathered so far."""

    book: Rulebook
    records: list[UsageRecord] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  #: of the clocks, in words; each once while it goes on
    doubts: list[str] = field(default_factory=list)  #: of who called whom, in words
    knows_utc: bool = False  #: the agent itself has told how far off UTC labels may be
    moved: int = 0  #: what this event's reading found, as bits: a cut on its way does not end that
    room: int | None = None  #: for so many predictions' interim records before others have a turn; None: for all
    may_pause: bool = False  #: whether the fact that is being taken can be taken again
    done: tuple[int, bool] | None = None  #: of a mark whose word is done: when it arrives, and whether it was held
    cut: int = 0  #: so many of the open predictions have their record of the cut that was left off at


class Paused(Exception):
    """A cut of many predictions, or their end one by one, is left off in its midst: the fact is to be taken again.

    It goes on there, for what is done of it is not done again.
    """

    def __init__(self, instance: Instance, cut: int) -> None:
        super().__init__()
        self.instance = instance
        self.cut = cut


class PausedEnd(Exception):
    """The end of many predictions is left off in its midst: those that are still open are to be ended, as before.

    `left` is how the command ended; None where it goes on.
    """

    def __init__(self, instance: Instance, end: End, left: Exit | None) -> None:
        super().__init__()
        self.instance = instance
        self.end = end
        self.left = left


def take_room(instance: Instance, turn: Turn, size: int = 1) -> None:
    """Use some of the room for the end of one prediction. Raises Paused where there is none left."""
    if turn.room is not None:
        if turn.room <= 0:
            raise Paused(instance, 0)
        turn.room -= size


def arrive(instance: Instance, at_ns: int, turn: Turn, *, held: bool = False) -> Instance:
    """Go on to a fact at `at_ns`, which is a sign of life; what lies behind a silence is unknown.

    Not so where the command was held: then nobody spoke, and it lived all the same.
    """
    unseen = not held and is_late(instance, at_ns)
    instance = pass_unseen(instance, at_ns, turn) if unseen else cut_until(instance, at_ns, turn)
    return replace(instance, sign_ns=at_ns, lost=False) if at_ns > instance.sign_ns else instance


def is_late(instance: Instance, at_ns: int) -> bool:
    """Whether a heartbeat was missed before `at_ns`: nobody looked meanwhile, whatever is said afterwards."""
    return at_ns - instance.sign_ns > LATE_NS and instance.stage is not Stage.PENDING


def cut_until(instance: Instance, at_ns: int, turn: Turn) -> Instance:
    """Make the interim cuts that lie behind `at_ns`; where too many were missed, as nobody looked, only the last."""
    if instance.next_cut_ns and instance.next_cut_ns <= at_ns:
        interim_ns = turn.book.rules_of(instance.rules).interim_ns
        missed = (at_ns - instance.next_cut_ns) // interim_ns
        if missed and (missed + 1) * max(1, len(instance.predictions)) > MOST_RECORDS:
            instance = replace(instance, next_cut_ns=instance.next_cut_ns + missed * interim_ns)
    while instance.next_cut_ns and instance.next_cut_ns <= at_ns:
        next_ns = instance.next_cut_ns
        instance = under_each_card(instance, next_ns, turn)
        if instance.next_cut_ns == next_ns:
            instance = _cut(instance, next_ns, turn)
    return under_each_card(instance, at_ns, turn)


def under_each_card(instance: Instance, at_ns: int, turn: Turn) -> Instance:
    """Cut what is sold online where a rate card took effect until `at_ns`: one that is known late, from then on."""
    if len(turn.book.cards) < 2 or not instance.next_cut_ns or instance.service_class not in ONLINE:
        return instance
    while (card := turn.book.card_after(instance.card)) is not None:
        since_ns = clockwork.at_utc(instance.opened, card.effective_utc_ns, instance.phases.suspended)
        since_ns = max(since_ns, instance.since_ns, instance.cut.at_ns)
        if since_ns > at_ns:
            break
        instance = _under(_cut_beside(instance, since_ns, turn), card.hash)
    return instance


def _cut_beside(instance: Instance, at_ns: int, turn: Turn) -> Instance:
    """One cut more; where there is one already, or nothing has been told yet, it is that."""
    if at_ns == instance.cut.at_ns:
        return instance
    next_cut_ns = instance.next_cut_ns
    cut = _cut(instance, at_ns, turn)
    return cut if at_ns == next_cut_ns else replace(cut, next_cut_ns=next_cut_ns)


def _under(instance: Instance, card: str) -> Instance:
    """The instance from its last cut on under another card; a boot that has not led to ready is left to that."""
    cut, pieces = instance.cut, instance.pieces
    if cut.interim is not None and not (pieces and pieces[-1].at_ns == cut.at_ns):
        pieces = (*pieces, instance.told)
    return replace(instance, card=card, pieces=pieces, freed=Freed())


def _cut(instance: Instance, at_ns: int, turn: Turn) -> Instance:
    """One interim record for every open prediction and for the instance; nothing is settled.

    Raises Paused where that is more than there is room for.
    """
    end = End(at_ns, Status.PROCESSING, final=False, witness=Witness(instance.start.source, 0))
    done, turn.cut = turn.cut, 0
    if not done:
        instance = note_crowd(instance, at_ns)
    until = len(instance.predictions)
    if turn.room is not None and turn.may_pause:
        until = min(until, done + turn.room)
        turn.room -= until - done
    kept = list(instance.predictions[:done])
    for prediction, times in zip(instance.predictions[done:until], times_at(instance, at_ns)[done:until], strict=True):
        hardware = billed_hardware(instance, prediction, turn.book)
        records = prediction_records(instance, prediction, times, end, turn.book)
        turn.records.extend(records)
        instance = replace(instance, records=instance.records + len(records))
        kept.append(
            replace(
                prediction,
                cut_ns=at_ns,
                cut_times=times,
                units={},
                crowd_max=0,
                last_interim=records[0].id,
                faults=turn.moved,
                tier=hardware.tier,
                devices=hardware.count,
                drawn=told(prediction.drawn),
            )
        )
    rest = instance.predictions[until:]
    if rest:
        raise Paused(replace(instance, predictions=(*kept, *rest)), len(kept))
    phases = phases_at(instance, at_ns)
    records = instance_records(instance, phases, end, None, turn.book)
    turn.records.extend(records)
    cpu_ns = cpu_to_date(instance) or instance.cut.cpu_ns
    energy_mj = (instance.measured and instance.measured.energy_mj) or instance.cut.energy_mj
    tier = billed_hardware(instance, None, turn.book).tier
    pieces = tuple([replace(one, tier=billed_by(instance, one.card, turn.book).tier) for one in instance.pieces])
    return replace(
        instance,
        pieces=pieces,
        records=instance.records + len(records),
        predictions=tuple(kept),
        crowd_max=0,
        cut=Cut(at_ns, phases, instance.readied, cpu_ns, records[0].id, tier, energy_mj),
        next_cut_ns=at_ns + turn.book.rules_of(instance.rules).interim_ns,
        faults=turn.moved,
    )


def mark_faults(instance: Instance, clock: Clock, turn: Turn) -> Instance:
    """Mark what the clocks did since they were read before; comes first, for a cut on the way lies within that time."""
    if not turn.knows_utc:
        instance = reckon(instance, clock)
    now = clockwork.reading(clock)
    before = instance.reading or clockwork.reading(instance.opened.clock)
    turn.moved = moved = clockwork.moved(before, now)
    found = moved | (clockwork.SUSPENDED if clockwork.slept_ns(instance.offset_ns, clock) else 0)
    if found:
        turn.faults.extend(clockwork.words(found & ~instance.faults))
    if moved:
        return replace(_marked(instance, moved), reading=now)
    return replace(instance, reading=now) if clockwork.outdates(before, now) else instance


def reckon(instance: Instance, clock: Clock) -> Instance:
    """Take a reading's word for how far off the instance's UTC labels may be."""
    error_ns = clockwork.utc_error_ns(instance.opened, clock)
    return instance if error_ns == instance.utc_error_ns else replace(instance, utc_error_ns=error_ns)


def _marked(instance: Instance, faults: int) -> Instance:
    """The instance, and whatever is open on it, with these faults of the clocks."""
    predictions = tuple([replace(open_, faults=open_.faults | faults) for open_ in instance.predictions])
    return replace(instance, faults=instance.faults | faults, predictions=predictions)


def look_at_clock(instance: Instance, clock: Clock) -> Instance:
    """Growth of BOOTTIME - MONOTONIC is time that the machine slept."""
    slept_ns = clockwork.slept_ns(instance.offset_ns, clock)
    if not slept_ns:
        return instance
    slept = _marked(suspend(instance, slept_ns), clockwork.SUSPENDED)
    return replace(slept, offset_ns=instance.offset_ns + slept_ns)


def pass_unseen(instance: Instance, at_ns: int, turn: Turn) -> Instance:
    """Go on to `at_ns` with everything behind the last sign of life unknown; it is one stretch, however long.

    Where nobody said that the command had started, nothing is a sign of its life: it is unknown since the opening.
    """
    if instance.stage is Stage.PENDING:
        return settle(replace(instance, lost=True), at_ns)
    began_ns = max(instance.sign_ns, instance.cut.at_ns)
    instance = settle(replace(settle(instance, began_ns), lost=True), at_ns)
    interim_ns = turn.book.rules_of(instance.rules).interim_ns
    missed = max(0, at_ns - instance.next_cut_ns + interim_ns) // interim_ns
    return replace(instance, next_cut_ns=instance.next_cut_ns + missed * interim_ns)
