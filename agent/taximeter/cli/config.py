"""`taximeter config check`: says what is wrong with the configuration before it matters.

Owns the report. Refuses to judge: the config room does.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter.cli import text
from taximeter.config import Config, fingerprint, load
from taximeter.errors import ConfigError

if TYPE_CHECKING:
    from taximeter.cli.sheet import Sheet


def check(
    config: Annotated[Path | None, typer.Option("--config", help="The agent.toml to check.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Name every fault of agent.toml, tiers.toml and rates.toml.

    All of them at once. Exits 1 if there is one.
    """
    try:
        loaded = load(config, os.environ)
    except ConfigError as error:
        if as_json:
            _print_json({"ok": False, "faults": list(error.faults)})
        for fault in () if as_json else error.faults:
            print(text.safe(fault), file=sys.stderr)
        return 1
    if as_json:
        _print_json(_answer(loaded))
        return 0
    from taximeter.cli.sheet import Sheet  # noqa: PLC0415 - rich, only where something is shown

    sheet = Sheet()
    write(loaded, sheet)
    sheet.show()
    return 0


def write(config: Config, sheet: "Sheet") -> None:
    """Write what is in force on a sheet."""
    sheet.title("TAXIMETER CONFIG", "OK", "green")
    sheet.row("settings", config.source)
    sheet.row("tiers", f"{text.plural(len(config.catalogue.tiers), 'rule')}, {text.safe(config.catalogue.source)}")
    card = config.rate_card
    prices = text.plural(len(card.tiers), "price")
    if card.models:
        prices += f" and {text.plural(len(card.models), 'model')}"
    sheet.row("rates", f"{prices} in {text.safe(card.currency)}, version {text.safe(card.version)}")
    sheet.row("sinks", text.listed([f"{sink.name} ({sink.type})" for sink in config.sinks]))
    sheet.row("fingerprint", fingerprint(config))
    for note in config.notes:
        sheet.row("note", note, "yellow")


def _answer(config: Config) -> dict[str, Any]:
    return {
        "ok": True,
        "source": config.source,
        "fingerprint": fingerprint(config),
        "rate_card": config.rate_card.hash,
        "notes": list(config.notes),
        "settings": config.content,
    }


def _print_json(value: dict[str, Any]) -> None:
    from taximeter.cli.sheet import print_json  # noqa: PLC0415 - rich, only where something is shown

    print_json(value)
