"""Early charges: what an account spends in a period, and which thresholds that reaches for the first time.

A threshold is reached once an account's spend of one currency in one period is that much or more, and only once: what
corrections take back afterwards is not charged a second time. Refuses to know where sums are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import NamedTuple

from taximeter.records import PLATFORM, UNATTRIBUTED, Billing, BillingStatus, UsageRecord

ZERO = Decimal(0)
#: Of a sum over all models.
ALL_MODELS = ""
_RATED = BillingStatus.RATED.value
_HOUR_NS = 3_600_000_000_000
_SECOND_NS = 1_000_000_000


class Spent(NamedTuple):
    """One rated amount that an account pays; a correction's may be negative."""

    account: str
    currency: str
    model: str | None
    time_utc_ns: int  #: start of its interval: late usage belongs to its own period
    amount: Decimal


class Key(NamedTuple):
    """What is added up together."""

    account: str
    currency: str
    period: str
    model: str = ALL_MODELS


class Standing(NamedTuple):
    """What was spent, and the thresholds that were reached."""

    spend: Decimal = ZERO
    crossed: frozenset[Decimal] = frozenset()


class Due(NamedTuple):
    """A threshold that is reached for the first time."""

    at: int  #: by the amount at this place
    key: Key
    threshold: Decimal
    spend: Decimal  #: with that amount


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Amounts, each list in ascending order, that are told to billing once they are spent."""

    default: tuple[Decimal, ...] = ()
    accounts: Mapping[str, tuple[Decimal, ...]] = field(default_factory=dict)  #: instead of the default

    def of(self, account: str) -> tuple[Decimal, ...]:
        """The thresholds of one account."""
        return self.accounts.get(account, self.default)


def spent_by(record: UsageRecord) -> Spent | None:
    """What a record adds to its account's spend; None where no account pays, or nothing was rated."""
    billing = record.data.get("billing")
    if not isinstance(billing, Billing):
        return None
    whole = (record.subject, record.account, billing.status, billing.amount, billing.currency)
    return spent(whole, record.model, record.time_utc_ns)


def spent(
    whole: tuple[str, str | None, str, str | None, str | None], model: str | None, time_utc_ns: int
) -> Spent | None:
    """The same of a record's subject, account, status, amount and currency."""
    subject, account, status, amount, currency = whole
    if status != _RATED or amount is None or currency is None:
        return None
    if account is None or account != subject or account in (PLATFORM, UNATTRIBUTED):
        return None
    try:
        number = Decimal(amount)
    except InvalidOperation:
        return None  # which the audit names
    return Spent(account, currency, model, time_utc_ns, number) if number.is_finite() else None


def period_of(utc_ns: int) -> str:
    """The charge period that an instant belongs to: its UTC month, as `2026-11`."""
    return _month_of_hour(utc_ns // _HOUR_NS)


@lru_cache(maxsize=1024)
def _month_of_hour(hour: int) -> str:
    return datetime.fromtimestamp(hour * 3600, UTC).isoformat()[:7]


def begin_of(period: str) -> int:
    """The instant, in nanoseconds since 1970 UTC, at which a period begins."""
    year, month = period.split("-")
    return int(datetime(int(year), int(month), 1, tzinfo=UTC).timestamp()) * _SECOND_NS
