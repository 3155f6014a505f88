"""`taximeter records`: reads the ledger, as a table for people, as lines of JSON or as CSV for programs.

Owns the three formats and the short forms of a time. The lines of JSON are the stored bytes, which the chain
of hashes covers. Refuses to choose records: the ledger does.
"""

import csv
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter.cli import text
from taximeter.cli.options import choices, count, one_of
from taximeter.cli.source import Source
from taximeter.observe.since import since_ns
from taximeter.records import RecordType, utc_text

if TYPE_CHECKING:
    from taximeter.cli.sheet import Column

_SHOWN = 50
#: Columns up to this rank are what a table is for; the id is of rank 0.
_NEEDED, _LAST = 3, 99
#: Who reads a CSV may be a spreadsheet: these make it compute.
_FORMULA = ("=", "+", "-", "@")

CSV_COLUMNS = (
    *("seq", "id", "type", "time", "subject", "account", "model", "version", "class", "pool", "instance", "prediction"),
    *(
        "parent",
        "root",
        "status",
        "final",
        "start_utc",
        "end_utc",
        "wall_ns",
        "boot_ns",
        "load_ns",
        "idle_ns",
        "active_ns",
    ),
    *("share_ns", "teardown_ns", "suspended_ns", "unknown_ns", "tier", "count", "billing_status", "amount", "currency"),
)


class Format(StrEnum):
    """How records are printed."""

    TABLE = "table"
    NDJSON = "ndjson"
    CSV = "csv"


class Kind(StrEnum):
    """Types of records, as people type them."""

    PREDICTION = "prediction"
    INSTANCE = "instance"
    CORRECTION = "correction"
    FACT = "fact"
    THRESHOLD = "threshold"
    GRANT = "grant"


def records(  # noqa: PLR0913, PLR0917 - one parameter an option
    since: Annotated[
        str | None, typer.Option(help="Begun since: 90s, 15m, 2h, 7d, or a UTC time.", metavar="WHEN")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Of this account.", metavar="NAME")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model.", metavar="NAME")] = None,
    prediction: Annotated[str | None, typer.Option(help="Of this prediction.", metavar="ID")] = None,
    instance: Annotated[str | None, typer.Option(help="Of this instance.", metavar="ID")] = None,
    root: Annotated[str | None, typer.Option(help="Of this root and all that it called.", metavar="ID")] = None,
    kind: Annotated[
        Kind | None, typer.Option("--type", parser=one_of(Kind), metavar=choices(Kind), help="Of this type.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(parser=count, help=f"The newest N (table: {_SHOWN}; else all).", metavar="N")
    ] = None,
    output: Annotated[
        Format, typer.Option("--format", parser=one_of(Format), metavar=choices(Format), help="How to print them.")
    ] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format ndjson.")] = False,
) -> int:
    """Read the ledger, as a table, JSON lines or CSV.

    In the ledger's order. JSON lines are the very bytes that the ledger's hashes cover.
    """
    chosen = Format.NDJSON if as_json else output
    said = {
        "since": None if since is None else since_text(since, time.time_ns()),
        "account": account,
        "model": model,
        "prediction": prediction,
        "instance": instance,
        "root": root,
        "type": kind and kind.value,
    }
    asked = {name: value for name, value in said.items() if value is not None}
    newest = limit or (_SHOWN if chosen is Format.TABLE else None)
    bodies = Source(os.environ).records(asked, newest)
    {Format.TABLE: _print_table, Format.NDJSON: _print_lines, Format.CSV: _print_csv}[chosen](bodies)
    return 0


def since_text(said: str, now_ns: int) -> str:
    """Return the UTC instant that `2h`, `2026-11-22` or an RFC 3339 time means."""
    try:
        return utc_text(since_ns(said, now_ns))
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"cannot read {said!r} as a time: {error}", param_hint="--since") from error


def _print_lines(bodies: Iterable[bytes]) -> None:
    if not sys.stdout.isatty():
        for body in bodies:
            sys.stdout.buffer.write(body + b"\n")
        sys.stdout.buffer.flush()
        return
    from taximeter.cli.sheet import harmless  # noqa: PLC0415 - only for a terminal

    for body in bodies:
        print(harmless(body.decode("utf-8", "backslashreplace")))


def _print_csv(bodies: Iterable[bytes]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for body in bodies:
        writer.writerow(csv_row(json.loads(body)))


def csv_row(event: Mapping[str, Any]) -> list[str]:
    """A record as a line of CSV."""
    data = event["data"]
    billing, interval = data.get("billing") or {}, data.get("interval") or {}
    hardware = data.get("hardware") or {}
    flat = {
        **{name: value for name, value in data.items() if isinstance(value, str | bool | int)},
        **{name: event.get(name) for name in ("id", "type", "time", "subject")},
        **{name: value for name, value in (data.get("time") or {}).items() if name in CSV_COLUMNS},
        "start_utc": interval.get("start_utc"),
        "end_utc": interval.get("end_utc"),
        "tier": hardware.get("tier"),
        "count": hardware.get("count"),
        "billing_status": billing.get("status"),
        "amount": billing.get("amount"),
        "currency": billing.get("currency"),
        "seq": data["ledger"]["seq"],
    }
    return [_csv_cell(flat.get(name)) for name in CSV_COLUMNS]


def _csv_cell(value: object) -> str:
    """Return a cell that stays a cell: no control characters, and nothing that a spreadsheet would compute."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    shown = text.safe(value) if value != "" else ""
    is_number = re.fullmatch(r"-?[0-9.]+", shown)
    return f"'{shown}" if shown.startswith(_FORMULA) and not is_number else shown


def _print_table(bodies: Iterable[bytes]) -> None:
    from taximeter.cli.sheet import console, print_lines, table  # noqa: PLC0415 - rich, only where something is shown

    events = [json.loads(body) for body in bodies]
    screen = console()
    if not events:
        print("no records", file=sys.stderr)
        return
    columns = _columns(events)
    needed = [column for column in columns if column.rank <= _NEEDED]
    if sum(column.width + 2 for column in needed) - 2 > screen.width:
        # Ids are the widest, and a beginning of one is of no use: when, how and how much say more than they alone.
        columns = [replace(column, rank=_LAST) if column.rank == 0 else column for column in columns]
    print_lines(table(columns, screen.width), screen)


def _columns(events: Sequence[Mapping[str, Any]]) -> "list[Column]":
    """Lay records out: what is needed to find a run and its price first, the rest where there is room."""
    from taximeter.cli.sheet import Column  # noqa: PLC0415

    rows = [_row(event) for event in events]
    days = {row["day"] for row in rows}
    currencies = {row["currency"] for row in rows} - {""}
    for row, amount in zip(rows, text.aligned([row["amount"] for row in rows]), strict=True):
        row["amount"] = amount
        row["start"] = row["clock"] if len(days) == 1 else f"{row['day'][5:]} {row['clock']}"
        row["amount"] += f" {row['currency']}" if row["currency"] and len(currencies) > 1 else ""
    styles = tuple(text.STATUS_STYLES.get(row["status"], "") for row in rows)
    specification = (
        ("seq", "#", 6, True),
        ("start", days.pop() if len(days) == 1 else "start (UTC)", 3, False),
        ("kind", "type", 5, False),
        ("id", "prediction or instance", 0, False),
        ("status", "status", 2, False),
        ("account", "account", 7, False),
        ("model", "model", 8, False),
        ("tier", "tier", 9, False),
        ("time", "time", 4, True),
        ("amount", currencies.pop() if len(currencies) == 1 else "amount", 1, True),
    )
    return [
        Column(name, tuple(row[key] for row in rows), rank, right, styles if key == "status" else ())
        for key, name, rank, right in specification
    ]


def _run(event: Mapping[str, Any]) -> str:
    """Name whose record it is; a fact is nobody's, and named by what it says."""
    data = event["data"]
    if event["type"] == RecordType.FACT:
        return f"{text.safe(data.get('fact'))} {text.short_hash(data.get('hash'))}"
    if event["type"] == RecordType.THRESHOLD:
        return (
            f"{text.safe(data.get('threshold'))} {text.safe(data.get('currency'))} in {text.safe(data.get('period'))}"
        )
    if event["type"] == RecordType.GRANT:
        return f"{text.safe(data.get('grant'))}: {text.safe(data.get('amount'))} {text.safe(data.get('currency'))}"
    return text.safe(data.get("prediction") or data.get("instance") or event["id"])


def _row(event: Mapping[str, Any]) -> dict[str, str]:
    data = event["data"]
    time, billing = data.get("time") or {}, data.get("billing") or {}
    day, clock = text.day_and_clock(event["time"])
    used_ns = time.get("active_ns") if event["type"] == RecordType.PREDICTION else time.get("wall_ns")
    return {
        "seq": str(data["ledger"]["seq"]),
        "day": day,
        "clock": clock[:8],
        "kind": text.safe(event["type"].rsplit(".", 2)[1][:4]),
        "id": _run(event),
        "status": text.safe(data.get("status")),
        "account": text.safe(data.get("account")),
        "model": text.safe(data.get("model")),
        "tier": text.safe((data.get("hardware") or {}).get("tier")),
        "time": text.duration(used_ns),
        "amount": text.safe(billing.get("amount")),
        "currency": text.safe(billing["currency"]) if billing.get("currency") else "",
    }
