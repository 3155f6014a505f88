"""Whether a ledger's file is damaged: looked for at each start, as far as a second goes.

A small ledger is looked through whole; of a large one the newest records and all that an agent goes on from, unless a
commit met damage before (a mark beside the file says so). Refuses to repair, and to judge what a record says: the audit
does.
"""

import contextlib
import itertools
import os
from pathlib import Path
from typing import Any

import apsw
import orjson

from taximeter.ledger import chain
from taximeter.ledger.base import base_of
from taximeter.ledger.database import APPLICATION_ID, door
from taximeter.ledger.marked import is_as_written
from taximeter.ledger.values import JournalState

#: A ledger up to this size is looked through whole: some 0.2 s.
WHOLE_MAX_BYTES = 64 << 20
#: Of a larger one so many of the newest records are hashed again.
NEWEST = 1_000
_TABLES = frozenset({"meta", "records", "lookups", "sinks", "journals", "facts"})
#: A version beyond this was not written by any Taximeter.
_VERSIONS = 1_000
_DAMAGED = (apsw.CorruptError, apsw.NotADBError, apsw.FormatError, UnicodeDecodeError)


def is_damage(error: BaseException | None) -> bool:
    """Whether an error says that the file is damaged, and not that the disk does not work."""
    return isinstance(error, _DAMAGED)


def suspect(path: Path) -> None:
    """Have the next start look through all of the ledger at `path`."""
    _mark(path).touch(mode=0o640)


def damage_of(path: Path) -> str | None:
    """What is wrong with the ledger at `path`; None where nothing is found. Raises LedgerError."""
    mark = _mark(path)
    if not path.exists() or not path.stat().st_size:
        return None
    with door("look at", path):
        try:
            with contextlib.closing(_open(path)) as connection:
                found = _found(connection, whole=mark.exists() or path.stat().st_size <= WHOLE_MAX_BYTES)
        except (*_DAMAGED, apsw.SQLError) as error:  # the latter: a header of no known format
            found = str(error)
        if found is None:
            mark.unlink(missing_ok=True)
    return found


def _found(connection: apsw.Connection, *, whole: bool) -> str | None:
    if _tables(connection).isdisjoint(_TABLES):
        return None  # no ledger, and refused as such
    if connection.pragma("application_id") != APPLICATION_ID or not 1 <= connection.pragma("user_version") <= _VERSIONS:
        return "its header is not a ledger's, though it has a ledger's tables"
    if missing := sorted(_TABLES.difference(_tables(connection))):
        return f"there is no table {missing[0]}"
    if whole and (said := connection.execute("PRAGMA quick_check(1)").get) != "ok":
        return str(said)
    for table in ("meta", "sinks", "journals", "facts"):
        for _ in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608 -- a name of our own
            pass
    for row in connection.execute("SELECT instance, segment, offset, state FROM journals"):
        if not is_open_state(row):
            return f"what is kept of instance {row[0]!r}, which is open, is not what was written"
    return _misfit(connection)


def is_open_state(row: tuple[Any, ...]) -> bool:
    """Whether a row of what is open is as it was written."""
    return tuple(map(type, row)) == (str, int, int, bytes) and is_as_written(JournalState(*row))


def _tables(connection: apsw.Connection) -> set[str]:
    return {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def _misfit(connection: apsw.Connection) -> str | None:
    """Where one of the newest records is not what it was."""
    newest = "SELECT seq, hash, body FROM records WHERE seq > ? ORDER BY seq DESC LIMIT ?"
    rows: list[Any] = connection.execute(newest, (base_of(connection).seq, NEWEST + 1)).fetchall()
    for (seq, digest, body), before in itertools.zip_longest(rows, rows[1:]):
        if not isinstance(body, bytes) or chain.digest_of(body) != digest:
            return f"record {seq} does not fit its hash"
        if before is not None and not _follows(body, seq, before):
            return f"record {seq} does not follow the one before it"
    return None


def _follows(body: bytes, seq: int, before: tuple[int, object, object]) -> bool:
    if before[0] != seq - 1 or not isinstance(before[1], bytes):
        return False
    try:
        place = orjson.loads(body)["data"]["ledger"]
        return bool((place["seq"], place["previous"]) == (seq, chain.digest_text(before[1])))
    except (ValueError, KeyError, TypeError):
        return False


def _open(path: Path) -> apsw.Connection:
    # The power failed while the file became a ledger: whoever may only read could not take that back.
    is_begun = path.with_name(f"{path.name}-journal").exists()
    flags = apsw.SQLITE_OPEN_READWRITE if is_begun else apsw.SQLITE_OPEN_READONLY
    return apsw.Connection(os.fspath(path), flags=flags)


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.suspect")
