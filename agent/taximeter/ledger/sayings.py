"""What stored records say of accounts: amounts, grants, thresholds. Pure; refuses to know what becomes of it."""

from datetime import datetime
from decimal import Decimal
from functools import lru_cache

from taximeter.billing.credit import Grant
from taximeter.billing.thresholds import Key, Spent, spent
from taximeter.ledger.balance import Event

#: Of the kinds of facts, the one that has the rules of spending.
SPENDING = "spending"


def spent_in(event: Event, time_utc_ns: int | None = None) -> Spent | None:
    """What a record adds to its account's spend; `time_utc_ns` is its time, where that has been read already."""
    data, billing = event.data, event.data.billing
    if billing is None:
        return None
    whole = (event.subject, data.account, billing.status, billing.amount, billing.currency)
    return spent(whole, data.model, utc_ns(event.time) if time_utc_ns is None else time_utc_ns)


def grant_in(event: Event) -> Grant:
    """What a record of a grant grants."""
    data = event.data
    expires_utc_ns = None if data.expires_utc is None else utc_ns(data.expires_utc)
    whole = (data.grant or "", data.account or "", data.currency or "", Decimal(data.amount or 0))
    return Grant(*whole, utc_ns(event.time), expires_utc_ns)


def crossing_in(event: Event) -> tuple[Key, Decimal, str]:
    """What a record of a threshold says was crossed, and its id."""
    data = event.data
    return Key(data.account or "", data.currency or "", data.period or ""), Decimal(data.threshold or 0), event.id


def utc_ns(text: str) -> int:
    """An instant as records write it, in nanoseconds since 1970 UTC."""
    return _second(text[:19]) * 1_000_000_000 + int(text[20:29])


@lru_cache(maxsize=256)
def _second(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}Z").timestamp())
