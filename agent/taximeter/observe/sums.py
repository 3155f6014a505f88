"""Adds up the records of one run, exactly: for receipts.

Owns the sums: nanoseconds as integers, quantities and money as Decimal, unlike currencies apart. Memory stays bounded
however long the run: of records, the first LISTED_MAX are kept as a line each. Refuses to read and to price.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from taximeter.billing.money import EXACT, plain
from taximeter.records import BillingStatus, RecordType

#: More of anything is counted and summed, and not listed.
LISTED_MAX = 1000
#: How a person calls a unit.
SHORT_UNITS = {"computing_second": "s"}

_HUNDREDTH = Decimal("0.01")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A record as it stands in the ledger: its CloudEvent and the hash of its stored bytes."""

    event: Mapping[str, Any]
    hash: str

    @property
    def data(self) -> Mapping[str, Any]:
        """What it says."""
        value: Mapping[str, Any] = self.event["data"]
        return value


@dataclass(slots=True)
class Sum:
    """Amounts by currency: unlike currencies are never added."""

    of: dict[str, Decimal] = field(default_factory=dict)

    def add(self, amount: str | None, currency: str | None) -> None:
        """Add `amount`, where there is one."""
        if amount is not None and currency is not None:
            self.of[currency] = EXACT.add(self.of.get(currency, Decimal(0)), Decimal(amount))

    def shown(self) -> Json:
        """Give amount and currency: null where nothing was billed, or where the currencies differ."""
        if len(self.of) != 1:
            return {"amount": None, "currency": None}
        ((currency, amount),) = self.of.items()
        return {"amount": plain(amount), "currency": currency}


@dataclass(slots=True)
class Run:
    """What the records of one prediction, or of one instance, add up to; fed in the ledger's order."""

    first: Mapping[str, Any] | None = None
    last: Mapping[str, Any] | None = None
    time: dict[str, int] = field(default_factory=dict)
    crowd: Decimal = Decimal(0)  #: how many were active together, by time
    most: int | None = None  #: at most so many; None: no record says
    units: dict[str, Decimal] = field(default_factory=dict)
    amounts: Sum = field(default_factory=Sum)
    lines: dict[tuple[str, ...], list[Decimal]] = field(default_factory=dict)
    corrections: list[Json] = field(default_factory=list)
    rate_cards: dict[str, None] = field(default_factory=dict)
    statuses: dict[str, None] = field(default_factory=dict)
    reason: str | None = None
    clock: dict[str, None] = field(default_factory=dict)
    resources: Json | None = None
    records: list[Json] = field(default_factory=list)
    total: int = 0
    accounts: dict[str, None] = field(default_factory=dict)
    instances: dict[str, None] = field(default_factory=dict)
    ended: int = 0  #: how many last records there are: one a run that bears this id
    open: set[str] = field(default_factory=set)  #: the instances whose last word is an interim record

    def take(self, item: Item) -> None:
        """Add one record."""
        data, billing = item.data, item.data["billing"]
        self.total += 1
        if self.total <= LISTED_MAX:
            self.records.append(_entry(item))
        self.amounts.add(billing["amount"], billing["currency"])
        if billing["rate_card"]:
            self.rate_cards[billing["rate_card"]] = None
        if item.event["type"] == RecordType.CORRECTION:
            self.corrections.append(_correction(item))
            for name, changed_ns in data.get("time", {}).items():
                if changed_ns:
                    self.time[name] = self.time.get(name, 0) + changed_ns
            if any(not line["multiplier"].startswith("-") for line in billing["lines"]):
                # Evidence that came late found a price for all of it: a part of another multiplier is taken back alone.
                self.statuses.pop(BillingStatus.UNRATED, None)
                self.statuses[BillingStatus.RATED] = None
                self.reason = None
        else:
            self._usage(data)

    def _usage(self, data: Mapping[str, Any]) -> None:
        self.first = self.first or data
        self.last = data
        self._whose(data)
        for name, duration_ns in data["time"].items():
            self.time[name] = self.time.get(name, 0) + duration_ns
        if company := data.get("concurrency"):
            self.crowd = EXACT.add(self.crowd, Decimal(company["mean"]) * data["time"]["active_ns"])
            self.most = max(self.most or 0, company["max"])
        self.resources = _together(self.resources or {}, data.get("resources") or {})
        for line in data["billing"]["lines"]:
            self._line(line, data["billing"]["currency"])
        for name, count in data["units"].items():
            self.units[name] = EXACT.add(self.units.get(name, Decimal(0)), Decimal(count))
        status = data["billing"]["status"]
        if status == BillingStatus.UNRATED or BillingStatus.UNRATED not in self.statuses:
            self.reason = data["billing"].get("reason") or self.reason
        self.statuses[status] = None
        if data["timing"]["clock"] != "ok":
            self.clock |= dict.fromkeys(data["timing"]["clock"].split("+"))

    @property
    def concurrency(self) -> Json | None:
        """Tell how many were active together over all records; the mean is one of rounded means."""
        if self.most is None:
            return None
        active_ns = self.time["active_ns"]
        mean = (self.crowd / active_ns).quantize(_HUNDREDTH) if active_ns else self.crowd
        return {"mean": plain(mean), "max": self.most}

    def _whose(self, data: Mapping[str, Any]) -> None:
        for known, name in ((self.accounts, data["account"]), (self.instances, data["instance"])):
            if name is not None and len(known) < LISTED_MAX:
                known[name] = None
        if data["final"]:
            self.ended += 1
            self.open.discard(data["instance"])
        else:
            self.open.add(data["instance"])

    def _line(self, line: Mapping[str, Any], currency: str) -> None:
        key = (line["meter"], line["unit"], line["rate"], line["multiplier"], currency)
        sums = self.lines.setdefault(key, [Decimal(0), Decimal(0)])
        sums[0] = EXACT.add(sums[0], Decimal(line["quantity"]))
        sums[1] = EXACT.add(sums[1], Decimal(line["amount"]))

    @property
    def price_lines(self) -> list[Json]:
        """The price lines of all intervals, those of one meter and rate as one: amounts telescope."""
        return [
            arithmetic(
                {
                    "meter": meter,
                    "quantity": plain(quantity),
                    "unit": unit,
                    "rate": rate,
                    "multiplier": multiplier,
                    "amount": plain(amount),
                },
                currency,
            )
            for (meter, unit, rate, multiplier, currency), (quantity, amount) in self.lines.items()
        ]

    @property
    def final(self) -> bool:
        """Whether its last record is there: of a prediction on several instances, on each of them."""
        return self.last is not None and not self.open

    @property
    def runs(self) -> int:
        """How many runs bear this id: those that ended, and those that go on."""
        return self.ended + len(self.open)


def fold(items: Iterable[Item]) -> Run:
    """Add up the records of one prediction or one instance."""
    run = Run()
    for item in items:
        run.take(item)
    return run


def fold_each(items: Iterable[Item]) -> tuple[Run, dict[str, Run], Sum]:
    """Add up an instance's own records, and those of predictions by prediction, in one pass.

    LISTED_MAX predictions are told apart; the sum is of all of them.
    """
    own, runs, total = Run(), dict[str, Run](), Sum()
    for item in items:
        prediction = item.data.get("prediction")
        if prediction is None:
            own.take(item)
            continue
        total.add(item.data["billing"]["amount"], item.data["billing"]["currency"])
        if prediction in runs or len(runs) < LISTED_MAX:
            runs.setdefault(prediction, Run()).take(item)
    return own, runs, total


def _together(before: Mapping[str, Any], now: Mapping[str, Any]) -> Json:
    """What was used over both: sums where an interval tells its own, the larger of two peaks; null is not known."""
    known = {**before, **{name: value for name, value in now.items() if value is not None}}
    for name in ("cpu_ns", "energy_mj", "rss_peak_bytes", "gpu_memory_peak_bytes"):
        one, other = before.get(name), now.get(name)
        if one is not None and other is not None:
            known[name] = max(one, other) if name.endswith("peak_bytes") else one + other
    if "power" in (before.get("energy_source"), now.get("energy_source")):
        known["energy_source"] = "power"  # partly integrated
    return {**now, **known}


def arithmetic(line: Mapping[str, Any], currency: str) -> Json:
    """Show a price line with the sum that a person can check: 0.412 s × 0.0001 USD/s × 1 = 0.0000412 USD."""
    short = SHORT_UNITS.get(line["unit"], line["unit"])
    factors = f"{line['quantity']} {short} × {line['rate']} {currency}/{short} × {line['multiplier']}"
    return dict(line) | {"currency": currency, "text": f"{factors} = {line['amount']} {currency}"}


def _entry(item: Item) -> Json:
    data = item.data
    return {
        "id": item.event["id"],
        "type": item.event["type"],
        "seq": data["ledger"]["seq"],
        "hash": item.hash,
        "final": data.get("final"),
        "start_utc": data["interval"]["start_utc"],
        "end_utc": data["interval"]["end_utc"],
        "amount": data["billing"]["amount"],
        "currency": data["billing"]["currency"],
    }


def _correction(item: Item) -> Json:
    data, billing = item.data, item.data["billing"]
    return {
        "id": item.event["id"],
        "reason": data["reason"],
        "corrects": data["corrects"],
        "amount": billing["amount"],
        "currency": billing["currency"],
        "lines": [arithmetic(line, billing["currency"]) for line in billing["lines"]],
    }
