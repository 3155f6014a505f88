"""`taximeter account` and `taximeter grant`: what an account spent and has, and giving it credit.

Owns the look of both. Refuses to add up: the agent does, or the ledger.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter.cli import text
from taximeter.cli.source import Source

if TYPE_CHECKING:
    from taximeter.cli.sheet import Sheet

Json = Mapping[str, Any]

_LISTED = 20


def account(
    asked: Annotated[str, typer.Argument(metavar="ACCOUNT", help="An account, as its records name it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Show what an account spent on this node since its charge period began, its thresholds and its credit.

    Exits 1 if this node knows nothing of it.
    """
    source = Source(os.environ)
    found = source.account(asked)
    source.complain()
    if found is None:
        print(f"taximeter: {text.safe(source.unknown)}", file=sys.stderr)
        return 1
    from taximeter.cli.sheet import Sheet, print_json  # noqa: PLC0415 - rich, only where something is shown

    if as_json:
        print_json(found)
    else:
        sheet = Sheet()
        write(found, sheet)
        sheet.show()
    return 0


def grant(
    to: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Whose credit.")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="How much, such as 25.00.")],
    currency: Annotated[str, typer.Argument(metavar="CURRENCY", help="Of what, such as USD.")],
    name: Annotated[str, typer.Option("--id", metavar="ID", help="Names it for ever: the same id grants once.")],
    expires: Annotated[
        str | None, typer.Option(metavar="WHEN", help="What is left then is gone: a day, or a UTC time.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Grant an account credit on this node.

    Needs the agent, which alone writes the ledger. Granting again under the same id changes nothing.
    """
    asked = {"id": name, "amount": amount, "currency": currency, "expires_utc": expires}
    granted = Source(os.environ).grant(to, asked)
    if as_json:
        from taximeter.cli.sheet import print_json  # noqa: PLC0415 - rich, only where something is shown

        print_json(granted)
        return 0
    verb = "granted" if granted["new"] else "was granted already:"
    until = f" until {text.instant(granted['expires_utc'])} UTC" if granted["expires_utc"] else ""
    what = f"{text.safe(granted['amount'])} {text.safe(granted['currency'])} to {text.safe(granted['account'])}"
    print(f"{text.safe(granted['grant'])}: {verb} {what}{until}")
    return 0


def write(found: Json, sheet: "Sheet") -> None:
    """Write an account on a sheet."""
    refused = [one for one in found["denials"] if one["model"] is None]
    word, style = ("denied", "red") if refused else ("admitted", "green")
    sheet.title("TAXIMETER ACCOUNT", word, style)
    sheet.row("account", found["account"])
    sheet.row("pays", "in advance, from its credit" if found["prepaid"] else "afterwards")
    sheet.row("period", f"{text.safe(found['period'])}, since {text.instant(found['since_utc'])} UTC")
    if found["cap"] is not None:
        sheet.row("cap", f"{text.safe(found['cap'])} a month")
    for at, one in enumerate(found["denials"]):
        model = f"model {text.safe(one['model'])}: " if one["model"] is not None else ""
        sheet.row("denied" if at == 0 else "", f"{model}{text.safe(one['why'])}", "red")
    for each in found["currencies"]:
        _write_currency(each, sheet)
    if not found["currencies"]:
        sheet.row("spend", "nothing yet")


def _write_currency(each: Json, sheet: "Sheet") -> None:
    currency = text.safe(each["currency"])
    sheet.section(currency)
    sheet.leader("spend", "in this period", f"{text.safe(each['spend'])} {currency}")
    if each["spend_ever"] != each["spend"]:
        sheet.leader("", "ever, on this node", f"{text.safe(each['spend_ever'])} {currency}")
    for at, model in enumerate(_first(each["models"])):
        limit = f" (limit {text.safe(model['limit'])})" if model["limit"] is not None else ""
        sheet.leader("models" * (at == 0), text.safe(model["model"]) + limit, f"{text.safe(model['spend'])} {currency}")
    _more(each["models"], sheet)
    for at, one in enumerate(each["thresholds"]):
        crossed = one["crossed"]
        said = f"crossed {text.instant(crossed['time_utc'])} UTC, record {crossed['seq']}" if crossed else "not yet"
        label = "thresholds" if at == 0 else ""
        sheet.leader(label, f"{text.safe(one['threshold'])} {currency}", said, "" if crossed else "dim")
    if each["balance"] is not None:
        style = "red" if each["balance"].startswith("-") else ""
        sheet.leader("balance", "credit that is left", f"{text.safe(each['balance'])} {currency}", style)
    for at, one in enumerate(_first(each["grants"])):
        until = f", until {text.instant(one['expires_utc'])[:16]} UTC" if one["expires_utc"] else ""
        left = f"{text.safe(one['left'])} of {text.safe(one['amount'])} {'lapsed' if one['expired'] else 'left'}"
        sheet.leader("grants" * (at == 0), text.safe(one["grant"]) + until, left, "dim" if one["expired"] else "")
    _more(each["grants"], sheet)


def _first(items: Iterable[Json]) -> list[Json]:
    return list(items)[:_LISTED]


def _more(items: Iterable[Json], sheet: "Sheet") -> None:
    left = len(list(items)) - _LISTED
    if left > 0:
        sheet.row("", f"and {left:,} more: see --json", "dim")
