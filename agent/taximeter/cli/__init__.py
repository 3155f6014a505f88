"""The command line: one verb a job, one file a verb.

Owns the entry point. `agent` is a daemon and is taken before anything for people (typer, rich) is loaded;
every other verb goes through `app`. `taximeter run` never comes here: the launcher takes it.
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return its exit status: 0, 1 (said no) or 2 (usage)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["agent"]:
        from taximeter.cli.agent import agent  # noqa: PLC0415 - a verb loads what it needs

        return agent(words[1:])
    from taximeter.cli.app import run_app  # noqa: PLC0415 - a verb loads what it needs

    return run_app(words)
