"""A run in one line, for the terminal that it ran in. Pure.

Owns what the line says of a receipt: how long, how it ended, on what, for how much, and who saw it. Refuses to compute:
times and amounts are the receipt's, and an amount that is shortened says so.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from taximeter.billing.money import plain
from taximeter.observe.words import WITNESSES, exit_text, refused, safe

_S = 1_000_000_000
_PHASES = ("boot", "idle", "active", "teardown", "suspended", "unknown")
_DIGITS = Context(prec=4, rounding=ROUND_HALF_EVEN)


def line_of(receipt: Mapping[str, Any], refused_marks: Mapping[str, int]) -> str:
    """Tell the final receipt of an instance or a prediction in one line; and how many marks had no effect, and why."""
    parts = [_ran(receipt), _ended(receipt), _on(receipt), _cost(receipt), _seen(receipt), _of_how_many(receipt)]
    if refused_marks:
        parts.append(refused(refused_marks))
    return " · ".join(part for part in parts if part)


def _ran(receipt: Mapping[str, Any]) -> str:
    """The whole, and its phases unless it was active all along."""
    phases = receipt["phases"]
    told = [(name, phases[f"{name}_ns"]) for name in _PHASES if phases.get(f"{name}_ns")]
    whole = f"ran {_seconds(phases.get('wall_ns', 0))}"
    parts = ", ".join(f"{name} {_seconds(ns)}" for name, ns in told)
    return whole if not told or [name for name, _ in told] == ["active"] else f"{whole} ({parts})"


def _ended(receipt: Mapping[str, Any]) -> str:
    end, status = receipt["exit"] or {}, receipt["status"]
    said = exit_text(end).replace("status ", "exit ", 1)
    if end.get("ready") is False:
        said += ", never ready"
    return f"{said}, {status}" if status in ("canceled", "aborted") else said


def _on(receipt: Mapping[str, Any]) -> str:
    return safe((receipt["hardware"] or {}).get("tier"))


def _cost(receipt: Mapping[str, Any]) -> str:
    total = receipt["total"]
    if total["amount"] is None:
        return _no_cost(receipt)
    meters = f" ({', '.join(map(safe, total['meters']))})" if total["meters"] else ""
    exact = Decimal(total["amount"])
    short = _DIGITS.plus(exact)
    return f"{'' if short == exact else '≈ '}{plain(short)} {safe(total['currency'])}{meters}"


def _no_cost(receipt: Mapping[str, Any]) -> str:
    if receipt["kind"] == "prediction":
        return "billed with its instance" if receipt["billing"]["status"] == "informative" else "no price"
    return "no price" if receipt["predictions"] or receipt["billing"]["status"] == "unrated" else "nothing billed"


def _seen(receipt: Mapping[str, Any]) -> str:
    timing = receipt["timing"]
    start, end = (WITNESSES.get(timing[end]["source"], safe(timing[end]["source"])) for end in ("start", "end"))
    return end if start == end else f"start {start}, end {end}"


def _of_how_many(receipt: Mapping[str, Any]) -> str:
    return f"the last of {receipt['runs']} runs that bear this id" if receipt["runs"] > 1 else ""


def _seconds(duration_ns: int) -> str:
    return f"{duration_ns / _S:.3f} s"
