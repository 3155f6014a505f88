"""How the time of pools is used, by what records say: what was booted, idled, ran, and how much of it was sold.

Owns what counts as sold, and the bound on names: a pool that is one too many is "other", whatever a worker calls it.
Refuses to know where sums are kept. What a pool is sold for is in the records; here is but time.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from taximeter.billing.money import EXACT
from taximeter.ledger.values import HOUR_NS, POOL_PHASES, PoolHour, PoolTime
from taximeter.records import Billing, RecordType, UsageRecord

#: So many pools are told apart, from the agent's start on.
POOLS_MAX = 100
OTHER = "other"

#: Units of a price line whose quantity is seconds of hardware.
SECONDS = frozenset({"computing_second", "gpu"})

_GIGA = Decimal(1_000_000_000)


class Pools:
    """Adds up what records say of pools, under a bounded number of names."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def of(self, records: Iterable[UsageRecord]) -> tuple[PoolHour, ...]:
        """What `records` add to the time of each pool, by the hour."""
        sums: dict[tuple[int, str], PoolTime] = {}
        for record in records:
            pool: Any = record.data.get("pool")
            if pool is not None:
                key = _hour_of(record), self._named(pool)
                sums[key] = time_of(record).plus(sums.get(key, _NOTHING))
        return tuple(PoolHour(hour, pool, time) for (hour, pool), time in sums.items())

    def _named(self, pool: str) -> str:
        if pool not in self._names:
            if len(self._names) >= POOLS_MAX:
                return OTHER
            self._names.add(pool)
        return pool


_NOTHING = PoolTime()


def _hour_of(record: UsageRecord) -> int:
    """The hour in which its interval begins; of a correction, in which what it corrects ends: it came then."""
    at_ns = record.time_utc_ns
    if record.type is RecordType.CORRECTION:
        interval: Any = record.data["interval"]
        at_ns += interval["end_ns"] - interval["start_ns"]
    return at_ns // HOUR_NS


def time_of(record: UsageRecord) -> PoolTime:
    """What one record says of its pool's time."""
    data: Mapping[str, Any] = record.data
    sold_ns = _sold_ns(data["billing"])
    paid = {"sold": max(sold_ns, 0), "returned": max(-sold_ns, 0)}
    time = data["time"]
    if record.type is RecordType.INSTANCE:
        return PoolTime(**{phase: time[f"{phase}_ns"] for phase in POOL_PHASES}, **paid)
    return PoolTime(load=time.get("load_ns", 0), **paid)  # a correction moves no time


def _sold_ns(billing: Billing) -> int:
    """Hardware time of price lines, times their multipliers: at half the price half of it counts.

    A correction's is what it changes of that. Where only the price changes, as another tier bills, that is nothing.
    """
    sold = Decimal(0)
    for line in billing.lines:
        if line.unit in SECONDS:
            sold = EXACT.add(sold, EXACT.multiply(Decimal(line.quantity), Decimal(line.multiplier)))
    return int(EXACT.multiply(sold, _GIGA).to_integral_value())
