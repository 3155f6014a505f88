"""`taximeter agent`: starts the daemon.

Parses its two options by hand, so that the daemon carries no library that is only for people.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from taximeter.errors import TaximeterError

USAGE = "Usage: taximeter agent [--config FILE]"
HELP = f"""{USAGE}

  Run the node's agent: book journals, rate and chain records, ship them, serve
  metrics and the API. Stays in the foreground; SIGTERM ends it in order.

Options:
  --config FILE  What the agent is told (default: $TAXIMETER_CONFIG,
                 /etc/taximeter/agent.toml, <state>/agent.toml, or the shipped
                 settings). `taximeter config check` tries it.
  --help         Show this message and exit.
"""


def agent(words: Sequence[str]) -> int:
    """Run the daemon; return 0 after an orderly end, 1 if it cannot run, 2 for a wrong use."""
    if "--help" in words or "-h" in words:
        print(HELP, end="")
        return 0
    config, wrong = _config(words)
    if wrong:
        print(f"{USAGE}\ntaximeter agent: {wrong}", file=sys.stderr)
        return 2
    from taximeter.agent import run  # noqa: PLC0415 - help and usage need no agent

    try:
        return run(config)
    except TaximeterError as error:
        for line in str(error).splitlines():
            print(f"taximeter agent: {line}", file=sys.stderr)
        return 1


def _config(words: Sequence[str]) -> tuple[Path | None, str | None]:
    """Return the file that `--config` names, and what is wrong with the words."""
    rest = list(words)
    path: str | None = None
    while rest:
        word = rest.pop(0)
        if word == "--config" and rest:
            path = rest.pop(0)
        elif word.startswith("--config="):
            path = word.removeprefix("--config=")
        else:
            return None, f"cannot read {word!r}: expected --config FILE"
    if path == "":
        return None, "cannot use an empty --config: expected a file"
    return (None if path is None else Path(path)), None
