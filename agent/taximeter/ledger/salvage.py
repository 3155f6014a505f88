"""What can still be read of a ledger that is damaged.

Owns reading around holes: a range that cannot be read is halved until what can be read of it is; a record counts only
where its bytes fit its hash. Refuses to write, also to the damaged file.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec

from taximeter.billing.money import decimal_of
from taximeter.ledger import accounts, chain, cursors
from taximeter.ledger.damage import is_open_state
from taximeter.ledger.values import JournalState

_STRIDE = 4_096
_MOST_ROWS = 1 << 40
_UNREADABLE = (apsw.Error, UnicodeDecodeError)


class Found(NamedTuple):
    """A record that is whole."""

    seq: int
    body: bytes


class _Named(msgspec.Struct, gc=False):
    """What a whole record calls itself, which is more to be believed than what it is filed under."""

    id: str
    type: str
    time: str
    data: dict[str, msgspec.Raw]


_named = msgspec.json.Decoder(_Named)


@dataclass(slots=True)
class Salvage:
    """What was found; what was not is missing here."""

    ledger_id: str | None = None
    node_id: str | None = None
    head_seq: int = 0  #: number of the newest whole record
    newest: bytes | None = None  #: its bytes
    ids: dict[int, str] = field(default_factory=dict)  #: number of each record -> its id
    cursors: dict[str, int] = field(default_factory=dict)
    letters: list[tuple[str, int, str, str, int, int]] = field(default_factory=list)
    journals: list[JournalState] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)  #: instances of which that is not what was written
    facts: list[tuple[str, bytes]] = field(default_factory=list)
    closed: dict[str, int] = field(default_factory=dict)  #: instances that were closed before the first record there
    elsewhere: dict[str, int] = field(
        default_factory=dict
    )  #: instances that began before -> the number they went on at
    purses: list[tuple[Any, ...]] = field(default_factory=list)  #: rows of grants
    is_whole: bool = True  #: everything but records could be read

    @property
    def head(self) -> str:
        """The hash that the newest whole record has."""
        return chain.digest_text(chain.GENESIS) if self.newest is None else chain.hash_of(self.newest)

    def take(self, record: Found) -> None:
        """Know a whole record, by what it calls itself."""
        self.ids[record.seq] = _named.decode(record.body).id
        if record.seq >= self.head_seq:
            self.head_seq, self.newest = record


def salvage(path: Path) -> Salvage:
    """Read what can be read of the ledger at `path`; whatever it is, nothing is raised but OSError."""
    found = Salvage()
    try:
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error:
        found.is_whole = False
        return found
    with contextlib.closing(connection):
        _read_small(connection, found)
        for seq, id_ in _ranged(connection, "SELECT seq, id FROM lookups WHERE seq >= ? AND seq < ?", found):
            if isinstance(id_, str):
                found.ids[seq] = id_
    for record in records(path, 0):
        found.take(record)
    if found.newest is not None:
        found.ledger_id = found.ledger_id or _ledger_of(found.newest)
    return found


def _ledger_of(body: bytes) -> str | None:
    """The ledger that a whole record says it is in."""
    try:
        said = msgspec.json.decode(_named.decode(body).data["ledger"])["id"]
    except (KeyError, TypeError, msgspec.DecodeError):
        return None
    return said if isinstance(said, str) else None


def _is_whole(digest: object, body: object) -> bool:
    if not isinstance(body, bytes) or chain.digest_of(body) != digest:
        return False
    try:
        _named.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def records(path: Path, after: int) -> Iterator[Found]:
    """The whole records beyond a number, in order."""
    try:
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error:
        return
    sql = "SELECT seq, hash, body FROM records WHERE seq >= ? AND seq < ?"
    with contextlib.closing(connection):
        for seq, digest, body in _ranged(connection, sql, Salvage(), after + 1):
            if _is_whole(digest, body):
                yield Found(seq, body)


def _read_small(connection: apsw.Connection, found: Salvage) -> None:
    meta = dict(_all(connection, "SELECT key, value FROM meta", found, str, str))
    found.ledger_id, found.node_id = meta.get("ledger_id"), meta.get("node_id")
    said = dict(_all(connection, "SELECT name, seq FROM sinks", found, str, int))
    marked = cursors.marked_in(meta)
    found.cursors = {name: min(said.get(name, seq), seq) for name, seq in marked.items()} | {
        name: seq for name, seq in said.items() if name not in marked
    }
    open_ = [*_all(connection, "SELECT instance, segment, offset, state FROM journals", found)]
    found.journals = [JournalState(*row) for row in open_ if is_open_state(row)]
    found.broken = {str(row[0]) for row in open_ if not is_open_state(row)}
    found.facts = list(_all(connection, "SELECT instance, body FROM facts ORDER BY number", found, str, bytes))
    tables = {name for (name,) in _all(connection, "SELECT name FROM sqlite_schema", found, str)}
    if "dead_letters" in tables:
        letters = _all(connection, "SELECT * FROM dead_letters", found, str, int, str, str, int, int)
        found.letters = [(sink, seq, reason, said, first, last) for sink, seq, reason, said, first, last in letters]
        found.elsewhere = dict(_all(connection, "SELECT instance, number FROM elsewhere", found, str, int))
        found.closed = dict(_all(connection, "SELECT instance, seq FROM closed", found, str, int))
    if tables.issuperset(accounts.NAMES):
        found.purses = [row for row in _all(connection, accounts.LEFT, found) if _is_purse(*row)]


def _all(connection: apsw.Connection, sql: str, found: Salvage, *kinds: type) -> Iterator[tuple[Any, ...]]:
    """The rows until one cannot be read, less those that hold other kinds of values than these."""
    try:
        for row in connection.execute(sql):
            if kinds and tuple(map(type, row)) != kinds:
                found.is_whole = False
            else:
                yield row
    except _UNREADABLE:
        found.is_whole = False


def _is_purse(*row: object) -> bool:
    id_, account, currency, granted, expires, left = row
    try:
        decimal_of(left)
    except ValueError:
        return False
    texts = (id_, account, currency)
    return all(isinstance(text, str) for text in texts) and type(granted) is int and type(expires) in (int, type(None))


def _ranged(connection: apsw.Connection, sql: str, found: Salvage, first: int = 1) -> Iterator[tuple[Any, ...]]:
    """The rows of a table by ranges of their numbers, around those that cannot be read."""
    start, last = first, _last(connection, first)
    while start <= last:
        ranges = [(start, min(start + _STRIDE, last + 1))]
        while ranges:
            low, high = ranges.pop()
            try:
                rows = connection.execute(sql, (low, high)).fetchall()
            except _UNREADABLE:
                found.is_whole = False
                if high - low > 1:
                    middle = (low + high) // 2
                    ranges += [(middle, high), (low, middle)]
            else:
                yield from sorted((row for row in rows if isinstance(row[0], int)), key=_number)
        start += _STRIDE


def _number(row: tuple[Any, ...]) -> int:
    number: int = row[0]
    return number


def _last(connection: apsw.Connection, first: int) -> int:
    """The highest number that any way of asking for it gives."""
    known = [first - 1]
    for sql in ("SELECT max(seq) FROM records", "SELECT max(seq) FROM lookups", "SELECT max(seq) FROM sinks"):
        with contextlib.suppress(apsw.Error):
            seq = connection.execute(sql).get
            known += [seq] if isinstance(seq, int) and seq < _MOST_ROWS else []
    return max(known)
