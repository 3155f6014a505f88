"""Counts what passed through the agent, for the metrics.

Owns the counters and their bound: a label takes at most LABELS_MAX values, what comes after is "other", so no
input can grow the metrics. Refuses to know how anything is shown, and to be believed by a bill: the
ledger holds the truth, this starts from zero with each agent.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from taximeter.billing.units import HARDWARE
from taximeter.ledger.values import PoolHour, PoolTime
from taximeter.observe.pools import OTHER
from taximeter.observe.snapshot import COMMIT_BUCKETS_S, Commits, Counters
from taximeter.records import Billing, BillingStatus, HardwareElsewhere, RecordType, UsageRecord

LABELS_MAX = 200


class Tally:
    """The agent's counters; written in the event loop only."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, ...], int] = {}
        self._billed_s: dict[tuple[str, ...], float] = {}
        self._amounts: dict[tuple[str, ...], Decimal] = {}
        self._corrected: dict[tuple[str, ...], Decimal] = {}
        self._words: dict[str, dict[tuple[str, ...], int]] = {}
        self._pools: dict[str, PoolTime] = {}
        self._commits = [0] * (len(COMMIT_BUCKETS_S) + 1)
        self._commit_sum_s = 0.0
        self._commit_failures = 0

    def committed(self, records: Iterable[UsageRecord], took_s: float, pools: Iterable[PoolHour] = ()) -> None:
        """Count a commit that took `took_s` seconds, the records in it, and what they say of pools."""
        self._commits[bisect_left(COMMIT_BUCKETS_S, took_s)] += 1
        self._commit_sum_s += took_s
        self.count(records)
        for _, pool, time in pools:
            self._pools[pool] = time.plus(self._pools.get(pool, PoolTime()))

    def count(self, records: Iterable[UsageRecord]) -> None:
        """Count records that are in the ledger."""
        for record in records:
            self._count(record)

    def commit_failed(self) -> None:
        """Count a commit that the disk did not take."""
        self._commit_failures += 1

    def journal_fault(self, reason: str, count: int = 1) -> None:
        """Count a journal, or lines of one, that cannot be believed or were never written."""
        self._word("journal_faults", reason, count)

    def rejected_mark(self, reason: str) -> None:
        """Count a mark that had no effect."""
        self._word("rejected_marks", reason)

    def illegal_event(self, kind: str) -> None:
        """Count an event that the lifecycle does not allow where it came."""
        self._word("illegal_events", kind)

    def orphaned(self, how: str) -> None:
        """Count a process that left predictions open, by how its end is known."""
        self._word("orphaned", how)

    def clock_fault(self, kind: str) -> None:
        """Count a fault of the machine's clocks, as one instance saw it."""
        self._word("clock_faults", kind)

    def call_fault(self, reason: str) -> None:
        """Count a prediction whose word of who called it cannot be so."""
        self._word("call_faults", reason)

    def mismatch(self, tier: str) -> None:
        """Count an instance that used other devices than it declared, by the tier of what it declared."""
        self._word("mismatches", tier)

    def counters(self) -> Counters:
        """Freeze what was counted so far."""
        words = {name: {labels[0]: count for labels, count in of.items()} for name, of in self._words.items()}
        return Counters(
            records={(labels[0], labels[1]): count for labels, count in self._records.items()},
            billed_s={(labels[0], labels[1], labels[2]): sum_s for labels, sum_s in self._billed_s.items()},
            amounts={labels[0]: amount for labels, amount in self._amounts.items()},
            corrected={labels[0]: amount for labels, amount in self._corrected.items()},
            pools=dict(self._pools),
            commits=Commits(tuple(self._commits), self._commit_sum_s, self._commit_failures),
            **words,
        )

    def _word(self, name: str, word: str, count: int = 1) -> None:
        _add(self._words.setdefault(name, {}), (word,), count)

    def _count(self, record: UsageRecord) -> None:
        data: Mapping[str, Any] = record.data
        _add(self._records, (record.type, data.get("status") or "none"), 1)
        if record.type is RecordType.PREDICTION and data["final"] and isinstance(data["hardware"], HardwareElsewhere):
            self._word("published_elsewhere", data["hardware"].published)
        if data.get("final") and "published_class" in data:
            self._word("class_mismatches", data["class"])
        billing: Billing | None = data.get("billing")
        if billing is None:
            return  # a fact of the ledger's own
        if "timing" in data and data["timing"]["clock"] != "ok":
            for word in data["timing"]["clock"].split("+"):
                self._word("clock_flags", word)
        if billing.status == BillingStatus.UNRATED:
            self._word("unrated", data["hardware"].tier)
        elif billing.status == BillingStatus.RATED:
            self._charge(billing, data["hardware"].tier, data["class"])

    def _charge(self, billing: Billing, tier: str, service_class: str) -> None:
        for line in billing.lines:
            quantity = float(line.quantity)
            if line.unit in HARDWARE and quantity > 0:
                _add(self._billed_s, (tier, service_class, line.meter), quantity)
        amount = Decimal(billing.amount or "0")
        _add(self._amounts if amount >= 0 else self._corrected, (billing.currency or "none",), abs(amount))


def _add(counts: dict[tuple[str, ...], Any], labels: tuple[str, ...], by: "int | float | Decimal") -> None:
    if labels not in counts and len(counts) >= LABELS_MAX:
        labels = (OTHER,) * len(labels)
    counts[labels] = counts[labels] + by if labels in counts else by
