"""What a ledger stands on whose first record is not the first of all: others were pruned, or are in a damaged ledger.

Owns the tables' SQL: behind which record the ledger begins, which instances have records before it, how many, and what
is open of them; which were closed; what was spent and left by then. All of it is vouched for by a record that has its
digest. Facts are kept, whatever else was pruned. Refuses to know when anything is pruned.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from taximeter.billing.credit import Grant, Part, Purse
from taximeter.billing.money import plain
from taximeter.billing.tab import PurseKey
from taximeter.billing.thresholds import Key, Standing
from taximeter.ledger import chain
from taximeter.ledger.transaction import transaction
from taximeter.records import RecordType

if TYPE_CHECKING:
    import apsw

#: The kind of the fact that vouches for what stands in the place of pruned records.
PRUNED = "records_pruned"

# `closed` is for ever: a journal that reappears, from a backup say, is never booked again.
TABLES = """
CREATE TABLE closed (instance TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE elsewhere (instance TEXT PRIMARY KEY, number INTEGER NOT NULL, state BLOB) WITHOUT ROWID;
CREATE TABLE base_spends (
    account TEXT NOT NULL, currency TEXT NOT NULL, period TEXT NOT NULL, model TEXT NOT NULL, amount TEXT NOT NULL,
    crossed TEXT NOT NULL, PRIMARY KEY (account, period, currency, model)
) WITHOUT ROWID;
"""
#: Made with the first credit that is kept of pruned records.
_PURSES_TABLE = """
CREATE TABLE IF NOT EXISTS base_purses (
    account TEXT NOT NULL, currency TEXT NOT NULL, owed TEXT NOT NULL, parts TEXT NOT NULL,
    PRIMARY KEY (account, currency)
) WITHOUT ROWID
"""
_HAS_PURSES = "SELECT 1 FROM sqlite_schema WHERE name = 'base_purses'"
_PURSES = "SELECT account, currency, owed, parts FROM base_purses ORDER BY account, currency"
_HAS_TABLES = "SELECT 1 FROM sqlite_schema WHERE name = 'base_spends'"
_BASE = "SELECT (SELECT value FROM meta WHERE key = 'base_seq'), (SELECT value FROM meta WHERE key = 'base_hash')"
_SET = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2"
_FACTS = "SELECT seq, hash FROM records JOIN lookups USING (seq) WHERE seq <= ? AND type = ? ORDER BY seq"
_SPENDS = "SELECT account, currency, period, model, amount, crossed FROM base_spends"
_GONE = "SELECT seq FROM lookups WHERE seq <= ? AND type != ? ORDER BY seq LIMIT ?"


class Base(NamedTuple):
    """The record behind which a ledger begins: 0, and the hash of nothing, where none was pruned."""

    seq: int = 0
    hash: bytes = chain.GENESIS


class Elsewhere(NamedTuple):
    """What is known of an instance whose earlier records are not in the ledger."""

    number: int  #: of its next record: how many there are elsewhere
    state: bytes | None  #: what the audit had of it then; None: nobody knows


@dataclass(frozen=True, slots=True)
class Carried:
    """What is kept of records that go."""

    open: Mapping[str, Elsewhere] = field(default_factory=dict)
    spends: Mapping[Key, Standing] = field(default_factory=dict)
    purses: Mapping[PurseKey, Purse] = field(default_factory=dict)
    closed: Mapping[str, int] = field(default_factory=dict)  #: instances that are over -> their last record


def base_of(connection: "apsw.Connection") -> Base:
    """Behind which record the ledger begins."""
    row: Any = connection.execute(_BASE).fetchone()
    return Base() if row[0] is None else Base(int(row[0]), bytes.fromhex(row[1]))


def elsewhere(connection: "apsw.Connection") -> Mapping[str, Elsewhere]:
    """Every instance that began elsewhere, and was not over there."""
    if connection.execute(_HAS_TABLES).fetchone() is None:
        return {}  # an older agent wrote it
    rows: Iterable[Any] = connection.execute("SELECT instance, number, state FROM elsewhere")
    return {name: Elsewhere(number, state) for name, number, state in rows}


def spends(connection: "apsw.Connection") -> Mapping[Key, Standing]:
    """What every account had spent by the record behind which the ledger begins."""
    if connection.execute(_HAS_TABLES).fetchone() is None:
        return {}
    rows: Iterable[Any] = connection.execute(_SPENDS)
    return {
        Key(*key): Standing(Decimal(amount), frozenset(map(Decimal, orjson.loads(crossed))))
        for *key, amount, crossed in rows
    }


def purses(connection: "apsw.Connection") -> Mapping[PurseKey, Purse]:
    """What every account had left of its credit, and owed, by the record behind which the ledger begins."""
    if connection.execute(_HAS_PURSES).fetchone() is None:
        return {}
    rows: Iterable[Any] = connection.execute(_PURSES)
    found: dict[PurseKey, Purse] = {}
    for account, currency, owed, parts in rows:
        told = [
            Part(Grant(id_, account, currency, Decimal(amount), granted_utc_ns, expires_utc_ns), Decimal(left))
            for id_, amount, granted_utc_ns, expires_utc_ns, left in orjson.loads(parts)
        ]
        found[PurseKey(account, currency)] = Purse(tuple(told), Decimal(owed))
    return found


def keep_elsewhere(connection: "apsw.Connection", instances: Iterable[tuple[str, int, bytes | None]]) -> None:
    """Keep of instances that they began elsewhere."""
    connection.executemany("INSERT OR REPLACE INTO elsewhere VALUES (?, ?, ?)", instances)


def keep_closed(connection: "apsw.Connection", instances: Iterable[tuple[str, int]]) -> None:
    """Keep of instances that they are over, and the number of their last record (0: it is in another ledger)."""
    connection.executemany("INSERT OR REPLACE INTO closed VALUES (?, ?)", instances)


def move(connection: "apsw.Connection", base: Base, carried: Carried) -> str:
    """Have the ledger begin behind `base`; gives the digest of what stands in the place of what was before."""
    connection.executemany(_SET, [("base_seq", str(base.seq)), ("base_hash", base.hash.hex())])
    connection.execute("DELETE FROM elsewhere")
    connection.execute("DELETE FROM base_spends")
    keep_elsewhere(connection, [(name, *known) for name, known in carried.open.items()])
    keep_closed(connection, list(carried.closed.items()))
    rows = [
        (*key, plain(kept.spend), orjson.dumps(sorted(map(plain, kept.crossed))).decode())
        for key, kept in carried.spends.items()
    ]
    connection.executemany("INSERT INTO base_spends VALUES (?, ?, ?, ?, ?, ?)", rows)
    _keep_purses(connection, carried.purses)
    return digest_of(connection)


def _keep_purses(connection: "apsw.Connection", purses: Mapping[PurseKey, Purse]) -> None:
    if purses:
        connection.execute(_PURSES_TABLE)
    if connection.execute(_HAS_PURSES).fetchone() is None:
        return
    rows = []
    for key, purse in purses.items():
        parts = [
            [one.grant.id, plain(one.grant.amount), one.grant.granted_utc_ns, one.grant.expires_utc_ns, plain(one.left)]
            for one in purse.parts
        ]
        rows.append((*key, plain(purse.owed), orjson.dumps(parts).decode()))
    connection.execute("DELETE FROM base_purses")
    connection.executemany("INSERT INTO base_purses VALUES (?, ?, ?, ?)", rows)


def digest_of(connection: "apsw.Connection") -> str:
    """The digest of what stands in the place of pruned records: kept facts, what is open, was spent and is left."""
    digest = hashlib.sha256()
    has_purses = connection.execute(_HAS_PURSES).fetchone() is not None
    for sql, values in (
        (_FACTS, (base_of(connection).seq, RecordType.FACT.value)),
        ("SELECT instance, number, state FROM elsewhere ORDER BY instance", ()),
        (f"{_SPENDS} ORDER BY account, period, currency, model", ()),
        *(((_PURSES, ()),) if has_purses else ()),
    ):
        for row in connection.execute(sql, values):
            digest.update(orjson.dumps([cell.hex() if isinstance(cell, bytes) else cell for cell in row]) + b"\n")
    return chain.digest_text(digest.digest())


def remove_pruned(connection: "apsw.Connection", limit: int) -> int:
    """Remove records before the base, but facts, at most `limit`; gives how many."""
    gone = connection.execute(_GONE, (base_of(connection).seq, RecordType.FACT.value, limit)).fetchall()
    with transaction(connection):
        connection.executemany("DELETE FROM records WHERE seq = ?", gone)
        connection.executemany("DELETE FROM lookups WHERE seq = ?", gone)
    return len(gone)
