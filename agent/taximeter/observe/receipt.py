"""Explains one run: builds a receipt from its records. Pure; whoever prints it only lays it out.

A receipt is a JSON-able dict, the same for a prediction and for an instance (what a kind lacks is null or empty):

    id, kind                what was asked for; "prediction" or "instance"
    pending                 true until the final record is in the ledger
    pending_why             a sentence for people, or null
    prediction, instance, parent, root, account, model, version, class, pool, traceparent
    accounts, instances     all that its records name, in order; above (and in phases, exit) is the last of them
    runs                    how many bear this id: 1, unless a prediction's id was used again
    status                  processing, succeeded, failed, canceled, aborted; null before the first record
    started_utc, ended_utc  RFC 3339; ended_utc is where the records end so far
    boot_id
    time                    summed over its records: wall_ns, then load_ns active_ns share_ns (prediction) or boot_ns
                            idle_ns active_ns teardown_ns (instance), suspended_ns, unknown_ns; {} before the first
    phases                  the instance's own `time` (of a prediction's receipt too), {} while it has no record
    timing                  {"start": {"source", "uncertainty_ns"}, "end": {…}, "clock": [what was wrong, …],
                            "utc_uncertainty_ns"}, or null
    hardware                as in the record: tier, count, devices, evidence, rule (why this tier); or null
    billing                 {"status", "amount", "currency", "lines", "corrections", "rate_cards", "reason"}: amount is
                            exact, over all records, corrections included; null where unrated or unknown
      lines[]               {"meter", "quantity", "unit", "rate", "multiplier", "amount", "currency", "text"}; text is
                            the arithmetic: "0.412 s × 0.0001 USD/s × 1 = 0.0000412 USD"
      corrections[]         {"id", "reason", "corrects", "amount", "currency", "lines"}: signed, beside the lines above
    total                   {"amount", "currency", "meters"}: of an instance with its predictions, else its own;
                            meters name what was charged for: share, boot, …; and "invoiced", the amount as it is
                            rounded to be paid, where the configuration says how
    exit                    the instance's: {"code", "signal", "oom", "reason", "left_running", …}, or null
    resources               processor time and energy summed over its records, peaks of all of them; null: not known
    units, attributes, labels, concurrency
    predictions[]           on an instance: {"prediction", "account", "model", "class", "status", "pending",
                            "started_utc", "active_ns", "share_ns", "amount", "currency"}; at most LISTED_MAX
    downstream[]            the same, of the predictions that this one led to, as `tree` lists them
    tree                    who called whom, with sums: see observe/tree.py; null on an instance, and where nobody asked
    records[]               {"id", "type", "seq", "hash", "final", "start_utc", "end_utc", "amount",
                            "currency"}; at most LISTED_MAX
    records_total           how many there are
    node                    {"id", "region", "software", "config"} as of the last record, or null

LISTED_MAX is in sums, which does the adding up. Owns this shape. Refuses to read and to price: every amount is the
ledger's.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from taximeter.billing.invoice import Rounding, invoiced
from taximeter.billing.money import plain
from taximeter.observe import tree
from taximeter.observe.calling import Calls
from taximeter.observe.sums import Json, Run, Sum
from taximeter.records import BillingStatus

_NAMES = (
    *("prediction", "instance", "parent", "root", "account", "model", "version", "class", "pool"),
    *("traceparent", "status"),
)


def of_prediction(asked: str, own: Run, instance: Run, calls: Calls | None = None) -> Json:
    """Build the receipt of a prediction that has records."""
    receipt = _receipt(asked, "prediction", own) | _called(asked, calls)
    receipt["phases"] = dict(instance.time)
    receipt["exit"] = _exit(instance)
    return receipt


def of_instance(asked: str, own: Run, predictions: Mapping[str, Run], of_predictions: Sum) -> Json:
    """Build the receipt of an instance that has records, its own or its predictions'."""
    receipt = _receipt(asked, "instance", own) | {"instance": asked, "exit": _exit(own)}
    receipt |= {"instances": [asked], "runs": 1}
    receipt["phases"] = dict(own.time)
    total = Sum(dict(of_predictions.of))
    for currency, amount in own.amounts.of.items():
        total.add(plain(amount), currency)
    receipt["total"] = total.shown() | {"meters": _meters(own, *predictions.values())}
    receipt["predictions"] = [_summary(run) for run in predictions.values()]
    return receipt


def of_pending(asked: str, kind: str, view: Mapping[str, Any], calls: Calls | None = None) -> Json:
    """Build the receipt of what runs and has no record yet: what the agent sees of it, in `view`, and no sums."""
    named = {"accounts": [view["account"]] if view["account"] else [], "instances": [view["instance"]], "runs": 1}
    return _receipt(asked, kind, Run()) | named | dict(view) | _called(asked, calls)


def _called(asked: str, calls: Calls | None) -> Json:
    told = None if calls is None else tree.told(calls, asked)
    return {"tree": told, "downstream": [] if told is None else tree.below(told)}


def with_invoiced(total: Json, rules: Mapping[str, Rounding]) -> Json:
    """Add to a total how much of it is to be paid, where that is said of its currency."""
    if total["amount"] is None:
        return total
    rounded = invoiced(Decimal(total["amount"]), total["currency"], rules)
    return total if rounded is None else total | {"invoiced": f"{rounded:f}"}


def _receipt(asked: str, kind: str, run: Run) -> Json:
    first, last = run.first or {}, run.last or {}
    timing = _timing(run, first["timing"], last["timing"]) if last else None
    billing = _billing(run)
    return {
        "id": asked,
        "kind": kind,
        "pending": not run.final,
        "pending_why": None,
        **{name: last.get(name) for name in _NAMES},
        "accounts": list(run.accounts),
        "instances": list(run.instances),
        "runs": run.runs,
        "started_utc": first["interval"]["start_utc"] if first else None,
        "ended_utc": last["interval"]["end_utc"] if last else None,
        "boot_id": last["interval"]["boot_id"] if last else None,
        "time": dict(run.time),
        "phases": {},
        "timing": timing,
        "hardware": last.get("hardware"),
        "billing": billing,
        "total": {"amount": billing["amount"], "currency": billing["currency"], "meters": _meters(run)},
        "exit": None,
        "units": {name: plain(count) for name, count in run.units.items()},
        "attributes": last.get("attributes", {}),
        "labels": last.get("labels", {}),
        "resources": run.resources,
        "concurrency": run.concurrency,
        "predictions": [],
        "downstream": [],
        "tree": None,
        "records": run.records,
        "records_total": run.total,
        "node": last.get("node"),
    }


def _timing(run: Run, first: Json, last: Json) -> Json:
    utc_uncertainty_ns = last.get("utc_uncertainty_ns")  # the last word on all labels; older records have none
    return {
        "start": first["start"],
        "end": last["end"],
        "clock": list(run.clock),
        "utc_uncertainty_ns": utc_uncertainty_ns,
    }


def _billing(run: Run) -> Json:
    unrated = BillingStatus.UNRATED in run.statuses
    shown = {"amount": None, "currency": None} if unrated else run.amounts.shown()
    status = BillingStatus.UNRATED.value if unrated else _strongest(run.statuses)
    return {
        "status": status,
        **shown,
        "lines": run.price_lines,
        "corrections": run.corrections,
        "rate_cards": list(run.rate_cards),
        "reason": None if status == BillingStatus.RATED else run.reason,
    }


def _strongest(statuses: Iterable[str]) -> str | None:
    """Name a run by its rated record, if it has one: an interval that costs nothing is `free` beside it."""
    found = list(statuses)
    return BillingStatus.RATED.value if BillingStatus.RATED in found else (found[-1] if found else None)


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


def _meters(*runs: Run) -> list[str]:
    return list(dict.fromkeys(line[0] for run in runs for line in run.lines))


def _exit(instance: Run) -> Json | None:
    value: Json | None = (instance.last or {}).get("exit")
    return value
