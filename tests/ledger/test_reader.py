"""Reading a ledger: by what records are filed under, in order, by anybody who may, with or without an agent."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from taximeter.errors import LedgerError
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.ledger.store import Batch, JournalState
from taximeter.ledger.trees import _BELOW, _FIRST, _NEXT_ROOT, _ROOT_OF, _ROOTS
from taximeter.values import replace
from tests.ledger.samples import BEGAN_UTC_NS, instance_id, opened, run
from tests.require import require_root

pytestmark = pytest.mark.forged


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[LedgerReader]:
    """Five one-shots: of three accounts and two models, the last two below the first."""
    ledger = opened(tmp_path)
    for number in range(5):
        prediction, instance = run(number)
        filed = {
            "account": f"cus_{number % 3}",
            "model": "a" if number < 2 else "b",
            "time_utc_ns": BEGAN_UTC_NS + number,
        }
        root = f"p-{instance_id(0)}" if number > 2 else prediction.prediction
        ledger.commit(Batch((replace(prediction, root=root, **filed), replace(instance, **filed)), ()))
    with LedgerReader(tmp_path / "ledger.db") as opened_reader:
        yield opened_reader
    ledger.close()


def found(reader: LedgerReader, wanted: RecordFilter) -> list[int]:
    return [json.loads(body)["data"]["ledger"]["seq"] for body in reader.records(wanted)]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (RecordFilter(), list(range(1, 11))),
        (RecordFilter(account="cus_1"), [3, 4, 9, 10]),
        (RecordFilter(model="a"), [1, 2, 3, 4]),
        (RecordFilter(prediction=f"p-{instance_id(2)}"), [5]),
        (RecordFilter(instance=instance_id(2)), [5, 6]),
        (RecordFilter(instance=instance_id(2)[:-1]), []),
        (RecordFilter(instance=instance_id(2)[:8]), []),
        (RecordFilter(instance=instance_id(2)[:-13]), []),
        (RecordFilter(id=f"{instance_id(2)}-00000001"), [6]),
        (RecordFilter(id=instance_id(2)), []),
        (RecordFilter(root=f"p-{instance_id(0)}"), [1, 7, 9]),
        (RecordFilter(type="taximeter.usage.instance.v1"), [2, 4, 6, 8, 10]),
        (RecordFilter(since_utc_ns=BEGAN_UTC_NS + 3), [7, 8, 9, 10]),
        (RecordFilter(account="cus_1", model="b", type="taximeter.usage.instance.v1"), [10]),
        (RecordFilter(account="nobody"), []),
        (RecordFilter(limit=3), [1, 2, 3]),
        (RecordFilter(limit=0), []),
        (RecordFilter(newest=3), [8, 9, 10]),
        (RecordFilter(newest=99), list(range(1, 11))),
        (RecordFilter(newest=0), []),
        (RecordFilter(account="cus_1", newest=1), [10]),
        (RecordFilter(after_seq=8), [9, 10]),
        (RecordFilter(account="'; DROP TABLE records; --"), []),
    ],
)
def test_a_filter_finds_its_records_in_the_order_of_their_numbers(
    reader: LedgerReader, wanted: RecordFilter, numbers: list[int]
) -> None:
    assert found(reader, wanted) == numbers


@pytest.mark.parametrize(
    ("prefix", "numbers"), [(instance_id(0)[:8], [0, 1, 2, 3, 4]), (instance_id(3), [3]), ("ffff", [])]
)
def test_the_instances_that_a_prefix_may_mean_are_found(reader: LedgerReader, prefix: str, numbers: list[int]) -> None:
    assert reader.begun_by(prefix) == tuple(map(instance_id, numbers))


def test_more_records_than_a_page_are_all_found_once(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.commit(Batch(tuple(told for number in range(600) for told in run(number)), ()))
    with LedgerReader(tmp_path / "ledger.db") as many:
        assert found(many, RecordFilter()) == list(range(1, 1_201))
        assert len(found(many, RecordFilter(limit=700))) == 700
        assert found(many, RecordFilter(account="cus_7", newest=900)) == list(range(301, 1_201))
    ledger.close()


def test_the_reader_knows_head_ids_and_sinks(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.node_id_kept("gpu-node-7")
    ledger.register_sink("file")
    ledger.register_sink("billing")
    head = ledger.commit(Batch(run(1), (JournalState(instance_id(2), 0, 9, b"state"),)))
    ledger.shipped("billing", 1)
    with LedgerReader(tmp_path / "ledger.db") as other:
        assert other.head == head
        assert other.ledger_id == head.ledger_id
        assert other.node_id == "gpu-node-7"
        assert other.sinks() == {"billing": 1, "file": 2}
    ledger.close()


def test_an_empty_ledger_has_a_head_of_zero(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with LedgerReader(tmp_path / "ledger.db") as empty:
        assert empty.head == ledger.head
        assert empty.node_id is None
    ledger.close()


def test_a_reader_sees_what_is_committed_after_it_was_opened(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    with LedgerReader(tmp_path / "ledger.db") as early:
        ledger.commit(Batch(run(1), ()))
        assert found(early, RecordFilter()) == [1, 2]
    ledger.close()


def test_a_ledger_that_is_absent_is_not_made_by_reading_it(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"cannot read ledger .*absent\.db"):
        LedgerReader(tmp_path / "absent.db")
    assert list(tmp_path.glob("*.db*")) == []


def test_one_who_may_only_read_the_file_reads_it_without_an_agent() -> None:
    """The directory is not hers: she can make no write-ahead log there."""
    require_root()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ledger = opened(directory)
        ledger.commit(Batch(run(1), ()))
        ledger.close()
        (directory / "ledger.db").chmod(0o644)
        directory.chmod(0o755)
        os.seteuid(65_534)
        try:
            with LedgerReader(directory / "ledger.db") as hers:
                seen = found(hers, RecordFilter())
        finally:
            os.seteuid(0)
    assert seen == [1, 2]


ROOT, ALONE = f"p-{instance_id(0)}", f"p-{instance_id(1)}"


def test_a_root_is_read_with_whatever_names_it(reader: LedgerReader) -> None:
    numbers = [json.loads(body)["data"]["ledger"]["seq"] for body in reader.of_root(ROOT)]
    assert numbers == [1, 7, 9]


def test_a_prediction_has_the_root_that_it_names_or_is_its_own(reader: LedgerReader) -> None:
    assert [reader.root_of(f"p-{instance_id(at)}") for at in (0, 3, 4)] == [ROOT] * 3
    assert reader.root_of("nobody") is None


def test_roots_that_others_name_come_one_after_the_other(reader: LedgerReader) -> None:
    assert reader.next_root() == ROOT
    assert reader.next_root(ROOT) is None


def test_a_root_that_only_an_instance_names_begins_no_tree(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    prediction, instance = run(1)
    ledger.commit(Batch((prediction, replace(instance, root=ROOT)), ()))
    ledger.close()
    with LedgerReader(tmp_path / "ledger.db") as reader:
        assert reader.next_root() is None


def test_roots_below_a_root_are_found_and_bounded(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for number in range(1, 6):
        prediction, _ = run(number)
        ledger.commit(Batch((replace(prediction, root=f"p-{instance_id(number % 5 + 1)}"),), ()))
    ledger.close()
    ring = {f"p-{instance_id(number)}" for number in range(1, 6)}
    with LedgerReader(tmp_path / "ledger.db") as ledger_reader:
        assert set(ledger_reader.roots(ALONE, 100)) == ring
        assert ledger_reader.roots(ALONE, 2)[0] == ALONE
        assert len(ledger_reader.roots(ALONE, 2)) == 2
        assert ledger_reader.roots("nobody", 100) == ("nobody",)


@pytest.mark.parametrize("sql", [_FIRST, _BELOW, _ROOT_OF, _NEXT_ROOT, _ROOTS])
def test_no_question_about_calls_walks_the_whole_ledger(tmp_path: Path, sql: str) -> None:
    opened(tmp_path).close()
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    paged = f"{sql} AND seq > 0 ORDER BY seq LIMIT 1" if sql in (_FIRST, _BELOW) else sql
    plan = [str(step[3]) for step in connection.execute(f"EXPLAIN QUERY PLAN {paged}", ("x",) * paged.count("?"))]
    connection.close()
    assert [step for step in plan if step.startswith("SCAN") and "lookups" in step] == []
    assert any("INDEX lookups_" in step for step in plan)
    assert not any("TEMP B-TREE" in step for step in plan)
