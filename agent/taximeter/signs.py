"""What happens to a command between its beginning and its end, but for marks: signs of life, signals, what was seen.

Refuses to know when one is told (wrap, agent), and what a mark says (marking).
"""

from taximeter.events import (
    Alive,
    BadMark,
    Heartbeat,
    Held,
    Measured,
    Observed,
    Opened,
    ReadyTimedOut,
    Signaled,
    Stopping,
    StopReason,
)
from taximeter.hardware.evidence import weigh
from taximeter.instance import Instance, Verdict
from taximeter.late import judge
from taximeter.moves import says_it_stops, stop
from taximeter.resources import hold, measure
from taximeter.turn import Turn, arrive, cut_until, look_at_clock
from taximeter.values import replace

_SIGTERM = 15


def opened_again(instance: Instance, _: Opened, __: Turn) -> Instance:
    """A new segment repeats the opening; the first one counts."""
    return instance


def noted(instance: Instance, event: ReadyTimedOut, turn: Turn) -> Instance:
    """A ready-timeout that passes is noted and stops nothing."""
    return arrive(instance, event.at_ns, turn)


def heartbeat(instance: Instance, event: Heartbeat, turn: Turn) -> Instance:
    """The wrapper lives, and what its command used so far."""
    instance = look_at_clock(arrive(instance, event.at_ns, turn), event.clock)
    return replace(instance, usage=event.usage) if event.usage.cpu_ns is not None else instance


def signaled(instance: Instance, event: Signaled, turn: Turn) -> Instance:
    """A signal came: from the kernel it is told at the end, from outside it may ask it to stop."""
    instance = arrive(instance, event.at_ns, turn)
    if event.by_kernel:
        return replace(instance, interrupted=event.signal)
    if event.signal == _SIGTERM and event.outside:
        return stop(instance, event.at_ns, instance.opened.options.on_term, turn)
    return instance


def stopping(instance: Instance, event: Stopping, turn: Turn) -> Instance:
    """A worker says that it drains, or is stopped; a one-shot's own word of its end is noted, and changes no bill."""
    instance = arrive(instance, event.at_ns, turn)
    if not instance.opened.options.worker:
        return instance
    stops = says_it_stops if event.reason is StopReason.DRAIN else stop
    return stops(instance, event.at_ns, event.reason, turn)


def alive(instance: Instance, event: Alive, turn: Turn) -> Instance:
    """The agent's own heartbeat: the command was never out of its hands, so no silence before it is unknown."""
    instance = look_at_clock(cut_until(instance, event.at_ns, turn), event.clock)
    usage = event.usage if event.usage.cpu_ns is not None else instance.usage
    return replace(instance, sign_ns=event.at_ns, lost=False, adopted=True, usage=usage)


def observed(instance: Instance, event: Observed, turn: Turn) -> Instance:
    """What it was seen on is evidence: it moves no time; what it means for what is open shows at the next record."""
    return judge(instance, Verdict(weigh(instance.hardware, event), event), event.at_ns, turn.book)


def measured(instance: Instance, event: Measured, _: Turn) -> Instance:
    """What its processes used together beside time, as the agent looked."""
    return measure(instance, event)


def held(instance: Instance, event: Held, _: Turn) -> Instance:
    """How much memory its processes held together, as the agent looked."""
    return hold(instance, event)


def bad_mark(instance: Instance, event: BadMark, turn: Turn) -> Instance:
    """What cannot be read is refused; that somebody said it is a sign of life."""
    turn.rejected.append(event.reason)
    return arrive(instance, event.at_ns, turn, held=event.held)
