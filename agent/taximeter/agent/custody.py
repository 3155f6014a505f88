"""Takes living instances into the agent's hands, and goes on with those whose wrapper is gone.

Owns the ladder below the wrapper: while it lives it is believed; once its lock is free, the agent itself watches the
command (adoption), reads its marks, and tells its end as it was seen: by the kernel, by the agent's own pidfd, or not
at all. Refuses to know what any of that means for a bill.
"""

import logging
import os
from collections.abc import Iterable, Sequence

from taximeter import kernel, wire
from taximeter.agent.accounts import Account
from taximeter.agent.books import Books
from taximeter.agent.eyewitness import Eyewitness
from taximeter.agent.keeper import Ended, Keeper, Said
from taximeter.errors import JournalFault, TaximeterError
from taximeter.events import Alive, BadMark, BecameReady, Event, Exited, Marked, Source, Usage
from taximeter.instance import Instance
from taximeter.journal import open_heard, open_marks, parse_mark
from taximeter.lifecycle import Stage

logger = logging.getLogger(__name__)

#: Of a line without an end only so much is kept: enough to see that it is too long for a mark.
_KEPT_BYTES = wire.MARK_MAX_BYTES + 1
_CORE = 0x80


class Custody:
    """The open instances of one journal directory, held."""

    def __init__(self, directory_fd: int, owners: frozenset[int] | None, books: Books, eyes: Eyewitness) -> None:
        self._directory_fd = directory_fd
        self._owners = owners
        self._books = books
        self._eyes = eyes
        self._keeper = Keeper()
        self._rests: dict[str, bytes] = {}  # of adopted instances: a mark that has no end yet
        self._ends: dict[str, int] = {}  # how far what was heard of them reaches in its file
        self.fd = self._keeper.fd  #: readable when there is news
        self.adopted: set[str] = set()

    def close(self) -> None:
        """Let go of everything."""
        self._keeper.close()

    def look_after(self, names: Iterable[str]) -> None:
        """Hold what of these is open, let go of what is not."""
        for name in names:
            account = self._books.accounts.get(name)
            if account is None or account.instance is None:
                self._forget(name)
            elif not self._keeper.holds(name) and account.instance.stage is not Stage.PENDING:
                self._hold(name, account.instance)

    def take_news(self) -> bool:
        """Book what was seen and said since; true if there was anything."""
        news = self._keeper.take()
        said: dict[str, list[Said]] = {}
        ends: dict[str, Ended] = {}
        for item in news:
            if item.instance not in self.adopted:
                continue  # its wrapper lives and tells its end itself, or has told it
            if isinstance(item, Said):
                said.setdefault(item.instance, []).append(item)
            else:
                ends[item.instance] = item
        for name in said.keys() | ends.keys():
            account = self._books.accounts.get(name)
            if account is None or account.instance is None:
                self._forget(name)
            elif name in ends and self._eyes.is_end_to_come(account.instance, ends[name].at_ns):
                self._keeper.tell_again(ends[name])
                self._book_marks(name, said.get(name, []), held=False)
            elif name in ends:
                self._end(name, account.instance, ends[name], said.get(name, []))
            else:
                # Whatever was said meanwhile, and for however long nobody listened: it is the same command.
                self._book_marks(name, said[name], held=self._keeper.is_alive(name))
        return bool(news)

    def rest(self) -> None:
        """Take what was heard so far, and hear no more: the next agent goes on."""
        self._keeper.fall_deaf()
        self.take_news()

    def beat(self) -> None:
        """A heartbeat for every instance that has no wrapper any more: the agent's word instead."""
        if self._eyes.has_lost():
            self._follow_anew()
        self._keeper.read_on()
        for name in list(self.adopted):
            account = self._books.accounts.get(name)
            if account is None or account.instance is None:
                self._forget(name)
            elif self._keeper.is_alive(name):
                self._book(name, [_alive(account.instance)])

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

    def abandoned(self, name: str) -> None:
        """Its wrapper is gone without a word about the end: go on without it, or close it as it was seen to end."""
        account = self._books.accounts.get(name)
        if account is None or name in self.adopted:
            return
        instance = account.instance
        if instance is None:
            self._books.set_aside(name)
            return
        now = kernel.read_clock()
        if instance.opened.clock.boot_id != now.boot_id:
            self._books.lose(name, now)
            return
        if instance.stage is Stage.PENDING:
            instance = self._find(name, account, instance, now.monotonic)
        if instance.stage is Stage.BOOT and instance.opened.options.ready == wire.BY_EXEC:
            self._book(name, [BecameReady(instance.start_ns, wire.BY_EXEC)])  # its word of it was torn
        if not self._keeper.holds(name):
            self._hold(name, instance)
        self.adopted.add(name)
        self._ends[name] = instance.heard_bytes
        self._keeper.listen(name, self._open_heard(name), instance.heard_bytes)
        self.take_news()
        if name not in self.adopted:
            return  # among the news was its end
        if self._keeper.is_alive(name):
            text = "instance.adopted instance=%s pid=%s: its wrapper is gone, its command lives"
            logger.warning(text, name, instance.host_pid)
            self._book(name, [_alive(instance)])
        elif (end := self._keeper.end_of(name)) is not None:
            self._keeper.tell_again(end)
        else:
            self._end(name, instance, None, [])

    # --- What is held ---

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

    def _open_heard(self, name: str) -> int:
        try:
            return open_heard(self._directory_fd, name)
        except JournalFault as fault:
            logger.warning("instance.heard_unkept instance=%s: %s", name, fault)
            return -1

    def _forget(self, name: str) -> None:
        self.adopted.discard(name)
        self._rests.pop(name, None)
        self._ends.pop(name, None)
        self._keeper.release(name)

    # --- What happens without a wrapper ---

    def _find(self, name: str, account: Account, instance: Instance, until_ns: int) -> Instance:
        """The wrapper was killed before its word of a command: the kernel may have seen one, or it says itself whose.

        What has neither witness is not guessed at: who looks like it may be anybody's.
        """
        spawned = self._eyes.found(instance.opened, until_ns)
        if spawned is None:
            text = "instance.unfound instance=%s: its wrapper was killed before it said whether its command runs"
            logger.warning(text, name)
            return instance
        self._book(name, [spawned])
        return account.instance or instance

    def _end(self, name: str, instance: Instance, end: Ended | None, said: Sequence[Said]) -> None:
        """Close it by what was seen of its end: the kernel's stamp, the agent's own, or nothing but the last sign."""
        seen = self._eyes.end_of(instance)
        exited = None if end is None and seen is None else _exited(end, seen)
        # What is left in the FIFO was said before the end, whenever it is read.
        latest_ns = (
            kernel.read_clock().monotonic if exited is None else min(exited.kernel_ns or exited.at_ns, exited.at_ns)
        )
        events: list[Event] = [*self._marks(name, [*said, *self._keeper.drain(name)], latest_ns)]
        rest = self._rests.pop(name, b"")
        if rest:
            events.append(parse_mark(rest, latest_ns))
        if exited is not None:
            events.append(exited)
        self._book(name, events)
        if exited is None:
            self._books.lose(name, kernel.read_clock())
        self._forget(name)

    def _marks(self, name: str, said: Sequence[Said], latest_ns: int | None = None) -> list[Marked | BadMark]:
        events: list[Marked | BadMark] = []
        for item in said:
            at_ns = item.at_ns if latest_ns is None else min(item.at_ns, latest_ns)
            *lines, rest = (self._rests.get(name, b"") + item.data).split(b"\n")
            self._rests[name] = rest[:_KEPT_BYTES]
            events.extend(parse_mark(line[:_KEPT_BYTES], at_ns) for line in lines if line)
        return events

    def _book_marks(self, name: str, said: Sequence[Said], *, held: bool) -> None:
        """Book what was said, and how far that was, so that the next agent goes on behind it."""
        marks = self._marks(name, said)
        account = self._books.accounts[name]
        before = 0 if account.instance is None else account.instance.heard_bytes
        heard_bytes = self._heard(name, said, before)
        if marks:
            self._books.book_own(name, [mark._replace(held=held) for mark in marks], heard_bytes)
        elif heard_bytes > before:
            self._books.book_heard(name, heard_bytes)

    def _heard(self, name: str, said: Sequence[Said], heard_bytes: int) -> int:
        """How far all is booked, in the file of what was heard: to the beginning of the line that has no end yet.

        A line that is longer than a mark may be is booked as far as it goes: it is no mark, whatever follows.
        """
        for item in said:
            if item.end is not None:
                self._ends[name] = item.end
            rest = item.data[item.data.rfind(b"\n") + 1 :]
            if b"\n" in item.data:
                heard_bytes = self._ends[name] - (len(rest) if item.end is not None else 0)
        return self._ends[name] if len(self._rests.get(name, b"")) in (0, _KEPT_BYTES) else heard_bytes

    def _book(self, name: str, events: Sequence[Event]) -> None:
        if events:
            self._books.book_own(name, events)


def _alive(instance: Instance) -> Alive:
    usage = Usage() if instance.host_pid is None else Usage(*kernel.usage_of(instance.host_pid))
    clock = kernel.read_clock()
    return Alive(clock.monotonic, clock, usage)


def _exited(end: Ended | None, seen: "kernel.End | None") -> Exited:
    """The end as the agent saw it; the status from whoever knows one."""
    clock = kernel.read_clock()
    at_ns = end.at_ns if end is not None else clock.monotonic
    status = end.status if end is not None and end.status is not None else seen.status if seen is not None else None
    code = signal = None
    if status is not None:
        signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = os.WEXITSTATUS(status) if signal is None else None
    core = status is not None and bool(status & _CORE)
    kernel_ns = seen.at_ns if seen is not None else None
    return Exited(at_ns, code, signal, core, clock, source=Source.AGENT, kernel_ns=kernel_ns)
