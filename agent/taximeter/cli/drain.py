"""`taximeter drain`: for a node that is about to go: ships all that is there, and says what is not acknowledged.

Owns the waiting and the last word. Refuses to ship: the agent does.
"""

import os
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from taximeter.cli import text
from taximeter.cli.source import Source

Json = Mapping[str, Any]

_LOOK_S = 0.1


def drain(
    timeout: Annotated[float, typer.Option(help="Wait for so many seconds at most.", metavar="S", min=0.0)] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is left as JSON.")] = False,
) -> int:
    """Have every sink take what the ledger holds, at once, and wait for it.

    Exits 0 once all is acknowledged and nothing runs any more; 1 where that is not so in time. Stop what runs before.
    """
    source, until_s = Source(os.environ), time.monotonic() + timeout
    source.hurry()
    while True:
        answer = source.status()
        left = left_of(answer)
        if not waits_for_time(left) or time.monotonic() >= until_s:
            break
        time.sleep(min(_LOOK_S, max(0.0, until_s - time.monotonic())))
    if as_json:
        from taximeter.cli.sheet import print_json  # noqa: PLC0415 - rich, only where something is shown

        print_json(left)
    else:
        for line in told(left):
            print(line, file=sys.stderr if left["waits"] else sys.stdout)
    return 1 if left["waits"] else 0


def left_of(answer: Json) -> dict[str, Any]:
    """What keeps the node from going."""
    pending = {sink["name"]: sink["pending"] for sink in answer["sinks"] if sink["pending"]}
    errors = {sink["name"]: sink["last_error"] for sink in answer["sinks"] if sink["pending"] and sink["last_error"]}
    letters = {sink["name"]: sink["dead_letters"] for sink in answer["sinks"] if sink["dead_letters"]}
    running = sum((answer["instances"] or {}).values())
    unread = bool(answer["reader_lag_s"]) or not answer["ready"]
    return {
        "waits": bool(pending or running or unread or letters),
        "pending": pending,
        "errors": errors,
        "dead_letters": letters,
        "instances": running,
        "unread": unread,
        "records": answer["ledger"]["seq"],
    }


def waits_for_time(left: Json) -> bool:
    """Whether waiting may help: what was refused stays refused."""
    return bool(left["pending"] or left["instances"] or left["unread"])


def told(left: Json) -> list[str]:
    """The same in lines."""
    if not left["waits"]:
        return [f"drained: {text.plural(left['records'], 'record')}, all acknowledged; nothing runs"]
    lines = [
        f"{text.safe(name)}: {text.plural(count, 'record')} not acknowledged"
        + (f": {text.safe(left['errors'][name])}" if name in left["errors"] else "")
        for name, count in left["pending"].items()
    ]
    lines += [
        f"{text.safe(name)}: {text.plural(count, 'record')} refused: see `taximeter deadletters list`"
        for name, count in left["dead_letters"].items()
    ]
    if left["instances"]:
        lines.append(f"{text.plural(left['instances'], 'instance')} still open: stop what runs, and drain again")
    if left["unread"]:
        lines.append("journals are not read to their end yet")
    return lines
