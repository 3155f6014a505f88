"""Reads the journals of one directory into the books: what is new of some instances, as much as one turn may take.

Owns how far journals are read at a time, and who is read later, or not at all. Refuses to wait, to know what a fact
means, and which of them are true (belief).
"""

from collections.abc import Sequence

from taximeter.agent.accounts import Account
from taximeter.agent.allowance import AT_ONCE, FACT, TURN, cost, most_facts
from taximeter.agent.belief import Attest, Belief
from taximeter.agent.books import News
from taximeter.agent.halves import Halves
from taximeter.errors import JournalFault
from taximeter.events import Event
from taximeter.journal import Chunk, Position, read_on

#: What is read of one journal at a time, at most.
_CHUNK_BYTES = 1 << 16
_BEGINNING = Position()
_UNREADABLE = "unreadable"


class Reading:
    """Whoever reads one journal directory."""

    def __init__(
        self, directory_fd: int, owners: frozenset[int] | None, halves: Halves, attest: Attest | None = None
    ) -> None:
        self._directory_fd = directory_fd
        self._owners = owners
        self.halves = halves
        self.books = books = halves.books
        self.unread: set[str] = set()  #: whose files could not be opened this time, and may be the next
        self._belief = Belief(attest, books.clocks, books.complaints, books.tally)

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
        told: list[News] = [(name, account, events) for name, account, events in news if events]
        self.books.fold_all(told)
        for (name, account, events), (_, _, chunk) in zip(news, found, strict=True):
            has_more = chunk.more and not chunk.ended
            account.is_behind = has_more or events is None
            if events is not None and has_more:
                due.insert(0, name)  # last again, so that nobody who says much keeps others waiting
        return names

    def _read_on(self, due: list[str]) -> tuple[list[str], list[tuple[str, Account, Chunk]]]:
        """Take names from the end of `due`, and read their journals; what is to be folded in pieces is folded on."""
        names: list[str] = []
        found: list[tuple[str, Account, Chunk]] = []
        accounts, left = self.books.accounts, TURN
        while due and left > 0 and len(names) < TURN // FACT:
            name = due.pop()
            names.append(name)
            account = accounts.get(name)
            if account is None:
                account = accounts[name] = Account(_BEGINNING)
            if account.half is not None:
                left = 0
                if self.halves.go_on(name):
                    due.insert(0, name)
                continue
            chunk = self._chunk(name, account, most_facts(account, left))
            if chunk is None:
                continue
            left -= cost(account) * (len(chunk.events) + len(chunk.faults))
            if account.open_predictions <= AT_ONCE:
                found.append((name, account, chunk))
                continue
            left = 0  # whether it makes a cut or not
            if self._begin_half(name, account, chunk):
                due.insert(0, name)
        return names, found

    def _chunk(self, name: str, account: Account, most: int) -> Chunk | None:
        """What a journal has anew; None where it cannot be believed, or has to wait."""
        try:
            chunk = read_on(self._directory_fd, name, account.position, self._owners, _CHUNK_BYTES, most)
        except JournalFault as fault:
            self._refuse(name, account, fault)
            return None
        if not self.books.quota.admit(name, chunk.owner, at_once=account.instance is not None or chunk.ended):
            self._have_wait(name, chunk.owner)
            return None
        return chunk

    def _believed(self, name: str, account: Account, chunk: Chunk) -> Sequence[Event] | None:
        """The new facts, as far as they can be true, with what the agent saw itself; None: to be read again."""
        believed = self._belief.of(name, account, chunk)
        if believed is None:
            self.books.early.add(name)
            return None
        events, seen = believed
        self.books.note(name, seen)
        return self.books.with_last_words(name, account, events)

    def _begin_half(self, name: str, account: Account, chunk: Chunk) -> bool:
        """Fold the news of an instance that has many predictions open, or a part; whether there is more."""
        before = account.position
        believed = self._belief.of(name, account, chunk)
        if believed is None:
            self.books.early.add(name)
            account.is_behind = True
            return False
        events, seen = believed
        until, account.position = account.position, before
        events = self.books.with_last_words(name, account, events)
        return self.halves.begin_read(name, events, seen, (until, chunk.more and not chunk.ended))

    def _have_wait(self, name: str, owner: int) -> None:
        """One user has so many open instances that this one is read later."""
        self.books.accounts.pop(name, None)
        expected = f"fewer open instances of uid {owner} (journal.open_per_owner)"
        self.books.complaints.about_file(
            name, JournalFault("quota", f"cannot book instance {name} for now: expected {expected}")
        )

    def _refuse(self, name: str, account: Account, fault: JournalFault) -> None:
        """A file that as a whole cannot be believed: said and counted once, however often it is looked at."""
        account.stuck = fault.reason
        if fault.reason == _UNREADABLE:
            self.unread.add(name)
        elif account.instance is None:
            self.books.set_aside(name)
        if account.instance is None:
            self.books.let_go(name)
        if fault.reason != "missing":
            self.books.complaints.about_file(name, fault)
