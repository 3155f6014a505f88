"""Seals the ledger now and then: signs how many records there are and the hash of the last, and writes that down.

Owns when that is, and the order: what is signed is remembered on the disk before it becomes a record, which is shipped.
So no two checkpoints of this node ever say different things. Refuses to know how a checkpoint looks.
"""

import logging
import time
from pathlib import Path

import anyio
import anyio.to_thread

from taximeter.agent.desk import Desk
from taximeter.errors import LedgerError
from taximeter.ledger import chain, signing
from taximeter.ledger.notes import Checkpoint
from taximeter.ledger.remembered import Remembered, check, machine, remember
from taximeter.records import PLATFORM, RecordType, UsageRecord

logger = logging.getLogger(__name__)

_LOOK_S = 1.0


class Sealer:
    """Whoever seals this ledger: every so many records, or seconds, if there are any new ones."""

    def __init__(self, desk: Desk, state: Path, credentials: Path | None, every: tuple[int, float]) -> None:
        self._desk = desk
        self._path = state / "checkpoint"
        self._key = state / "seal.key"
        self._credentials = credentials
        self._every = every
        self._sealed = 0  #: how many records the last checkpoint covers, and the one that it became
        self._since_s = time.monotonic()
        self.trouble: str | None = None

    async def run(self) -> None:
        """Seal for ever."""
        self._sealed = self._desk.last_seal
        while True:
            await anyio.sleep(_LOOK_S)
            records, seconds = self._every
            news = self._desk.head.seq - self._sealed
            if news >= records or (news > 0 and time.monotonic() - self._since_s >= seconds):
                await self.seal()

    async def seal(self) -> None:
        """Seal what there is; what is in the way is said, and tried again later."""
        self._since_s = time.monotonic()
        try:
            head = self._desk.head
            known = await self._desk.ask(self._desk.hash_at, head.seq)
            await self._desk.ask(check, self._path, head.ledger_id, head.seq, self._desk.hash_at)
            checkpoint = Checkpoint(head.ledger_id, head.seq, known or b"")
            data = await anyio.to_thread.run_sync(self._sign, checkpoint)
        except (LedgerError, OSError) as error:
            if self.trouble is None:
                logger.error("ledger.unsealed: %s", error)  # noqa: TRY400 -- the text says all
            self.trouble = f"the ledger cannot be sealed: {error}"
            return
        self.trouble = None
        now_utc_ns = time.time_ns()
        await self._desk.say(lambda id_: UsageRecord(id_, RecordType.CHECKPOINT, PLATFORM, now_utc_ns, data))
        self._desk.note_seal(head.seq)
        # What came while that was signed is not covered by it, and is due.
        newest = self._desk.head.seq
        self._sealed = newest if newest == head.seq + 1 else head.seq

    def _sign(self, checkpoint: Checkpoint) -> dict[str, object]:
        note, public = signing.sign(checkpoint, signing.seed_at(self._key, self._credentials))
        head = chain.digest_text(checkpoint.head)
        remember(self._path, Remembered(checkpoint.ledger_id, checkpoint.size, head, machine(), note.text))
        return {"size": checkpoint.size, "head": head, "key": public, "note": note.text}
