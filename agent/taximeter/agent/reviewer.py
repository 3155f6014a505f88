"""Reads back what has ended on an instance, where another tier turns out to bill it, and has it corrected.

Owns the slices: between two of them everybody else has a turn, and each is booked with how far it got, so that killing
the agent corrects nothing twice and leaves nothing out. Refuses to know what is corrected, and why.
"""

import logging
import time

import orjson

from taximeter.about import record_id
from taximeter.agent.desk import Desk
from taximeter.agent.scribe import Scribe
from taximeter.agent.unsettled import Unsettled
from taximeter.errors import LedgerError
from taximeter.recall import ended

logger = logging.getLogger(__name__)

#: So many records are read at once: they keep the loop for twenty milliseconds.
SLICE = 128
#: How soon it is tried again where the disk gave nothing back.
_REST_S = 1.0


class Reviewer:
    """Goes through the records that are to be reviewed."""

    def __init__(self, unsettled: Unsettled, desk: Desk, scribe: Scribe) -> None:
        self._unsettled = unsettled
        self._reviews = unsettled.books.reviews
        self._desk = desk
        self._scribe = scribe
        self._rests_until_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether there is something to review now."""
        return bool(self._reviews) and time.monotonic() >= self._rests_until_s

    async def go_on(self) -> None:
        """Review one slice, if any is due, of one instance: whose turn it is."""
        if not self.is_due:
            return
        name = next(iter(self._reviews))
        found = self._unsettled.review_of(name)
        if found is None:
            return
        opened, work = found
        until = min(work.at + SLICE, work.until)
        try:
            bodies = await self._read([record_id(name, number) for number in range(work.at, until)])
        except LedgerError as error:
            logger.warning("review.put_off: %s", error)
            self._rests_until_s = time.monotonic() + _REST_S
            return
        if len(bodies) < until - work.at:
            logger.error("review.incomplete instance=%s: expected its records %d to %d", name, work.at, until - 1)
        self._unsettled.reviewed(name, ended(opened, map(orjson.loads, bodies)), until)
        if name in self._reviews:
            del self._reviews[name]
            self._reviews[name] = None  # last in the line

    async def _read(self, ids: list[str]) -> list[bytes]:
        """These records; what was booked only just now, or could not be committed before, is in the ledger first."""
        bodies: list[bytes] = []
        for _ in range(2):
            await self._scribe.commit()
            bodies = list((await self._desk.records(ids)).values())
            if len(bodies) == len(ids):
                break
        return bodies
