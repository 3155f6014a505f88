"""Keeps the books up to date: wakes when a journal grows, looks at everything now and then, and closes what is gone.

Owns the rhythm: inotify wakes, a poll is the net below, a round is bounded in time so that the loop stays free, and
what was read is committed in batches. Refuses to know what a fact means.
"""

import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import TaskStatus

from taximeter import kernel, wire
from taximeter.agent.books import Books, Closed
from taximeter.agent.desk import Desk
from taximeter.config import Config
from taximeter.errors import JournalFault, TaximeterError
from taximeter.events import Clock
from taximeter.journal import journal_name, list_instances, open_directory, parse_name, remove, sync, writer_pid

logger = logging.getLogger(__name__)

#: The loop is kept for at most this long at a time; scrapes and health checks come in between.
_ROUND_S = 0.04
#: A journal without news for this long is asked whether its writer lives.
_QUIET_NS = 5 * wire.HEARTBEAT_NS // 2
_SWEPT_AT_ONCE = 2_000
#: Stands for "not known": more segments than a journal can have.
_MOST_SEGMENTS = 1_000_000_000


class Watcher:
    """Reads one journal directory into the books, and the books into the ledger."""

    def __init__(self, directory: Path, directory_fd: int, books: Books, desk: Desk, config: Config) -> None:
        self._directory = directory
        self._directory_fd = directory_fd
        self._books = books
        self._desk = desk
        self._poll_s = config.journal.poll_s
        self._delay_s = config.ledger.commit_delay_ms / 1000
        self._batch = config.ledger.batch
        self._listed_ns = -1  # the directory's mtime when it was last listed
        self._unsynced: set[str] = set()
        self._unremovable: set[str] = set()
        self.lag_since_s: float | None = None  #: since when journals wait to be read
        self.trouble: str | None = None  #: why the directory could not be looked through
        self._kernels_notes: kernel.DirectoryWatch | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; `started` once everything that was there is booked."""
        self._kernels_notes = self._watch()
        try:
            await self.read_everything()
            task_status.started()
            last_poll_s = time.monotonic()
            while True:
                names = await self._news(max(0.0, last_poll_s + self._poll_s - time.monotonic()))
                await self.read(names)
                if time.monotonic() - last_poll_s >= self._poll_s:
                    await self._poll()
                    last_poll_s = time.monotonic()
        finally:
            if self._kernels_notes is not None:
                self._kernels_notes.close()

    async def read_everything(self) -> None:
        """List the directory and read whatever is new in any journal."""
        self._listed_ns = os.stat(self._directory_fd).st_mtime_ns
        await self.read(await anyio.to_thread.run_sync(list_instances, self._directory_fd))

    async def read(self, names: Iterable[str]) -> None:
        """Read on in these instances' journals, and commit what that leads to."""
        # Ids are in the order of their making: the oldest comes first, and the ledger's indexes grow at their end.
        due = sorted(await self._unbooked(list(names)), reverse=True)
        self.lag_since_s = time.monotonic()
        pause_s = time.monotonic() + _ROUND_S
        while due:
            name = due.pop()
            if self._books.read(name):
                due.append(name)
            self._unsynced.add(name)
            if self._books.waiting >= self._batch:
                await self._commit()
            elif time.monotonic() <= pause_s:
                continue
            await anyio.lowlevel.checkpoint()
            pause_s = time.monotonic() + _ROUND_S
        await self._commit()
        self.lag_since_s = None

    async def _commit(self) -> None:
        batch = self._books.take_batch()
        if batch is None:
            return
        try:
            await self._desk.commit(batch)
        except BaseException:
            self._books.put_back(batch)
            raise
        seq = self._desk.head.seq
        for journal in batch.journals:
            if journal.state is None:
                self._books.closed[journal.instance] = Closed(journal.segment, seq)

    async def _unbooked(self, names: list[str]) -> list[str]:
        """Of `names` those that may have news: a journal of what was closed before is never read again."""
        open_, closed, aside = self._books.accounts, self._books.closed, self._books.aside
        names = [name for name in names if name not in aside]
        strange = [name for name in names if name not in open_ and name not in closed]
        if strange:
            for name, seq in (await self._desk.closed_at(strange)).items():
                closed[name] = Closed(_MOST_SEGMENTS, seq)
        return [name for name in names if name not in closed]

    def _watch(self) -> kernel.DirectoryWatch | None:
        try:
            return kernel.DirectoryWatch(self._directory)
        except TaximeterError as error:
            logger.warning("journal.unwatched, polling instead: %s", error)
            return None

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

    async def _news(self, wait_s: float) -> list[str]:
        """The instances whose journals changed, once some did or `wait_s` has passed."""
        watch = self._kernels_notes
        if watch is None:
            await anyio.sleep(wait_s)
            return list(self._books.accounts)
        with anyio.move_on_after(wait_s):
            await anyio.wait_readable(watch.fd)
            await anyio.sleep(self._delay_s)  # for others to come along: one commit for all of them
        changes = watch.read()
        if changes.lost:
            return list(await anyio.to_thread.run_sync(list_instances, self._directory_fd))
        parsed = (parse_name(name) for name in changes.names)
        names = {found[0] for found in parsed if found is not None}
        self._books.aside -= names  # whoever writes to it again is heard again
        return list(names)

    # --- Now and then ---

    async def sweep(self) -> None:
        """Remove the journals whose records every sink has."""
        everywhere = self._desk.everywhere
        due = [
            name
            for name, closed in self._books.closed.items()
            if closed.seq <= everywhere and name not in self._unremovable
        ]
        if not due:
            return
        for name in await anyio.to_thread.run_sync(self._remove, due[:_SWEPT_AT_ONCE]):
            del self._books.closed[name]

    def _remove(self, names: list[str]) -> list[str]:
        gone: list[str] = []
        for name in names:
            try:
                remove(self._directory_fd, name, self._segments(name))
                gone.append(name)
            except JournalFault as fault:
                self._unremovable.add(name)
                logger.warning("journal.unremovable: %s", fault)
        return gone

    def _segments(self, name: str) -> Iterable[int]:
        """The segments that lie there: those up to the last, or, of what was closed by an earlier agent, any."""
        last = self._books.closed[name].segment
        if last < _MOST_SEGMENTS:
            return range(last + 1)
        return list_instances(self._directory_fd).get(name, ())

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
        if os.stat(self._directory_fd).st_mtime_ns != self._listed_ns:
            await self.read_everything()
        unread, self._books.unread = self._books.unread, set()
        if unread:
            await self.read(unread)
        quiet = self._quiet()
        if quiet:
            await self.read(quiet)
            for name in quiet:
                self._close_if_gone(name)
            await self._commit()
        unsynced, self._unsynced = self._unsynced & self._books.accounts.keys(), set()
        if unsynced:
            await anyio.to_thread.run_sync(self._sync, unsynced)

    def _quiet(self) -> list[str]:
        """Open instances that have not said anything for longer than a heartbeat or two."""
        before_ns = time.monotonic_ns() - _QUIET_NS
        return [name for name, account in self._books.accounts.items() if account.seen_ns < before_ns]

    def _close_if_gone(self, name: str) -> None:
        account = self._books.accounts.get(name)
        if account is None or account.stuck in ("newer_version", "unreadable"):
            return
        if self._has_writer(journal_name(name, account.position.segment)):
            return
        if account.instance is None:
            self._books.set_aside(name)
        else:
            self._books.lose(name, read_clock())

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


def read_clock() -> Clock:
    """The machine's clocks now."""
    return Clock(
        time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW),
        time.clock_gettime_ns(time.CLOCK_REALTIME),
        kernel.boot_id(),
    )
