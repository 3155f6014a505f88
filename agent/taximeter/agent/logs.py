"""The agent's log: a line a message, whatever is in it.

Owns that nothing which somebody else wrote can begin a line of its own, or steer a terminal. Refuses to know what is
said.
"""

import logging
import sys
from types import TracebackType
from typing import TypeAlias

from taximeter.observe import words

_Info: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def begin() -> None:
    """Log to stderr; once a process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)


class OneLine(logging.Formatter):
    """Shows what is not printable as its escape; the lines of a traceback are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # type: ignore[explicit-override]  # noqa: N802 -- the library's name
        """The message, in one line."""
        return words.safe(super().formatMessage(record))

    def formatException(self, ei: _Info) -> str:  # type: ignore[explicit-override]  # noqa: N802 -- the library's name
        """The traceback, none of whose lines looks like a message."""
        return "\n".join(f"  {words.safe(line)}" for line in super().formatException(ei).splitlines())
