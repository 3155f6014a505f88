"""Takes living instances into the agent's hands, and goes on with those whose wrapper is gone.

Owns the ladder below the wrapper: while it lives it is believed; once its lock is free, the agent itself watches the
command (adoption), reads its marks, and tells its end as it was seen: by the kernel, by the agent's own pidfd, or not
at all. Refuses to know what any of that means for a bill.
"""

import logging
from collections.abc import Iterable, Sequence

from taximeter import kernel, wire
from taximeter.agent.allowance import TURN, cost, most_facts
from taximeter.agent.eyewitness import Eyewitness
from taximeter.agent.finder import Finder
from taximeter.agent.keeper import Ended, Keeper, Said
from taximeter.agent.owners import Owners
from taximeter.agent.seeker import Seeker
from taximeter.agent.speech import Speech
from taximeter.agent.telling import Telling
from taximeter.agent.testimony import alive, exited, lived
from taximeter.agent.turns import Turns, Unseen, split
from taximeter.errors import JournalFault, TaximeterError
from taximeter.events import BecameReady, Event, Exited, Lost, OwnerEnded, OwnersHeld
from taximeter.instance import Instance
from taximeter.journal import Unwritten, journal_name, open_heard, open_marks, unwritten
from taximeter.lifecycle import Stage
from taximeter.values import replace

logger = logging.getLogger(__name__)


class Custody:
    """The open instances of one journal directory, held."""

    def __init__(self, directory_fd: int, owners: frozenset[int] | None, telling: Telling, eyes: Eyewitness) -> None:
        self._directory_fd = directory_fd
        self._owners = owners
        self._telling = telling
        self._books = books = telling.books
        self._eyes = eyes
        self._keeper = Keeper()
        self._turns = Turns()
        self._ending: set[str] = set()  # adopted instances whose end is known, and what is left of them is booked
        self._speech = Speech()
        self._finder = Finder(directory_fd, eyes, books)
        self._children = Owners(eyes, Seeker(directory_fd), self._is_silent, books.tally.orphaned)
        self.fds = (self._keeper.fd, self._children.fd)  #: readable when there is news
        self.adopted: set[str] = set()

    def close(self) -> None:
        """Let go of everything."""
        self._keeper.close()
        self._children.close()

    def look_after(self, names: Iterable[str]) -> None:
        """Hold what of these is open, let go of what is not."""
        for name in names:
            account = self._books.accounts.get(name)
            if account is None or account.instance is None:
                self._forget(name)
                continue
            if not self._keeper.holds(name) and account.instance.stage is not Stage.PENDING:
                self._hold(name, account.instance)
            self._look_after_children(name)

    def last_words(self, name: str, end: Exited | Lost) -> Sequence[OwnerEnded | OwnersHeld]:
        """What is still to be told of the processes that started an instance's predictions."""
        return self._children.last_words(name, end)

    @property
    def has_more(self) -> bool:
        """Whether there is news that waits for its turn."""
        return bool(self._turns)

    def is_ending(self, name: str) -> bool:
        """Whether its end is about to be booked, once the rest of what it said is."""
        return name in self._ending

    def take_news(self) -> bool:
        """Book some of what was seen and said since; true if there was anything.

        It is as much as one turn of the books may be, for each mark may cost as much as predictions are open.
        """
        # The others' wrappers live and tell their ends themselves, or have told them.
        self._turns.add(item for item in self._keeper.take() if item.instance in self.adopted)
        had_some = self.has_more
        left = TURN
        while self.has_more and left > 0:
            left -= self._deal_with(self._turns.take(), left)
        self._books.early |= self._children.take()
        return had_some

    def _deal_with(self, item: Ended | Said | Unseen, left: int) -> int:
        """Book it, or a part of it; returns what that cost."""
        name = item.instance
        account = self._books.accounts.get(name)
        if account is None or account.instance is None:
            self._forget(name)
            return 1
        if account.half is not None:  # what is to be booked before it
            self._turns.put_back([item])
            self._telling.halves.go_on(name)
            return left
        if isinstance(item, Said):
            front, rest = split(item, most_facts(account, left))
            if rest is not None:
                self._turns.put_back([rest])
            self._keeper.go_on(front)
            self._book_marks(name, account.instance, front)
            self._look_after_children(name)
            return cost(account) * (1 + front.data.count(b"\n"))
        if isinstance(item, Ended) and self._eyes.is_end_to_come(account.instance, item.at_ns):
            self._keeper.tell_again(item)
        elif self._turns.has(name):
            self._turns.add([item])  # what was said is booked before it
        elif not self._go_on_to_end(name, item):
            self._end(name, account.instance, item if isinstance(item, Ended) else None)
        return cost(account)

    def _go_on_to_end(self, name: str, item: Ended | Unseen) -> bool:
        """Whether something is left that was said before the end: that comes first."""
        self._ending.add(name)
        said = self._keeper.drain(name)
        if said:
            self._turns.put_back([*said, item])
        return bool(said)

    def fall_deaf(self) -> None:
        """Hear no more: the next agent goes on. What was heard so far is news still."""
        self._keeper.fall_deaf()

    def beat(self) -> None:
        """A heartbeat for every instance that has no wrapper any more: the agent's word instead."""
        if self._eyes.has_lost():
            self._follow_anew()
        self._keeper.read_on()
        self._books.early |= self._children.waiting()
        for name in list(self.adopted):
            account = self._books.accounts.get(name)
            if account is None or account.instance is None:
                self._forget(name)
            elif self._keeper.is_alive(name):
                self._book(name, [alive(account.instance)])

    def give_back(self) -> None:
        """Give the disk back what was heard and is booked; everything that was booked so far must be in the ledger."""
        for name in self.adopted:
            account = self._books.accounts.get(name)
            if account is not None and account.instance is not None:
                self._keeper.give_back(name, account.instance.heard_bytes)

    def _follow_anew(self) -> None:
        for name, account in self._books.accounts.items():
            instance = account.instance
            if instance is not None and instance.host_pid is not None and self._keeper.is_alive(name):
                self._eyes.follow(instance.host_pid, instance.start_ns)
        self._children.follow_anew()

    def abandoned(self, name: str) -> None:
        """Its wrapper is gone without a word about the end: go on without it, or close it as it was seen to end."""
        account = self._books.accounts.get(name)
        if account is None or name in self.adopted:
            return
        instance = account.instance
        now = kernel.read_clock()
        if instance is None:
            found = self._unwritten(name)
            if found is None:
                self._books.set_aside(name)
            else:
                self._telling.book_unwritten(name, found, now)
            return
        if instance.opened.clock.boot_id != now.boot_id:
            self._telling.lose(name, now)
            return
        if instance.stage is Stage.PENDING:
            spawned, may_live = self._finder.find(name, account, instance.opened, now.monotonic)
            self._book(name, spawned)
            instance = account.instance or instance
            if may_live:  # it is asked after again, as long as it says nothing; who writes to its FIFO has a reader
                if not self._keeper.holds(name):
                    self._hold(name, instance)
                return
        self._adopt(name, instance)

    def _adopt(self, name: str, instance: Instance) -> None:
        """From now on the agent watches it."""
        if instance.stage is Stage.BOOT and instance.opened.options.ready == wire.BY_EXEC:
            self._book(name, [BecameReady(instance.start_ns, wire.BY_EXEC)])  # its word of it was torn
        if not self._keeper.holds(name):
            self._hold(name, instance)
        self.adopted.add(name)
        self._speech.begin(name, instance.heard_bytes)
        self._keeper.listen(name, self._open_heard(name), instance.heard_bytes)
        self.take_news()
        if name not in self.adopted:
            return  # among the news was its end
        if self._keeper.is_alive(name):
            text = "instance.adopted instance=%s pid=%s: its wrapper is gone, its command lives"
            logger.warning(text, name, instance.host_pid)
            self._book(name, [alive(instance)])
        elif (end := self._keeper.end_of(name)) is not None:
            self._keeper.tell_again(end)
        else:
            self._ending.add(name)
            self._turns.add([Unseen(name)])

    # --- What is held ---

    def _is_silent(self, name: str) -> bool:
        """Whether nothing that was said waits to be booked, as far as it is not in the journal."""
        return not self._turns.has(name) and self._keeper.is_silent(name)

    def _look_after_children(self, name: str) -> None:
        """Book which processes that started predictions have ended: once all is read that they can have said."""
        account = self._books.accounts.get(name)
        if account is None or account.instance is None or account.is_behind:
            return
        if self._children.concerns(name, account.instance) and self._keeper.is_alive(name):
            told, is_soon = self._children.look_after(name, account, account.instance)
            if told:
                self._telling.book_look(name, told)
            if is_soon:
                self._books.early.add(name)

    def _hold(self, name: str, instance: Instance) -> None:
        self._keeper.hold(name, self._open_command(instance), self._open_fifo(name))

    def _open_command(self, instance: Instance) -> int:
        if instance.host_pid is None or instance.start_ticks is None:
            return -1
        try:
            fd = kernel.open_process(instance.host_pid, instance.start_ticks)
        except TaximeterError as error:
            logger.warning("instance.not_held: %s", error)
            return -1
        if fd is None:
            return -1
        self._eyes.follow(instance.host_pid, instance.start_ns)
        return fd

    def _open_fifo(self, name: str) -> int:
        try:
            return open_marks(self._directory_fd, name, self._owners)
        except JournalFault:
            return -1

    def _unwritten(self, name: str) -> Unwritten | None:
        try:
            return unwritten(self._directory_fd, journal_name(name, 0), self._owners)
        except JournalFault:
            return None

    def _open_heard(self, name: str) -> int:
        try:
            return open_heard(self._directory_fd, name)
        except JournalFault as fault:
            logger.warning("instance.heard_unkept instance=%s: %s", name, fault)
            return -1

    def _forget(self, name: str) -> None:
        self.adopted.discard(name)
        self._ending.discard(name)
        self._turns.drop(name)
        self._speech.forget(name)
        self._finder.forget(name)
        self._keeper.release(name)
        self._children.forget(name)

    # --- What happens without a wrapper ---

    def _end(self, name: str, instance: Instance, end: Ended | None) -> None:
        """Close it by what was seen of its end: the kernel's stamp, the agent's own, or nothing but the last sign."""
        seen = self._eyes.end_of(instance)
        told = None if end is None and seen is None else exited(end, seen)
        events: list[Event] = [*lived(instance, end, seen), *self._speech.last(name, self._latest_ns(instance, end))]
        if told is not None:
            events.append(told)
        self._book(name, events)
        if told is None:
            self._telling.lose(name, kernel.read_clock())
        self._forget(name)

    def _latest_ns(self, instance: Instance, end: Ended | None) -> int:
        """What is read of a command that has ended was said before the end, whenever that is."""
        seen = self._eyes.end_of(instance)
        stamps = [stamp.at_ns for stamp in (end, seen) if stamp is not None]
        return min(stamps, default=kernel.read_clock().monotonic)

    def _book_marks(self, name: str, instance: Instance, said: Said) -> None:
        """Book what was said, and how far that was, so that the next agent goes on behind it.

        Whatever was said while the command is held, and for however long nobody listened: it is the same command.
        """
        at_ns, end = said.at_ns, self._keeper.end_of(name)
        ended = name in self._ending or (end is not None and not self._eyes.is_end_to_come(instance, end.at_ns))
        if ended:
            at_ns = min(at_ns, self._latest_ns(instance, end))
        marks = self._speech.marks(said, at_ns)
        heard_bytes = self._speech.reach(said, instance.heard_bytes)
        if marks:
            held = not ended and self._keeper.is_alive(name)
            self._telling.book_own(name, [replace(mark, held=held) for mark in marks], heard_bytes)
        elif heard_bytes > instance.heard_bytes:
            self._telling.book_heard(name, heard_bytes)

    def _book(self, name: str, events: Sequence[Event]) -> None:
        if events:
            self._telling.book_own(name, events)
