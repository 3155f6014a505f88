"""Writes how a node is as JSON-able values: what runs, its pools, prices in force, sinks.

Owns the keys of those answers. Refuses to ask: it is told.
"""

from dataclasses import asdict, replace
from typing import Any

from taximeter.ledger.values import POOL_PHASES, PoolTime
from taximeter.observe.snapshot import InstanceView, SinkView, Snapshot
from taximeter.records import utc_text

Json = dict[str, Any]


def by_phase(view: Snapshot) -> Json:
    """Count what runs by its phase."""
    phases: Json = {}
    for instance in view.instances:
        phases[instance.phase] = phases.get(instance.phase, 0) + 1
    return phases


def instance_view(view: InstanceView) -> Json:
    """Tell of an instance that runs, with its open predictions."""
    written = _with_class(asdict(replace(view, predictions=())))
    written["predictions"] = [_with_class(asdict(prediction)) for prediction in view.predictions]
    return written


def _with_class(written: Json) -> Json:
    written["class"] = written.pop("service_class")
    return written


def pool_view(name: str, used: PoolTime, since_utc: str) -> Json:
    """Tell how a pool was used since then.

    What is sold may exceed what ran: where predictions are billed by their active time, and overlap.
    """
    sold = used.sold - used.returned
    return {
        "pool": name,
        "since_utc": since_utc,
        "wall_ns": used.wall,
        **{f"{part}_ns": getattr(used, part) for part in (*POOL_PHASES, "load")},
        "sold_ns": sold,
        "sold_ratio": round(sold / used.wall, 4) if used.wall else None,
    }


def rates_view(view: Snapshot) -> Json:
    """Say which prices are in force, and how the list that they come from is doing."""
    card, listed = view.card, view.price_list
    shown = None
    if listed is not None:
        shown = {
            "url": listed.url,
            "tag": listed.tag,
            "checked_utc": _utc(listed.checked_unix_s),
            "last_error": listed.last_error,
        }
    if card is None:
        return {"version": None, "effective": None, "currency": None, "models": 0, "hash": None, "list": shown}
    return {
        "version": card.version,
        "effective": utc_text(card.effective_utc_ns),
        "currency": card.currency,
        "models": len(card.models),
        "hash": card.hash,
        "list": shown,
    }


def _utc(unix_s: float | None) -> str | None:
    return None if unix_s is None else utc_text(int(unix_s * 1e9))


def sink_view(view: SinkView) -> Json:
    """Tell how far a sink has come."""
    names = ("name", "kind", "pending", "shipped", "last_error", "dead_letters")
    return {name: getattr(view, name) for name in names} | {"failures": dict(view.failures)}
