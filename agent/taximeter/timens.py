"""Times of another time namespace, told by the clocks that the agent has.

In a time namespace (time_namespaces(7), some containers) MONOTONIC, BOOTTIME and RAW are ahead of the machine's own by
fixed offsets; so are the start times in /proc. An opening names its wrapper's offsets, the agent knows its own, and
their difference is all that ever has to be added. Durations are the same on either side. Refuses to read a clock.
"""

from collections.abc import Sequence

from taximeter.events import Clock, Event, Exited, Heartbeat, Marked, Opened, Spawned, TimeOffsets
from taximeter.values import replace

#: What a start time in /proc/PID/stat is counted in: USER_HZ, a hundredth of a second wherever Linux runs.
TICK_NS = 10_000_000

_NONE = TimeOffsets()


def told_here(events: Sequence[Event], theirs: TimeOffsets | None, ours: TimeOffsets) -> Sequence[Event]:
    """The facts of a wrapper whose clocks are ahead by `theirs`, as if it had looked at ours."""
    theirs = theirs or _NONE
    if theirs == ours:
        return events
    by = TimeOffsets(ours.monotonic - theirs.monotonic, ours.boottime - theirs.boottime)
    return [_told(event, by) for event in events]


def said_here(events: Sequence[Event], theirs: TimeOffsets | None, ours: TimeOffsets) -> Sequence[Event]:
    """Facts that were stamped here, of a worker whose clocks are ahead by `theirs`: only what it says is by those."""
    by_ns = ours.monotonic - (theirs or _NONE).monotonic
    return [_said(event, by_ns) for event in events] if by_ns else events


def _said(event: Event, by_ns: int) -> Event:
    if isinstance(event, Marked) and event.said_ns is not None:
        return replace(event, said_ns=_later(event.said_ns, by_ns))
    return event


def _told(event: Event, by: TimeOffsets) -> Event:
    """One fact; a time cannot become negative, whatever offsets somebody may have made up."""
    if event.at_ns is None:
        return event
    event = replace(event, at_ns=_later(event.at_ns, by.monotonic))
    if isinstance(event, Opened | Heartbeat):
        return replace(event, clock=_clock(event.clock, by))
    if isinstance(event, Exited) and event.clock is not None:
        return replace(event, clock=_clock(event.clock, by))
    if isinstance(event, Marked):
        return _said(event, by.monotonic)
    if isinstance(event, Spawned):
        return replace(
            event, before_ns=_later(event.before_ns, by.monotonic), start_ticks=_ticks(event.start_ticks, by.boottime)
        )
    return event


def _clock(clock: Clock, by: TimeOffsets) -> Clock:
    return replace(
        clock,
        monotonic=_later(clock.monotonic, by.monotonic),
        raw=clock.raw + by.monotonic,
        boottime=clock.boottime + by.boottime,
    )


def _later(at_ns: int, by_ns: int) -> int:
    return max(0, at_ns + by_ns)


def _ticks(ticks: int | None, by_ns: int) -> int | None:
    """A start time; None where the offset is no number of ticks, so that nobody can say which tick it is here."""
    whole, rest = divmod(by_ns, TICK_NS)
    return None if ticks is None or rest else ticks + whole
