"""The audit of accounts: it names a threshold that is missing, wrong or told twice, and a sum of something else."""

from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from taximeter.billing.spending import Spending
from taximeter.ledger import till
from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch
from taximeter.records import RecordType, UsageRecord
from tests.ledger.samples import opened
from tests.ledger.spending import paying, put_in_force, rules

pytestmark = pytest.mark.forged  # records by hand, whose prices are round


def faults(directory: Path) -> list[str]:
    with LedgerReader(directory / "ledger.db") as reader:
        return [f"{fault.seq}: {fault.what}" for fault in audit(reader).faults]


def booked(directory: Path, content: Spending) -> None:
    """Three seconds, at a dollar each, under these rules."""
    ledger = opened(directory)
    put_in_force(ledger, content)
    for number in range(3):
        ledger.commit(paying(number, "1"))
    ledger.close()


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[UsageRecord], UsageRecord | None]], None]:
    """A till that writes something else than the threshold records that are due."""

    def give(change: Callable[[UsageRecord], UsageRecord | None]) -> None:
        honest = till._with

        def forge(records: object, due: object, told: list[UsageRecord]) -> list[UsageRecord]:
            whole = honest(records, due, told)  # type: ignore[arg-type]
            return [one for one in (change(r) if r.type is RecordType.THRESHOLD else r for r in whole) if one]

        monkeypatch.setattr(till, "_with", forge)

    return give


def test_what_was_told_when_it_was_due_is_sound(tmp_path: Path) -> None:
    booked(tmp_path, rules("1", "2.5"))
    assert faults(tmp_path) == []


def test_a_threshold_that_was_not_told_is_named_where_it_is_missing(
    tmp_path: Path, careless: Callable[..., None]
) -> None:
    careless(lambda record: None)
    booked(tmp_path, rules("2"))
    (fault,) = faults(tmp_path)
    assert fault.startswith("5: stands where the record is missing that")
    assert fault.endswith("crossed 2 USD of account cus_7")


def test_one_that_is_missing_at_the_end_is_named_too(tmp_path: Path, careless: Callable[..., None]) -> None:
    careless(lambda record: None)
    ledger = opened(tmp_path)
    put_in_force(ledger, rules("1"))
    ledger.commit(Batch(paying(1, "1").records[:1], ()))
    ledger.close()
    assert [fault for fault in faults(tmp_path) if "missing" in fault]


def test_a_spend_that_was_not_is_named(tmp_path: Path, careless: Callable[..., None]) -> None:
    careless(lambda record: record._replace(data={**record.data, "spend": "9"}))
    booked(tmp_path, rules("2"))
    assert faults(tmp_path) == ["5: spend is 9, expected 2"]


def test_a_threshold_that_nobody_set_is_named(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.charge_by(rules("2"))  # which the ledger was never told
    for number in range(2):
        ledger.commit(paying(number, "1"))
    ledger.close()
    assert faults(tmp_path) == ["4: says that cus_7 crossed 2 USD in 2026-11: nothing did here"]


def test_a_threshold_that_is_told_twice_is_named(tmp_path: Path) -> None:
    booked(tmp_path, rules("2"))
    ledger = opened(tmp_path)
    with LedgerReader(tmp_path / "ledger.db") as reader:
        (crossing,) = reader.statement("cus_7").crossings
    data = {"account": "cus_7", "currency": "USD", "period": "2026-11", "threshold": crossing.threshold, "spend": "2"}
    again = UsageRecord(f"{ledger.head.ledger_id}-00000009", RecordType.THRESHOLD, "cus_7", 0, data, account="cus_7")
    ledger.commit(Batch((again,), ()))
    ledger.close()
    assert faults(tmp_path) == ["9: says that cus_7 crossed 2 USD in 2026-11: nothing did here"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE spends SET amount = '1.5' WHERE model = ''", "account cus_7, 2026-11 is 1.5 USD, expected 3"),
        (
            "DELETE FROM spends WHERE model != ''",
            "account cus_7, 2026-11, model acme/sdxl-lora is none USD, expected 3",
        ),
        (
            "INSERT INTO spends VALUES ('cus_9', 'USD', '2026-11', '', '4')",
            "account cus_9, 2026-11 is 4 USD, expected 0",
        ),
    ],
)
def test_a_sum_that_is_not_that_of_the_records_is_named(tmp_path: Path, change: str, named: str) -> None:
    booked(tmp_path, rules())
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute(change)
    connection.close()
    assert faults(tmp_path) == [f"7: the sum that is kept of {named}"]


def test_a_threshold_that_is_no_number_is_named(tmp_path: Path, careless: Callable[..., None]) -> None:
    careless(lambda record: record._replace(data={**record.data, "threshold": "much"}))
    booked(tmp_path, rules("2"))
    assert faults(tmp_path)[0] == "5: threshold: expected a number written as a decimal string"


def test_rules_that_are_none_are_named(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    data = {"fact": "spending", "hash": "", "content": {}}
    ledger.commit(Batch((UsageRecord(f"{ledger.head.ledger_id}-00000000", RecordType.FACT, "platform", 0, data),), ()))
    ledger.close()
    (fault,) = faults(tmp_path)
    assert fault.startswith("1: its rules: expected charges and credit")
