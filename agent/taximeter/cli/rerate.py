"""`taximeter rerate`: bills what had no price, once its card or its units have come; and what a late card prices anew.

Owns the look. Refuses to work anything out: the agent does, which alone writes the ledger.
"""

import os
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from taximeter.cli import text
from taximeter.cli.records import since_text
from taximeter.cli.source import Source

Json = Mapping[str, Any]

#: Why some are left, for people.
_LEFT = {
    "open": "are of an instance that is not over",
    "no_rate_card": "began before any rate card",
    "no_price_for_its_tier": "ran on a tier that no card prices",
    "no_units": "have no units counted that their model is priced by (--prediction ID --unit NAME=N)",
    "records_gone": "have older records that are not here any more",
    "other_currency": "were billed in another currency in part",
}


def rerate(  # noqa: PLR0913, PLR0917 -- options, all by name
    model: Annotated[str | None, typer.Option(help="Only what is of this model.")] = None,
    account: Annotated[str | None, typer.Option(help="Only what is of this account.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only records since: 15m, 2d, a day, a UTC time.")
    ] = None,
    prediction: Annotated[str | None, typer.Option(metavar="ID", help="Only this prediction.")] = None,
    unit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N", help="What that prediction counted and nobody said; may be repeated."),
    ] = None,
    late_cards: Annotated[
        bool,
        typer.Option("--late-cards", help="Also what was billed before the card came that was in force by then."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Bill what had no price when it ended, now that its rate card or its units have come.

    Writes a correction for each such prediction, and for each stretch of an online instance; doing it again writes
    nothing more. Needs the agent.
    """
    asked: dict[str, Any] = {"model": model, "account": account, "prediction": prediction, "dry_run": dry_run}
    asked["late_cards"] = late_cards
    asked["since_utc"] = None if since is None else since_text(since, time.time_ns())
    asked["units"] = _counted(unit or [])
    done = Source(os.environ).rerate(asked)
    if as_json:
        from taximeter.cli.sheet import print_json  # noqa: PLC0415 - rich, only where something is shown

        print_json(done)
        return 0
    for line in told(done):
        print(line)
    return 0


def told(done: Json) -> list[str]:
    """What became of it, in lines."""
    amounts = text.listed(
        [f"{text.safe(amount)} {text.safe(currency)}" for currency, amount in done["amounts"].items()]
    )
    verb = "would be rated" if done["dry_run"] else "rated"
    many = text.plural(done["corrected"], "bill")
    lines = [f"{many} {verb}: {amounts}" if done["corrected"] else f"{many} {verb}"]
    return lines + [f"{count:,} left: they {_LEFT.get(word, text.safe(word))}" for word, count in done["left"].items()]


def _counted(units: list[str]) -> dict[str, str]:
    counted: dict[str, str] = {}
    for said in units:
        name, equals, amount = said.partition("=")
        if not equals or not name or name in counted:
            raise typer.BadParameter(f"{said!r}: expected NAME=N, each name once", param_hint="--unit")
        counted[name] = amount
    return counted
