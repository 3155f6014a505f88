"""The open instances of one journal directory: posts what their facts lead to, and has it in batches for the ledger.

Owns which instances are open, which are over and not settled, and which are closed. A batch holds, for every instance
that has records in it, the position and the folded state behind them, so that a crash anywhere replays the same records
or none. Refuses to wait, to write, to read (reading), and to know what a fact means.
"""

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence

from taximeter.agent.accounts import Account, Closed, own, placed, state_of
from taximeter.agent.clocks import Clocks
from taximeter.agent.complaints import MOST_REMEMBERED, Complaints
from taximeter.agent.page import Page
from taximeter.agent.quota import Quota
from taximeter.agent.refusals import Refusals
from taximeter.clockwork import TIME_NAMESPACE, text
from taximeter.events import Event, Exited, Lost, Opened, Unread
from taximeter.hardware.inventory import UNKNOWN_TIER, Hardware
from taximeter.instance import Instance
from taximeter.journal import Position
from taximeter.late import take_over
from taximeter.ledger.values import Batch, JournalState
from taximeter.lifecycle import Stage
from taximeter.meter import Step, fold_all, open_instance
from taximeter.observe.tally import Tally
from taximeter.records import UsageRecord
from taximeter.rulebook import Rulebook
from taximeter.values import replace

Place = Callable[[Mapping[str, str]], Hardware]
#: What is still to be told of an instance whose end is about to be booked.
LastWords = Callable[[str, Instance, Exited | Lost], Sequence[Event]]
News = tuple[str, Account, Sequence[Event]]  #: of one instance


def _nothing(_: str, __: Instance, ___: Exited | Lost) -> Sequence[Event]:
    return ()


class Books:
    """The instances of one journal directory, and what was booked of them since the last commit."""

    def __init__(self, book: Rulebook, place: Place) -> None:
        self.book = book
        self._place = place
        self._page = Page()
        self.accounts: dict[str, Account] = {}
        self.settling: dict[str, Account] = {}  #: that have ended, and whose records are to be gone through first
        self.reviews: dict[str, None] = {}  #: whose records are to be reviewed, accounts and settling ones, in order
        self.closed: dict[str, Closed] = {}  #: whose files still lie there
        self.aside: set[str] = set()  #: that cannot be booked, and are not looked at again until they change
        self.early: set[str] = set()  #: whose new facts wait for what the kernel is about to tell
        self.last_words: LastWords = _nothing
        self.quota = Quota()
        self.tally = Tally()
        self.refusals = Refusals(self.tally)
        self.complaints = Complaints(self.tally)
        self.clocks = Clocks()

    def resume(self, saved: Iterable[JournalState]) -> None:
        """Take up the instances that were open when the ledger was last written."""
        for journal in saved:
            kept = None if journal.state is None else state_of(journal)
            state = None if kept is None else take_over(kept)
            has_ended = state is not None and state.stage is Stage.CLOSED
            accounts = self.settling if has_ended else self.accounts
            accounts[journal.instance] = Account(Position(journal.segment, journal.offset), state)
            if state is not None and state.review is not None:
                self.reviews[journal.instance] = None

    def set_aside(self, instance: str) -> None:
        """Look no more at a journal that never began an instance, and whose writer is gone; the file stays."""
        self.let_go(instance)
        if len(self.aside) >= MOST_REMEMBERED:
            self.aside.clear()
        self.aside.add(instance)

    def let_go(self, instance: str) -> None:
        """Forget an instance of which nothing was booked."""
        self.accounts.pop(instance, None)
        self.quota.release(instance)

    # --- What facts lead to ---

    def fold(self, name: str, account: Account, events: Sequence[Event]) -> None:
        """Fold new facts of an instance."""
        self.fold_all([(name, account, events)])

    def fold_all(self, news: Iterable[News]) -> None:
        """Fold new facts, of as many instances, and post what they lead to; nothing while there was no opening."""
        whose: list[tuple[str, Account]] = []
        told: list[tuple[Instance, Sequence[Event]]] = []
        for name, account, events in news:
            instance, rest = (account.instance, events) if account.instance else self._begin(name, events)
            if instance is not None:
                whose.append((name, account))
                told.append((instance, rest))
        for (name, account), step in zip(whose, fold_all(told, self.book, self.clocks.lately()), strict=True):
            self.post(name, account, step)

    def post(self, name: str, account: Account, step: Step) -> None:
        """Go on to where facts led an instance, and book what they led to."""
        begins = account.instance is None
        account.instance = step.instance
        for fault in step.faults:
            self.tally.clock_fault(fault)
        for doubt in step.doubts:
            self.tally.call_fault(doubt)
        if step.mismatch:
            self.tally.mismatch(step.instance.hardware.tier if step.instance.hardware else UNKNOWN_TIER)
        for kind, reason in step.rejected:
            self._reject(name, step.instance, kind, reason)
        self._page.records.extend(step.records)
        if step.instance.review is not None:
            self.reviews[name] = None
        if step.instance.stage is Stage.CLOSED:
            self.close(name, account)
        elif step.records or begins:
            self._page.keep(name)

    def note(self, name: str, seen: Iterable[Event]) -> None:
        """Keep what the agent itself saw of an instance, as facts."""
        self._page.note(name, map(own, seen))

    def keep(self, name: str, account: Account, heard_bytes: int | None = None) -> None:
        """Keep the state of an instance, and how far what the agent heard of it is booked; None: as far as before."""
        if heard_bytes is not None and account.instance is not None:
            account.instance = replace(account.instance, heard_bytes=heard_bytes)
        self._page.keep(name)

    def book_corrections(self, records: Iterable[UsageRecord]) -> None:
        """Book corrections of what was billed."""
        self._page.records.extend(records)

    def close(self, name: str, account: Account) -> None:
        """Let go of an instance that is over; where its records are to be gone through first, it is settling."""
        self.accounts.pop(name, None)
        if account.instance is not None and (account.instance.review is not None or account.instance.repriced):
            self.settling[name] = account
            self._page.keep(name)
            return
        self.settling.pop(name, None)
        self.quota.release(name)
        self._page.close(name, account)

    def with_last_words(self, name: str, account: Account, events: Sequence[Event]) -> Sequence[Event]:
        """What the agent saw of an instance that was not told yet, before the end of it."""
        if account.instance is None or not events or not isinstance(events[-1], Exited | Lost):
            return events
        words = self.last_words(name, account.instance, events[-1])
        return [*events[:-1], *words, events[-1]] if words else events

    def _begin(self, name: str, events: Sequence[Event]) -> tuple[Instance | None, Sequence[Event]]:
        """The instance that the first opening begins, and the facts behind it; what came before is lost and said."""
        for at, event in enumerate(events):
            if isinstance(event, Opened):
                return self._open(name, event), events[at + 1 :]
            if not isinstance(event, Unread):
                self.tally.journal_fault("before_open")
        if events:
            self.complaints.say("journal.fault reason=before_open: cannot book %s: expected an open fact first", name)
        return None, ()

    def _open(self, name: str, opened: Opened) -> Instance:
        hardware = self._place(opened.visible)
        self._page.note(name, [placed(hardware)])
        if opened.timens is not None:
            self.tally.clock_fault(text(TIME_NAMESPACE))
        return open_instance(opened, self.book, hardware)

    def _reject(self, name: str, instance: Instance, kind: str, reason: str) -> None:
        if kind in ("Marked", "BadMark"):
            self.refusals.count(name, reason, instance.opened.options)
        else:
            self.tally.illegal_event(reason)

    # --- What is to be committed ---

    @property
    def waiting(self) -> int:
        """How large the next batch will be."""
        return self._page.size

    def take_batch(self) -> Batch | None:
        """What is to be committed next, if anything."""
        return self._page.take(ChainMap(self.accounts, self.settling))

    def put_back(self, batch: Batch) -> None:
        """Give the next committer the batch that could not be committed: the same one, before anything newer."""
        self._page.put_back(batch)

    def take_everything(self) -> Batch | None:
        """The last batch of an agent that stops: every open instance's state with it."""
        for name, account in self.accounts.items():
            if account.instance is not None:
                self._page.keep(name)
        return self.take_batch()
