"""The verbs for people, and how each of them ends.

Owns the list of verbs, exit statuses and the last line of defence: an error is one line on stderr and never a
traceback, and a reader that goes away (`| head`) ends us silently. Refuses to know what a verb does.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, ParamSpec

import typer

from taximeter import wire
from taximeter.cli.account import account, grant
from taximeter.cli.config import check
from taximeter.cli.deadletters import drop, list_letters, retry
from taximeter.cli.drain import drain
from taximeter.cli.estimate import estimate
from taximeter.cli.export import export
from taximeter.cli.hardware import hardware
from taximeter.cli.receipt import receipt
from taximeter.cli.reconcile import reconcile
from taximeter.cli.records import records
from taximeter.cli.rerate import rerate
from taximeter.cli.run import SETTINGS, run
from taximeter.cli.status import status
from taximeter.cli.text import safe
from taximeter.cli.verify import verify
from taximeter.errors import ConfigError, TaximeterError

_P = ParamSpec("_P")


def run_app(words: Sequence[str]) -> int:
    """Run the verb that `words` begin with; return its exit status."""
    _speak_any_encoding()
    try:
        make_app()(args=list(words), prog_name="taximeter")
    except SystemExit as end:
        code = end.code
    else:
        code = 0
    return _flushed(code if isinstance(code, int) else 1)


def make_app() -> typer.Typer:
    """Put the verbs together."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
    )
    app.callback()(_taximeter)
    app.command("run", context_settings=SETTINGS, add_help_option=False)(run)
    app.command("agent")(_agent)
    for verb in (
        status,
        receipt,
        records,
        account,
        grant,
        rerate,
        estimate,
        hardware,
        verify,
        export,
        reconcile,
        drain,
    ):
        app.command(verb.__name__)(guarded(verb))
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Say what is wrong with the configuration.")
    group.callback()(lambda: None)
    group.command("check")(guarded(check))
    app.add_typer(group, name="config")
    letters = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What a sink refused: look, retry, drop.")
    letters.command("list")(guarded(list_letters))
    letters.command("retry")(guarded(retry))
    letters.command("drop")(guarded(drop))
    app.add_typer(letters, name="deadletters")
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"taximeter {wire.VERSION}")
        raise typer.Exit(0)


def guarded(verb: Callable[_P, int]) -> Callable[_P, None]:
    """Turn a verb's status into an exit, and our own errors into a line on stderr."""

    @wraps(verb)
    def guard(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            code = verb(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            _die_of_the_pipe()
        except (TaximeterError, OSError) as error:
            faults = error.faults if isinstance(error, ConfigError) else (str(error),)
            for fault in faults:
                print(f"taximeter: {safe(fault)}", file=sys.stderr)
            raise typer.Exit(1) from error
        else:
            raise typer.Exit(code)

    return guard


def _taximeter(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show it.")
    ] = False,
) -> None:
    """The meter of an inference node.

    It measures what each prediction process really used, says on which hardware tier, and writes records that can be
    defended. Start with `taximeter run -- COMMAND`.
    """


def _agent() -> None:
    """Run the node's agent (the daemon)."""
    # The line in the list of verbs; the verb itself was taken before anything of this was loaded.


def _speak_any_encoding() -> None:
    """A terminal without UTF-8 gets escapes instead of a crash."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _die_of_the_pipe()
    return code


def _die_of_the_pipe() -> None:
    """End as any filter does whose reader is gone: by SIGPIPE, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
