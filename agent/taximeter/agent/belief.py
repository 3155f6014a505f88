"""Which of a journal's new facts are believed, and what the agent saw itself beside them.

Owns the doubts: what is damaged is complained of, what comes from the future is left out, and what the kernel is about
to tell more of is not taken yet. Refuses to know what a fact leads to.
"""

import time
from collections.abc import Callable, Sequence

from taximeter.agent.accounts import Account
from taximeter.agent.clocks import Clocks
from taximeter.agent.complaints import Complaints
from taximeter.errors import JournalFault
from taximeter.events import Event, Exited, Opened, Signaled, Spawned
from taximeter.instance import Instance
from taximeter.journal import Chunk
from taximeter.kernel import boot_id
from taximeter.observe.tally import Tally

#: No clock of this boot is ahead of ours; what a journal says may be, by what it takes to be written.
_AHEAD_NS = 1_000_000_000
_NEWER = "newer_version"

#: Puts what the agent saw itself beside an instance's new facts; None where that is still to come.
Attest = Callable[[str, int, Instance | None, Sequence[Event]], Sequence[Event] | None]


class Belief:
    """What one agent believes of what wrappers write."""

    def __init__(self, attest: Attest | None, clocks: Clocks, complaints: Complaints, tally: Tally) -> None:
        self._attest = attest
        self._clocks = clocks
        self._complaints = complaints
        self._tally = tally
        self._boot_id = boot_id()

    def of(self, name: str, account: Account, chunk: Chunk) -> tuple[Sequence[Event], Sequence[Event]] | None:
        """The new facts as far as they can be true, and those of them that the agent saw itself and is to keep.

        The account goes on to where they end. None: they are to be read again, once the kernel has told what it saw.
        """
        opened = _opening(account, chunk.events)
        told = self._clocks.told(opened, chunk.events)
        attested = self._attested(name, account, chunk.position.segment, told)
        if attested is None:
            return None
        events, seen = attested
        self._doubt(account, chunk)
        account.position = chunk.position
        if not events:
            return events, seen
        if isinstance(events[-1], Exited) and events[-1].dropped:
            self._tally.journal_fault("dropped", events[-1].dropped)
        account.seen_ns = time.monotonic_ns()
        return self._of_the_past(account, events, account.seen_ns), seen

    def _attested(
        self, name: str, account: Account, segment: int, events: Sequence[Event]
    ) -> tuple[Sequence[Event], Sequence[Event]] | None:
        """With what the agent saw itself; a start, an end and who sent a signal have witnesses beside the wrapper."""
        if self._attest is None or not (events and (account.pid_is_open or _has_witnesses(events))):
            return events, ()
        attested = self._attest(name, segment, account.instance, events)
        if attested is None:
            return None
        if isinstance(attested[-1], Exited):
            return attested, ()
        return attested, [event for told, event in zip(events, attested, strict=True) if _is_seen(told, event)]

    def _doubt(self, account: Account, chunk: Chunk) -> None:
        known, account.stuck = account.stuck, None
        for doubt in chunk.faults:
            if doubt.reason == _NEWER:
                account.stuck = _NEWER
            if doubt.reason != known:
                self._complaints.about(doubt)

    def _of_the_past(self, account: Account, events: Sequence[Event], now_ns: int) -> Sequence[Event]:
        """Without facts from the future of this boot: a damaged line, which would make a life of years."""
        opened = _opening(account, events)
        if opened is None or opened.clock.boot_id != self._boot_id:
            return events
        latest_ns = now_ns + _AHEAD_NS
        past = [event for event in events if event.at_ns is None or event.at_ns <= latest_ns]
        for _ in range(len(events) - len(past)):
            self._complaints.about(
                JournalFault("future", f"cannot believe a fact of {opened.instance}: expected one of the past")
            )
        return past


def _opening(account: Account, events: Sequence[Event]) -> Opened | None:
    """What an instance began with; of one that is not open yet, the first that is among its new facts."""
    if account.instance is not None:
        return account.instance.opened
    if events and isinstance(events[0], Opened):  # as it should be
        return events[0]
    return next((event for event in events if isinstance(event, Opened)), None)


def _has_witnesses(events: Sequence[Event]) -> bool:
    """Whether the kernel may know more of some of these facts than the wrapper; the spawn is another matter."""
    return isinstance(events[-1], Exited) or any(isinstance(event, Signaled) for event in events)


def _is_seen(told: Event, event: Event) -> bool:
    """Whether the agent saw something itself of a fact that a wrapper told."""
    if isinstance(event, Spawned):
        return event.exec_ns is not None
    return isinstance(event, Signaled) and event is not told
