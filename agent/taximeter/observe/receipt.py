"""Explains one run: builds a receipt from its records. Pure; whoever prints it only lays it out.

A receipt is a JSON-able dict, the same for a prediction and for an instance (what a kind lacks is null or empty):

    id, kind                what was asked for; "prediction" or "instance"
    pending                 true until the final record is in the ledger
    pending_why             a sentence for people, or null
    prediction, instance, parent, root, account, model, version, class, pool, traceparent
    status                  processing, succeeded, failed, canceled, aborted; null before the first record
    started_utc, ended_utc  RFC 3339; ended_utc is where the records end so far
    boot_id
    time                    summed over its records: wall_ns, then load_ns active_ns share_ns (prediction) or boot_ns
                            idle_ns active_ns teardown_ns (instance), suspended_ns, unknown_ns; {} before the first
    phases                  the instance's own `time` (of a prediction's receipt too), {} while it has no record
    timing                  {"start": {"source", "uncertainty_ns"}, "end": {…}, "clock": [what was wrong, …]}, or null
    hardware                as in the record: tier, count, devices, evidence, rule (why this tier); or null
    billing                 {"status", "amount", "currency", "lines", "corrections", "rate_cards", "reason"}: amount is
                            exact, over all records, corrections included; null where unrated or unknown
      lines[]               {"meter", "quantity", "unit", "rate", "multiplier", "amount", "currency", "text"}; text is
                            the arithmetic: "0.412 s × 0.0001 USD/s × 1 = 0.0000412 USD"
      corrections[]         {"id", "reason", "corrects", "amount", "currency"}
    total                   {"amount", "currency"}: of an instance with its predictions; of a prediction alone
    exit                    the instance's: {"code", "signal", "oom", "reason", "left_running"}, or null
    units, attributes, labels, resources, concurrency
    predictions[]           on an instance: {"prediction", "account", "model", "class", "status", "pending",
                            "started_utc", "active_ns", "share_ns", "amount", "currency"}; at most LISTED_MAX
    downstream[]            the same, of the predictions that this one called (root or parent is this one)
    records[]               {"id", "type", "seq", "hash", "final", "start_utc", "end_utc", "amount"}; at most LISTED_MAX
    records_total           how many there are
    node                    {"id", "region", "software", "config"} as of the last record, or null

Owns this shape and exact sums. Refuses to read anything and to price anything: every amount is the ledger's.
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

Json = dict[str, Any]

_NAMES = (
    *("prediction", "instance", "parent", "root", "account", "model", "version", "class", "pool"),
    *("traceparent", "status"),
)


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
    units: dict[str, Decimal] = field(default_factory=dict)
    amounts: Sum = field(default_factory=Sum)
    lines: dict[tuple[str, ...], list[Decimal]] = field(default_factory=dict)
    corrections: list[Json] = field(default_factory=list)
    rate_cards: dict[str, None] = field(default_factory=dict)
    statuses: dict[str, None] = field(default_factory=dict)
    reason: str | None = None
    clock: dict[str, None] = field(default_factory=dict)
    records: list[Json] = field(default_factory=list)
    total: int = 0

    def take(self, item: Item) -> None:
        """Add one record."""
        data, billing = item.data, item.data["billing"]
        self.total += 1
        if self.total <= LISTED_MAX:
            self.records.append(_entry(item))
        self.amounts.add(billing["amount"], billing["currency"])
        if billing["rate_card"]:
            self.rate_cards[billing["rate_card"]] = None
        for line in billing["lines"]:
            self._line(line, billing["currency"])
        if item.event["type"] == RecordType.CORRECTION:
            self._correction(item)
        else:
            self._usage(data)

    def _usage(self, data: Mapping[str, Any]) -> None:
        self.first = self.first or data
        self.last = data
        for name, duration_ns in data["time"].items():
            self.time[name] = self.time.get(name, 0) + duration_ns
        for name, count in data["units"].items():
            self.units[name] = EXACT.add(self.units.get(name, Decimal(0)), Decimal(count))
        self.statuses[data["billing"]["status"]] = None
        self.reason = data["billing"].get("reason") or self.reason
        if data["timing"]["clock"] != "ok":
            self.clock[data["timing"]["clock"]] = None

    def _line(self, line: Mapping[str, Any], currency: str) -> None:
        key = (line["meter"], line["unit"], line["rate"], line["multiplier"], currency)
        sums = self.lines.setdefault(key, [Decimal(0), Decimal(0)])
        sums[0] = EXACT.add(sums[0], Decimal(line["quantity"]))
        sums[1] = EXACT.add(sums[1], Decimal(line["amount"]))

    def _correction(self, item: Item) -> None:
        data = item.data
        self.corrections.append(
            {
                "id": item.event["id"],
                "reason": data["reason"],
                "corrects": data["corrects"],
                "amount": data["billing"]["amount"],
                "currency": data["billing"]["currency"],
            }
        )

    @property
    def final(self) -> bool:
        """Whether its last record is there."""
        return self.last is not None and bool(self.last["final"])


def fold(items: Iterable[Item]) -> Run:
    """Add up the records of one prediction or one instance."""
    run = Run()
    for item in items:
        run.take(item)
    return run


def fold_each(items: Iterable[Item]) -> tuple[dict[str, Run], Sum]:
    """Add up records by prediction; LISTED_MAX of them are told apart, all of them are in the sum."""
    runs: dict[str, Run] = {}
    total = Sum()
    for item in items:
        total.add(item.data["billing"]["amount"], item.data["billing"]["currency"])
        prediction = item.data["prediction"]
        if prediction in runs or len(runs) < LISTED_MAX:
            runs.setdefault(prediction, Run()).take(item)
    return runs, total


def of_prediction(asked: str, own: Run, instance: Run, downstream: Mapping[str, Run]) -> Json:
    """Build the receipt of a prediction that has records."""
    receipt = _receipt(asked, "prediction", own)
    receipt["phases"] = dict(instance.time)
    receipt["exit"] = _exit(instance)
    receipt["downstream"] = [_summary(run) for run in downstream.values()]
    return receipt


def of_instance(asked: str, own: Run, predictions: Mapping[str, Run], of_predictions: Sum) -> Json:
    """Build the receipt of an instance that has records, its own or its predictions'."""
    receipt = _receipt(asked, "instance", own) | {"instance": asked, "exit": _exit(own)}
    receipt["phases"] = dict(own.time)
    total = Sum(dict(of_predictions.of))
    for currency, amount in own.amounts.of.items():
        total.add(plain(amount), currency)
    receipt["total"] = total.shown()
    receipt["predictions"] = [_summary(run) for run in predictions.values()]
    return receipt


def of_pending(asked: str, kind: str, view: Mapping[str, Any]) -> Json:
    """Build the receipt of what runs and has no record yet: what the agent sees of it, in `view`, and no sums."""
    return _receipt(asked, kind, Run()) | dict(view)


def _receipt(asked: str, kind: str, run: Run) -> Json:
    first, last = run.first or {}, run.last or {}
    timing = (
        {"start": first["timing"]["start"], "end": last["timing"]["end"], "clock": list(run.clock)} if last else None
    )
    billing = _billing(run)
    return {
        "id": asked,
        "kind": kind,
        "pending": not run.final,
        "pending_why": None,
        **{name: last.get(name) for name in _NAMES},
        "started_utc": first["interval"]["start_utc"] if first else None,
        "ended_utc": last["interval"]["end_utc"] if last else None,
        "boot_id": last["interval"]["boot_id"] if last else None,
        "time": dict(run.time),
        "phases": {},
        "timing": timing,
        "hardware": last.get("hardware"),
        "billing": billing,
        "total": {"amount": billing["amount"], "currency": billing["currency"]},
        "exit": None,
        "units": {name: plain(count) for name, count in run.units.items()},
        "attributes": last.get("attributes", {}),
        "labels": last.get("labels", {}),
        "resources": last.get("resources"),
        "concurrency": last.get("concurrency"),
        "predictions": [],
        "downstream": [],
        "records": run.records,
        "records_total": run.total,
        "node": last.get("node"),
    }


def _billing(run: Run) -> Json:
    lines = [_priced(key, quantity, amount) for key, (quantity, amount) in run.lines.items()]
    unrated = BillingStatus.UNRATED in run.statuses
    shown = {"amount": None, "currency": None} if unrated else run.amounts.shown()
    return {
        "status": BillingStatus.UNRATED.value if unrated else _strongest(run.statuses),
        **shown,
        "lines": lines,
        "corrections": run.corrections,
        "rate_cards": list(run.rate_cards),
        "reason": run.reason,
    }


def _strongest(statuses: Iterable[str]) -> str | None:
    """Name a run by its rated record, if it has one: an interval that costs nothing is `free` beside it."""
    found = list(statuses)
    return BillingStatus.RATED.value if BillingStatus.RATED in found else (found[-1] if found else None)


def _priced(key: tuple[str, ...], quantity: Decimal, amount: Decimal) -> Json:
    meter, unit, rate, multiplier, currency = key
    short = SHORT_UNITS.get(unit, unit)
    sums = {"quantity": plain(quantity), "amount": plain(amount)}
    text = f"{sums['quantity']} {short} × {rate} {currency}/{short} × {multiplier} = {sums['amount']} {currency}"
    return {
        "meter": meter,
        "unit": unit,
        "rate": rate,
        "multiplier": multiplier,
        "currency": currency,
        "text": text,
    } | sums


def _summary(run: Run) -> Json:
    first, last = run.first or {}, run.last or {}
    return {
        **{name: last.get(name) for name in ("prediction", "account", "model", "class", "status")},
        "pending": not run.final,
        "started_utc": first["interval"]["start_utc"] if first else None,
        "active_ns": run.time.get("active_ns", 0),
        "share_ns": run.time.get("share_ns", 0),
        **run.amounts.shown(),
    }


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
    }


def _exit(instance: Run) -> Json | None:
    value: Json | None = (instance.last or {}).get("exit")
    return value
