"""What is wrong with journals, counted and said: in the metric each time, in the log within bounds.

Owns how often a complaint is made: whoever may write to the drop-box must not be able to fill the log. Refuses to know
what follows from a fault.
"""

import logging
import time

from taximeter.errors import JournalFault
from taximeter.observe.tally import Tally

logger = logging.getLogger(__name__)

#: How many complaints about whole files are remembered, so that each is made once; beyond that they may be made again.
MOST_REMEMBERED = 10_000
#: Warnings a minute.
_MOST_WARNINGS = 60


class Warnings:
    """Warnings of one kind, of which no more are made than are read."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._said = (0.0, 0)  # minute, and how many were said in it

    def say(self, text: str, *values: object) -> None:
        """Warn, if not too much was said in this minute."""
        minute = time.monotonic() // 60
        self._said = (minute, self._said[1] + 1 if self._said[0] == minute else 1)
        if self._said[1] <= _MOST_WARNINGS:
            logger.warning(text, *values)
        elif self._said[1] == _MOST_WARNINGS + 1:
            logger.warning("%s: more of them in this minute than are said; see the metric", self._kind)


class Complaints:
    """The faults of one journal directory."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._made: set[tuple[str, str]] = set()  # (instance, reason)
        self.say = Warnings("journal.faults").say

    def about_file(self, name: str, fault: JournalFault) -> None:
        """Complain of a file that as a whole cannot be believed: once, however often it is looked at."""
        if (name, fault.reason) in self._made:
            return
        if len(self._made) >= MOST_REMEMBERED:
            self._made.clear()
        self._made.add((name, fault.reason))
        self.about(fault)

    def about(self, fault: JournalFault) -> None:
        """Complain of one fault."""
        self._tally.journal_fault(fault.reason)
        self.say("journal.fault reason=%s: %s", fault.reason, fault)
