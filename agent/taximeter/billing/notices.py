"""What a ledger says of accounts, as records of its own: a threshold that was crossed, credit that was granted.

Pure. Refuses to know when there is one.
"""

from taximeter.billing.credit import Grant
from taximeter.billing.money import plain
from taximeter.billing.thresholds import Due, begin_of
from taximeter.records import RecordType, UsageRecord, utc_text


def own_id(ledger_id: str, number: int) -> str:
    """The id of a ledger's own record: facts, thresholds and grants are numbered together, from 0."""
    return f"{ledger_id}-{number:08d}"


def threshold_record(record_id: str, due: Due, by: UsageRecord, source: str) -> UsageRecord:
    """That an account's spend in a period is at or beyond a threshold, for the first time; `by` did it."""
    key = due.key
    data: dict[str, object] = {
        "scope": "node",
        "account": key.account,
        "currency": key.currency,
        "period": key.period,
        "since_utc": utc_text(begin_of(key.period)),
        "threshold": plain(due.threshold),
        "spend": plain(due.spend),
        "crossed_by": {"source": source, "id": by.id},
    }
    return UsageRecord(record_id, RecordType.THRESHOLD, key.account, by.time_utc_ns, data, account=key.account)


def grant_record(record_id: str, grant: Grant) -> UsageRecord:
    """That credit was granted."""
    data: dict[str, object] = {
        "account": grant.account,
        "grant": grant.id,
        "amount": plain(grant.amount),
        "currency": grant.currency,
        "expires_utc": None if grant.expires_utc_ns is None else utc_text(grant.expires_utc_ns),
    }
    return UsageRecord(record_id, RecordType.GRANT, grant.account, grant.granted_utc_ns, data, account=grant.account)
