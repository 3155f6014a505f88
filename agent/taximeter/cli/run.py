"""`taximeter run`: here only its line in the list of verbs.

The launcher takes `run` before any of this is loaded; where it was called around the launcher, this hands over.
"""

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

import typer

#: Everything after `run` is the launcher's and the command's.
SETTINGS: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}


def run(context: typer.Context) -> None:
    """Run a command and measure it: run -- CMD [ARG...]."""
    launcher = Path(sysconfig.get_path("scripts")) / "taximeter"
    try:
        os.execv(launcher, [str(launcher), "run", *context.args])  # noqa: S606 - it takes our place
    except OSError as error:
        print(f"taximeter: cannot execute {launcher}: expected the installed launcher ({error})", file=sys.stderr)
        raise typer.Exit(125) from error
