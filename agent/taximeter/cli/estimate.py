"""`taximeter estimate`: what a run of a model takes and costs, by what its runs took so far.

Owns how an estimate looks, and what is said of its limits: too few runs, other hardware, quantiles that are rounded.
Refuses to estimate (observe/estimate).
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter.cli import text
from taximeter.cli.source import Source

if TYPE_CHECKING:
    from taximeter.cli.sheet import Sheet

Json = Mapping[str, Any]

_PERCENTS = ("p5", "p50", "p95")
_HEADS = ("5 %", "median", "95 %", "mean")
_LISTED = 8


def estimate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As its runs name it.")],
    version: Annotated[str | None, typer.Option("--version", metavar="V", help="Only this version of it.")] = None,
    tier: Annotated[str | None, typer.Option("--tier", metavar="T", help="Only this hardware tier.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Tell what a run of a model takes and costs.

    It is told from the runs of this node that succeeded. Exits 1 where there is none: then nothing is guessed.
    """
    if not model:
        raise typer.BadParameter("expected the name of a model, got an empty word")
    source = Source(os.environ)
    told = source.estimate(model, version, tier)
    source.complain()
    known = any(kind["succeeded"] for kind in told["kinds"])
    from taximeter.cli.sheet import Sheet, print_json  # noqa: PLC0415 - rich, only where something is shown

    if as_json:
        print_json(told)
    elif known:
        sheet = Sheet()
        write(told, sheet)
        sheet.show()
    else:
        print(f"taximeter: {_nothing(told)}", file=sys.stderr)
    return 0 if known else 1


def _nothing(told: Json) -> str:
    """Say that there is nothing to tell from, and of what there would be."""
    of = text.safe(told["model"]) + (f", version {text.safe(told['version'])}," if told["version"] else "")
    ended = sum(kind["ended"] for kind in told["kinds"])
    if ended:
        return f"cannot estimate {of}: expected a run that succeeded, got {text.plural(ended, 'run')} that did not"
    names = told["models"]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    others = (
        f"runs are known of {', '.join(map(text.safe, names[:_LISTED]))}{more}" if names else "none is known of any"
    )
    price = f"; its price is {'; '.join(map(text.safe, told['price']))}" if told["price"] else ""
    return f"cannot estimate {of}: expected a run of it on this node, got none ({others}){price}"


def write(told: Json, sheet: "Sheet") -> None:
    """Write an estimate on a sheet."""
    runs = sum(kind["succeeded"] for kind in told["kinds"])
    sheet.title("TAXIMETER ESTIMATE", f"of {text.plural(runs, 'run')}", "yellow" if told["thin"] else "green")
    sheet.row("model", told["model"] + (f", version {told['version']}" if told["version"] else ""))
    for at, price in enumerate(told["price"]):
        sheet.row("price" if at == 0 else "", price)
    if told["published"]:
        sheet.row("published", f"on {text.safe(told['published'])}")
    if told["calls"]:
        sheet.row("calls", text.listed(told["calls"]))
    if told["thin"]:
        sheet.row(
            "thin", f"{text.plural(runs, 'run')}: too few to tell how it is spread, so take it with care", "yellow"
        )
    if told["tier"] and told["tier"] not in {kind["tier"] for kind in told["kinds"]}:
        what_if = told["kinds"][0]["what_if"] if told["kinds"] else ()
        is_priced = any(other["tier"] == told["tier"] and "p50" in other for other in what_if)
        more = ": see what if, below" if is_priced else ", and nothing says what it would cost there"
        sheet.row("tier", f"no run of it on {text.safe(told['tier'])} here{more}", "yellow")
    for at, kind in enumerate(told["kinds"]):
        _kind(kind, told, sheet)
        if at == 0:  # those of which most is known; --json tells it of all
            _what_if(kind["what_if"], sheet)
    if told["kinds_more"]:
        sheet.row("", f"and {told['kinds_more']} more versions and tiers: narrow it with --version or --tier")
    sheet.blank()
    within = f"within {float(told['within']) * 100:.2g} %"
    sheet.row("note", f"quantiles are {within}; of predictions that succeeded on this node", "dim")


def _kind(kind: Json, told: Json, sheet: "Sheet") -> None:
    version = f", version {text.safe(kind['version'])}" if kind["version"] else ""
    sheet.section(f"{text.safe(kind['tier'])}{version}")
    since = f"since {text.instant(kind['first_utc'])[:16]} UTC"
    sheet.row("runs", f"{kind['succeeded']:,} of {kind['ended']:,} succeeded, {since}")
    if not kind["succeeded"]:
        return
    if kind["thin"] and not told["thin"]:
        sheet.row("thin", "too few to tell how it is spread", "yellow")
    rows = [("time", _times(kind["active"]))]
    if kind["share"] != kind["active"]:
        rows.append(("share", _times(kind["share"])))
    rows += [(name, _numbers(spread)) for name, spread in kind["units"].items()]
    rows += [(f"billed, {cost['currency']}", _numbers(cost)) for cost in kind["cost"]]
    expected = kind["expected"] or {}
    if "p50" in expected:
        rows.append((f"by the card, {expected['currency']}", [expected[name] for name in _PERCENTS] + [""]))
    _table(rows, sheet)
    for line in expected.get("lines") or ():
        sheet.row("median", line)
    if "reason" in expected:
        sheet.row("by the card", f"no price: {text.safe(expected['reason'])}", "yellow")


def _what_if(others: Sequence[Json], sheet: "Sheet") -> None:
    """What it would cost on other hardware, which nobody has tried."""
    priced = [other for other in others if "p50" in other]
    if not priced:
        return
    sheet.blank()
    sheet.row("what if", "on another tier, if it took the same time there, which was not measured", "dim")
    rows = [(f"{other['tier']}, {other['currency']}", [other[name] for name in _PERCENTS] + [""]) for other in priced]
    _table(rows, sheet, heads=False)


def _times(spread: Json) -> list[str]:
    return [text.duration(spread[name]) for name in ("p5_ns", "p50_ns", "p95_ns", "mean_ns")]


def _numbers(spread: Json) -> list[str]:
    return [text.safe(spread[name]) for name in (*_PERCENTS, "mean")]


def _table(rows: Sequence[tuple[str, Sequence[str]]], sheet: "Sheet", *, heads: bool = True) -> None:
    from rich.text import Text  # noqa: PLC0415

    from taximeter.cli.sheet import Column, table  # noqa: PLC0415

    columns = [Column("", tuple(text.shorten(name, 26) for name, _ in rows))]
    columns += [
        Column(head if heads else "", tuple(cells[at] for _, cells in rows), rank=at, right=True)
        for at, head in enumerate(_HEADS)
    ]
    lines = table(columns, sheet.width - 1)
    sheet.lines += [Text(" ").append_text(line) for line in (lines if heads else lines[1:])]
