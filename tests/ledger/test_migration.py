"""An older ledger is brought up to date, with every record as it was; a younger one is refused."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from taximeter.errors import LedgerError
from taximeter.ledger.audit import audit
from taximeter.ledger.migration import SCHEMA_VERSION
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Ledger
from tests.observe.histories import NODE

#: A ledger as a Taximeter of schema 1 wrote it: six records, of which a sink has four.
_FIRST = (Path(__file__).parent / "schema_1.sql").read_text()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA page_size = 8192")
    connection.execute("PRAGMA journal_mode = wal")
    connection.executescript(_FIRST)
    connection.close()
    return path


def bodies_of(path: Path) -> list[bytes]:
    with LedgerReader(path) as reader:
        return list(reader.records())


def schema_of(path: Path) -> set[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return set(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))


def upgrade(path: Path) -> None:
    Ledger.open(path, NODE).close()


def test_an_upgrade_changes_no_record(old: Path) -> None:
    before = bodies_of(old)
    upgrade(old)
    assert bodies_of(old) == before


def test_an_upgraded_ledger_is_sound(old: Path) -> None:
    upgrade(old)
    with LedgerReader(old) as reader:
        assert audit(reader).faults == ()


def test_an_upgrade_keeps_what_was_shipped(old: Path) -> None:
    ledger = Ledger.open(old, NODE)
    try:
        assert ledger.sinks() == {"billing": 4}
    finally:
        ledger.close()


def test_an_upgraded_ledger_has_the_tables_of_a_new_one(old: Path, tmp_path: Path) -> None:
    upgrade(old)
    upgrade(tmp_path / "new.db")
    assert schema_of(old) == schema_of(tmp_path / "new.db")


def test_an_upgrade_that_was_done_is_not_done_again(old: Path) -> None:
    upgrade(old)
    upgrade(old)
    with contextlib.closing(sqlite3.connect(old)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_an_older_ledger_can_be_read_before_an_agent_has_upgraded_it(old: Path) -> None:
    with LedgerReader(old) as reader:
        assert audit(reader).faults == ()
        assert list(reader.dead_letters()) == []


def test_a_ledger_of_a_younger_taximeter_is_refused(old: Path) -> None:
    with contextlib.closing(sqlite3.connect(old)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(LedgerError, match=f"{SCHEMA_VERSION} at most, got {SCHEMA_VERSION + 1}"):
        upgrade(old)
