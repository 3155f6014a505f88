"""Old records go, and the ledger is as sound as it was: what stands in their place is vouched for by a record."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.events import Event, Options
from taximeter.ledger.audit import Fault, audit, carry
from taximeter.ledger.base import PRUNED, Base, Carried
from taximeter.ledger.damage import damage_of
from taximeter.ledger.notes import Checkpoint
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.ledger.signing import sign
from taximeter.ledger.store import Batch, Ledger
from taximeter.records import PLATFORM, RecordType, UsageRecord
from tests.core.stories import SECOND, book, card, tell
from tests.core.test_laws import PRICES, histories
from tests.ledger.samples import instance_id, opened, prediction_record, run_batch
from tests.ledger.spending import grant, paying, put_in_force, rules

pytestmark = pytest.mark.forged

NOW_NS = 1_795_341_700_000_000_000
SEED = bytes(32)


def seal(ledger: Ledger) -> int:
    """Seal the ledger as it is; gives how many records that covers."""
    head = ledger.head
    note, key = sign(Checkpoint(head.ledger_id, head.seq, ledger.hash_at(head.seq) or b""), SEED)
    data = {"size": head.seq, "head": head.hash, "key": key, "note": note.text}
    assert ledger.say(UsageRecord(ledger.own_id(), RecordType.CHECKPOINT, PLATFORM, NOW_NS, data))
    return head.seq


def prune(where: Path, ledger: Ledger, size: int) -> None:
    with LedgerReader(where / "ledger.db") as reader:
        found = carry(reader, size, int)
    assert isinstance(found, Carried)
    ledger.prune(Base(size, ledger.hash_at(size) or b""), found, NOW_NS)
    while ledger.remove_pruned(3):
        pass


def changed(where: Path, sql: str) -> None:
    connection = apsw.Connection(str(where / "ledger.db"))
    connection.execute(sql)
    connection.close()


def faults(where: Path) -> tuple[Fault, ...]:
    with LedgerReader(where / "ledger.db") as reader:
        return audit(reader).faults


def seqs(where: Path) -> list[int]:
    with LedgerReader(where / "ledger.db") as reader:
        return [row.seq for row in reader.walk()]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger of three runs that was sealed, two more, and pruned where it was sealed."""
    with contextlib.closing(opened(tmp_path)) as ledger:
        for number in range(1, 4):
            ledger.commit(run_batch(number))
        size = seal(ledger)
        ledger.commit(run_batch(4))
        ledger.commit(run_batch(5))
        prune(tmp_path, ledger, size)
        yield ledger


def test_what_was_pruned_is_gone_and_numbers_go_on(tmp_path: Path, ledger: Ledger) -> None:
    ledger.commit(run_batch(6))
    assert seqs(tmp_path) == list(range(7, 15))


def test_a_pruned_ledger_is_sound(tmp_path: Path, ledger: Ledger) -> None:
    assert faults(tmp_path) == ()


def test_a_pruned_ledger_can_be_opened_and_gone_on_with(tmp_path: Path, ledger: Ledger) -> None:
    ledger.close()
    assert damage_of(tmp_path / "ledger.db") is None
    with contextlib.closing(opened(tmp_path)) as again:
        again.commit(run_batch(6))
    assert faults(tmp_path) == ()


def test_a_pruned_ledger_can_be_pruned_again(tmp_path: Path, ledger: Ledger) -> None:
    size = seal(ledger)
    ledger.commit(run_batch(6))
    prune(tmp_path, ledger, size)
    assert faults(tmp_path) == ()
    assert seqs(tmp_path) == [12, *range(13, 17)]  # the fact that it was pruned before is kept


def test_a_ledger_is_pruned_once_however_often_it_is_tried(tmp_path: Path, ledger: Ledger) -> None:
    before = seqs(tmp_path)
    ledger.prune(Base(6, ledger.hash_at(6) or b""), Carried(), NOW_NS)
    assert seqs(tmp_path) == before


def test_an_instance_that_was_over_is_never_booked_again(tmp_path: Path, ledger: Ledger) -> None:
    assert ledger.closed_at([instance_id(2), instance_id(4), instance_id(9)]) == {instance_id(2): 4, instance_id(4): 9}


def test_facts_are_kept(tmp_path: Path) -> None:
    with contextlib.closing(opened(tmp_path)) as ledger:
        put_in_force(ledger, rules("1", "2.5"))
        ledger.commit(paying(1, "0.5"))
        size = seal(ledger)
        ledger.commit(paying(2, "1"))
        prune(tmp_path, ledger, size)
    with LedgerReader(tmp_path / "ledger.db") as reader:
        kinds = [orjson.loads(body)["data"]["fact"] for body in reader.records(RecordFilter(type=RecordType.FACT))]
    assert kinds == ["spending", PRUNED]
    assert faults(tmp_path) == ()


def test_thresholds_go_on_from_what_was_spent_before(tmp_path: Path) -> None:
    with contextlib.closing(opened(tmp_path)) as ledger:
        put_in_force(ledger, rules("1", "2.5"))
        ledger.commit(paying(1, "1.5"))
        size = seal(ledger)
        prune(tmp_path, ledger, size)
        ledger.commit(paying(2, "1.25"))
        told = ledger.told
    assert [record.data["threshold"] for record in told] == ["2.5"]
    assert faults(tmp_path) == ()


def test_credit_goes_on_from_what_was_left_before(tmp_path: Path) -> None:
    with contextlib.closing(opened(tmp_path)) as ledger:
        put_in_force(ledger, rules(prepaid=["cus_7"]))
        ledger.grant(grant("g-1", "2", 2**62))
        ledger.commit(paying(1, "1.5"))
        prune(tmp_path, ledger, seal(ledger))
        ledger.commit(paying(2, "1.25"))
        ledger.grant(grant("g-2", "5"))
        assert faults(tmp_path) == ()
        prune(tmp_path, ledger, seal(ledger))
        ledger.commit(paying(3, "1"))
    assert faults(tmp_path) == ()
    changed(tmp_path, "UPDATE grants SET left = '9' WHERE id = 'g-2'")
    assert [fault.what for fault in faults(tmp_path)] == [
        "what is kept as left of grant g-2 of account cus_7 is 9 USD, expected 3.25"
    ]


def test_whoever_changes_the_credit_that_stands_in_the_place_of_records_is_found(tmp_path: Path) -> None:
    with contextlib.closing(opened(tmp_path)) as ledger:
        ledger.grant(grant("g-1", "2"))
        prune(tmp_path, ledger, seal(ledger))
    changed(tmp_path, "UPDATE base_purses SET owed = '1'")
    assert any("is not what a record vouches for" in fault.what for fault in faults(tmp_path))


def test_the_record_that_is_begun_behind_can_be_sealed_by_a_checkpoint_that_was_kept(
    tmp_path: Path, ledger: Ledger
) -> None:
    with LedgerReader(tmp_path / "ledger.db") as reader:
        assert reader.hash_at(6) == reader.base.hash


def test_what_is_faulty_is_not_pruned(tmp_path: Path) -> None:
    with contextlib.closing(opened(tmp_path)) as ledger:
        ledger.commit(run_batch(1))
        size = seal(ledger)
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute("UPDATE lookups SET account = 'cus_8' WHERE seq = 1")
    connection.close()
    with LedgerReader(tmp_path / "ledger.db") as reader:
        found = carry(reader, size, int)
    assert isinstance(found, Fault)
    assert (found.seq, "is filed under account" in found.what) == (1, True)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE base_spends SET amount = '0.5'",
        "DELETE FROM base_spends",
        "UPDATE elsewhere SET number = number + 1",
        "DELETE FROM elsewhere",
        "INSERT INTO elsewhere VALUES ('x', 1, NULL)",
        "UPDATE meta SET value = '2' WHERE key = 'base_seq'",
        "UPDATE meta SET value = substr(value, 2) || 'f' WHERE key = 'base_hash'",
        "DELETE FROM meta WHERE key = 'base_seq'",
        "DELETE FROM records WHERE seq = 1",
        "UPDATE lookups SET type = 'taximeter.usage.prediction.v1' WHERE seq = 1",
    ],
)
def test_whoever_changes_what_stands_in_the_place_of_records_is_found(tmp_path: Path, edit: str) -> None:
    with contextlib.closing(opened(tmp_path)) as ledger:
        put_in_force(ledger, rules("100"))
        ledger.commit(paying(1, "1.5"))
        first = prediction_record(instance_id(9), 0, final=False, status="processing")
        ledger.commit(Batch((first,), ()))
        size = seal(ledger)
        ledger.commit(run_batch(4))
        prune(tmp_path, ledger, size)
    assert faults(tmp_path) == ()
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute(edit)
    assert connection.changes() or "meta" in edit
    connection.close()
    assert faults(tmp_path) != ()


@given(histories(), PRICES, st.integers(SECOND, 100 * SECOND), st.data())
def test_law_a_ledger_may_be_pruned_behind_any_record(
    history: tuple[Options, list[Event]], price: str, interim_ns: int, data: st.DataObject
) -> None:
    options, events = history
    records = tell(options, events, book(interim_ns, rates=(card(price, cpu=price),))).records
    cut = data.draw(st.integers(0, len(records)))
    with TemporaryDirectory() as name, contextlib.closing(opened(Path(name))) as ledger:
        ledger.commit(Batch(tuple(records[:cut]), ()))
        ledger.commit(run_batch(1))
        size = seal(ledger)
        prune(Path(name), ledger, size)
        ledger.commit(Batch(tuple(records[cut:]), ()))
        assert faults(Path(name)) == ()
