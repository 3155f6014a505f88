"""What models took so far, in the ledger: kept with the records it is of, over restarts, and bounded."""

from pathlib import Path

import apsw
import pytest

from taximeter.errors import LedgerError
from taximeter.ledger import runs
from taximeter.ledger.audit import audit
from taximeter.ledger.distribution import Distribution, spread_of
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.runs import Call, Kind, Runs
from taximeter.ledger.store import Batch
from tests.ledger.samples import opened, run

pytestmark = pytest.mark.forged


def took(*numbers: int) -> Distribution:
    return spread_of(numbers)


def of(model: str, *active_ns: int, version: str = "1", tier: str = "cpu", at: int = 0, **more: int) -> Runs:
    measures = {"active": took(*active_ns), **{name: took(number) for name, number in more.items()}}
    return Runs(Kind(model, version, tier), len(active_ns) + 1, len(active_ns), at, at, measures)


def commit(directory: Path, number: int, *some: Runs, calls: tuple[Call, ...] = ()) -> None:
    ledger = opened(directory)
    ledger.commit(Batch(run(number), (), runs=some, calls=calls))
    ledger.close()


def kept(directory: Path, model: str = "m") -> list[Runs]:
    with LedgerReader(directory / "ledger.db") as reader:
        return reader.runs([one.kind for one in reader.kinds(model)])


def models(directory: Path) -> list[str]:
    with LedgerReader(directory / "ledger.db") as reader:
        return [one.kind.model for one in reader.kinds()]


def called(directory: Path) -> list[Call]:
    with LedgerReader(directory / "ledger.db") as reader:
        return reader.calls()


def test_runs_add_up_over_commits_and_restarts(tmp_path: Path) -> None:
    commit(tmp_path, 1, of("m", 100, 200, at=7))
    commit(tmp_path, 2, of("m", 300, at=5))
    assert kept(tmp_path) == [Runs(Kind("m", "1", "cpu"), 5, 3, 5, 7, {"active": took(100, 200, 300)})]


def test_sums_are_exact_where_no_machine_number_would_be(tmp_path: Path) -> None:
    commit(tmp_path, 1, of("m", 10**29 + 1))
    commit(tmp_path, 2, of("m", 10**29 + 1))
    assert kept(tmp_path)[0].measures["active"].total == 2 * 10**29 + 2


def test_versions_and_tiers_are_apart(tmp_path: Path) -> None:
    commit(tmp_path, 1, of("m", 1), of("m", 2, version="2"), of("m", 3, tier="gpu-t4"), of("other", 4))
    kinds = [(one.kind.version, one.kind.tier, one.measures["active"].total) for one in kept(tmp_path)]
    assert kinds == [("1", "cpu", 1), ("1", "gpu-t4", 3), ("2", "cpu", 2)]


def test_what_is_not_committed_is_not_added(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.commit(Batch(run(1), (), runs=(of("m", 1),)))
    with pytest.raises(LedgerError):
        ledger.commit(Batch(run(1), (), runs=(of("m", 1),)))
    ledger.close()
    assert kept(tmp_path)[0].succeeded == 1


def test_of_a_flood_of_names_so_many_are_kept_as_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "KINDS_MAX", 10)
    commit(tmp_path, 1, *[of(f"flood-{at:03}", 1, at=at) for at in range(40)])
    assert models(tmp_path) == [f"flood-{at:03}" for at in range(30, 40)]
    with apsw.Connection(str(tmp_path / "ledger.db")) as connection:
        left = connection.execute("SELECT count(DISTINCT run) FROM run_buckets").fetchall()
        assert left == connection.execute("SELECT count(DISTINCT run) FROM run_sums").fetchall() == [(10,)]


def test_in_one_commit_only_so_many_new_ones_are_taken(tmp_path: Path) -> None:
    commit(tmp_path, 1, *[of(f"flood-{at:03}", 1) for at in range(runs.NEW_MAX + 10)])
    assert len(models(tmp_path)) == runs.NEW_MAX


def test_whoever_is_known_well_stays_in_a_flood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "KINDS_MAX", 10)
    commit(tmp_path, 1, of("m", *range(runs.THIN), at=1), of("barely", 1, at=2))
    commit(tmp_path, 2, *[of(f"flood-{at:03}", 1, at=3 + at) for at in range(20)])
    assert "m" in models(tmp_path)
    assert "barely" not in models(tmp_path)


def test_of_what_workers_count_so_many_things_are_kept(tmp_path: Path) -> None:
    counts = {f"unit-{at:03}": 1 for at in range(100)}
    commit(tmp_path, 1, of("m", 1, **counts))
    commit(tmp_path, 2, of("m", 1, other=1, **counts))
    (found,) = kept(tmp_path)
    assert len(found.measures) == runs.MEASURES_MAX
    assert found.measures["active"].n == 2


def test_of_what_is_not_known_nothing_is_read(tmp_path: Path) -> None:
    commit(tmp_path, 1, of("m", 1))
    with LedgerReader(tmp_path / "ledger.db") as reader:
        assert reader.runs([Kind("other", "1", "cpu")]) == []


def test_calls_add_up(tmp_path: Path) -> None:
    commit(tmp_path, 1, calls=(Call("a", "b", 2, 10), Call("a", "c", 1, 11)))
    commit(tmp_path, 2, calls=(Call("a", "b", 1, 9),))
    assert called(tmp_path) == [Call("a", "b", 3, 10), Call("a", "c", 1, 11)]


def test_of_one_caller_so_many_are_kept(tmp_path: Path) -> None:
    commit(tmp_path, 1, calls=tuple(Call("a", f"b{at}", 1, at) for at in range(100)))
    commit(tmp_path, 2, calls=(Call("z", "b", 1, 1),))
    assert len(called(tmp_path)) == runs.CALLED_MAX + 1


def test_of_all_calls_the_latest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "CALLS_MAX", 3)
    commit(tmp_path, 1, calls=tuple(Call(f"a{at}", "b", 1, at) for at in range(10)))
    assert [call.caller for call in called(tmp_path)] == ["a7", "a8", "a9"]


def older(directory: Path) -> None:
    """A ledger as it was when nothing was kept of runs."""
    opened(directory).close()
    with apsw.Connection(str(directory / "ledger.db")) as connection:
        for table in ("runs", "run_sums", "run_buckets", "run_calls"):
            connection.execute(f"DROP TABLE {table}")


def test_of_a_ledger_that_kept_nothing_nothing_is_told(tmp_path: Path) -> None:
    older(tmp_path)
    assert (kept(tmp_path), models(tmp_path), called(tmp_path)) == ([], [], [])


def test_a_ledger_that_kept_nothing_does_from_the_next_commit_on(tmp_path: Path) -> None:
    older(tmp_path)
    commit(tmp_path, 1, of("m", 1))
    assert models(tmp_path) == ["m"]


def test_what_is_kept_of_runs_is_no_part_of_what_is_audited(tmp_path: Path) -> None:
    commit(tmp_path, 1, of("m", 1))
    with LedgerReader(tmp_path / "ledger.db") as reader:
        assert audit(reader).faults == ()


def test_what_is_asked_of_runs_reads_no_record(tmp_path: Path) -> None:
    """So a ledger of a million records answers as quickly as an empty one."""
    commit(tmp_path, 1, of("m", 1), calls=(Call("a", "b", 1, 1),))
    asked: set[str] = set()

    def look(operation: int, table: str | None, *_: object) -> int:
        asked.update({str(table)} if operation == apsw.SQLITE_READ else set())
        return apsw.SQLITE_OK

    with LedgerReader(tmp_path / "ledger.db") as reader:
        reader._connection.authorizer = look
        reader.runs([one.kind for one in reader.kinds("m")]), reader.kinds(), reader.calls()
    assert asked == {"runs", "run_sums", "run_buckets", "run_calls", "sqlite_master"}
