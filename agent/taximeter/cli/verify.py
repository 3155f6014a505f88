"""`taximeter verify`: audits the ledger and names every fault.

Owns the report. Refuses to audit: the ledger's audit does, and it reads only.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter.cli import text
from taximeter.cli.progress import progress
from taximeter.cli.source import Source

if TYPE_CHECKING:
    from taximeter.cli.sheet import Sheet

#: So many of a kind are shown.
_NOTES = 4


def verify(
    checkpoint: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A checkpoint that was kept elsewhere; may be repeated.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="BASE64", help="The public key that is to have signed every checkpoint.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes to do it with: one a core, if not said.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Audit the ledger and name every fault.

    Checks hashes and chain, numbering, checkpoints and their signatures, what records are found by, the tiling of every
    run, sums of time and money. Exits 1 if there is a fault. A cut at the end shows by a checkpoint kept elsewhere: its
    note, or the record that it was shipped as.
    """
    source = Source(os.environ)
    held = [_note(path) for path in checkpoint or ()]
    with progress("verifying", source.newest) as passed:
        report = source.verify(held, key, passed, jobs)
    from taximeter.cli.sheet import Sheet, print_json  # noqa: PLC0415 - rich, only where something is shown

    if as_json:
        print_json(report)
    else:
        sheet = Sheet()
        write(report, str(source.directories.ledger), sheet)
        sheet.show()
    return 0 if report["ok"] else 1


def _note(path: Path) -> str:
    """The note in a file: itself, or in the record, or the memory, that has it."""
    said = path.read_text(encoding="utf-8", errors="replace")
    try:
        found = json.loads(said)
        note = found["data"]["note"] if "data" in found else found["note"]
    except (ValueError, TypeError, KeyError):
        return said
    return str(note)


def write(report: Mapping[str, Any], ledger: str, sheet: "Sheet") -> None:
    """Write the report on a sheet."""
    faults = report["faults"]
    verdict, style = ("sound", "green") if report["ok"] else (text.plural(len(faults), "fault"), "red")
    sheet.title("TAXIMETER AUDIT", verdict, style)
    sheet.row("ledger", ledger)
    sheet.row("records", f"{report['records']:,}")
    if report["ok"]:
        sheet.row(
            "checked",
            "hashes and chain, numbering, checkpoints, what records are found by, tiling of every run, sums of phases "
            "and of money",
        )
    else:
        sheet.section("Faults")
    for fault in faults:
        where = f"record {fault['seq']}" if fault.get("seq") is not None else "ledger"
        which = f" [{text.safe(fault['id'])}]" if fault.get("id") else ""
        sheet.row(where, text.safe(fault["what"]) + which)
    _notes(report, sheet)


def _notes(report: Mapping[str, Any], sheet: "Sheet") -> None:
    """Say what is worth a look in who called whom, which is no fault: a parent may have run on another node."""
    totals = report["notes_total"]
    if not totals:
        return
    sheet.section(f"Who called whom ({text.plural(sum(totals.values()), 'note')}, no fault)")
    for kind, count in totals.items():
        notes = [note for note in report["notes"] if note["kind"] == kind][:_NOTES]
        for at, note in enumerate(notes):
            named = f"{text.shorten(note['prediction'], 36)} {note['text']}"
            sheet.row("" if at else kind.replace("_mismatch", ""), named)
        if count > len(notes):
            sheet.row("", f"and {count - len(notes):,} more: --json lists them")
