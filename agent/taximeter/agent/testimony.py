"""What the agent says of a command that is in its own hands: that it lives, and how it ended.

Owns whose word of an exit status counts. Refuses to know who is asked, and when.
"""

import os

from taximeter import kernel
from taximeter.agent.keeper import Ended
from taximeter.events import Alive, Exited, Source, Usage
from taximeter.instance import Instance

_CORE = 0x80


def alive(instance: Instance) -> Alive:
    """A heartbeat without a wrapper."""
    usage = Usage() if instance.host_pid is None else Usage(*kernel.usage_of(instance.host_pid))
    clock = kernel.read_clock()
    return Alive(clock.monotonic, clock, usage)


def lived(instance: Instance, end: Ended | None, seen: "kernel.End | None") -> list[Alive]:
    """The last sign of life before an end, where that is later than what was booked: as the loop was busy.

    The kernel's stamp is of an end of that very process, which lived until then.
    """
    stamps = [stamp.at_ns for stamp in (end, seen) if stamp is not None]
    at_ns = min(stamps) if seen is not None else end.alive_ns if end is not None else 0
    return [Alive(at_ns, kernel.read_clock(), Usage())] if at_ns > instance.sign_ns else []


def exited(end: Ended | None, seen: "kernel.End | None") -> Exited:
    """The end as the agent saw it; the status from whoever knows one."""
    clock = kernel.read_clock()
    at_ns = end.at_ns if end is not None else clock.monotonic
    status = end.status if end is not None and end.status is not None else seen.status if seen is not None else None
    code = signal = None
    if status is not None:
        signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = os.WEXITSTATUS(status) if signal is None else None
    core = status is not None and bool(status & _CORE)
    kernel_ns = seen.at_ns if seen is not None else None
    return Exited(at_ns, code, signal, core, clock, source=Source.AGENT, kernel_ns=kernel_ns)
