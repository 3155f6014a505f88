"""Sums of pools in the ledger: kept with what they are of, over restarts, and no longer than somebody looks at them."""

from pathlib import Path

import apsw
import pytest

from taximeter.errors import LedgerError
from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.rows import KEPT_HOURS
from taximeter.ledger.store import Batch
from taximeter.ledger.values import PoolHour, PoolTime
from tests.ledger.samples import opened, run

pytestmark = pytest.mark.forged

TIME = PoolTime(1, 2, 3, 4, 5, 6, 7, 8, 9)


def commit(directory: Path, number: int, *pools: PoolHour) -> None:
    ledger = opened(directory)
    ledger.commit(Batch(run(number), (), pools=pools))
    ledger.close()


def kept(directory: Path, since_hour: int = 0) -> dict[str, PoolTime]:
    with LedgerReader(directory / "ledger.db") as reader:
        return reader.pools(since_hour)


def test_a_pools_time_adds_up_over_commits_hours_and_restarts(tmp_path: Path) -> None:
    commit(tmp_path, 1, PoolHour(10, "sdxl", TIME), PoolHour(10, "llama", TIME))
    commit(tmp_path, 2, PoolHour(10, "sdxl", TIME), PoolHour(11, "sdxl", TIME))
    assert kept(tmp_path) == {"sdxl": PoolTime(3, 6, 9, 12, 15, 18, 21, 24, 27), "llama": TIME}


def test_only_hours_since_then_are_told(tmp_path: Path) -> None:
    commit(tmp_path, 1, PoolHour(10, "sdxl", TIME), PoolHour(11, "sdxl", TIME.plus(TIME)))
    assert kept(tmp_path, 11) == {"sdxl": TIME.plus(TIME)}
    assert kept(tmp_path, 12) == {}


def test_what_is_not_committed_is_not_added(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.commit(Batch(run(1), (), pools=(PoolHour(10, "sdxl", TIME),)))
    with pytest.raises(LedgerError):
        ledger.commit(Batch(run(1), (), pools=(PoolHour(10, "sdxl", TIME),)))
    ledger.close()
    assert kept(tmp_path) == {"sdxl": TIME}


def test_sums_of_long_ago_are_forgotten(tmp_path: Path) -> None:
    commit(tmp_path, 1, PoolHour(10, "sdxl", TIME))
    commit(tmp_path, 2, PoolHour(10 + KEPT_HOURS, "sdxl", TIME))
    assert kept(tmp_path) == {"sdxl": TIME.plus(TIME)}
    commit(tmp_path, 3, PoolHour(11 + KEPT_HOURS, "llama", TIME))
    assert kept(tmp_path) == {"sdxl": TIME, "llama": TIME}


def older(directory: Path) -> None:
    """A ledger as it was when no sums of pools were kept."""
    opened(directory).close()
    connection = apsw.Connection(str(directory / "ledger.db"))
    connection.execute("DROP TABLE pools")
    connection.close()


def test_of_a_ledger_without_sums_no_pool_is_told(tmp_path: Path) -> None:
    older(tmp_path)
    assert kept(tmp_path) == {}


def test_a_ledger_without_sums_has_them_from_the_next_commit_on(tmp_path: Path) -> None:
    older(tmp_path)
    commit(tmp_path, 1, PoolHour(10, "sdxl", TIME))
    assert kept(tmp_path) == {"sdxl": TIME}


def test_sums_are_no_part_of_what_is_audited(tmp_path: Path) -> None:
    commit(tmp_path, 1, PoolHour(10, "sdxl", TIME))
    with LedgerReader(tmp_path / "ledger.db") as reader:
        assert audit(reader).faults == ()


def test_what_is_asked_of_sums_reads_no_record(tmp_path: Path) -> None:
    """So a ledger of a million records answers as quickly as an empty one."""
    commit(tmp_path, 1, PoolHour(10, "sdxl", TIME))
    asked: list[tuple[str, str]] = []
    with LedgerReader(tmp_path / "ledger.db") as reader:
        reader._connection.authorizer = lambda operation, table, column, *_: (
            asked.append((str(table), str(column))) or apsw.SQLITE_OK
            if operation == apsw.SQLITE_READ
            else apsw.SQLITE_OK
        )
        reader.pools(0)
    assert {table for table, _ in asked} <= {"pools", "sqlite_master"}
