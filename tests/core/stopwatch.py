"""A second opinion on what a history comes to, worked out the slow way: instants are kept, and integrated at the end.

Owns the rules as a person would tell them, over the same facts that the meter is given. It imports no rule of the
meter, keeps no running total, and knows neither records nor cuts but for one thing: what was told in an interim record
cannot be taken back by a mark that says it was earlier.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from itertools import pairwise

from taximeter.events import (
    ActiveMark,
    Alive,
    BadMark,
    BecameReady,
    Clock,
    Event,
    Exited,
    FinishMark,
    Heartbeat,
    Lost,
    Marked,
    Options,
    OwnerEnded,
    OwnersHeld,
    ReadyMark,
    Signaled,
    Spawned,
    StartMark,
    Stopping,
    StoppingMark,
    UnitsMark,
)

BEAT_NS = 1_000_000_000
SILENCE_NS = BEAT_NS * 5 // 4
NOISE_NS = 1_000_000
BELIEF_NS = 50_000_000
#: The command's own.
MAIN_PID = 4711
PARTS = ("boot", "idle", "active", "teardown", "unknown")
_WIDE = Context(prec=100, rounding=ROUND_HALF_EVEN)

Row = Mapping[str, str]


@dataclass(eq=False)
class Guest:
    """One prediction, by its instants."""

    name: str
    kind: str
    begins: int
    processes: int | None  #: from when on it is active
    ends: int | None = None
    status: str = "processing"
    slept: int = 0
    units: Counter[str] = field(default_factory=Counter)
    owner: int | None = None
    marked: int = 0  #: when it was last spoken of
    fades: int | None = None  #: from then until its end nobody knows anything of it
    over: tuple[int, int] | None = None  #: where it truly ended, and how far more than that was told

    def is_here(self, at: int) -> bool:
        return self.begins <= at and (self.ends is None or at < self.ends)

    def is_active(self, at: int) -> bool:
        return self.processes is not None and self.processes <= at and self.is_here(at) and not self.is_faded(at)

    def is_faded(self, at: int) -> bool:
        return self.fades is not None and self.fades <= at


class Life:
    """One instance, by its instants."""

    def __init__(self, options: Options, at: int, offset: int, interim: int) -> None:
        self.options = options
        self.kind = options.service_class or "public"
        self.interim = interim
        self.opened = at
        self.last = at  #: the last sign of life
        self.offset = offset  #: BOOTTIME - MONOTONIC
        self.exec: int | None = None
        self.spawned = -1  #: who is ready by exec says so no later than this
        self.ready: int | None = None  #: the end of its boot
        self.readied = False
        self.stop: tuple[int, str] | None = None
        self.leaves: int | None = None  #: when it was first said that it stops
        self.held: tuple[int, ...] = ()
        self.adopted = False
        self.interrupted: int | None = None
        self.end: int | None = None
        self.status = "processing"
        self.slept = 0
        self.unseen: list[tuple[int, int]] = []
        self.guests: list[Guest] = []
        self.changed = at  #: nothing that happens now can be put before this: who is here changed then
        self.truly = at  #: the same, had nothing been told in interim records
        self.freed: list[tuple[int, int]] = []  #: told to be active, and nobody truly was
        self.changes = 0
        self.told = at  #: the last interim record's end

    # --- What happens ---

    def hear(self, fact: Event) -> None:
        """Take a fact as it comes; what makes no sense changes nothing."""
        if self.end is not None:
            return
        at = self.last if fact.at_ns is None else max(fact.at_ns, self.last)
        match fact:
            case Spawned():
                self._spawn(fact, at)
            case Exited():
                self._exit(fact, at)
            case Lost():
                self._lose(fact, at)
            case OwnerEnded():
                self._lose_owner(fact)
            case OwnersHeld(pids=pids):
                self.held = pids
            case Alive(clock=clock):
                self.adopted = True
                self.told = max(self.told, self._grid(at))
                self.last = at
                self._look(clock)
            case _:
                self._hear_of_work(fact, at)

    def _hear_of_work(self, fact: Event, at: int) -> None:
        match fact:
            case Marked(mark=StartMark() as mark) if self.options.worker:
                self._start(fact, mark, at)
            case Marked(mark=FinishMark() as mark) if self.options.worker:
                self._finish(fact, mark, at)
            case BecameReady(by="exec") if at <= self.spawned and self.exec == self.changed == self.told:
                self._ready(self.exec)
            case BecameReady() | Marked(mark=ReadyMark()):
                if self.exec is not None:
                    self._see(at, is_held(fact))
                    self._ready(at)
            case _ if self._asks_to_stop(fact) is not None:
                if self.exec is not None:
                    self._see(at, is_held(fact))
                    self._stop(at, str(self._asks_to_stop(fact)))
            case _ if self._says_that_it_drains(fact):
                if self.exec is not None:
                    self._see(at, is_held(fact))
                    self._leave(at)
            case _:
                said = self._said(fact, at) if isinstance(fact, Marked) else at
                self._see(at, is_held(fact))
                self._note(fact, said)

    def _spawn(self, fact: Spawned, at: int) -> None:
        if self.exec is None:
            self.exec = self.changed = self.told = at if fact.exec_ns is None else max(fact.exec_ns, self.told)
            self.last = self.spawned = max(self.exec, at)

    def _grid(self, at: int) -> int:
        """Where the last interim record before `at` ends."""
        return self.told if self.exec is None else at - (at - self.exec) % self.interim

    def _see(self, at: int, held: bool = False) -> None:
        """A sign of life; behind a silence nobody knows what was, but of a command that was held that it lived."""
        if at <= self.last:
            return
        if self.exec is not None and at - self.last > SILENCE_NS and not held:
            self._hide(self.last, at)
        else:
            self.told = max(self.told, self._grid(at))
        self.last = at

    def _hide(self, since: int, at: int) -> None:
        self.unseen.append((since, at))
        self._change(at)

    def _change(self, at: int) -> None:
        self.truly = at if at > self.changed else self.truly
        self.changed = max(self.changed, at)
        self.changes += 1

    def _end(self, guest: Guest, at: int, said: int, status: str) -> None:
        """It is over at the latest where that is told; if it truly was before, nobody may have been active since."""
        truly = max(said, self.truly)
        self._change(at)
        guest.ends, guest.status, guest.over = at, status, (said, at)
        self.truly = min(at, truly)
        if guest.processes is not None and not self.active_at_last:
            if said < at:
                self.freed.append((self.truly, at))
            self.truly = at

    def _said(self, fact: Marked, at: int) -> int:
        """Its own word, whatever that is worth; else it was said before whoever reads it had been silent."""
        silence = self.exec is not None and at - self.last > SILENCE_NS
        return min(fact.said_ns, at) if fact.said_ns is not None else self.last if silence else at

    def _note(self, fact: Event, said: int) -> None:
        match fact:
            case Heartbeat(clock=clock):
                self._look(clock)
            case Signaled(by_kernel=True, signal=number):
                self.interrupted = number
            case Marked(mark=UnitsMark(prediction=name, units=units)):
                if name is None and not self.options.worker and self.here:
                    name = self.here[0].name
                self._count(name, units, said)
            case Marked(mark=ActiveMark(prediction=name)) if self.options.worker:
                for guest in self.here:
                    if guest.name == name and guest.processes is None:
                        guest.processes, guest.marked = self.last, max(guest.marked, said)
                        self.readied = True
                        self._change(self.last)

    def _count(self, name: str | None, units: Mapping[str, str], said: int) -> None:
        for guest in self.here:
            if guest.name == name:
                guest.marked = max(guest.marked, said)
                guest.units.update({unit: int(amount) for unit, amount in units.items()})

    def _look(self, clock: Clock) -> None:
        """What BOOTTIME gained on MONOTONIC, the machine slept; who reads them slowly cannot tell a nap."""
        gained = clock.boottime - clock.monotonic - self.offset
        if gained > NOISE_NS + clock.took_ns:
            self.offset += gained
            self.slept += gained
            for guest in self.here:
                guest.slept += gained

    def _ready(self, at: int) -> None:
        self._change(at)
        in_boot = self.ready is None and self.leaves is None
        if self.leaves is None or self.active_at_last:
            self.readied = True
        if in_boot:
            self.ready = at
            if not self.options.worker:
                self.guests.append(Guest(self.options.prediction or "", self.kind, at, at))

    def _asks_to_stop(self, fact: Event) -> str | None:
        if isinstance(fact, Signaled) and not fact.by_kernel and fact.outside and fact.signal == 15:
            return self.options.on_term
        reason = self._reason(fact)
        is_customers = self.options.account is not None and (reason == "drain" or isinstance(fact, Marked))
        return reason if reason == "canceled" or not is_customers else None

    def _reason(self, fact: Event) -> str | None:
        match fact:
            case Stopping(reason=reason) | Marked(mark=StoppingMark(reason=reason)) if self.options.worker:
                return reason
        return None

    def _says_that_it_drains(self, fact: Event) -> bool:
        """A customer's code may: but what it leaves open is not the platform's doing."""
        return self._reason(fact) == "drain"

    def _leave(self, at: int) -> None:
        if self.stop is None:
            self.leaves = at if self.leaves is None else self.leaves
            self._change(at)

    def _stop(self, at: int, reason: str) -> None:
        if self.stop is not None:
            return
        self._leave(at)
        self.stop = (at, reason)
        if self.options.worker and reason != "drain":
            for guest in self.here:
                guest.ends, guest.status = at, reason

    def _start(self, fact: Marked, mark: StartMark, at: int) -> None:
        taken = any(guest.name == mark.prediction for guest in self.here)
        fixed = (self.options.account, mark.account), (self.options.service_class, mark.service_class)
        if taken or any(None not in pair and pair[0] != pair[1] for pair in fixed):
            self._see(at, fact.held)
        elif self.exec is not None:
            since = at if fact.said_ns is None or at - fact.said_ns > BELIEF_NS else min(fact.said_ns, at)
            since = max(since, self.changed, self.told)
            self._see(since, fact.held)
            self._change(since)
            if self.ready is None and self.leaves is None:
                self.ready, self.readied = since, True
            kind = self.options.service_class or mark.service_class or "public"
            self.readied = self.readied or kind != "fast_boot"  # whatever works was ready
            guest = Guest(mark.prediction, kind, since, None if kind == "fast_boot" else since, marked=since)
            guest.owner = None if mark.detached or mark.pid == MAIN_PID else mark.pid
            self.guests.append(guest)
            self._see(at, fact.held)

    def _finish(self, fact: Marked, mark: FinishMark, at: int) -> None:
        leaving = [guest for guest in self.here if guest.name == mark.prediction]
        if leaving:
            said = self._said(fact, at)
            until = max(said, self.changed, self.told)
            self._see(until, fact.held)
            self._count(mark.prediction, mark.units, said)
            self._end(leaving[0], until, said, mark.status)
        self._see(at, fact.held)

    def _lose_owner(self, fact: OwnerEnded) -> None:
        leaving = [guest for guest in self.here if guest.owner == fact.pid and guest.begins <= fact.until_ns]
        status = "failed"
        if self.stop is not None and (fact.ended_ns is None or self.stop[0] <= fact.ended_ns):
            status = "canceled" if self.stop[1] == "canceled" else "aborted"
        if leaving and fact.ended_ns is None:
            self._fade(leaving, self.last, status)
        elif leaving and fact.ended_ns is not None:
            at = max(fact.ended_ns, self.changed, self.told)
            self._see(at, self.adopted)
            for guest in leaving:
                self._end(guest, at, fact.ended_ns, status)

    def _fade(self, leaving: list[Guest], until: int, status: str) -> None:
        """Nobody knows since when they are over; what was said of them last is certain."""
        for guest in sorted(leaving, key=lambda guest: guest.marked):
            at = max(guest.marked, self.changed, self.told)
            self._end(guest, at, guest.marked, status)
            guest.fades, guest.ends = at, max(at, until)

    def _fade_unheld(self, until: int, status: str) -> None:
        self._fade([g for g in self.here if g.owner is not None and g.owner not in self.held], until, status)

    def _exit(self, fact: Exited, at: int) -> None:
        if fact.kernel_ns is not None and fact.kernel_ns <= at:
            at = max(fact.kernel_ns, self.changed, self.told)
        status = self._status_at_exit(fact)
        self._fade_unheld(at, status)
        if self.exec is not None and at - self.last > SILENCE_NS:
            self._hide(self.last, at)
        if fact.clock is not None:
            self._look(fact.clock)
        self._close(at, status, never=fact.error is not None)
        if fact.code == 0 and status == "failed":
            self.status = "succeeded"  # what it left open has failed, not itself

    def _status_at_exit(self, fact: Exited) -> str:
        whole = fact.code == 0 and not (self.options.worker and self.here)
        if self.stop is not None and self.stop[1] != "drain":
            return self.stop[1]
        if whole:
            return "succeeded"
        if self.stop is not None or fact.oom == "node":
            return "aborted"
        return "canceled" if fact.signal is not None and fact.signal == self.interrupted else "failed"

    def _lose(self, fact: Lost, at: int) -> None:
        asked = self.stop[1] if self.stop is not None and self.stop[1] != "drain" else None
        status = asked or ("aborted" if fact.at_ns is None else "failed")
        self._fade_unheld(at, status)
        if self.exec is not None and at > self.last:
            self._hide(self.last, at)
        if fact.clock is not None:
            self._look(fact.clock)
        self._close(at, status)

    def _close(self, at: int, status: str, never: bool = False) -> None:
        if self.exec is None:
            self.exec = at if never else self.opened
            if not never:  # whether and when it began, nobody said
                self._hide(self.opened, at)
        if not self.options.worker and not self.readied:
            self.guests.append(Guest(self.options.prediction or "", self.kind, at, None))
        for guest in self.here:
            guest.ends, guest.status = at, status
        self.end, self.status = at, status
        self._change(at)

    # --- What it comes to ---

    @property
    def here(self) -> list[Guest]:
        return [guest for guest in self.guests if guest.ends is None]

    @property
    def active_at_last(self) -> bool:
        return any(guest.processes is not None for guest in self.here)

    def stretches(self) -> Iterator[tuple[tuple[int, int], str, list[Guest], list[Guest]]]:
        """From when until when, what it is counted as, who is active, who is here: between any two instants of note."""
        assert self.exec is not None
        assert self.end is not None
        noted = [self.exec, self.end, self.ready, self.leaves, *(edge for hidden in self.unseen for edge in hidden)]
        noted += [edge for guest in self.guests for edge in (guest.begins, guest.processes, guest.fades, guest.ends)]
        for since, until in pairwise(sorted({edge for edge in noted if edge is not None})):
            if self.exec <= since < self.end:
                active = [guest for guest in self.guests if guest.is_active(since)]
                here = [guest for guest in self.guests if guest.is_here(since)]
                yield (since, until), self._word(since, bool(active)), active, here

    def _word(self, at: int, active: bool) -> str:
        if any(since <= at < until for since, until in self.unseen):
            return "unknown"
        if active:
            return "active"
        if self.leaves is not None and self.leaves <= at:
            return "teardown"
        return "boot" if self.ready is None or at < self.ready else "idle"

    @property
    def instants(self) -> list[tuple[int, int | None]]:
        """Everybody's begin and end."""
        ends = ((guest.begins, guest.fades or guest.ends) for guest in self.guests)
        return [(self.exec or 0, self.end), *ends]

    def parts(self) -> dict[str, int]:
        """The instance's nanoseconds."""
        total = dict.fromkeys(PARTS, 0)
        for (since, until), word, _, _ in self.stretches():
            total[word] += until - since
        return total | {"suspended": self.slept}

    def truly_spent(self) -> dict[str, int]:
        """The instance's nanoseconds, without those that were told to be active, and turned out to be others."""
        total = self.parts()
        for since, until in self.freed:
            total["active"] -= until - since
            total[self._word(since, active=False)] += until - since
        return total

    def parts_of(self, guest: Guest) -> dict[str, Fraction]:
        """A prediction's nanoseconds; its share to the last fraction."""
        total = dict.fromkeys(("load", "active", "share", "unknown"), Fraction(0))
        for (since, until), word, active, here in self.stretches():
            if guest in here:
                unknown = word == "unknown" or guest.is_faded(since)
                part = "unknown" if unknown else "active" if guest in active else "load"
                total[part] += until - since
                total["share"] += Fraction(until - since, len(active)) if part == "active" else 0
        return total | {"suspended": Fraction(guest.slept)}

    def company(self, guest: Guest | None, begin: int, end: int) -> tuple[Fraction, int]:
        """So many were active together in an interval, `guest` (None: anybody) among them: on the mean and at most."""
        crowds: list[tuple[int, int]] = []
        for (since, until), word, active, _ in self.stretches():
            length = min(until, end) - max(since, begin)
            if word == "active" and length > 0 and (guest is None or guest in active):
                crowds.append((length, len(active)))
        whole = sum(length for length, _ in crowds)
        mean = Fraction(sum(length * crowd for length, crowd in crowds), whole or 1)
        return mean, max((crowd for _, crowd in crowds), default=0)


def is_held(fact: Event) -> bool:
    """Whether the agent held the command when it read this."""
    return isinstance(fact, Marked | BadMark) and fact.held


# --- What it costs ---

ONLINE = ("private", "deployment")


def price_of(charges: Mapping[str, int], status: str, row: Row, price: str) -> Decimal:
    """What nanoseconds cost, each meter rounded once to 18 places; an end puts its own multiplier on all of them."""
    total = Decimal(0)
    for meter, length in charges.items():
        factor = _WIDE.multiply(Decimal(row[meter]), Decimal(row.get(status, "1")))
        cost = _WIDE.multiply(_WIDE.multiply(_WIDE.scaleb(Decimal(length), -9), Decimal(price)), factor)
        total = _WIDE.add(total, cost.quantize(Decimal("1e-18"), context=_WIDE))
    return total
