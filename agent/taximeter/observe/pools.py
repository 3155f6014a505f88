"""How the time of pools is used, by what records say: what was booted, idled, ran, and how much of it was sold.

Owns the bound on names: a pool that is one too many is "other", whatever a worker calls it. What counts as sold of a
prediction comes with its record (billing.outcome); of an instance it is in its lines. Refuses to know where sums are
kept. What a pool is sold for is in the records; here is but time.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from taximeter.billing.money import EXACT
from taximeter.billing.units import HARDWARE
from taximeter.ledger.values import HOUR_NS, POOL_PHASES, PoolHour, PoolTime
from taximeter.records import Line, RecordType, UsageRecord

#: So many pools are told apart, from the agent's start on.
POOLS_MAX = 100
OTHER = "other"

_PHASES = tuple(enumerate(f"{phase}_ns" for phase in POOL_PHASES))
_LOAD, _SOLD, _RETURNED = (PoolTime._fields.index(part) for part in ("load", "sold", "returned"))


class Pools:
    """Adds up what records say of pools, under a bounded number of names."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def of(self, records: Iterable[UsageRecord]) -> tuple[PoolHour, ...]:
        """What `records` add to the time of each pool, by the hour."""
        sums: dict[tuple[int, str], list[int]] = {}
        for record in records:
            pool: Any = record.data.get("pool")
            if pool is not None:
                key = _hour_of(record), self._named(pool)
                if key not in sums:
                    sums[key] = [0] * len(PoolTime._fields)
                _add(sums[key], record)
        return tuple(PoolHour(hour, pool, PoolTime(*time)) for (hour, pool), time in sums.items())

    def _named(self, pool: str) -> str:
        if pool not in self._names:
            if len(self._names) >= POOLS_MAX:
                return OTHER
            self._names.add(pool)
        return pool


def _hour_of(record: UsageRecord) -> int:
    """The hour in which its interval begins; of a correction, in which what it corrects ends: it came then."""
    at_ns = record.time_utc_ns
    if record.type is RecordType.CORRECTION:
        interval: Any = record.data["interval"]
        at_ns += interval["end_ns"] - interval["start_ns"]
    return at_ns // HOUR_NS


def _add(time: list[int], record: UsageRecord) -> None:
    """Add what one record says of its pool's time, by place: a worker may have thousands a second."""
    data: Mapping[str, Any] = record.data
    if record.type is RecordType.INSTANCE:
        for place, part in _PHASES:
            time[place] += data["time"][part]
    elif record.type is RecordType.PREDICTION:
        time[_LOAD] += data["time"]["load_ns"]
    sold_ns = _sold_ns(data["billing"].lines) if record.sold_ns is None else record.sold_ns
    time[_SOLD if sold_ns > 0 else _RETURNED] += abs(sold_ns)


def _sold_ns(lines: Iterable[Line]) -> int:
    """Hardware time of an instance's price lines, times their multipliers: at half the price half of it counts.

    A correction's is what it changes of that. Where only the price changes, as another tier bills, that is nothing.
    """
    sold_s = Decimal(0)
    for line in lines:
        if line.unit in HARDWARE:
            sold_s = EXACT.add(sold_s, EXACT.multiply(Decimal(line.quantity), Decimal(line.multiplier)))
    return int(EXACT.scaleb(sold_s, 9).to_integral_value())
