"""What a commit writes beside the ledger's own numbering: rows of records, of journals and facts, of pools' sums.

Owns the SQL, and what goes once an instance is closed. Refuses to know transactions.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from taximeter.ledger.values import Batch, JournalState, PoolHour

if TYPE_CHECKING:
    import apsw

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


def insert(
    connection: "apsw.Connection", rows: Iterable[tuple[int, bytes, bytes]], lookups: Iterable[tuple[object, ...]]
) -> None:
    """Write records (number, hash, stored bytes), and what each is found by."""
    connection.executemany(_INSERT_RECORD, rows)
    connection.executemany(_INSERT_LOOKUP, lookups)


def save_open(
    connection: "apsw.Connection", journals: Iterable[JournalState], facts: Iterable[tuple[str, bytes]]
) -> None:
    """Save what is open, and the facts it rests on."""
    connection.executemany(_SAVE_JOURNAL, journals)
    connection.executemany("INSERT INTO facts (instance, body) VALUES (?, ?)", facts)


def book(connection: "apsw.Connection", batch: Batch) -> None:
    """Save what is open, with the facts it rests on; what a closed instance rested on is told by its records."""
    closed = [(journal.instance,) for journal in batch.journals if journal.state is None]
    saved = [journal for journal in batch.journals if journal.state is not None]
    ended = {instance for (instance,) in closed}
    save_open(connection, saved, [fact for fact in batch.facts if fact[0] not in ended])
    connection.executemany("DELETE FROM journals WHERE instance = ?", closed)
    connection.executemany("DELETE FROM facts WHERE instance = ?", closed)


def add_to_pools(connection: "apsw.Connection", pools: Iterable[PoolHour]) -> None:
    """Add to what is known of each pool's hours, and forget the oldest."""
    connection.executemany(_ADD_TO_POOL, [(hour, pool, *time) for hour, pool, time in pools])
    connection.execute(_FORGET_POOLS, (max(hour for hour, _, _ in pools) - KEPT_HOURS,))
