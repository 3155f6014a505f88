"""Gives the disk back what nobody needs any more: journals whose records are safe, and files that belong to nothing.

Owns when something may go. Refuses to remove what is not booked, and what may yet be.
"""

import logging
import os
import time

import anyio.to_thread

from taximeter import wire
from taximeter.agent.books import Books
from taximeter.agent.desk import Desk
from taximeter.agent.scribe import Scribe
from taximeter.agent.trimmer import Trimmer
from taximeter.errors import JournalFault
from taximeter.journal import list_instances, remove, remove_before, remove_orphans

logger = logging.getLogger(__name__)

#: Stands for "not known": more segments than a journal can have.
MOST_SEGMENTS = 1_000_000_000
_SWEPT_AT_ONCE = 2_000
#: From so many on, to list the directory is cheaper than to try what may be there of each.
_WORTH_LISTING = 100
#: While the agent is busy, so many instances' journals may lie there that could go.
_MOST_LEFT = 10_000
#: Files that belong to nothing are looked for so often, and let be while they are younger than that.
_ORPHANS_EVERY_S = 600.0
_ORPHAN_S = 3600


class Sweeper:
    """Removes files of one journal directory."""

    def __init__(self, directory_fd: int, books: Books, desk: Desk, scribe: Scribe) -> None:
        self._directory_fd = directory_fd
        self._books = books
        self._desk = desk
        self._scribe = scribe
        self._trimmer = Trimmer()
        self._unremovable: set[str] = set()
        self._next_orphans_s = 0.0

    async def sweep(self, *, is_busy: bool = False) -> None:
        """Remove what may go now; what is but untidy, and not too much, waits while the agent `is_busy`."""
        safe = self._desk.safe
        due = [
            name for name, closed in self._books.closed.items() if closed.seq <= safe and name not in self._unremovable
        ]
        if is_busy and len(due) <= _MOST_LEFT:
            due = []
        for at in range(0, len(due), _SWEPT_AT_ONCE):
            for name in await anyio.to_thread.run_sync(self._remove, due[at : at + _SWEPT_AT_ONCE]):
                del self._books.closed[name]
        await self._trim(safe)
        if time.monotonic() >= self._next_orphans_s:
            await self._remove_orphans()
            self._next_orphans_s = time.monotonic() + _ORPHANS_EVERY_S

    def _remove(self, names: list[str]) -> list[str]:
        last = {name: self._books.closed[name].segment for name in names}
        # Of what was closed by an earlier agent nobody knows how many segments there are.
        segments_of = list_instances(self._directory_fd) if MOST_SEGMENTS in last.values() else {}
        there = self._names() if len(names) > _WORTH_LISTING else None
        gone: list[str] = []
        for name in names:
            segments = range(last[name] + 1) if last[name] < MOST_SEGMENTS else segments_of.get(name, ())
            try:
                remove(self._directory_fd, name, segments, there)
                gone.append(name)
            except JournalFault as fault:
                self._unremovable.add(name)
                logger.warning("journal.unremovable: %s", fault)
        return gone

    def _names(self) -> frozenset[str] | None:
        """All names in the directory; None where it cannot be listed just now."""
        try:
            return frozenset(os.listdir(self._directory_fd))
        except OSError:
            return None

    async def _trim(self, safe: int) -> None:
        """Remove the older segments of what still runs, once every sink has what they led to."""
        recorded = self._trimmer.look(self._books.accounts)
        if recorded:
            await self._scribe.commit()
            self._trimmer.committed(recorded, self._desk.head.seq)
        for name, segment in self._trimmer.take(safe):
            try:
                await anyio.to_thread.run_sync(remove_before, self._directory_fd, name, segment)
            except JournalFault as fault:
                logger.warning("journal.unremovable: %s", fault)

    async def _remove_orphans(self) -> None:
        """Remove what killed wrappers and agents left, and nothing can ever be made of."""
        books = self._books
        known = books.accounts.keys() | books.settling.keys() | books.closed.keys()
        before_s = time.time() - _ORPHAN_S
        try:
            gone = await anyio.to_thread.run_sync(remove_orphans, self._directory_fd, known, before_s)
        except OSError as error:
            logger.warning("journal.orphans_unswept: %s", error)
            return
        if gone:
            logger.info("journal.orphans_removed count=%d of %s", gone, wire.JOURNAL_DIR)
