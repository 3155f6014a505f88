"""The ledger: records, journal positions and the agent's own facts, in one transaction a commit.

Owns the one writing connection, numbering without a gap, and each sink's cursor (the outbox is what lies beyond it).
All calls come from one thread. Refuses to know what a record says.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import orjson

from taximeter.billing.admission import Holdings
from taximeter.billing.credit import Grant
from taximeter.billing.notices import own_id
from taximeter.billing.spending import Spending
from taximeter.digest import digest as content_digest
from taximeter.errors import LedgerError
from taximeter.ledger import accounts, backfill, base, chain, damage, runs
from taximeter.ledger.base import Base, Carried
from taximeter.ledger.database import door, open_for_writing
from taximeter.ledger.seal import Author, Sealed, seal
from taximeter.ledger.shipments import Shipments
from taximeter.ledger.till import Settled, Till, next_own
from taximeter.ledger.transaction import transaction
from taximeter.ledger.values import Batch, Head, JournalState, NodeInfo, PoolHour, Stored
from taximeter.records import RecordType, UsageRecord, fact

__all__ = ["Batch", "Head", "JournalState", "Ledger", "NodeInfo", "Stored"]

_INSERT_RECORD = "INSERT INTO records VALUES (?, ?, ?)"
_INSERT_LOOKUP = "INSERT INTO lookups VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_SAVE_JOURNAL = """
INSERT INTO journals VALUES (?1, ?2, ?3, ?4) ON CONFLICT (instance) DO UPDATE SET segment = ?2, offset = ?3, state = ?4
"""
_ADD_TO_POOL = """
INSERT INTO pools VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (hour, pool) DO UPDATE SET
boot_ns = boot_ns + ?3, idle_ns = idle_ns + ?4, active_ns = active_ns + ?5, teardown_ns = teardown_ns + ?6,
suspended_ns = suspended_ns + ?7, unknown_ns = unknown_ns + ?8, load_ns = load_ns + ?9, sold_ns = sold_ns + ?10,
returned_ns = returned_ns + ?11
"""
_FORGET_POOLS = "DELETE FROM pools WHERE hour < ?"
#: Sums of pools are kept for so long; the records that they are of stay.
KEPT_HOURS = 35 * 24
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


class Ledger(Shipments):
    """A node's ledger, open for writing."""

    def __init__(self, path: Path, node: NodeInfo, connection: apsw.Connection) -> None:
        """Use Ledger.open."""
        self._path = path
        self._connection: apsw.Connection | None = connection
        self._id = _kept(connection, "ledger_id", new_id)
        self._seq, self._digest = _read_head(connection, self._id, path)
        self._node = node
        self._author = Author.of(self._id, node)
        self._till = Till(self._id)
        self._in_doubt: list[Batch] = []  # failed, and perhaps in the file all the same
        self._touched: set[str] = set()
        self.told: Sequence[UsageRecord] = ()  #: the records of its own that the last commit led to

    @staticmethod
    def open(path: Path, node: NodeInfo) -> "Ledger":
        """Open or create the ledger at `path`, written by `node`. Raises LedgerError.

        The newest record is hashed again and its link checked; the whole chain is the audit's work.
        """
        connection = open_for_writing(path)
        try:
            with door("open", path):
                backfill.make_tables(connection)
                backfill.fill(connection)
                return Ledger(path, node, connection)
        except LedgerError:
            connection.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._drop_connection()

    @property
    def head(self) -> Head:
        """The newest record that was acknowledged."""
        return Head(self._id, self._seq, chain.digest_text(self._digest))

    def node_id_kept(self, default: str) -> str:
        """The node id of the first start (`default`, if this is the first); records name it from now on."""
        with door("write", self._path):
            kept = _kept(self._live(), "node_id", lambda: default)
        self._node = replace(self._node, id=kept)
        self._author = Author.of(self._id, self._node)
        return kept

    def suspect(self) -> None:
        """Have the next start look through the whole file for damage."""
        damage.suspect(self._path)

    # --- Commit ------------------------------------------------------------------------------------------------------

    def commit(self, batch: Batch, written: Callable[[], object] = lambda: None) -> Head:
        """Write all of `batch`, synced, or nothing of it; call `written` when but the disk has to be waited for.

        Raises LedgerError.
        After an error the same batch may be tried again, however often, when the cause may have passed: it is stored
        once, even where the disk failed so late that it had been stored already.
        """
        connection = self._live()
        doubted = batch in self._in_doubt
        if doubted and self._has_landed(batch):
            self._in_doubt.remove(batch)
            self._touched |= {record.account for record in batch.records if record.account is not None}
            self.told = ()
            return self.head
        with door("read", self._path):
            settled = self._till.settle(connection, batch.records, self._author.source)
        try:
            self._store(connection, batch, settled, written)
        except LedgerError as error:
            if _is_doubtful(error) and batch not in self._in_doubt:
                self._in_doubt.append(batch)
            raise
        if doubted:
            self._in_doubt.remove(batch)
        return self.head

    def _store(
        self, connection: apsw.Connection, batch: Batch, settled: Settled, written: Callable[[], object] = lambda: None
    ) -> None:
        """Write what a batch comes to, and go on from there."""
        try:
            sealed = seal(settled.records, self._author, self._seq, self._digest)
            with door("commit to", self._path):
                self._write(connection, batch, (sealed, settled), written)
        except BaseException as error:
            self._till.forget()
            if isinstance(error, LedgerError) and _is_doubtful(error):
                self._drop_connection()  # whether it reached the disk is known only to whoever reads the file afresh
            raise
        self._seq, self._digest = sealed.seq, sealed.digest
        self._touched |= settled.accounts
        self.told = settled.told

    def _write(
        self, connection: apsw.Connection, batch: Batch, whole: tuple[Sealed, Settled], written: Callable[[], object]
    ) -> None:
        sealed, settled = whole
        connection.execute("BEGIN IMMEDIATE")
        try:
            insert(connection, sealed.rows, sealed.lookups)
            settled.write(connection)
            _book(connection, batch)
            if batch.pools:
                _add_to_pools(connection, batch.pools)
            runs.add(connection, batch.runs, batch.calls)
            written()
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise

    def _has_landed(self, batch: Batch) -> bool:
        """Whether a batch whose commit failed is in the file after all."""
        if batch.records:
            return all(self._ask("SELECT 1 FROM lookups WHERE id = ?", record.id) for record in batch.records)
        if batch.facts:
            return bool(self._ask("SELECT 1 FROM facts WHERE instance = ? AND body = ?", *batch.facts[-1]))
        return all(
            self._ask(f"{_JOURNALS} WHERE instance = ?", journal.instance) == [journal] for journal in batch.journals
        )

    # --- Accounts ----------------------------------------------------------------------------------------------------

    def charge_by(self, rules: Spending) -> None:
        """Have what accounts spend judged by these rules from now on."""
        with door("write", self._path):
            backfill.keep_rules(self._live(), rules)
        self._till.charge_by(rules)

    def grant(self, grant: Grant) -> tuple[Grant, bool]:
        """Grant credit; gives the grant of that id as it is kept, and whether it is new. Raises LedgerError.

        After an error the same may be tried again, however often: it is granted once.
        """
        connection = self._live()
        with door("read", self._path):
            kept = accounts.grant_by(connection, grant.id)
            if kept is not None:
                self._touched.add(kept.account)  # a try before this one may have been told to have failed
                return kept, False
            settled = self._till.grant(connection, grant)
        self._store(connection, Batch((), ()), settled)
        return grant, True

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

    # --- Retention ---------------------------------------------------------------------------------------------------

    def prune(self, begins: Base, carried: Carried, now_utc_ns: int) -> None:
        """Have the ledger begin behind a record from now on, and say so; `remove_pruned` removes what is before.

        Raises LedgerError; the same may be tried again then.
        """
        connection = self._live()
        with door("commit to", self._path), transaction(connection):
            if base.base_of(connection).seq >= begins.seq:
                return
            digest = base.move(connection, begins, carried)
            content = {"size": begins.seq, "head": chain.digest_text(begins.hash), "carried": digest}
            record_id = own_id(self._id, next_own(connection, self._id))
            said = fact(record_id, now_utc_ns, (base.PRUNED, content_digest(content), content))
            sealed = seal([said], self._author, self._seq, self._digest)
            insert(connection, sealed.rows, sealed.lookups)
        self._seq, self._digest = sealed.seq, sealed.digest

    def remove_pruned(self, limit: int) -> int:
        """Remove at most so many records of those that the ledger begins behind; gives how many."""
        with door("write", self._path):
            return base.remove_pruned(self._live(), limit)

    def own_id(self) -> str:
        """The id of the next record that is the ledger's own."""
        return own_id(self._id, self.next_own())

    def say(self, record: UsageRecord) -> bool:
        """Write a record of the ledger's own, under the id that `own_id` gave.

        Raises LedgerError; the same may be tried again then, and is written once. False: another has that id by now.
        """
        kept = self.records([record.id]).get(record.id)
        if kept is not None:
            said = orjson.loads(kept)
            same = all(said["data"].get(key) == record.data.get(key) for key in ("hash", "note"))
            return same and bool(said["type"] == record.type)
        self._store(self._live(), Batch((record,), ()), Settled((record,)))
        return True

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

    def take_touched(self) -> set[str]:
        """The accounts whose sums changed since this was last asked."""
        touched, self._touched = self._touched, set()
        return touched

    def next_own(self) -> int:
        """The number of the next record that is the ledger's own: facts, thresholds, grants."""
        with door("read", self._path):
            return next_own(self._live(), self._id)

    # --- Journals and facts ------------------------------------------------------------------------------------------

    def journals(self) -> tuple[JournalState, ...]:
        """The instances that are open: where to read on, and the state to go on from."""
        rows = self._ask(_JOURNALS)
        return tuple(JournalState(*row) for row in rows)

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

    # --- The connection ----------------------------------------------------------------------------------------------

    def _live(self) -> apsw.Connection:  # type: ignore[explicit-override]
        """The connection; after a failed commit a new one, with the head as the file has it."""
        if self._connection is None:
            connection = open_for_writing(self._path)
            try:
                with door("open", self._path):
                    self._seq, self._digest = _read_head(connection, self._id, self._path)
            except LedgerError:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _drop_connection(self) -> None:
        self._till.forget()
        if self._connection is not None:
            with contextlib.suppress(apsw.Error):
                self._connection.close()
            self._connection = None

    def _ask(self, sql: str, *values: str | int | bytes) -> list[tuple[Any, ...]]:
        with door("read", self._path):
            return self._live().execute(sql, values).fetchall()


def insert(
    connection: apsw.Connection, rows: Iterable[tuple[int, bytes, bytes]], lookups: Iterable[tuple[object, ...]]
) -> None:
    """Write records (number, hash, stored bytes), and what each is found by."""
    connection.executemany(_INSERT_RECORD, rows)
    connection.executemany(_INSERT_LOOKUP, lookups)


def save_open(
    connection: apsw.Connection, journals: Iterable[JournalState], facts: Iterable[tuple[str, bytes]]
) -> None:
    """Save what is open, and the facts it rests on."""
    connection.executemany(_SAVE_JOURNAL, journals)
    connection.executemany("INSERT INTO facts (instance, body) VALUES (?, ?)", facts)


def _book(connection: apsw.Connection, batch: Batch) -> None:
    """Save what is open, with the facts it rests on; what a closed instance rested on is told by its records."""
    closed = [(journal.instance,) for journal in batch.journals if journal.state is None]
    saved = [journal for journal in batch.journals if journal.state is not None]
    ended = {instance for (instance,) in closed}
    save_open(connection, saved, [fact for fact in batch.facts if fact[0] not in ended])
    connection.executemany("DELETE FROM journals WHERE instance = ?", closed)
    connection.executemany("DELETE FROM facts WHERE instance = ?", closed)


def _add_to_pools(connection: apsw.Connection, pools: Iterable[PoolHour]) -> None:
    connection.executemany(_ADD_TO_POOL, [(hour, pool, *time) for hour, pool, time in pools])
    connection.execute(_FORGET_POOLS, (max(hour for hour, _, _ in pools) - KEPT_HOURS,))


def _read_head(connection: apsw.Connection, ledger_id: str, path: Path) -> tuple[int, bytes]:
    """The newest record's number and hash, if it is what it says; LedgerError otherwise."""
    newest: list[tuple[Any, ...]] = connection.execute(
        "SELECT seq, hash, body FROM records ORDER BY seq DESC LIMIT 2"
    ).fetchall()
    if not newest:
        return base.base_of(connection)
    seq, digest, body = newest[0]
    # A fact that was kept of what was pruned is not the one before.
    previous = newest[1][1] if len(newest) > 1 and newest[1][0] == seq - 1 else base.base_of(connection).hash
    # A forged row may hold text or a number where bytes belong.
    sound = isinstance(body, bytes) and isinstance(previous, bytes) and chain.digest_of(body) == digest
    if not sound or _place(body) != chain.place_of(ledger_id, seq, previous):
        expected = f"expected record {seq}, the newest, to fit its hash and its predecessor"
        raise LedgerError(f"cannot continue ledger {path}: {expected}; see `taximeter verify`, and keep the file")
    return seq, digest


def _is_doubtful(error: LedgerError) -> bool:
    """Whether the disk failed; what the ledger itself refused was never written."""
    return isinstance(error.__cause__, apsw.Error) and not isinstance(error.__cause__, apsw.ConstraintError)


def _place(body: bytes) -> object:
    try:
        return orjson.loads(body)["data"]["ledger"]
    except (ValueError, TypeError, KeyError):
        return None


def _kept(connection: apsw.Connection, key: str, make: Callable[[], str]) -> str:
    """What is kept under `key`; made and kept where there is nothing yet."""
    kept = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if kept is not None:
        return str(kept[0])
    made = make()
    connection.execute("INSERT INTO meta VALUES (?, ?)", (key, made))
    return made


def new_id() -> str:
    """A UUIDv7 (RFC 9562): ids of one kind throughout, and in order of their making."""
    stamp = (time.time_ns() // 1_000_000) << 80
    noise = int.from_bytes(os.urandom(10), "big") & ~(0xF << 76) & ~(0x3 << 62)
    return str(uuid.UUID(int=stamp | noise | 0x7 << 76 | 0x2 << 62))


def _roll_back(connection: apsw.Connection) -> None:
    with contextlib.suppress(apsw.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
