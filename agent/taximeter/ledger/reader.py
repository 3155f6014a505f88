"""Reading a ledger, while an agent writes it or not: records by what they are filed under, the head, the whole chain.

Owns a read-only connection of its own, which is asked in pages (pages), by what records are filed under (selection), by
who called whom (trees), and as the chain stands. Refuses to write and to know what a record says.
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import TracebackType

from taximeter.billing.credit import Grant, Purse
from taximeter.billing.spending import Spending
from taximeter.billing.tab import PurseKey
from taximeter.billing.thresholds import Key, Standing
from taximeter.errors import LedgerError
from taximeter.ledger import accounts, backfill, base, chain, outbox, runs, selection, trees
from taximeter.ledger.database import door, open_for_reading
from taximeter.ledger.pages import ROWS, Pages
from taximeter.ledger.runs import Call, Kind, Runs
from taximeter.ledger.selection import RecordFilter
from taximeter.ledger.till import next_own
from taximeter.ledger.transaction import transaction
from taximeter.ledger.values import Filed, Head, PoolTime, Row
from taximeter.records import RecordType

__all__ = ["LedgerReader", "RecordFilter", "Row"]

_NEXT_OF = (
    "SELECT seq, body FROM lookups JOIN records USING (seq) WHERE seq > ? AND type IN (?, ?) ORDER BY seq LIMIT ?"
)
_OF_INSTANCE = """
SELECT id, type, prediction, body FROM lookups JOIN records USING (seq)
WHERE id > ? AND id < ? || '.' AND rtrim(id, '0123456789') = ? || '-' ORDER BY id LIMIT ?
"""
_LAST_OF = """
SELECT id FROM lookups WHERE id > ? || '-' AND id < ? || '.' AND rtrim(id, '0123456789') = ? || '-'
ORDER BY id DESC LIMIT 1
"""
_BEGUN_BY = """
SELECT DISTINCT rtrim(id, '0123456789') FROM (SELECT id FROM lookups WHERE id >= ? AND id < ? AND type != ?
ORDER BY id LIMIT ?)
"""
_LAST_CHARACTER = "\U0010ffff"
_POOLS = """
SELECT pool, sum(boot_ns), sum(idle_ns), sum(active_ns), sum(teardown_ns), sum(suspended_ns), sum(unknown_ns),
sum(load_ns), sum(sold_ns), sum(returned_ns) FROM pools WHERE hour >= ? GROUP BY pool
"""
_HAS_LETTERS = "SELECT 1 FROM sqlite_schema WHERE name = 'dead_letters'"
_HAS_POOLS = "SELECT 1 FROM sqlite_schema WHERE name = 'pools'"
# A damaged or forged file may hold anything where bytes belong; that is then as good as nothing.
_WALK = """
SELECT records.seq, iif(typeof(hash) = 'blob', hash, x''), iif(typeof(body) = 'blob', body, x''),
id, type, time_utc_ns, prediction, root, account, model, lookups.seq
FROM records LEFT JOIN lookups USING (seq) WHERE records.seq > ? ORDER BY records.seq LIMIT ?
"""
_USAGE = "SELECT 1 FROM lookups WHERE seq > ? AND seq <= ? AND type NOT IN (?, ?) LIMIT 1"
_OWN_TYPES = (RecordType.FACT, RecordType.CHECKPOINT)
_CHECKPOINTS = """
SELECT seq, time_utc_ns, body FROM lookups JOIN records USING (seq) WHERE seq > ? AND type = ? ORDER BY seq LIMIT ?
"""
_STRAYS = """
SELECT seq, id FROM lookups WHERE seq > ? AND NOT EXISTS (SELECT 1 FROM records WHERE records.seq = lookups.seq)
ORDER BY seq LIMIT ?
"""


class LedgerReader:
    """A ledger, open for reading."""

    def __init__(self, path: Path) -> None:
        """Open the ledger at `path`. Raises LedgerError."""
        self._path = path
        self._connection = open_for_reading(path)
        self._pages = Pages(path, self._connection)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> "LedgerReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """Where the ledger is."""
        return self._path

    @property
    def ledger_id(self) -> str:
        """The ledger's own id, which every record of it names."""
        return str(self._pages.ask("SELECT value FROM meta WHERE key = 'ledger_id'")[0][0])

    @property
    def node_id(self) -> str | None:
        """The node id that was kept at the first start, if one was."""
        rows = self._pages.ask("SELECT value FROM meta WHERE key = 'node_id'")
        return str(rows[0][0]) if rows else None

    @property
    def head(self) -> Head:
        """The newest record."""
        rows = self._pages.ask("SELECT seq, hash FROM records ORDER BY seq DESC LIMIT 1")
        seq, digest = rows[0] if rows else (0, chain.GENESIS)
        return Head(self.ledger_id, seq, chain.digest_text(digest))

    def sinks(self) -> dict[str, int]:
        """Every sink, and how many records it has not acknowledged yet."""
        rows = self._pages.ask("SELECT name, seq FROM sinks ORDER BY name")
        newest = self.head.seq
        return {name: newest - seq for name, seq in rows}

    def dead_letters(self, sink: str | None = None, limit: int | None = None) -> Iterator[outbox.DeadLetter]:
        """What a sink, or any, refused though it takes others, in the order of sinks and numbers."""
        if not self._pages.ask(_HAS_LETTERS):
            return  # an older agent wrote it
        after, left = ("", 0), limit
        while left is None or left > 0:
            page = ROWS if left is None else min(left, ROWS)
            with door("read", self._path):
                letters = outbox.letters(self._connection, sink, after, page)
            yield from letters
            if len(letters) < page:
                return
            after = letters[-1].sink, letters[-1].seq
            left = None if left is None else left - page

    def pools(self, since_hour: int) -> dict[str, PoolTime]:
        """How each pool's time was used from that hour (since 1970 UTC) on, as far as it is recorded."""
        if not self._pages.ask(_HAS_POOLS):
            return {}  # an agent wrote it that kept no such sums, and none since
        return {pool: PoolTime(*time) for pool, *time in self._pages.ask(_POOLS, since_hour)}

    def kinds(self, model: str | None = None) -> list[Runs]:
        """Every model, version and tier of which runs are known, or those of one model; what they took is not read."""
        with door("read", self._path):
            return runs.read_kinds(self._connection, model)

    def runs(self, kinds: Iterable[Kind]) -> list[Runs]:
        """What runs of these kinds took so far."""
        with door("read", self._path):
            return runs.read_runs(self._connection, kinds)

    def calls(self) -> list[Call]:
        """Which model was seen to call which."""
        with door("read", self._path):
            return runs.read_calls(self._connection)

    def sums(self) -> tuple[int, dict[Key, Decimal], dict[PurseKey, Purse]] | None:
        """The newest record's number, what accounts spent by then, and their credit; None where none are kept (yet)."""
        if not self._has_sums():
            return None
        newest, kept, credit = 0, {}, {}
        with door("read", self._path), transaction(self._connection):  # one transaction: an agent may be writing
            newest = self._connection.execute("SELECT coalesce(max(seq), 0) FROM records").get
            kept, credit = accounts.spends(self._connection), accounts.purses(self._connection)
        return newest, kept, credit

    def statement(self, account: str) -> accounts.Statement:
        """Everything that is kept of an account. Raises LedgerError."""
        if not self._has_sums():
            expected = "sums of accounts, which the next start of `taximeter agent` makes"
            raise LedgerError(f"cannot read accounts of ledger {self._path}: expected {expected}")
        with door("read", self._path):
            return accounts.statement(self._connection, account)

    def grant(self, grant_id: str) -> Grant | None:
        """The grant of that id. Raises LedgerError."""
        if not self._has_sums():
            return None
        with door("read", self._path):
            return accounts.grant_by(self._connection, grant_id)

    def spending_rules(self) -> Spending:
        """The rules of spending that were last in force."""
        with door("read", self._path):
            return backfill.kept_rules(self._connection)

    def next_own(self) -> int:
        """The number of the next record that is the ledger's own: facts, thresholds, grants."""
        with door("read", self._path):
            return next_own(self._connection, self.ledger_id)

    def elsewhere(self) -> Mapping[str, base.Elsewhere]:
        """Every instance of which there are older records that are not here."""
        with door("read", self._path):
            return base.elsewhere(self._connection)

    def _has_sums(self) -> bool:
        """Whether there are any, and none is still being made."""
        with door("read", self._path):
            return backfill.is_filled(self._connection)

    def records(self, wanted: RecordFilter = selection.ALL) -> Iterator[bytes]:
        """The stored bytes of the records that `wanted` asks for, in the order of their numbers."""
        return selection.records(self._pages, wanted)

    def usage(self, after_seq: int, most: int) -> list[tuple[int, bytes]]:
        """The next records of usage beyond a number, no corrections: number and stored bytes of each."""
        rows = self._pages.ask(_NEXT_OF, after_seq, RecordType.PREDICTION, RecordType.INSTANCE, most)
        return [(seq, body) for seq, body in rows]

    def of_instance(self, instance: str, after_id: str, most: int) -> list[tuple[str, str, str | None, bytes]]:
        """An instance's next records beyond an id (at first an empty one): id, type, prediction, stored bytes."""
        rows = self._pages.ask(_OF_INSTANCE, after_id or f"{instance}-", instance, instance, most)
        return [(id_, kind, prediction, body) for id_, kind, prediction, body in rows]

    def last_of(self, instance: str) -> str | None:
        """The id of an instance's last record; None where none is here."""
        rows = self._pages.ask(_LAST_OF, instance, instance, instance)
        return str(rows[0][0]) if rows else None

    def root_of(self, prediction: str) -> str | None:
        """The root that a prediction's first record names; None where it has no record."""
        return trees.root_of(self._pages, prediction)

    def next_root(self, after: str = "") -> str | None:
        """The first root in order beyond `after` that another prediction names."""
        return trees.next_root(self._pages, after)

    def roots(self, top: str, most: int) -> tuple[str, ...]:
        """`top` and whatever below it is named as a root by others, at most so many."""
        return trees.roots(self._pages, top, most)

    def of_root(self, root: str) -> Iterator[bytes]:
        """The stored bytes of the records of a root, and of the predictions that name it as theirs."""
        return trees.of_root(self._pages, root)

    def below(self, root: str) -> Iterator[bytes]:
        """The stored bytes of the records of the predictions that name `root` as theirs."""
        return trees.below(self._pages, root)

    def begun_by(self, prefix: str) -> tuple[str, ...]:
        """The instances whose ids begin with `prefix`, in order, as far as one page of records tells."""
        rows = self._pages.ask(_BEGUN_BY, prefix, prefix + _LAST_CHARACTER, RecordType.FACT, ROWS)
        return tuple(owner.removesuffix("-") for (owner,) in rows)

    def hash_at(self, seq: int) -> bytes | None:
        """The hash of record number `seq`; None where there is none. Raises LedgerError."""
        with door("read", self._path):
            row = self._connection.execute("SELECT hash FROM records WHERE seq = ?", (seq,)).fetchone()
        if row is None and seq and seq == self.base.seq:
            return self.base.hash
        return row[0] if row is not None and isinstance(row[0], bytes) else None

    @property
    def base(self) -> base.Base:
        """The record behind which the ledger begins."""
        with door("read", self._path):
            return base.base_of(self._connection)

    def has_usage(self, after_seq: int, until_seq: int) -> bool:
        """Whether there is anything but the ledger's own records between two numbers."""
        return bool(self._pages.ask(_USAGE, after_seq, until_seq, *_OWN_TYPES))

    def base_spends(self) -> Mapping[Key, Standing]:
        """What every account had spent by then."""
        with door("read", self._path):
            return base.spends(self._connection)

    def base_purses(self) -> Mapping[PurseKey, Purse]:
        """What every account had left of its credit, and owed, by then."""
        with door("read", self._path):
            return base.purses(self._connection)

    def base_digest(self) -> str:
        """The digest of all that stands in the place of pruned records."""
        with door("read", self._path):
            return base.digest_of(self._connection)

    def checkpoints(self, after_seq: int, most: int) -> list[tuple[int, int, bytes]]:
        """The next checkpoints beyond a number: number, time (UTC, ns) and stored bytes of each."""
        return [
            (seq, time, body)
            for seq, time, body in self._pages.ask(_CHECKPOINTS, after_seq, RecordType.CHECKPOINT, most)
        ]

    def walk(self, after_seq: int = 0) -> Iterator[Row]:
        """Every row of the chain beyond `after_seq`, as it is. Raises LedgerError where the file is damaged."""
        while rows := self._pages.ask(_WALK, after_seq, ROWS):
            for row in rows:
                seq, digest, body, id_, kind, time_utc_ns, prediction, root, account, model, filed_at = row
                filed = None if filed_at is None else Filed(id_, kind, time_utc_ns, prediction, root, account, model)
                yield Row(seq, digest, body, filed)
            after_seq = self._pages.beyond(after_seq, rows)

    def strays(self) -> Iterator[tuple[int, str]]:
        """What the lookups have under a number that no record has: number and id. Raises LedgerError."""
        after_seq = -(2**63)
        while rows := self._pages.ask(_STRAYS, after_seq, ROWS):
            yield from ((seq, str(filed_as)) for seq, filed_as in rows)
            after_seq = self._pages.beyond(after_seq, rows)
