"""The pattern of `--ready log:REGEX`, and the search for it in lines.

Owns the door to `re`, which no other part of the wrapper may import, and the bound on what a search may cost: a pattern
that runs wild must not keep signals from the command. Refuses to know where lines come from.
"""

import _signal  # type: ignore[import-not-found]  # the module `signal` costs two milliseconds of enum
import posix
import re
import time
import warnings

from taximeter.wrap.marks import Splitter

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from taximeter.wrap.run import Run

#: Of a longer line so much of its beginning is searched.
_LINE_BYTES = 4096
#: Our own time that the lines of one bite may take.
_BUDGET_S = 0.5
_NS_PER_S = 1_000_000_000


class TooSlow(Exception):
    """The pattern backtracks without end."""


def compile_pattern(text: str) -> "re.Pattern[bytes]":
    """A pattern that is searched in bytes; text means its UTF-8. Raises ValueError."""
    if not text:
        raise ValueError("expected a pattern after log:")
    warnings.simplefilter("ignore")  # what may one day mean something else is not for a command's stderr
    try:
        return re.compile(text.encode())
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"expected a regular expression of Python, got one with a fault: {error}") from None


class Lines:
    """Bytes to lines as they are searched: without their ends, of a long one only the beginning."""

    def __init__(self) -> None:
        self._splitter = Splitter(_LINE_BYTES)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, but for empty ones."""
        lines = self._splitter.feed(data)
        if lines and (b"\r" in data or lines[0][-1:] == b"\r"):
            return [line.removesuffix(b"\r") for line in lines]
        return lines


class Search:
    """A search whose cost is bounded; what is sent to us meanwhile by that same signal goes on to the command."""

    def __init__(self, pattern: "re.Pattern[bytes]", run: "Run") -> None:
        self._pattern = pattern
        self._run = run
        self._began_ns = 0
        self._armed = False

    def among(self, lines: list[bytes]) -> bool:
        """Whether the pattern is found in one of the lines. Raises TooSlow."""
        search = self._pattern.search
        self._began_ns = time.process_time_ns()
        self._armed = True
        _signal.signal(_signal.SIGVTALRM, self._expire)
        _signal.setitimer(_signal.ITIMER_VIRTUAL, _BUDGET_S)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGVTALRM,))
        try:
            return any(map(search, lines))  # no loop of ours: it is what a command that writes much waits for
        finally:
            self._armed = False
            _signal.setitimer(_signal.ITIMER_VIRTUAL, 0)
            _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGVTALRM,))

    def _expire(self, number: int, _: object) -> None:
        if time.process_time_ns() - self._began_ns < _BUDGET_S * _NS_PER_S / 2:
            posix.kill(self._run.pid, number)  # not our timer's
        elif self._armed:
            raise TooSlow
