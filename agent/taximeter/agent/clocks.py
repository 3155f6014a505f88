"""What the agent knows of clocks: the machine's, read lately, and which of them a wrapper's times were taken from.

Owns how old a reading may be. Refuses to judge what clocks do (clockwork).
"""

import time
from collections.abc import Sequence

from taximeter.events import Clock, Event, Opened
from taximeter.kernel import read_clock, time_offsets
from taximeter.timens import said_here, told_here

#: How old may be what we know of how far off the calendar is.
_LATELY_NS = 1_000_000_000


class Clocks:
    """The clocks here."""

    def __init__(self) -> None:
        self._offsets = time_offsets()
        self._clock = read_clock()

    def lately(self) -> Clock:
        """The clocks, read some moments ago at most."""
        if time.monotonic_ns() - self._clock.monotonic > _LATELY_NS:
            self._clock = read_clock()
        return self._clock

    def told(self, opened: object, events: Sequence[Event]) -> Sequence[Event]:
        """The facts of a journal that begins so, as if its wrapper had looked at our clocks, wherever it is."""
        return told_here(events, opened.timens, self._offsets) if isinstance(opened, Opened) else events

    def said(self, opened: Opened, events: Sequence[Event]) -> Sequence[Event]:
        """Facts that we stamped ourselves; what a worker says of when it was is by the clocks that it has."""
        return said_here(events, opened.timens, self._offsets)
