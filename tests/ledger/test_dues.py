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
from taximeter.values import replace
from tests.ledger.samples import BEGAN_UTC_NS, opened
from tests.ledger.spending import grant, paying, put_in_force, rules

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
    careless(lambda record: replace(record, data={**record.data, "spend": "9"}))
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
    careless(lambda record: replace(record, data={**record.data, "threshold": "much"}))
    booked(tmp_path, rules("2"))
    assert faults(tmp_path)[0] == "5: threshold: expected a number written as a decimal string"


def test_rules_that_are_none_are_named(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    data = {"fact": "spending", "hash": "", "content": {}}
    ledger.commit(Batch((UsageRecord(f"{ledger.head.ledger_id}-00000000", RecordType.FACT, "platform", 0, data),), ()))
    ledger.close()
    (fault,) = faults(tmp_path)
    assert fault.startswith("1: its rules: expected charges and credit")


# Credit


def credited(directory: Path) -> None:
    """A prepaid account that used one grant up, a part of another, and nothing of an expired one; and one that owes."""
    ledger = opened(directory)
    put_in_force(ledger, rules(prepaid=["cus_7", "cus_8"]))
    ledger.grant(grant("g-old", "9", BEGAN_UTC_NS - 1))
    ledger.grant(grant("g-1", "2", BEGAN_UTC_NS + 10**15))
    ledger.commit(paying(1, "1.5"))
    ledger.grant(grant("g-2", "4"))
    ledger.commit(paying(2, "1.25"))
    ledger.commit(paying(3, "3", account="cus_8"))
    ledger.close()


def test_credit_that_is_what_was_granted_less_what_was_used_is_sound(tmp_path: Path) -> None:
    credited(tmp_path)
    with LedgerReader(tmp_path / "ledger.db") as reader:
        left = {part.grant.id: str(part.left) for part in reader.statement("cus_7").purses["USD"].parts}
    assert left == {"g-old": "9", "g-1": "0", "g-2": "3.25"}
    assert faults(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            "UPDATE grants SET left = '4' WHERE id = 'g-2'",
            "what is kept as left of grant g-2 of account cus_7 is 4 USD, expected 3.25",
        ),
        (
            "UPDATE grants SET expires_utc_ns = NULL WHERE id = 'g-1'",
            "grant g-1 of account cus_7 is kept, and no record grants it so",
        ),
        ("DELETE FROM grants WHERE id = 'g-1'", "grant g-1 of account cus_7 is not kept as its record grants it"),
        (
            "INSERT INTO grants VALUES ('g-x', 'cus_9', 'USD', '5', 0, NULL, '5')",
            "grant g-x of account cus_9 is kept, and no record grants it so",
        ),
        (
            "UPDATE debts SET owed = '0' WHERE account = 'cus_8'",
            "what is kept as owed by account cus_8 is 0 USD, expected 3",
        ),
        ("DELETE FROM debts", "what is kept as owed by account cus_8 is 0 USD, expected 3"),
    ],
)
def test_credit_that_is_not_that_of_the_records_is_named(tmp_path: Path, change: str, named: str) -> None:
    credited(tmp_path)
    connection = apsw.Connection(str(tmp_path / "ledger.db"))
    connection.execute(change)
    connection.close()
    assert named in [fault.partition(": ")[2] for fault in faults(tmp_path)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, "grants g-1, which was granted before"),
        ({"grant": "g-9", "amount": "much"}, "amount: expected a number written as a decimal string"),
        ({"grant": "g-9", "expires_utc": "soon"}, "time: expected an instant, got 'soon'"),
    ],
)
def test_a_grant_that_makes_no_sense_is_named(tmp_path: Path, change: dict[str, object], named: str) -> None:
    ledger = opened(tmp_path)
    ledger.grant(grant("g-1", "2"))
    data = {"account": "cus_7", "grant": "g-1", "amount": "2", "currency": "USD", "expires_utc": None, **change}
    again = UsageRecord(ledger.own_id(), RecordType.GRANT, "cus_7", BEGAN_UTC_NS, data, account="cus_7")
    ledger.commit(Batch((again,), ()))
    ledger.close()
    assert [fault for fault in faults(tmp_path) if named in fault]
