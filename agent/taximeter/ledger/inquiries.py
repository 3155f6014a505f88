"""What a ledger's writer is asked while it is open: the books, the seals and the accounts go on from these answers.

Owns the questions. One part of the ledger's one writing connection, apart for its length alone.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from taximeter.billing.admission import Holdings
from taximeter.ledger import accounts, base
from taximeter.ledger.database import door
from taximeter.ledger.till import next_own
from taximeter.ledger.values import JournalState
from taximeter.records import RecordType

if TYPE_CHECKING:
    import apsw

_LAST_SEAL = "SELECT seq, body FROM lookups JOIN records USING (seq) WHERE type = ? ORDER BY seq DESC LIMIT 1"
_JOURNALS = "SELECT instance, segment, offset, state FROM journals"
_RECORDS = """
SELECT lookups.id, body FROM json_each(?) JOIN lookups ON lookups.id = value JOIN records USING (seq) ORDER BY seq
"""
# An instance's records are those whose id is all of its own and a count (rtrim: a beginning of it names nobody); what
# has records and is not open was closed.
_CLOSED_AT = """
SELECT instance, seq FROM json_each(?1) JOIN closed ON closed.instance = value UNION ALL
SELECT value, (
    SELECT max(seq) FROM lookups WHERE id >= value || '-' AND id < value || '.'
    AND rtrim(id, '0123456789') = value || '-'
) AS last
FROM json_each(?1) WHERE last IS NOT NULL AND NOT EXISTS (SELECT 1 FROM journals WHERE instance = value)
"""


class Inquiries:
    """What an open ledger knows."""

    _path: Path
    _id: str

    def _live(self) -> "apsw.Connection":
        raise NotImplementedError

    def hash_at(self, seq: int) -> bytes | None:
        """The hash of record number `seq`; None where there is none."""
        rows = self._ask("SELECT hash FROM records WHERE seq = ?", seq)
        return rows[0][0] if rows else self._base_hash(seq)

    def last_seal(self) -> tuple[int, int]:
        """How many records the newest checkpoint covers, and its own number; zeros where there is none."""
        rows = self._ask(_LAST_SEAL, RecordType.CHECKPOINT)
        return (orjson.loads(rows[0][1])["data"]["size"], rows[0][0]) if rows else (0, 0)

    def _base_hash(self, seq: int) -> bytes | None:
        with door("read", self._path):
            begins = base.base_of(self._live())
        return begins.hash if seq and begins.seq == seq else None

    def holdings(self, account: str, now_utc_ns: int) -> Holdings:
        """What an account has now, and has spent in this month."""
        with door("read", self._path):
            return accounts.holdings(self._live(), account, now_utc_ns)

    def accounts(self) -> list[str]:
        """Every account that ever spent anything, or was granted credit."""
        with door("read", self._path):
            return accounts.known(self._live())

    def expired(self, after_utc_ns: int, until_utc_ns: int) -> list[str]:
        """The accounts of grants that expired meanwhile."""
        with door("read", self._path):
            return accounts.expired(self._live(), after_utc_ns, until_utc_ns)

    def next_own(self) -> int:
        """The number of the next record that is the ledger's own: facts, thresholds, grants."""
        with door("read", self._path):
            return next_own(self._live(), self._id)

    def journals(self) -> tuple[JournalState, ...]:
        """The instances that are open: where to read on, and the state to go on from."""
        rows = self._ask(_JOURNALS)
        return tuple(JournalState(*row) for row in rows)

    def journal(self, instance: str) -> JournalState | None:
        """The same of one instance; None where it is not open."""
        rows = self._ask(f"{_JOURNALS} WHERE instance = ?", instance)
        return JournalState(*rows[0]) if rows else None

    def facts(self, instance: str) -> tuple[bytes, ...]:
        """What the agent itself saw of an instance, in the order it was committed."""
        return tuple(row[0] for row in self._ask("SELECT body FROM facts WHERE instance = ? ORDER BY number", instance))

    def records(self, ids: Iterable[str]) -> dict[str, bytes]:
        """The stored bytes of these records, as far as they are there."""
        return dict(self._ask(_RECORDS, orjson.dumps(list(ids)).decode()))

    def closed_at(self, instances: Iterable[str]) -> dict[str, int]:
        """Those of `instances` that are closed, each with the number of its last record.

        Known for ever: a journal that reappears, from a backup say, is never booked again.
        """
        return dict(self._ask(_CLOSED_AT, orjson.dumps(list(instances)).decode()))

    def _ask(self, sql: str, *values: str | int | bytes) -> list[tuple[Any, ...]]:
        with door("read", self._path):
            return self._live().execute(sql, values).fetchall()
