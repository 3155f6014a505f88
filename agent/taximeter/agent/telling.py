"""Books what the agent itself tells of instances: what it saw and heard, and that nobody is left to tell more.

Owns what of it is kept as facts, and how far what was heard is booked. Refuses to know how any of that was seen, and
what it means.
"""

import time
from collections.abc import Sequence

from taximeter.agent.halves import Halves
from taximeter.errors import JournalFault
from taximeter.events import Clock, Event, Lost, Opened, Options
from taximeter.journal import Unwritten


class Telling:
    """The agent's own word on the instances in the books."""

    def __init__(self, halves: Halves) -> None:
        self.halves = halves
        self.books = halves.books

    def book_own(self, instance: str, events: Sequence[Event], heard_bytes: int | None = None) -> None:
        """Fold what the agent itself saw of an open instance; it is kept with whatever it leads to.

        `heard_bytes` is how far that was in the file of what it heard.
        """
        account = self.books.accounts[instance]
        account.seen_ns = time.monotonic_ns()
        if account.instance is not None:
            events = self.books.clocks.said(account.instance.opened, events)
        events = self.books.with_last_words(instance, account, events)
        self.halves.tell(instance, events, events, heard_bytes)

    def book_heard(self, instance: str, heard_bytes: int | None) -> None:
        """Keep how far what the agent heard of an open instance is booked; None: as far as before."""
        self.halves.tell(instance, (), (), heard_bytes)

    def book_look(self, instance: str, events: Sequence[Event]) -> None:
        """Fold what the agent saw on the devices and of processes: no sign of life, so nobody is asked after later."""
        self.halves.tell(instance, events, events)

    def lose(self, instance: str, now: Clock) -> None:
        """Close an instance whose wrapper is gone without a word about the end; the agent's own fact."""
        account = self.books.accounts[instance]
        if account.instance is None:
            return
        rebooted = account.instance.opened.clock.boot_id != now.boot_id
        lost = Lost(None, "rebooted") if rebooted else Lost(now.monotonic, "wrapper_lost", now)
        self.halves.tell(instance, self.books.with_last_words(instance, account, (lost,)), ())

    def book_unwritten(self, instance: str, found: Unwritten, now: Clock) -> None:
        """Book a run of which there was no room to write anything: all of it is unknown."""
        expected = f"room for it, got none until a run of uid {found.owner} had ended"
        self.books.complaints.about_file(
            instance, JournalFault("unwritten", f"cannot tell what instance {instance} was: expected {expected}")
        )
        began_ns, ended_ns = (
            max(0, now.monotonic - max(0, now.realtime - at_ns)) for at_ns in (found.began_ns, found.ended_ns)
        )
        ahead_ns = now.boottime - now.monotonic
        clock = Clock(began_ns, began_ns + ahead_ns, began_ns, found.began_ns, now.boot_id)
        opened = Opened(began_ns, instance, 0, (), Options(worker=True), clock, found.owner, 0)
        events = (opened, Lost(ended_ns, "unwritten"))
        self.books.fold(instance, self.books.accounts[instance], events)
