"""`taximeter reconcile`: asks a receiver whether it still has what it acknowledged, and has sent again what it lost.

Owns the asking on, and the look. Refuses to ship: the agent does.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from taximeter.cli import text
from taximeter.cli.records import since_text
from taximeter.cli.source import Source


def reconcile(
    sink: Annotated[str, typer.Argument(metavar="SINK", help="The sink whose receiver is asked.")],
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only records begun since: 15m, 2d, a day, a UTC time.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; say what is missing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Read back what a receiver has, and send again what it lost.

    A yes is no durability: what was acknowledged may be gone. Needs the agent, and a sink that can be read: http with
    a read_url, nats with {id} in its subject, a file. Exits 1 where something was missing on a dry run.
    """
    source = Source(os.environ)
    asked = {"sink": sink, "after": 0, "dry_run": dry_run}
    if since is not None:
        asked["since_utc"] = since_text(since, time.time_ns())
    looked = missing = 0
    with _progress(source) as passed:
        done = False
        while not done:
            answer = source.reconcile(asked)
            looked, missing, done = looked + answer["looked"], missing + answer["missing"], answer["done"]
            asked["after"] = answer["after"]
            passed(answer["after"])
    if as_json:
        from taximeter.cli.sheet import print_json  # noqa: PLC0415 - rich, only where something is shown

        print_json({"sink": sink, "looked": looked, "missing": missing, "dry_run": dry_run})
    else:
        what = "missing" if dry_run else "missing, and sent again"
        print(f"{text.safe(sink)}: {text.plural(looked, 'record')} looked at, {missing:,} {what}")
    return 1 if missing and dry_run else 0


@contextmanager
def _progress(source: Source) -> Iterator[Callable[[int], object]]:
    """Draw how far it is, by the ledger's numbers, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - rich, only where something is shown
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task("reconciling", total=source.status()["ledger"]["seq"] or None)
        yield lambda seq: drawn.update(task, completed=seq)
