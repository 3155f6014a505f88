"""Lets old records go: those that were kept long enough, that every sink has, and that a shipped checkpoint seals.

Owns when, and how much of the processor that may take. What goes is audited first, and what is faulty stays. Refuses to
know what is kept in its place: the ledger does.
"""

import logging
import time
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from taximeter.agent.desk import Desk
from taximeter.errors import LedgerError
from taximeter.ledger.audit import Fault, carry
from taximeter.ledger.base import Base, Carried
from taximeter.ledger.reader import LedgerReader

logger = logging.getLogger(__name__)

#: Looked for so often at most; at first when a clock that was wrong at the boot had time to be set.
_EVERY_S = 3600.0
_DAY_NS = 86_400_000_000_000
#: So many checkpoints are passed at once.
_CHECKPOINTS = 20
#: What is audited is read with pauses, so that it costs a quarter of a core.
_PAUSE_S = 0.05


class _Data(msgspec.Struct, gc=False):
    size: int


class _Checkpoint(msgspec.Struct, gc=False):
    data: _Data


_decode = msgspec.json.Decoder(_Checkpoint).decode


def surely_ns(began: tuple[int, int], utc_ns: int, monotonic_ns: int) -> int:
    """The UTC time (ns) that it is at least, by the clocks at the start (UTC, monotonic) and now.

    A clock that is set forward makes no record older: what was let go does not come back when the clock does.
    """
    return min(utc_ns, began[0] + monotonic_ns - began[1])


class Pruner:
    """Whoever lets a ledger's old records go."""

    def __init__(self, desk: Desk, path: Path, keep_days: float) -> None:
        self._desk = desk
        self._path = path
        self._keep_ns = int(keep_days * _DAY_NS)
        self.trouble: str | None = None

    async def run(self) -> None:
        """Let go for ever; returns at once where everything is kept."""
        if not self._keep_ns:
            return
        keep_s = self._keep_ns / 1e9
        began = time.time_ns(), time.monotonic_ns()
        while True:
            await anyio.sleep(min(_EVERY_S, keep_s))
            try:
                while await self.prune(surely_ns(began, time.time_ns(), time.monotonic_ns())):  # noqa: ASYNC110 -- a turn for everybody else
                    await anyio.sleep(_PAUSE_S)
            except LedgerError as error:
                logger.warning("ledger.unpruned: %s", error)

    async def prune(self, now_utc_ns: int) -> bool:
        """Let go of the oldest that may go; whether there was anything. Raises LedgerError."""
        everywhere = self._desk.everywhere
        plan = await anyio.to_thread.run_sync(self._plan, now_utc_ns - self._keep_ns, everywhere)
        if plan is None:
            return False
        begins, found = plan
        if isinstance(found, Fault):
            self.trouble = f"old records cannot go: record {found.seq} {found.what}; see `taximeter verify`"
            logger.error("ledger.unpruned: %s", self.trouble)
            return False
        await self._desk.prune(begins, found)
        self.trouble = None
        logger.info("ledger.pruned: it begins behind record %d now", begins.seq)
        return True

    def _plan(self, before_utc_ns: int, everywhere: int) -> tuple[Base, Carried | Fault] | None:
        """Behind which record the ledger may begin, and what is kept of those before."""
        with LedgerReader(self._path) as reader:
            refused = min((letter.seq for letter in reader.dead_letters()), default=everywhere + 1)
            base = reader.base
            sizes = [
                _decode(body).data.size
                for seq, time_utc_ns, body in reader.checkpoints(base.seq, _CHECKPOINTS)
                if time_utc_ns < before_utc_ns and seq <= everywhere
            ]
            size = max((size for size in sizes if size < refused), default=0)
            digest = reader.hash_at(size) if size > base.seq else None
            if digest is None or not reader.has_usage(base.seq, size):
                return None
            return Base(size, digest), carry(reader, size, _rest)


def _rest() -> None:
    time.sleep(_PAUSE_S)
