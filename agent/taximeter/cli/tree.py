"""Calls of calls on a sheet: who called a run, whom it called as a tree with time and cost of each, and what is owed.

Owns what is said of a tree, and in which words. Where each call stands on paper is for cli.branches. Computes no
amount: each node's and all sums are the receipt's, to the last digit. Refuses to know the rest of a receipt.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taximeter.cli import text

if TYPE_CHECKING:
    from taximeter.cli.paper import Paper
    from taximeter.cli.sheet import Sheet

Json = Mapping[str, Any]

_LISTED = 8
_ENDED = {"failed": "failed", "canceled": "was canceled", "aborted": "the platform aborted"}


def place(found: Json, sheet: "Sheet | Paper") -> None:
    """Write who called a run: its parent, the first of all, and the way from there."""
    tree = found.get("tree")
    path = tree["path"] if tree else ()
    here = {step["prediction"] for step in path if step["link"] != "elsewhere"}
    for name in ("parent", "root"):
        other = found[name]
        if other and other != found["prediction"]:
            absent = " (no record of it here)" if tree and other not in here else ""
            sheet.row(name, f"{text.safe(other)}{absent}")
    if len(path) > 1:
        sheet.row("path", _way([step["prediction"] for step in path]))
    if tree and not has_downstream(tree):
        _notes(tree, sheet)


def downstream(found: Json, sheet: "Sheet | Paper") -> None:
    """Write whom a run called, and they in turn, what each of them came to, and what is owed."""
    tree = found.get("tree")
    if not tree or not has_downstream(tree):
        return
    from taximeter.cli import branches  # noqa: PLC0415 - rich, only where something is shown

    sheet.section(f"Downstream ({tree['downstream']['predictions']:,})")
    sheet.tree(*branches.drawn(tree))
    for currency, amount in tree["total"]["amounts"].items():
        sheet.total("TOTAL with downstream", f"{text.safe(amount)} {text.safe(currency)}")
    sheet.blank()
    _payers(tree["payers"], sheet)
    _owed(found["status"], tree, sheet)
    _notes(tree, sheet)
    sheet.close_up()


def has_downstream(tree: Json) -> bool:
    """Whether it called anybody."""
    return len(tree["nodes"]) > 1 or tree["more"] > 0


def money(sums: Json) -> str:
    """What some predictions come to: `0.1 USD`, `0.1 USD and 2 EUR`, `nothing`."""
    shown = [f"{text.safe(amount)} {text.safe(currency)}" for currency, amount in sums["amounts"].items()]
    return " and ".join(shown) or "nothing"


def _way(names: list[str]) -> str:
    steps = [text.shorten(name, 24) for name in names]
    if len(steps) > 5:
        steps[2:-2] = [f"… {len(steps) - 4:,} more …"]
    return " › ".join([*steps, "this one"])


def _payers(payers: list[Json], sheet: "Sheet | Paper") -> None:
    """Say whose bill it is, where it is not one account's."""
    if len(payers) < 2:
        return
    for at, payer in enumerate(payers[:_LISTED]):
        name = "none named" if payer["account"] is None else text.safe(payer["account"])
        sheet.leader("" if at else "charged to", f"{name}  {text.plural(payer['predictions'], 'run')}", money(payer))
    if len(payers) > _LISTED:
        sheet.row("", f"and {len(payers) - _LISTED:,} more accounts: --json lists them")


def _owed(status: str | None, tree: Json, sheet: "Sheet | Paper") -> None:
    own, below = tree["own"], tree["downstream"]
    runs = text.plural(below["predictions"], "downstream run")
    if status in _ENDED:
        its = f"its run, which {_ENDED[str(status)]},"
        own_part = f"{its} is billed with its instance," if own["informative"] else f"{money(own)} for {its}"
        sheet.row("owed", f"{own_part} and {money(below)} for {runs}", "red")
    for name, one, many in (
        ("pending", "still runs, and accrues", "still run, and accrue"),
        (
            "informative",
            "is billed with its instance, and not in these sums",
            "are billed with their instances, and not in these sums",
        ),
        ("unrated", "has no price, and none is guessed", "have no price, and none is guessed"),
    ):
        if below[name]:
            sheet.row(name, f"{below[name]:,} of {runs} {one if below[name] == 1 else many}", "yellow")


def _notes(tree: Json, sheet: "Sheet | Paper") -> None:
    """Say what is worth a look; whose bill a call is, the payers above have said."""
    notes = [finding for finding in tree["findings"] if finding["kind"] != "account"]
    for note in notes[:_LISTED]:
        sheet.row(
            note["kind"].replace("_mismatch", ""), f"{text.shorten(note['prediction'], 36)} {note['text']}", "yellow"
        )
    total = sum(count for kind, count in tree["findings_total"].items() if kind != "account")
    if total > _LISTED:
        sheet.row("", f"and {total - min(len(notes), _LISTED):,} more: --json lists them")
