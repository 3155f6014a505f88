"""`taximeter receipt`: one run explained, as a passenger would have it explained.

Owns the order of a receipt's parts, who rode, each price with its arithmetic, and the total. What was measured is laid
out by cli.ride, who called whom by cli.tree. Computes no amount: all of them are the ledger's, to the last digit.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter.cli import ride, text, tree
from taximeter.cli.source import Source

if TYPE_CHECKING:
    from taximeter.cli.paper import Paper
    from taximeter.cli.sheet import Sheet

Json = Mapping[str, Any]

_LISTED = 8


def receipt(
    asked: Annotated[str, typer.Argument(metavar="PREDICTION|INSTANCE", help="Whose ride: an id from the records.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    as_page: Annotated[bool, typer.Option("--html", help="Print it as a page: > receipt.html")] = False,
) -> int:
    """Explain one run: timeline, hardware, prices, witness."""
    if as_json and as_page:
        raise typer.BadParameter("expected --json or --html, got both")
    if not asked:
        raise typer.BadParameter("expected the id of a prediction or an instance, got an empty word")
    source = Source(os.environ)
    found = source.receipt(asked)
    source.complain()
    if found is None:
        print(f"taximeter: {_unknown(asked, source)}", file=sys.stderr)
        return 1
    from taximeter.cli.sheet import Sheet, print_json  # noqa: PLC0415 - rich, only where something is shown

    if as_json:
        print_json(found)
        return 0
    if as_page:
        from taximeter.cli.paper import Paper  # noqa: PLC0415

        paper = Paper()
        write(found, paper)
        sys.stdout.write(paper.page(found))
        return 0
    sheet = Sheet()
    write(found, sheet)
    sheet.show()
    return 0


def write(found: Json, sheet: "Sheet | Paper") -> None:
    """Write a receipt on a sheet, or on paper."""
    status = "pending" if found["status"] is None else found["status"]
    sheet.title("TAXIMETER RECEIPT", text.safe(status), text.STATUS_STYLES.get(status, "yellow"))
    if found["pending"]:
        sheet.row("pending", found["pending_why"], "yellow")
    _who(found, sheet)
    ride.ride(found, sheet)
    ride.hardware(found.get("hardware"), sheet)
    _price(found, sheet)
    _others("Predictions", found["predictions"], sheet)
    tree.downstream(found, sheet)
    ride.evidence(found, sheet)


def _who(found: Json, sheet: "Sheet | Paper") -> None:
    if found["prediction"]:
        sheet.row("prediction", found["prediction"])
    accounts, instances, runs = found.get("accounts") or (), found.get("instances") or (), found.get("runs") or 1
    sheet.row("instance" if len(instances) < 2 else "instances", _listed(instances) or found["instance"])
    if runs > 1:
        on = text.plural(len(instances), "instance")
        last = "; phases and exit are of the last" if len(instances) > 1 else ""
        sheet.row("runs", f"{runs:,} runs on {on} bear this id{last}", "yellow")
    tree.place(found, sheet)
    sheet.row("account", _listed(accounts) or found["account"] or "none named")
    if found["model"] or found["version"]:
        version = f", version {text.safe(found['version'])}" if found["version"] else ""
        sheet.row("model", text.safe(found["model"]) + version)
    pool = f", pool {text.safe(found['pool'])}" if found["pool"] else ""
    sheet.row("class", text.safe(found["class"]) + pool)
    node = found["node"]
    if node:
        region = f", {text.safe(node['region'])}" if node.get("region") else ""
        sheet.row("node", text.safe(node["id"]) + region)
    for name in ("labels", "attributes", "units"):
        if found[name]:
            sheet.row(name, ", ".join(f"{text.safe(key)} {text.safe(value)}" for key, value in found[name].items()))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _LISTED} more: --json lists them" if len(names) > _LISTED else ""
    return ", ".join(map(text.safe, names[:_LISTED])) + more


def _price(found: Json, sheet: "Sheet | Paper") -> None:
    billing = found["billing"]
    sheet.section("Price")
    if billing["status"] in ("unrated", "free", "informative", None):
        meaning = {
            "unrated": "unrated: no price was found, and none is guessed",
            "free": "nothing is due",
            "informative": "billed with its " + ("instance" if found["kind"] == "prediction" else "predictions"),
            None: "not known yet",
        }[billing["status"]]
        sheet.row("status", meaning + (f" ({text.safe(billing['reason'])})" if billing.get("reason") else ""))
    for line in billing["lines"]:
        left, _, right = line["text"].rpartition(" = ")
        sheet.leader(text.safe(line["meter"]), text.safe(left), text.safe(right))
    for correction in billing["corrections"]:
        _correction(correction, sheet)
    total = found["total"]
    if total["amount"] is not None:
        sheet.total("TOTAL", f"{text.safe(total['amount'])} {text.safe(total['currency'])}")
    if total.get("invoiced") is not None:
        sheet.leader("invoiced", "rounded", f"{text.safe(total['invoiced'])} {text.safe(total['currency'])}")


def _correction(correction: Json, sheet: "Sheet | Paper") -> None:
    """Write why something was corrected, and each of its lines, which add up to what that comes to."""
    reason = text.safe(correction["reason"])
    for line in correction["lines"]:
        left, _, right = line["text"].rpartition(" = ")
        sheet.leader(
            "correction", f"{reason}: {text.safe(line['meter'])} {text.safe(left)}", text.safe(right), "magenta"
        )
    if not correction["lines"]:
        known = correction["amount"] is not None
        amount = f"{text.safe(correction['amount'])} {text.safe(correction['currency'])}" if known else "no money"
        sheet.leader("correction", reason, amount, "magenta")


def _others(name: str, runs: Iterable[Json], sheet: "Sheet | Paper") -> None:
    runs = list(runs)
    if not runs:
        return
    sheet.section(f"{name} ({len(runs)})")
    for run in runs[:_LISTED]:
        amount = "–" if run["amount"] is None else f"{text.safe(run['amount'])} {text.safe(run['currency'])}"
        left = f"{text.safe(run['prediction'])}  {text.duration(run['active_ns'])}"
        sheet.leader(text.safe(run["status"]), left, amount)
    if len(runs) > _LISTED:
        sheet.row("", f"and {len(runs) - _LISTED} more: --json lists them all")


def _unknown(asked: str, source: Source) -> str:
    """Say why there is no receipt; what no agent has booked may still wait in a journal."""
    journal, silent = source.directories.journal, source.agent is not None and source.complaint is not None
    if "/" not in asked and (journal / f"{asked[:200]}.0.ndjson").exists():
        remedy = "the agent does not answer" if silent else "start `taximeter agent`"
        return f"{text.safe(asked)} is measured, but nobody has booked it yet: {remedy}"
    said = text.safe(source.unknown)
    if not said.startswith("cannot "):
        said = f"cannot find {text.safe(asked)!r}: {said}"  # an agent of another version says it in other words
    if (source.agent is not None and not silent) or not _waits(journal):
        return said
    who = "the agent does not answer" if silent else "no agent runs"
    remedy = "`taximeter status` says more" if silent else "start one with `taximeter agent`"
    return f"{said}; {who}, and it may be waiting in a journal: {remedy}"


def _waits(journal: Path) -> bool:
    """Tell whether any journal is there to be booked; a user who may not list them is told nothing of others' runs."""
    try:
        return any(name.endswith(".ndjson") for name in os.listdir(journal))
    except OSError:
        return False
