"""The ledger's file: its tables, how it is opened, and where SQLite's errors stop.

Owns the schema and every setting that durability hangs on. Refuses to know what the rows mean.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import apsw

from taximeter.errors import LedgerError
from taximeter.ledger import runs
from taximeter.ledger.migration import SCHEMA_VERSION, migrate
from taximeter.ledger.transaction import transaction

#: "TaxM": tells a ledger from any other SQLite file.
APPLICATION_ID = 0x5461784D
_BUSY_TIMEOUT_MS = 5_000
#: Checkpoints cost two syncs each; 2,048 pages of 16 KiB keep the WAL within 32 MiB.
_CHECKPOINT_PAGES = 2_048
_WAL_LIMIT_BYTES = 64 << 20
_CACHE_KIB = 8_192

# `records` is the chain and nothing else. `lookups` is how it is found again: not chained, and checked by the audit.
# A record's id is its instance's id and a count, so the index of ids finds an instance's records too. A root is filed
# only where it is another prediction. `journals` and `facts` are of open instances only. This is version 1 for ever:
# what came later is a step of the migration, which a new ledger goes, too.
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (seq INTEGER PRIMARY KEY, hash BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE lookups (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL, type TEXT NOT NULL, time_utc_ns INTEGER NOT NULL,
    prediction TEXT, root TEXT, account TEXT, model TEXT
);
CREATE UNIQUE INDEX lookups_id ON lookups (id);
CREATE INDEX lookups_prediction ON lookups (prediction) WHERE prediction IS NOT NULL;
CREATE INDEX lookups_root ON lookups (root) WHERE root IS NOT NULL;
CREATE INDEX lookups_account ON lookups (account) WHERE account IS NOT NULL;
CREATE TABLE journals (
    instance TEXT PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL, state BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE facts (number INTEGER PRIMARY KEY, instance TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX facts_instance ON facts (instance);
CREATE TABLE sinks (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
"""
# Sums that are kept beside the records, so that nobody has to read a month of them; made anew where an older agent had
# none, and no part of what the ledger vouches for.
_SUMS = """
CREATE TABLE IF NOT EXISTS pools (
    hour INTEGER NOT NULL, pool TEXT NOT NULL, boot_ns INTEGER NOT NULL, idle_ns INTEGER NOT NULL,
    active_ns INTEGER NOT NULL, teardown_ns INTEGER NOT NULL, suspended_ns INTEGER NOT NULL,
    unknown_ns INTEGER NOT NULL, load_ns INTEGER NOT NULL, sold_ns INTEGER NOT NULL, returned_ns INTEGER NOT NULL,
    PRIMARY KEY (hour, pool)
) WITHOUT ROWID;
"""


@contextlib.contextmanager
def door(doing: str, path: Path) -> Iterator[None]:
    """SQLite's errors stop here: they become LedgerErrors that say what could not be done."""
    try:
        yield
    except (apsw.Error, OSError, UnicodeDecodeError) as error:  # the last: damaged text
        raise LedgerError(
            f"cannot {doing} ledger {path}: expected a sound file on a working disk, got: {error}"
        ) from error


def open_for_writing(path: Path) -> apsw.Connection:
    """Open a ledger's one writing connection; a file that is absent or empty becomes a ledger without records."""
    with door("open", path):
        _claim(path)
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        with door("open", path):
            connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
            if _is_new(connection):
                _create(connection)
            check_schema(connection, path)
            _set_up(connection)
            migrate(connection)
            connection.execute(_SUMS)
            connection.execute(runs.SCHEMA)
    except LedgerError:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> apsw.Connection:
    """Open a connection that cannot write, whether or not an agent is writing."""
    with door("read", path):
        connection = _read_only(path)
    try:
        with door("read", path):
            connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
            check_schema(connection, path)
    except LedgerError:
        connection.close()
        raise
    return connection


def check_schema(connection: apsw.Connection, path: Path) -> None:
    """Refuse what is no ledger, and what a younger Taximeter wrote."""
    if connection.pragma("application_id") != APPLICATION_ID:
        raise LedgerError(f"cannot open ledger {path}: expected a Taximeter ledger, got another SQLite file")
    version = connection.pragma("user_version")
    if not 1 <= version <= SCHEMA_VERSION:
        expected = f"expected schema version {SCHEMA_VERSION} at most, got {version}; use the Taximeter that wrote it"
        raise LedgerError(f"cannot open ledger {path}: {expected}")


def _claim(path: Path) -> None:
    """Make the file if there is none, for its owner and group only; refuse what another user could rewrite."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640))
    status = path.lstat()
    if status.st_uid != os.geteuid():
        expected = f"expected a file of uid {os.geteuid()}, got one of uid {status.st_uid}; run the agent as its owner"
        raise LedgerError(f"cannot open ledger {path}: {expected}")


def _is_new(connection: apsw.Connection) -> bool:
    return not connection.pragma("schema_version") and not connection.pragma("application_id")


def _create(connection: apsw.Connection) -> None:
    # 16 KiB hold seven records of the usual size (2 KB); of 8 KiB a quarter would be empty.
    connection.pragma("page_size", 16384)
    connection.pragma("journal_mode", "wal")
    with transaction(connection):
        connection.execute(_SCHEMA)


def _set_up(connection: apsw.Connection) -> None:
    """Committed means synced: WAL with synchronous=FULL syncs the log before a commit returns."""
    if connection.pragma("journal_mode", "wal") != "wal":
        raise apsw.CantOpenError("the file system does not support write-ahead logging")
    connection.pragma("synchronous", "full")
    connection.pragma("wal_autocheckpoint", _CHECKPOINT_PAGES)
    connection.pragma("journal_size_limit", _WAL_LIMIT_BYTES)
    connection.pragma("cache_size", -_CACHE_KIB)
    connection.pragma("trusted_schema", False)


def _read_only(path: Path) -> apsw.Connection:
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.pragma("schema_version")
    except (apsw.CantOpenError, apsw.ReadOnlyError):
        # No log, and a directory where this user cannot make one: nobody writes, so the file is all there is.
        connection.close()
        uri = f"{path.absolute().as_uri()}?immutable=1"
        return apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    return connection
