"""From journals to batches for the ledger: reads what is new, folds it through the meter, keeps what is open.

Owns which instances are open and how far each was read. A batch holds, for every instance that has records in it, the
position and the folded state behind them, so that a crash anywhere replays the same records or none. Refuses to wait,
to write, and to know what a fact means.
"""

import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence

from taximeter.agent.accounts import Account, Closed, Half, own, placed, state_of
from taximeter.agent.belief import Attest, Belief
from taximeter.agent.clocks import Clocks
from taximeter.agent.complaints import MOST_REMEMBERED, Complaints
from taximeter.agent.page import Page
from taximeter.agent.quota import Quota
from taximeter.clockwork import TIME_NAMESPACE, text
from taximeter.errors import JournalFault
from taximeter.events import Clock, Event, Exited, Lost, Opened, Options, Unread
from taximeter.hardware.inventory import UNKNOWN_TIER, Hardware
from taximeter.instance import Ended, Instance, Review
from taximeter.journal import Chunk, Position, Unwritten, read_on
from taximeter.late import review, take_over
from taximeter.ledger.values import Batch, JournalState
from taximeter.lifecycle import Stage
from taximeter.meter import Step, fold, fold_all, go_on, open_instance
from taximeter.observe.tally import Tally
from taximeter.overdue import corrected, goes_under
from taximeter.records import UsageRecord
from taximeter.rulebook import Rulebook
from taximeter.values import replace

#: What is read of one journal at a time, at most.
_CHUNK_BYTES = 1 << 16
#: So much is folded before anybody else has a turn: some 25 ms. It is counted in open predictions, since a mark may
#: settle the times of all that are; a fact counts as so many more.
TURN, _FACT = 4_096, 8
#: Of so many predictions a cut is made before anybody else has a turn: some 6 ms.
AT_ONCE = 128
#: So many of the facts that are read at once may be starts, each of which makes one more.
_STARTS = 24
#: A run of some seconds says so much.
_RUN = 8
_BEGINNING = Position()
_UNREADABLE = "unreadable"

Place = Callable[[Mapping[str, str]], Hardware]
#: What is still to be told of an instance whose end is about to be booked.
LastWords = Callable[[str, Instance, Exited | Lost], Sequence[Event]]


def _nothing(_: str, __: Instance, ___: Exited | Lost) -> Sequence[Event]:
    return ()


class Books:
    """The open instances of one journal directory."""

    def __init__(
        self,
        directory_fd: int,
        owners: frozenset[int] | None,
        book: Rulebook,
        place: Place,
        attest: Attest | None = None,
    ) -> None:
        self._directory_fd = directory_fd
        self._owners = owners
        self.book = book
        self._place = place
        self._clocks = Clocks()
        self._page = Page()
        self.accounts: dict[str, Account] = {}
        self.settling: dict[str, Account] = {}  #: that have ended, and whose records are to be reviewed first
        self.reviews: dict[str, None] = {}  #: whose records are to be reviewed, accounts and settling ones, in order
        self.repriced: dict[
            str, None
        ] = {}  #: that are over, and whose records are to be settled by a card that came late
        self.closed: dict[str, Closed] = {}  #: whose files still lie there
        self.aside: set[str] = set()  #: that cannot be booked, and are not looked at again until they change
        self.unread: set[str] = set()  #: whose files could not be opened this time, and may be the next
        self.early: set[str] = set()  #: whose new facts wait for what the kernel is about to tell
        self.halves: set[str] = set()  #: of whom something is half folded, and goes on with the next reading
        self.last_words: LastWords = _nothing
        self.quota = Quota()
        self.tally = Tally()
        self._complaints = Complaints(self.tally)
        self._belief = Belief(attest, self._clocks, self._complaints, self.tally)

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
            elif state is not None and has_ended and state.repriced:
                self.repriced[journal.instance] = None

    def read(self, instance: str) -> bool:
        """Fold what an instance's journal has anew; True if there is more than one round should take."""
        due = [instance]
        self.read_some(due)
        return bool(due)

    def read_some(self, due: list[str]) -> list[str]:
        """Do so for the last of `due`, for as many as bring some facts; gives their names, and leaves who has more.

        All are read, then all are looked at, then all are folded: code that goes on with one kind of work stays in
        the processor's caches.
        """
        names, found = self._read_on(due)
        news = [(name, account, self._believed(name, account, chunk)) for name, account, chunk in found]
        self._fold_all([(name, account, events) for name, account, events in news if events])
        for (name, account, events), (_, _, chunk) in zip(news, found, strict=True):
            has_more = chunk.more and not chunk.ended
            account.is_behind = has_more or events is None
            if events is not None and has_more:
                due.insert(0, name)  # last again, so that nobody who says much keeps others waiting
        return names

    def _read_on(self, due: list[str]) -> tuple[list[str], list[tuple[str, Account, Chunk]]]:
        """Take names from the end of `due`, and read their journals; a file that cannot be believed is refused here."""
        names: list[str] = []
        found: list[tuple[str, Account, Chunk]] = []
        left = TURN
        while due and left > 0 and len(names) < TURN // _FACT:
            name = due.pop()
            names.append(name)
            account = self.accounts.get(name)
            if account is None:
                account = self.accounts[name] = Account(_BEGINNING)
            if account.half is not None:
                left = 0
                if self._go_on(name, account, account.half):
                    due.insert(0, name)
                continue
            most = most_facts(account, left)
            try:
                chunk = read_on(self._directory_fd, name, account.position, self._owners, _CHUNK_BYTES, most)
            except JournalFault as fault:
                self._refuse(name, account, fault)
                continue
            if not self.quota.admit(name, chunk.owner, at_once=account.instance is not None or chunk.ended):
                self._have_wait(name, chunk.owner)
                continue
            left -= cost(account) * (len(chunk.events) + len(chunk.faults))
            if account.open_predictions <= AT_ONCE:
                found.append((name, account, chunk))
                continue
            left = 0  # whether it makes a cut or not
            if self._begin_half(name, account, chunk):
                due.insert(0, name)
        return names, found

    def _have_wait(self, name: str, owner: int) -> None:
        """One user has so many open instances that this one is read later."""
        self.accounts.pop(name, None)
        expected = f"fewer open instances of uid {owner} (journal.open_per_owner)"
        self._complaints.about_file(
            name, JournalFault("quota", f"cannot book instance {name} for now: expected {expected}")
        )

    def _believed(self, name: str, account: Account, chunk: Chunk) -> Sequence[Event] | None:
        """The new facts, as far as they can be true, with what the agent saw itself; None: to be read again."""
        believed = self._belief.of(name, account, chunk)
        if believed is None:
            self.early.add(name)
            return None
        events, seen = believed
        self._page.note(name, map(own, seen))
        return self._with_last_words(name, account, events)

    def _begin_half(self, name: str, account: Account, chunk: Chunk) -> bool:
        """Fold the news of an instance that has many predictions open, or a part; whether there is more."""
        before = account.position
        believed = self._belief.of(name, account, chunk)
        if believed is None or account.instance is None:
            self.early.add(name)
            account.is_behind = True
            return False
        (events, seen), now = believed, self._clocks.lately()
        events, has_more = self._with_last_words(name, account, events), chunk.more and not chunk.ended
        half = Half(
            fold(account.instance, events, self.book, now, AT_ONCE), now, account.position, tuple(seen), has_more
        )
        account.position = before
        return self._keep_half(name, account, half)

    def _go_on(self, name: str, account: Account, half: Half, most: int | None = AT_ONCE) -> bool:
        """Fold on what is half folded; whether there is more."""
        return self._keep_half(name, account, replace(half, step=go_on(half.step, self.book, half.now, most)))

    def _keep_half(self, name: str, account: Account, half: Half) -> bool:
        """What is half folded is kept beside the account, what is whole goes into it; whether there is more."""
        if half.step.pause is not None:
            account.half, account.is_behind = half, True
            self.halves.add(name)
            return True
        account.half, account.position, account.is_behind = None, half.position, half.has_more
        self.halves.discard(name)
        self._page.note(name, map(own, half.seen))
        self._file(name, account, half.step)
        if half.is_told and name in self.accounts:
            self._keep_heard(name, account, half.heard_bytes)
        return half.has_more

    def go_on(self, name: str) -> None:
        """Fold on what is half folded of an instance, by one piece."""
        account = self.accounts[name]
        if account.half is not None:
            self._go_on(name, account, account.half)

    def _complete(self, name: str) -> None:
        """Fold what is half folded of an instance at once: whoever asks for that is rare, and cannot wait."""
        account = self.accounts[name]
        if account.half is not None:
            self._go_on(name, account, account.half, None)

    def _tell(
        self,
        name: str,
        account: Account,
        events: Sequence[Event],
        seen: Sequence[Event],
        heard_bytes: int | None = None,
    ) -> None:
        """Fold what the agent itself tells, of which it is to keep what it has `seen`.

        Where many predictions are open it may be but a piece of that; what is half folded comes first.
        """
        if account.half is not None:
            account.half = account.half.followed_by(events, seen, heard_bytes)
        elif account.instance is not None and account.open_predictions > AT_ONCE:
            now = self._clocks.lately()
            step, behind = fold(account.instance, events, self.book, now, AT_ONCE), account.is_behind
            self._keep_half(name, account, Half(step, now, account.position, tuple(seen), behind, True, heard_bytes))
        else:
            self._page.note(name, map(own, seen))
            self._fold(name, account, events)
            if name in self.accounts:
                self._keep_heard(name, account, heard_bytes)

    def _keep_heard(self, name: str, account: Account, heard_bytes: int | None) -> None:
        """Keep the state of an instance, and how far what the agent heard of it is booked; None: as far as before."""
        if heard_bytes is not None and account.instance is not None:
            account.instance = replace(account.instance, heard_bytes=heard_bytes)
        self._page.keep(name)

    def set_aside(self, instance: str) -> None:
        """Look no more at a journal that never began an instance, and whose writer is gone; the file stays."""
        self.accounts.pop(instance, None)
        self.quota.release(instance)
        if len(self.aside) >= MOST_REMEMBERED:
            self.aside.clear()
        self.aside.add(instance)

    def book_own(self, instance: str, events: Sequence[Event], heard_bytes: int | None = None) -> None:
        """Fold what the agent itself saw of an open instance; it is kept with whatever it leads to.

        `heard_bytes` is how far that was in the file of what it heard.
        """
        account = self.accounts[instance]
        account.seen_ns = time.monotonic_ns()
        if account.instance is not None:
            events = self._clocks.said(account.instance.opened, events)
        events = self._with_last_words(instance, account, events)
        self._tell(instance, account, events, events, heard_bytes)

    def book_heard(self, instance: str, heard_bytes: int | None) -> None:
        """Keep how far what the agent heard of an open instance is booked; None: as far as before."""
        self._tell(instance, self.accounts[instance], (), (), heard_bytes)

    def book_look(self, instance: str, events: Sequence[Event]) -> None:
        """Fold what the agent saw on the devices and of processes: no sign of life, so nobody is asked after later."""
        self._tell(instance, self.accounts[instance], events, events)

    def review_of(self, instance: str) -> tuple[Opened, Review] | None:
        """What is to be looked through again of an instance's records; None, and no more asked for, if nothing is."""
        account = self.accounts.get(instance) or self.settling.get(instance)
        known = account.instance if account is not None else None
        if known is None or known.review is None:
            self.reviews.pop(instance, None)
            return None
        return known.opened, known.review

    def reviewed(self, instance: str, ended: Iterable[tuple[int, Ended]], at: int) -> None:
        """Book the corrections of what has ended, as its records up to `at` say, and how far that got."""
        account = self.accounts.get(instance) or self.settling[instance]
        if account.instance is None or account.half is not None:
            return  # it is to be reviewed anew, once it is whole
        account.instance, records = review(account.instance, ended, at, self.book)
        self._page.records.extend(records)
        if account.instance.review is None:
            self.reviews.pop(instance, None)
        if account.instance.stage is Stage.CLOSED:
            self._close(instance, account)
        else:
            self._page.keep(instance)

    def book_corrections(self, records: Iterable[UsageRecord]) -> None:
        """Book corrections of instances that are over."""
        self._page.records.extend(records)

    def put_under(self, name: str, card: str) -> tuple[UsageRecord, ...]:
        """Have an instance that is not over, or not settled, go on as if a card had not come late: what that led to."""
        account = self._unsettled(name)
        if account is None or account.instance is None:
            return ()
        account.instance, records = goes_under(account.instance, card, self.book)
        self._page.records.extend(records)
        self._page.keep(name)
        return records

    def correct(self, name: str, records: tuple[UsageRecord, ...]) -> bool:
        """Book corrections of an instance that is not over, or not settled; False where it is."""
        account = self._unsettled(name)
        if account is None or account.instance is None:
            return False
        account.instance, told = corrected(account.instance, records)
        self._page.records.extend(told)
        self._page.keep(name)
        return True

    def _unsettled(self, name: str) -> Account | None:
        if name in self.accounts:
            self._complete(name)
        return self.accounts.get(name) or self.settling.get(name)

    def settled(self, name: str) -> None:
        """Let go of an instance that is over, now that its records are as if no card had come late."""
        self.repriced.pop(name, None)
        account = self.settling.get(name)
        if account is not None and account.instance is not None:
            account.instance = replace(account.instance, repriced=())
            self._close(name, account)

    def lose(self, instance: str, now: Clock) -> None:
        """Close an instance whose wrapper is gone without a word about the end; the agent's own fact."""
        account = self.accounts[instance]
        if account.instance is None:
            return
        rebooted = account.instance.opened.clock.boot_id != now.boot_id
        lost = Lost(None, "rebooted") if rebooted else Lost(now.monotonic, "wrapper_lost", now)
        self._tell(instance, account, self._with_last_words(instance, account, (lost,)), ())

    def book_unwritten(self, instance: str, found: Unwritten, now: Clock) -> None:
        """Book a run of which there was no room to write anything: all of it is unknown."""
        expected = f"room for it, got none until a run of uid {found.owner} had ended"
        self._complaints.about_file(
            instance, JournalFault("unwritten", f"cannot tell what instance {instance} was: expected {expected}")
        )
        began_ns, ended_ns = (
            max(0, now.monotonic - max(0, now.realtime - at_ns)) for at_ns in (found.began_ns, found.ended_ns)
        )
        ahead_ns = now.boottime - now.monotonic
        clock = Clock(began_ns, began_ns + ahead_ns, began_ns, found.began_ns, now.boot_id)
        opened = Opened(began_ns, instance, 0, (), Options(worker=True), clock, found.owner, 0)
        self._fold(instance, self.accounts[instance], (opened, Lost(ended_ns, "unwritten")))

    def _with_last_words(self, name: str, account: Account, events: Sequence[Event]) -> Sequence[Event]:
        """What the agent saw of an instance that was not told yet, before the end of it."""
        if account.instance is None or not events or not isinstance(events[-1], Exited | Lost):
            return events
        words = self.last_words(name, account.instance, events[-1])
        return [*events[:-1], *words, events[-1]] if words else events

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
        for name, account in list(self.accounts.items()):
            self._complete(name)
            if account.instance is not None and name in self.accounts:
                self._page.keep(name)
        return self.take_batch()

    def _fold(self, name: str, account: Account, events: Sequence[Event]) -> None:
        self._fold_all([(name, account, events)])

    def _fold_all(self, news: Iterable[tuple[str, Account, Sequence[Event]]]) -> None:
        """Fold new facts, of as many instances, and file what they lead to; nothing while there was no opening."""
        whose: list[tuple[str, Account]] = []
        told: list[tuple[Instance, Sequence[Event]]] = []
        for name, account, events in news:
            instance, rest = (account.instance, events) if account.instance else self._begin(name, events)
            if instance is not None:
                whose.append((name, account))
                told.append((instance, rest))
        for (name, account), step in zip(whose, fold_all(told, self.book, self._clocks.lately()), strict=True):
            self._file(name, account, step)

    def _file(self, name: str, account: Account, step: Step) -> None:
        begins = account.instance is None
        account.instance = step.instance
        for fault in step.faults:
            self.tally.clock_fault(fault)
        for doubt in step.doubts:
            self.tally.call_fault(doubt)
        if step.mismatch:
            self.tally.mismatch(step.instance.hardware.tier if step.instance.hardware else UNKNOWN_TIER)
        for kind, reason in step.rejected:
            self._reject(kind, reason)
        self._page.records.extend(step.records)
        if step.instance.review is not None:
            self.reviews[name] = None
        if step.instance.stage is Stage.CLOSED:
            self._close(name, account)
        elif step.records or begins:
            self._page.keep(name)

    def _begin(self, name: str, events: Sequence[Event]) -> tuple[Instance | None, Sequence[Event]]:
        """The instance that the first opening begins, and the facts behind it; what came before is lost and said."""
        for at, event in enumerate(events):
            if isinstance(event, Opened):
                return self._open(name, event), events[at + 1 :]
            if not isinstance(event, Unread):
                self.tally.journal_fault("before_open")
        if events:
            self._complaints.say("journal.fault reason=before_open: cannot book %s: expected an open fact first", name)
        return None, ()

    def _open(self, name: str, opened: Opened) -> Instance:
        hardware = self._place(opened.visible)
        self._page.note(name, [placed(hardware)])
        if opened.timens is not None:
            self.tally.clock_fault(text(TIME_NAMESPACE))
        return open_instance(opened, self.book, hardware)

    def _close(self, name: str, account: Account) -> None:
        self.accounts.pop(name, None)
        if account.instance is not None and (account.instance.review is not None or account.instance.repriced):
            self.settling[name] = account
            if account.instance.review is None:
                self.repriced[name] = None
            self._page.keep(name)
            return
        self.settling.pop(name, None)
        self.quota.release(name)
        self._page.close(name, account)

    def _reject(self, kind: str, reason: str) -> None:
        if kind in ("Marked", "BadMark"):
            self.tally.rejected_mark(reason)
        else:
            self.tally.illegal_event(reason)

    def _refuse(self, name: str, account: Account, fault: JournalFault) -> None:
        """A file that as a whole cannot be believed: said and counted once, however often it is looked at."""
        account.stuck = fault.reason
        if fault.reason == _UNREADABLE:
            self.unread.add(name)
        elif account.instance is None:
            self.set_aside(name)
        if account.instance is None:
            self.accounts.pop(name, None)
            self.quota.release(name)
        if fault.reason != "missing":
            self._complaints.about_file(name, fault)


def cost(account: Account) -> int:
    """What a fact of this instance costs, as part of a TURN."""
    return _FACT + account.open_predictions


def most_facts(account: Account, left: int) -> int:
    """How many of its facts may be taken, of what is left of a TURN; of one with little open as many as most runs say.

    Else the last of each turn would be read in two pieces, kept in the ledger in between, and synced for that.
    """
    return max(_RUN if cost(account) <= 2 * _FACT else 1, left // (cost(account) + _STARTS))
