"""`taximeter export`: the ledger, or a part of it, for whoever keeps or checks it elsewhere.

Owns the file: whole or not there. Lines of JSON are the stored bytes, which the chain of hashes covers. Refuses to
choose records: the ledger does.
"""

import contextlib
import csv
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from taximeter.cli.options import choices, one_of
from taximeter.cli.progress import progress
from taximeter.cli.records import CSV_COLUMNS, Kind, csv_row, since_text
from taximeter.cli.source import Source

#: The progress is drawn again after so many records.
_STEP = 500


class Format(StrEnum):
    """How records are written."""

    NDJSON = "ndjson"
    CSV = "csv"


def export(  # noqa: PLR0913, PLR0917 - one parameter an option
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to: there once it is whole.")
    ] = None,
    how: Annotated[
        Format, typer.Option("--format", parser=one_of(Format), metavar=choices(Format), help="How to write them.")
    ] = Format.NDJSON,
    since: Annotated[
        str | None, typer.Option(help="Begun since: 90s, 15m, 2h, 7d, or a UTC time.", metavar="WHEN")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Begun before that, likewise.", metavar="WHEN")] = None,
    account: Annotated[str | None, typer.Option(help="Of this account.", metavar="NAME")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model.", metavar="NAME")] = None,
    kind: Annotated[
        Kind | None, typer.Option("--type", parser=one_of(Kind), metavar=choices(Kind), help="Of this type.")
    ] = None,
) -> int:
    """Write the ledger, or a part of it, as JSON lines or CSV.

    In the ledger's order. JSON lines are the very bytes that the ledger's hashes cover. To standard output, unless a
    file is named.
    """
    now_ns = time.time_ns()
    said = {
        "since": None if since is None else since_text(since, now_ns),
        "account": account,
        "model": model,
        "type": kind and kind.value,
    }
    before = None if until is None else since_text(until, now_ns)
    source = Source(os.environ)
    bodies = source.records({name: value for name, value in said.items() if value is not None}, None)
    write: Callable[[Iterable[bytes], BinaryIO], int] = _lines if how is Format.NDJSON else _csv
    if output is None:
        write(_earlier(bodies, before), sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return 0
    with whole(output) as file, progress("exporting", lambda: source.status()["ledger"]["seq"]) as passed:
        count = write(_watched(_earlier(bodies, before), passed), file)
    print(f"{count:,} records in {output}", file=sys.stderr)
    return 0


def _earlier(bodies: Iterable[bytes], before: str | None) -> Iterator[bytes]:
    """Those that began before an instant; times of one form sort as texts."""
    for body in bodies:
        if before is None or json.loads(body)["time"] < before:
            yield body


def _lines(bodies: Iterable[bytes], file: BinaryIO) -> int:
    count = 0
    for count, body in enumerate(bodies, 1):  # noqa: B007 -- the last one is how many there were
        file.write(body + b"\n")
    return count


def _csv(bodies: Iterable[bytes], file: BinaryIO) -> int:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    count = 0
    for count, body in enumerate(bodies, 1):  # noqa: B007 -- the last one is how many there were
        writer.writerow(csv_row(json.loads(body)))
    text.detach()
    return count


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another, synced, once all of it is written; else nothing of it is left."""
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
        fresh.rename(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _watched(bodies: Iterable[bytes], passed: Callable[[int], object]) -> Iterator[bytes]:
    for count, body in enumerate(bodies):
        if count % _STEP == 0:
            passed(json.loads(body)["data"]["ledger"]["seq"])
        yield body
