"""The ledger's desk: everything that touches the ledger goes through its one thread, one piece of work at a time.

Owns the commit thread and the retrying of a commit that the disk refused. Refuses to know what is committed.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from taximeter.billing.credit import Grant
from taximeter.errors import LedgerError
from taximeter.ledger.base import Base, Carried
from taximeter.ledger.damage import is_damage
from taximeter.ledger.store import Batch, Head, Ledger, Stored
from taximeter.ledger.values import PoolHour
from taximeter.observe.tally import Tally
from taximeter.records import UsageRecord
from taximeter.shipping.delivery import Refused
from taximeter.shipping.shipper import Bell

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

#: So many pruned records are removed at once, some 10 ms; between two times everybody else has a turn.
_REMOVED_AT_ONCE, _PAUSE_S = 500, 0.05
#: Of so many records of a commit the counters are kept before anybody else has a turn: a millisecond.
_COUNTED_AT_ONCE = 256
_FIRST_RETRY_S = 0.1
_RETRY_MAX_S = 5.0
#: Work that takes longer than this says that the disk, and so the agent, is not well.
STALLED_S = 10.0


class Desk:
    """The ledger, to be asked from the event loop."""

    def __init__(self, ledger: Ledger, tally: Tally) -> None:
        self._ledger = ledger
        self._tally = tally
        self._one_at_a_time = anyio.CapacityLimiter(1)
        self._busy_since_s: float | None = None
        self.head = ledger.head
        self.cursors = dict(ledger.sinks())
        self._seals = deque([ledger.last_seal()])  # how many records each covers, and its own number; the newest last
        self.letters = ledger.dead_letters()  #: how many dead letters each sink has, if any
        self.bells: dict[str, Bell] = {}
        self.trouble: str | None = None  #: why the last commit was refused; None once one has passed
        self.after: Callable[[], None] = lambda: None  #: done by the ledger's thread, right behind each commit

    @property
    def alive(self) -> bool:
        """Whether the commit thread answers."""
        return self._busy_since_s is None or time.monotonic() - self._busy_since_s < STALLED_S

    async def ask(self, work: Callable[..., _T], *values: object) -> _T:
        """Have `work` done by the ledger's thread."""
        async with self._one_at_a_time:
            self._busy_since_s = time.monotonic()
            try:
                return await anyio.to_thread.run_sync(work, *values)
            finally:
                self._busy_since_s = None

    async def commit(self, batch: Batch, written: anyio.Event | None = None) -> None:
        """Have `batch` on the disk, however often that takes; nothing older is dropped for it.

        `written` is set once it is only the disk that is waited for: until then the commit needs the processor itself.
        Cancelled, it raises only between two tries: what was being written is either written or not.
        """
        retry_s = _FIRST_RETRY_S
        tell = partial(anyio.from_thread.run_sync, (written or anyio.Event()).set)
        while True:
            began_s = time.perf_counter()
            try:
                with anyio.CancelScope(shield=True):
                    head, told = await self.ask(self._commit, batch, tell)
                    self._go_on_from(head)
                    await self._count((*batch.records, *told), time.perf_counter() - began_s, batch.pools)
                break
            except LedgerError as error:
                self._tally.commit_failed()
                if self.trouble is None:
                    logger.error("ledger.commit_failed: %s", error)  # noqa: TRY400 -- the text says all, and says it once
                self.trouble = str(error)
                if is_damage(error.__cause__):
                    await self.ask(self._ledger.suspect)
                    self.trouble = f"{error}; the next start of the agent sets the ledger aside, if it is damaged"
                await anyio.sleep(retry_s)
                retry_s = min(2 * retry_s, _RETRY_MAX_S)
        if self.trouble is not None:
            logger.warning("ledger.commit_recovered")
            self.trouble = None
        if batch.records:
            self._ring()

    async def _count(self, records: Sequence[UsageRecord], took_s: float, pools: Sequence[PoolHour]) -> None:
        """Count a commit, so many of its records at a time that nobody else waits for all of them."""
        self._tally.committed(records[:_COUNTED_AT_ONCE], took_s, pools)
        for begin in range(_COUNTED_AT_ONCE, len(records), _COUNTED_AT_ONCE):
            await anyio.lowlevel.checkpoint()
            self._tally.count(records[begin : begin + _COUNTED_AT_ONCE])

    def _commit(self, batch: Batch, tell: Callable[[], None]) -> tuple[Head, Sequence[UsageRecord]]:
        head = self._ledger.commit(batch, tell)
        self.after()
        return head, self._ledger.told

    async def say(self, make: Callable[[str], UsageRecord]) -> None:
        """Have a record of the ledger's own on the disk, which `make` makes of its id, however often that takes."""
        said: UsageRecord | None = None
        while True:
            began_s = time.perf_counter()
            try:
                with anyio.CancelScope(shield=True):
                    said = said or make(await self.ask(self._ledger.own_id))
                    is_written, head = await self.ask(self._say, said)
                    if is_written:
                        self._go_on_from(head)
                        self._tally.committed((said,), time.perf_counter() - began_s)
                        self._ring()
                        return
                    said = None  # another took that id
            except LedgerError as error:
                self._tally.commit_failed()
                logger.warning("ledger.commit_failed: %s", error)
                await anyio.sleep(_FIRST_RETRY_S)

    def _say(self, record: UsageRecord) -> tuple[bool, Head]:
        return self._ledger.say(record), self._ledger.head

    def hash_at(self, seq: int) -> bytes | None:
        """The hash of a record; to be asked by the ledger's thread (`ask`)."""
        return self._ledger.hash_at(seq)

    async def prune(self, begins: Base, carried: Carried) -> None:
        """Have the ledger begin behind a record, and remove what is before. Raises LedgerError: try it again."""
        with anyio.CancelScope(shield=True):
            head = await self.ask(self._prune, begins, carried)
        self._go_on_from(head)
        self._ring()
        while await self.ask(self._ledger.remove_pruned, _REMOVED_AT_ONCE):  # noqa: ASYNC110 -- a turn for everybody else
            await anyio.sleep(_PAUSE_S)

    def _prune(self, begins: Base, carried: Carried) -> Head:
        self._ledger.prune(begins, carried, time.time_ns())
        return self._ledger.head

    async def grant(self, grant: Grant) -> tuple[Grant, bool]:
        """Grant credit; gives the grant of that id as it is kept, and whether it is new. LedgerError: try it again."""
        began_s = time.perf_counter()
        with anyio.CancelScope(shield=True):
            kept, is_new, head = await self.ask(self._grant, grant)
        self._go_on_from(head)
        if is_new:
            self._tally.committed(self._ledger.told, time.perf_counter() - began_s)
            self._ring()
        return kept, is_new

    def _grant(self, grant: Grant) -> tuple[Grant, bool, Head]:
        kept, is_new = self._ledger.grant(grant)
        self.after()
        return kept, is_new, self._ledger.head

    def _go_on_from(self, head: Head) -> None:
        """Two who wait for the thread may hear of it in another order."""
        if head.seq > self.head.seq:
            self.head = head

    def _ring(self) -> None:
        for bell in self.bells.values():
            bell.ring()

    async def closed_at(self, instances: Sequence[str]) -> dict[str, int]:
        """Those of `instances` that were closed before, each with the number of its last record."""
        return await self.ask(self._ledger.closed_at, instances)

    async def records(self, ids: Sequence[str]) -> dict[str, bytes]:
        """The stored bytes of these records, as far as they are there, oldest first."""
        return await self.ask(self._ledger.records, ids)

    # --- The outbox, as a shipper sees it ---

    async def unshipped(self, sink: str, limit: int) -> Sequence[Stored]:
        """The oldest records that `sink` has not taken."""
        if self.cursors.get(sink, 0) >= self.head.seq:
            return ()
        return await self.ask(self._ledger.unshipped, sink, limit)

    async def newest(self, sink: str) -> Stored | None:
        """The newest record that `sink` has not taken."""
        return await self.ask(self._ledger.newest_unshipped, sink)

    async def shipped(self, sink: str, seq: int, refused: Sequence[Refused] = ()) -> None:
        """Note that `sink` has everything up to `seq`, but what it refused."""
        await self.ask(self._ledger.shipped, sink, seq, refused)
        self.cursors[sink] = max(seq, self.cursors.get(sink, 0))
        if refused:
            await self.count_letters()

    async def again(self, sink: str, limit: int) -> Sequence[Stored]:
        """What `sink` refused, and somebody wants to be tried again."""
        if not self.letters.get(sink):
            return ()
        return await self.ask(self._ledger.letters_to_retry, sink, limit)

    async def tried_again(self, sink: str, seq: int, refused: Refused | None) -> None:
        """Note how that went."""
        if refused is None:
            await self.ask(self._ledger.delete_letters, sink, [seq])
        else:
            await self.ask(self._ledger.shipped, sink, 0, [refused])
        await self.count_letters()

    async def acknowledged(self, sink: str, after: int, since_utc_ns: int, limit: int) -> Sequence[Stored]:
        """The next records beyond a number that `sink` has acknowledged, begun since an instant (UTC, ns)."""
        return await self.ask(self._ledger.acknowledged, sink, after, since_utc_ns, limit)

    async def count_letters(self) -> None:
        """Look again how many dead letters there are."""
        self.letters = await self.ask(self._ledger.dead_letters)

    async def letters_of(self, sink: str, ids: Sequence[str] | None) -> list[tuple[int, str]]:
        """Number and id of the dead letters of `sink` that are named, or of all."""
        return await self.ask(self._ledger.chosen_letters, sink, ids)

    async def retry_letters(self, sink: str, seqs: Sequence[int]) -> None:
        """Have dead letters tried again, soon."""
        await self.ask(self._ledger.retry_letters, sink, seqs)
        self._ring()

    async def delete_letters(self, sink: str, seqs: Sequence[int]) -> None:
        """Give dead letters up."""
        await self.ask(self._ledger.delete_letters, sink, seqs)
        await self.count_letters()

    @property
    def everywhere(self) -> int:
        """The number of the newest record that every sink has."""
        return min(self.cursors.values(), default=self.head.seq)

    @property
    def safe(self) -> int:
        """The number of the newest record that every sink has, and a checkpoint seals that every sink has, too."""
        everywhere = self.everywhere
        while len(self._seals) > 1 and self._seals[1][1] <= everywhere:
            self._seals.popleft()
        size, seq = self._seals[0]
        return size if seq <= everywhere else 0

    @property
    def last_seal(self) -> int:
        """The number of the newest checkpoint, or of a later record; 0 where there is none."""
        return self._seals[-1][1]

    def note_seal(self, size: int) -> None:
        """Note that a checkpoint of so many records is in the ledger now."""
        self._seals.append((size, self.head.seq))
