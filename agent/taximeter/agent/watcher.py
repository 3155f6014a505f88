"""Keeps the books up to date: wakes when a journal grows, looks at everything now and then, and closes what is gone.

Owns the rhythm: inotify wakes, a poll is the net below, a round is bounded in time so that the loop stays free, and
what was read is committed in batches. Refuses to know what a fact means.
"""

import logging
import math
import os
import select
import time
from collections.abc import Iterable
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus

from taximeter import kernel, wire
from taximeter.agent.accounts import Closed
from taximeter.agent.custody import Custody
from taximeter.agent.desk import Desk
from taximeter.agent.reading import Reading
from taximeter.agent.reviewer import Reviewer
from taximeter.agent.scribe import Scribe
from taximeter.agent.sweeper import MOST_SEGMENTS, Sweeper
from taximeter.agent.unsettled import Unsettled
from taximeter.config import Config
from taximeter.errors import JournalFault, TaximeterError
from taximeter.journal import (
    journal_name,
    list_instances,
    open_directory,
    parse_name,
    sync,
    writer_pid,
)

logger = logging.getLogger(__name__)

#: The loop is kept for at most this long at a time; scrapes and health checks come in between.
_ROUND_S = 0.02
#: A journal without news for this long is asked whether its writer lives.
_QUIET_NS = 5 * wire.HEARTBEAT_NS // 2
#: Reading goes on for so long before beats, polls and journals that are new get their turn.
_LONGEST_READ_S = 0.5
#: What was read is committed after so long at the latest, however much there is still to be read.
_LATEST_COMMIT_S = 0.1
#: How often instances without a wrapper are given a heartbeat.
_BEAT_S = wire.HEARTBEAT_NS / 1_000_000_000
#: How soon facts are read again that wait for what the kernel is about to tell.
_EARLY_S = 0.005
#: The directory is listed for no more than this part of the time: who fills it with other files gains nothing by it.
_LISTING_PART = 0.02


class Watcher:
    """Reads one journal directory into the books, and the books into the ledger."""

    def __init__(
        self, directory: Path, directory_fd: int, reading: Reading, desk: Desk, config: Config, custody: Custody
    ) -> None:
        self._directory = directory
        self._directory_fd = directory_fd
        self._reading = reading
        self._halves = reading.halves
        self._books = books = reading.books
        self._desk = desk
        self._custody = custody
        self._poll_s = config.journal.poll_s
        self._delay_s = config.ledger.commit_delay_ms / 1000
        self._batch = config.ledger.batch
        self.scribe = self._scribe = Scribe(books, desk)  #: who writes what the books have gathered
        self.unsettled = Unsettled(self._halves)
        self._reviewer = Reviewer(self.unsettled, desk, self._scribe)
        self._sweeper = Sweeper(directory_fd, books, desk, self._scribe)
        self._listed_ns = -1  # the directory's mtime when it was last listed
        self._next_list_s = 0.0
        self._beside: TaskGroup | None = None  # what goes on while journals are read
        self._lists = False
        self._let_go: set[str] = set()  # whose journals somebody has closed who could write to them
        self._rest: set[str] = set()  # whose journals have more than one round of reading took
        self._unsynced: set[str] = set()
        self.lag_since_s: float | None = None  #: since when journals wait to be read
        self.trouble: str | None = None  #: why the directory could not be looked through
        self._kernels_notes: kernel.DirectoryWatch | None = None
        self._ears = select.epoll()  # one descriptor to wait for: the kernel's notes and what is in custody

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; `started` once everything that was there is booked."""
        self._kernels_notes = self._watch()
        for fd in self._custody.fds:
            self._ears.register(fd, select.EPOLLIN)
        try:
            async with self._scribe.at_work(), anyio.create_task_group() as self._beside:
                await self.read_everything()
                await self._go_on(list(self._books.accounts))
                task_status.started()
                await self._keep_up()
        finally:
            self._ears.close()
            if self._kernels_notes is not None:
                self._kernels_notes.close()

    async def _keep_up(self) -> None:
        last_poll_s = last_beat_s = time.monotonic()
        while True:
            due_s = min(last_poll_s + self._poll_s, last_beat_s + _BEAT_S if self._custody.adopted else math.inf)
            is_busy = self._rest or self._halves.names or self._custody.has_more or self._reviewer.is_due
            names = await self._news(0.0 if is_busy else max(0.0, due_s - time.monotonic()))
            await self.read(names | self._rest | self._halves.names, _LONGEST_READ_S)
            await self._reviewer.go_on()
            now_s = time.monotonic()
            if now_s - last_beat_s >= _BEAT_S:
                self._custody.beat()
                await self._scribe.commit()
                self._custody.give_back()
                last_beat_s = now_s
            if now_s - last_poll_s >= self._poll_s:
                await self._poll()
                last_poll_s = time.monotonic()

    async def read_everything(self) -> None:
        """List the directory and read whatever is new in any journal."""
        self._listed_ns = os.stat(self._directory_fd).st_mtime_ns
        await self.read(await anyio.to_thread.run_sync(list_instances, self._directory_fd))

    async def rest(self) -> None:
        """Read whatever there is, for the last time, and fold it to its end, for what is left by halves is not kept."""
        await self.read_everything()
        self._custody.fall_deaf()
        while self._custody.take_news():
            await anyio.lowlevel.checkpoint()
        for name in list(self._halves.names):
            while self._halves.go_on(name):
                await anyio.lowlevel.checkpoint()
        await self._scribe.commit()

    async def read(self, names: Iterable[str], within_s: float = math.inf) -> None:
        """Read on in these instances' journals, and commit what that leads to; what is not done in time is the rest."""
        # Ids are in the order of their making: the oldest comes first, and the ledger's indexes grow at their end.
        names = list(names)
        due = sorted(await self._unbooked(names), reverse=True)
        self._rest.difference_update(names)  # also who has ended meanwhile, who would keep us awake for nothing
        self.lag_since_s = time.monotonic()
        pause_s = time.monotonic() + _ROUND_S
        last_s = pause_s + within_s
        commit_s = time.monotonic() + _LATEST_COMMIT_S
        while due:
            read = self._reading.read_some(due)
            self._unsynced.update(read)
            self._custody.look_after(read)
            if self._books.waiting >= self._batch or time.monotonic() > commit_s:
                await self._scribe.begin()
                commit_s = time.monotonic() + _LATEST_COMMIT_S
            elif time.monotonic() <= pause_s:
                continue
            await anyio.lowlevel.checkpoint()
            pause_s = time.monotonic() + _ROUND_S
            if pause_s > last_s:
                break  # others have something to say, too
        self._rest.update(due)
        await self._scribe.commit()
        self.lag_since_s = None
        let_go, self._let_go = self._let_go, set()
        if let_go:
            await self._go_on(let_go)

    async def _unbooked(self, names: list[str]) -> list[str]:
        """Of `names` those that may have news: a journal of what was closed before is never read again."""
        open_, closed, aside = self._books.accounts, self._books.closed, self._books.aside
        settling, waiting = self._books.settling, self._books.quota.waiting
        names = [name for name in names if name not in aside and name not in waiting]
        strange = [name for name in names if not (name in open_ or name in closed or name in settling)]
        if strange:
            for name, seq in (await self._desk.closed_at(strange)).items():
                closed[name] = Closed(MOST_SEGMENTS, seq)
        return [name for name in names if name not in closed and name not in settling]

    def _watch(self) -> kernel.DirectoryWatch | None:
        try:
            watch = kernel.DirectoryWatch(self._directory)
        except TaximeterError as error:
            logger.warning("journal.unwatched, polling instead: %s", error)
            return None
        self._ears.register(watch.fd, select.EPOLLIN)
        return watch

    def _keep_directory(self) -> None:
        """Go over to the directory that has our path now, should somebody have put another one there."""
        there, ours = os.stat(self._directory), os.fstat(self._directory_fd)
        if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            return
        logger.warning("journal.directory_replaced: %s is another directory than before", self._directory)
        other = open_directory(self._directory)
        os.dup2(other, self._directory_fd, inheritable=False)
        os.close(other)
        if self._kernels_notes is not None:
            self._kernels_notes.close()
        self._kernels_notes = self._watch()
        self._listed_ns = -1

    async def _news(self, wait_s: float) -> set[str]:
        """The instances whose journals changed, once some did or `wait_s` has passed; what else happened is booked."""
        early, self._books.early = self._books.early, set()
        with anyio.move_on_after(min(wait_s, _EARLY_S) if early else wait_s):
            await anyio.wait_readable(self._ears.fileno())
            await anyio.sleep(self._delay_s)  # for others to come along: one commit for all of them
        names = early | await self._changed()
        if self._custody.take_news():
            await self._scribe.commit()
        return names

    async def _changed(self) -> set[str]:
        """The instances whose journals changed since this was last asked."""
        watch = self._kernels_notes
        if watch is None:
            return set(self._books.accounts)
        changes = watch.read()
        if changes.lost:
            return set(await anyio.to_thread.run_sync(list_instances, self._directory_fd))
        names = _instances(changes.names)
        self._books.aside -= names  # whoever writes to it again is heard again
        self._let_go |= _instances(changes.closed)
        return names

    # --- Now and then ---

    async def sweep(self) -> None:
        """Remove the files that nobody needs any more; while much waits to be read, that comes first."""
        await self._sweeper.sweep(is_busy=bool(self._rest))

    async def _poll(self) -> None:
        """What nobody wakes us for, whatever the machine lacks just now; the next poll tries again."""
        try:
            await self._look_around()
        except (OSError, JournalFault) as error:
            if self.trouble is None:
                logger.warning("journal.poll_failed: %s", error)
            self.trouble = f"cannot look through {self._directory}: {error}"
        else:
            self.trouble = None

    async def _look_around(self) -> None:
        """Files that inotify missed, writers that died, content that must reach the disk."""
        self._keep_directory()
        if self._beside is not None and not self._lists and time.monotonic() >= self._next_list_s:
            changed_ns = os.stat(self._directory_fd).st_mtime_ns
            if changed_ns != self._listed_ns:
                self._lists, self._listed_ns = True, changed_ns
                self._beside.start_soon(self._list)
        unread, self._reading.unread = self._reading.unread, set()
        unread |= self._books.quota.take()
        if unread:
            await self.read(unread)
        quiet = self._quiet()
        if quiet:
            await self.read(quiet)
            await self._go_on(quiet)
        unsynced, self._unsynced = self._unsynced & self._books.accounts.keys(), set()
        if unsynced:
            await anyio.to_thread.run_sync(self._sync, unsynced)

    async def _list(self) -> None:
        """List the directory while others go on; what is there is read with the next news."""
        began_s = time.monotonic()
        try:
            self._rest.update(await anyio.to_thread.run_sync(list_instances, self._directory_fd))
        except OSError as error:
            self._listed_ns = -1
            logger.warning("journal.unlisted: %s", error)
        finally:
            now_s = time.monotonic()
            self._lists, self._next_list_s = False, now_s + (now_s - began_s) / _LISTING_PART

    def _quiet(self) -> list[str]:
        """Open instances that have not said anything for longer than a heartbeat or two."""
        before_ns = time.monotonic_ns() - _QUIET_NS
        return [name for name, account in self._books.accounts.items() if account.seen_ns < before_ns]

    async def _go_on(self, names: Iterable[str]) -> None:
        """Of instances that were read to their end: go on without those wrappers that are gone."""
        for name in names:
            account = self._books.accounts.get(name)
            if account is None or account.stuck in ("newer_version", "unreadable") or name in self._custody.adopted:
                continue
            if self._has_writer(journal_name(name, account.position.segment)):
                continue
            # Its last facts may have come between our reading and its letting go; if much, others have a turn first.
            if name in self._rest or self._reading.read(name):
                self._rest.add(name)
                self._let_go.add(name)
                continue
            if name in self._books.early:
                self._let_go.add(name)
            else:
                self._custody.abandoned(name)
            while self._custody.is_ending(name):
                self._custody.take_news()
                await anyio.lowlevel.checkpoint()
        await self._scribe.commit()

    def _has_writer(self, name: str) -> bool:
        """Whether its wrapper lives; a file that cannot be opened now says nothing, so its wrapper is left alone."""
        try:
            return writer_pid(name, self._directory_fd) is not None
        except JournalFault as fault:
            return fault.reason == "unreadable"

    def _sync(self, names: Iterable[str]) -> None:
        for name in names:
            account = self._books.accounts.get(name)
            if account is not None:
                try:
                    sync(self._directory_fd, journal_name(name, account.position.segment))
                except JournalFault as fault:
                    logger.debug("journal.unsynced: %s", fault)


def _instances(files: Iterable[str]) -> set[str]:
    parsed = (parse_name(name) for name in files)
    return {found[0] for found in parsed if found is not None}
