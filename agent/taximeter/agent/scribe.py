"""Brings the books into the ledger: one batch at a time, in order, and none of them lost when it is stopped.

Owns what may go on while the disk is waited for. Refuses to know what is in a batch, and how a commit is tried again.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from taximeter.agent.accounts import Closed
from taximeter.agent.books import Books
from taximeter.agent.desk import Desk
from taximeter.ledger.values import Batch


class Scribe:
    """Writes what the books have gathered."""

    def __init__(self, books: Books, desk: Desk) -> None:
        self._books = books
        self._desk = desk
        self._writers: TaskGroup | None = None
        self._idle = anyio.Event()  # set while nothing is being written
        self._idle.set()

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Within this, `begin` need not wait for the disk."""
        try:
            async with anyio.create_task_group() as self._writers:
                yield
        finally:
            self._writers = None

    async def commit(self) -> None:
        """Return once everything that was read so far is in the ledger."""
        await self._idle.wait()
        batch = self._books.take_batch()
        if batch is not None:
            await self._write(batch, anyio.Event())

    async def begin(self) -> None:
        """Begin to commit what was read so far; return when it is left to the disk, so that more can be read.

        Until then both would want the processor. Whoever asks whether an instance was closed commits first.
        """
        if self._writers is None:
            await self.commit()
            return
        await self._idle.wait()
        batch = self._books.take_batch()
        if batch is not None:
            written = anyio.Event()
            self._idle = anyio.Event()
            self._writers.start_soon(self._write, batch, written)
            await written.wait()

    async def _write(self, batch: Batch, written: anyio.Event) -> None:
        try:
            await self._desk.commit(batch, written)
        except BaseException:
            self._books.put_back(batch)
            raise
        finally:
            written.set()
            self._idle.set()
        seq = self._desk.head.seq
        for journal in batch.journals:
            if journal.state is None:
                self._books.closed[journal.instance] = Closed(journal.segment, seq)
