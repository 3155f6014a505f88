"""What a ledger stands on whose first record is not the first of all: others were pruned, or are in a damaged ledger.

Owns the tables' SQL: which instances have records elsewhere, how many, and what is open of them; which were closed.
Refuses to know why.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import apsw

# `closed` is for ever: a journal that reappears, from a backup say, is never booked again.
TABLES = """
CREATE TABLE closed (instance TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE elsewhere (instance TEXT PRIMARY KEY, number INTEGER NOT NULL, state BLOB) WITHOUT ROWID;
"""
_HAS_TABLES = "SELECT 1 FROM sqlite_schema WHERE name = 'elsewhere'"


class Elsewhere(NamedTuple):
    """What is known of an instance whose earlier records are not in the ledger."""

    number: int  #: of its next record: how many there are elsewhere
    state: bytes | None  #: what the audit had of it then; None: nobody knows


def elsewhere(connection: "apsw.Connection") -> Mapping[str, Elsewhere]:
    """Every instance that began elsewhere, and was not over there."""
    if connection.execute(_HAS_TABLES).fetchone() is None:
        return {}  # an older agent wrote it
    rows: Iterable[Any] = connection.execute("SELECT instance, number, state FROM elsewhere")
    return {name: Elsewhere(number, state) for name, number, state in rows}


def keep_elsewhere(connection: "apsw.Connection", instances: Iterable[tuple[str, int, bytes | None]]) -> None:
    """Keep of instances that they began elsewhere."""
    connection.executemany("INSERT OR REPLACE INTO elsewhere VALUES (?, ?, ?)", instances)


def keep_closed(connection: "apsw.Connection", instances: Iterable[tuple[str, int]]) -> None:
    """Keep of instances that they are over, and the number of their last record here (0: it is elsewhere)."""
    connection.executemany("INSERT OR REPLACE INTO closed VALUES (?, ?)", instances)
