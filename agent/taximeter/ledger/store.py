"""The ledger: records, journal positions and the agent's own facts, in one transaction a commit.

Owns the one writing connection, numbering without a gap, and each sink's cursor (the outbox is what lies beyond it).
All calls come from one thread. Refuses to know what a record says.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import apsw
import orjson

from taximeter.billing.credit import Grant
from taximeter.billing.notices import own_id
from taximeter.billing.spending import Spending
from taximeter.digest import digest as content_digest
from taximeter.errors import LedgerError
from taximeter.ledger import accounts, backfill, base, chain, damage, rows, runs
from taximeter.ledger.base import Base, Carried
from taximeter.ledger.database import door, open_for_writing
from taximeter.ledger.heads import kept, new_id, read_head
from taximeter.ledger.inquiries import Inquiries
from taximeter.ledger.seal import Author, Sealed, seal
from taximeter.ledger.shipments import Shipments
from taximeter.ledger.till import Settled, Till, next_own
from taximeter.ledger.transaction import transaction
from taximeter.ledger.values import Batch, Head, JournalState, NodeInfo, Stored
from taximeter.records import UsageRecord, fact

__all__ = ["Batch", "Head", "JournalState", "Ledger", "NodeInfo", "Stored"]


class Ledger(Shipments, Inquiries):
    """A node's ledger, open for writing."""

    def __init__(self, path: Path, node: NodeInfo, connection: apsw.Connection) -> None:
        """Use Ledger.open."""
        self._path = path
        self._connection: apsw.Connection | None = connection
        self._id = kept(connection, "ledger_id", new_id)
        self._seq, self._digest = read_head(connection, self._id, path)
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
            known = kept(self._live(), "node_id", lambda: default)
        self._node = replace(self._node, id=known)
        self._author = Author.of(self._id, self._node)
        return known

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
            rows.insert(connection, sealed.rows, sealed.lookups)
            settled.write(connection)
            rows.book(connection, batch)
            if batch.pools:
                rows.add_to_pools(connection, batch.pools)
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
        return all(self.journal(journal.instance) == journal for journal in batch.journals)

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
            rows.insert(connection, sealed.rows, sealed.lookups)
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

    def take_touched(self) -> set[str]:
        """The accounts whose sums changed since this was last asked."""
        touched, self._touched = self._touched, set()
        return touched

    # --- The connection ----------------------------------------------------------------------------------------------

    def _live(self) -> apsw.Connection:  # type: ignore[explicit-override]
        """The connection; after a failed commit a new one, with the head as the file has it."""
        if self._connection is None:
            connection = open_for_writing(self._path)
            try:
                with door("open", self._path):
                    self._seq, self._digest = read_head(connection, self._id, self._path)
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


def _is_doubtful(error: LedgerError) -> bool:
    """Whether the disk failed; what the ledger itself refused was never written."""
    return isinstance(error.__cause__, apsw.Error) and not isinstance(error.__cause__, apsw.ConstraintError)


def _roll_back(connection: apsw.Connection) -> None:
    with contextlib.suppress(apsw.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
