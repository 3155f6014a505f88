"""How far a sink is has a checksum: whatever bit turns in it, no record is skipped."""

from pathlib import Path

import apsw
import orjson
import pytest

from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.rebuild import rebuild_if_damaged
from taximeter.ledger.store import Ledger
from tests.ledger.samples import NODE, opened, run_batch
from tests.ledger.test_rebuild import root_page, wipe

pytestmark = pytest.mark.forged

SHIPPED, RECORDS = 5, 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of eight records, of which a sink has five."""
    ledger = opened(tmp_path)
    ledger.register_sink("billing")
    ledger.commit(run_batch(1, 2, 3, 4))
    ledger.shipped("billing", SHIPPED)
    ledger.close()
    return tmp_path / "ledger.db"


def forge(path: Path, sql: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql)
    connection.close()


def started(path: Path) -> int:
    """How far the sink is once an agent has started."""
    ledger = Ledger.open(path, NODE)
    ledger.register_sink("billing")
    cursor = ledger.sinks()["billing"]
    ledger.close()
    return cursor


def test_a_sink_is_where_it_was(path: Path) -> None:
    assert started(path) == SHIPPED


@pytest.mark.parametrize("bit", range(32))
def test_a_bit_that_turned_in_a_cursor_skips_no_record(path: Path, bit: int) -> None:
    forge(path, f"UPDATE sinks SET seq = {SHIPPED ^ 1 << bit}")
    assert started(path) == min(SHIPPED, SHIPPED ^ 1 << bit)


def test_a_cursor_that_is_no_number_any_more_is_where_its_mark_is(path: Path) -> None:
    forge(path, "UPDATE sinks SET seq = 'x'")
    assert started(path) == SHIPPED


@pytest.mark.parametrize("mark", ["", "7#00000000", "6", "x#00000000", f"{9**30}#00000000"])
def test_a_mark_that_is_damaged_says_nothing_and_is_made_anew(path: Path, mark: str) -> None:
    forge(path, f"UPDATE meta SET value = '{mark}' WHERE key = 'cursor billing'")
    assert started(path) == SHIPPED
    forge(path, f"UPDATE sinks SET seq = {RECORDS}")
    assert started(path) == SHIPPED


def test_a_ledger_of_an_older_taximeter_gets_its_marks(path: Path) -> None:
    forge(path, "DELETE FROM meta WHERE key = 'cursor billing'")
    assert started(path) == SHIPPED
    forge(path, f"UPDATE sinks SET seq = {RECORDS}")
    assert started(path) == SHIPPED


def test_what_a_cursor_is_set_back_to_goes_on_from_there(path: Path) -> None:
    forge(path, f"UPDATE sinks SET seq = {RECORDS}")
    started(path)
    ledger = Ledger.open(path, NODE)
    assert [one.seq for one in ledger.unshipped("billing", 10)] == [6, 7, 8]
    ledger.shipped("billing", 7)
    ledger.close()
    assert started(path) == 7


def test_of_a_sink_that_is_dropped_no_mark_stays(path: Path) -> None:
    ledger = Ledger.open(path, NODE)
    ledger.drop_sink("billing")
    ledger.close()
    assert started(path) == 0


@pytest.mark.parametrize("damage", ["page", "number"])
def test_a_rebuilt_ledger_has_its_sinks_where_their_marks_are(path: Path, damage: str) -> None:
    with LedgerReader(path) as reader:
        expected = [orjson.loads(body)["id"] for body in reader.records()][SHIPPED:]
    if damage == "number":
        forge(path, f"UPDATE sinks SET seq = {RECORDS}")
        wipe(path, root_page(path, "lookups_account"))
    else:
        wipe(path, root_page(path, "sinks"))
    assert rebuild_if_damaged(path, NODE, lambda *_: None) is not None
    ledger = Ledger.open(path, NODE)
    assert [orjson.loads(one.body)["id"] for one in ledger.unshipped("billing", 10)] == expected
    ledger.close()
