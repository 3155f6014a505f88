"""One-shots of accounts that spend, and what a ledger says of them."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from taximeter.billing.credit import Grant
from taximeter.billing.spending import Spending, parse_spending
from taximeter.ledger.accounts import Statement
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.ledger.store import Batch, JournalState, Ledger
from taximeter.records import RecordType, UsageRecord
from taximeter.values import replace
from tests.ledger.samples import BEGAN_UTC_NS, billed, instance_id, instance_record, opened, prediction_record

MONTH = "2026-11"


def rules(*thresholds: str, prepaid: object = "none", **credit: object) -> Spending:
    content = {
        "charges": {"thresholds": thresholds, "accounts": {}},
        "credit": {"prepaid": prepaid, "floor": "0", "caps": {}, "limits": {}, **credit},
    }
    return parse_spending(content, "test")


def fact(number: int, ledger: Ledger, content: Spending) -> UsageRecord:
    """The fact that rules are in force."""
    data = {"fact": "spending", "hash": f"sha256:{'d' * 64}", "content": content.content()}
    return UsageRecord(f"{ledger.head.ledger_id}-{number:08d}", RecordType.FACT, "platform", BEGAN_UTC_NS, data)


def put_in_force(ledger: Ledger, content: Spending) -> None:
    """As the agent does it: the fact, and then the rules."""
    ledger.commit(Batch((fact(ledger.next_own(), ledger, content),), ()))
    ledger.charge_by(content)


def paying(number: int, quantity: str, account: str = "cus_7") -> Batch:
    """A one-shot that costs as much as it took, in seconds at a dollar each."""
    instance = instance_id(number)
    costs = billed(quantity, quantity, rate="1")
    end_ns = 6_000_000_000 + int(Decimal(quantity) * 10**9)
    prediction = prediction_record(instance, 0, end_ns=end_ns, billing=costs, account=account)
    times = {"wall_ns": end_ns - 5_000_000_000, "boot_ns": 10**9, "idle_ns": 0, "active_ns": end_ns - 6_000_000_000}
    whole = {**times, "teardown_ns": 0, "suspended_ns": 0, "unknown_ns": 0}
    own = instance_record(instance, 1, account=account, time=whole, to_date=times)
    data: dict[str, Any] = {**own.data, "interval": {**prediction.data["interval"], "start_ns": 5_000_000_000}}  # type: ignore[dict-item]
    own = replace(own, subject="platform", data=data)
    return Batch((prediction, own), (JournalState(instance, 0, 1, None),))


def grant(name: str, amount: str, expires_utc_ns: int | None = None, account: str = "cus_7") -> Grant:
    return Grant(name, account, "USD", Decimal(amount), BEGAN_UTC_NS, expires_utc_ns)


def told(directory: Path, kind: RecordType = RecordType.THRESHOLD) -> list[tuple[str, str, str]]:
    """Threshold (or grant), spend (or amount) and number of each record of that kind."""
    names = ("threshold", "spend") if kind is RecordType.THRESHOLD else ("grant", "amount")
    with LedgerReader(directory / "ledger.db") as reader:
        data = [json.loads(body)["data"] for body in reader.records(RecordFilter(type=kind))]
    return [(*(one[name] for name in names), one["ledger"]["seq"]) for one in data]


def kept(directory: Path, account: str = "cus_7") -> Statement:
    with LedgerReader(directory / "ledger.db") as reader:
        return reader.statement(account)


def spent(directory: Path, account: str = "cus_7") -> Statement:
    """The same after the ledger was opened once more."""
    opened(directory).close()
    return kept(directory, account)
