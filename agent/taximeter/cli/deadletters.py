"""`taximeter deadletters`: what a sink refused though it takes others: list it, have it tried again, or give it up.

Owns the look. Refuses to ship and to write: the agent does.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from taximeter.cli import text
from taximeter.cli.living import SourceError
from taximeter.cli.source import Source

Json = Mapping[str, Any]

#: So many records are named in one request.
_AT_ONCE = 100
_Sink = Annotated[str, typer.Argument(metavar="SINK", help="The sink that refused them.")]
_Records = Annotated[list[str] | None, typer.Argument(metavar="[RECORD]...", help="Ids of records, as `list` shows.")]
_All = Annotated[bool, typer.Option("--all", help="All that the sink refused.")]


def list_letters(
    sink: Annotated[str | None, typer.Argument(metavar="[SINK]", help="Only of this sink.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> int:
    """List the records that a sink refused, and why.

    They stay in the ledger, and the records behind them were shipped.
    """
    letters = Source(os.environ).dead_letters(sink)
    from taximeter.cli.sheet import Sheet, print_json  # noqa: PLC0415 - rich, only where something is shown

    if as_json:
        print_json(letters)
        return 0
    sheet = Sheet()
    sheet.title("DEAD LETTERS", text.plural(len(letters), "record"), "yellow" if letters else "green")
    for letter in letters:
        again = " (to be tried again)" if letter["again"] else ""
        sheet.row(text.safe(letter["sink"]), f"{text.safe(letter['id'])}{again}")
        sheet.row("", f"{letter['refused_utc'][:19]}Z {letter['reason']}: {text.safe(letter['said'])}")
    sheet.show()
    return 0


def retry(sink: _Sink, records: _Records = None, everything: _All = False) -> int:
    """Have refused records tried again: once the receiver was mended.

    What is refused again is a dead letter again. Needs the agent.
    """
    count = _treat("retry", sink, records or (), everything=everything)
    print(f"{text.plural(count, 'record')} to be tried again; `taximeter deadletters list` says what is refused still")
    return 0


def drop(sink: _Sink, records: _Records = None, everything: _All = False) -> int:
    """Give refused records up: this sink will never have them.

    They stay in the ledger, which gets a record that says so. Needs the agent.
    """
    count = _treat("drop", sink, records or (), everything=everything)
    print(f"{text.plural(count, 'record')} given up: the ledger keeps them, and says so")
    return 0


def _treat(deed: str, sink: str, records: Sequence[str], *, everything: bool) -> int:
    """Have it done; gives how many there were. Raises SourceError."""
    if bool(records) == everything:
        raise SourceError(f"cannot {deed} dead letters: expected the ids of records, or --all")
    source = Source(os.environ)
    if everything:
        return int(source.treat_letters({"do": deed, "sink": sink})["records"])
    named = [list(records[at : at + _AT_ONCE]) for at in range(0, len(records), _AT_ONCE)]
    count: int = sum(source.treat_letters({"do": deed, "sink": sink, "records": ids})["records"] for ids in named)
    if unknown := len(set(records)) - count:
        print(f"taximeter: {unknown} of these are no dead letters of {text.safe(sink)}", file=sys.stderr)
    return count
