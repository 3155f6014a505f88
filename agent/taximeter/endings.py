"""How a command ends: as somebody saw, or with nobody there to see it.

Owns which witness of an end is believed, what became of whatever was open, and the word of how it ended. Refuses to
write a record (moves).
"""

from taximeter.about import End
from taximeter.events import Exited, Lost, Oom, Source, Status, StopReason
from taximeter.instance import Instance
from taximeter.lifecycle import Stage
from taximeter.moves import close
from taximeter.owners import end_unheld, last_word_ns
from taximeter.predictions import ended_status
from taximeter.records import Exit, Witness
from taximeter.spans import settle
from taximeter.turn import KERNEL_NS, PIDFD_NS, Turn, cut_until, is_late, look_at_clock, pass_unseen
from taximeter.values import replace

_SIGKILL = 9


def exited(instance: Instance, event: Exited, turn: Turn) -> Instance:
    """Its command ended, as the best witness of that saw: all that is open ends, and the instance last."""
    at_ns, source, uncertainty_ns = event.at_ns, event.source, PIDFD_NS
    if event.kernel_ns is not None and event.kernel_ns - at_ns <= PIDFD_NS:
        # Either comes after the end, so the earlier is nearer; but not before what is settled: a mark, read in between.
        seen_ns = min(event.kernel_ns, at_ns)
        at_ns, source = max(seen_ns, instance.since_ns, instance.cut.at_ns, last_word_ns(instance)), Source.KERNEL
        uncertainty_ns = KERNEL_NS + at_ns - seen_ns
    status = ended_status(instance, event)
    instance = end_unheld(instance, at_ns, status, turn)
    is_unsaid = instance.stage is Stage.PENDING and event.error is None  # it ran, and its start was lost: a full disk
    if is_unsaid or is_late(instance, at_ns):
        instance = pass_unseen(instance, at_ns, turn)
    else:
        instance = settle(cut_until(instance, at_ns, turn), at_ns)
    if event.clock is not None:
        instance = look_at_clock(instance, event.clock)
    if event.usage.cpu_ns is not None or event.usage.rss_peak_bytes is not None:
        instance = replace(instance, usage=event.usage)
    if instance.lost and source is not Source.KERNEL:
        uncertainty_ns = at_ns - instance.sign_ns
    witness = Witness(source, uncertainty_ns)
    end = End(at_ns, status, final=True, witness=witness, told=event.source is Source.WRAPPER)
    return close(instance, end, _told(event, instance.readied), turn)


def lost(instance: Instance, event: Lost, turn: Turn) -> Instance:
    """Nobody saw the end: the bill ends with the last sign of life, what may have followed is unknown."""
    sign_ns = instance.sign_ns
    at_ns = sign_ns if event.at_ns is None else max(event.at_ns, sign_ns)
    status = Status.ABORTED if event.at_ns is None else Status.FAILED
    if instance.stop is not None and instance.stop is not StopReason.DRAIN:
        status = Status(instance.stop.value)
    instance = end_unheld(instance, at_ns, status, turn)
    instance = pass_unseen(instance, at_ns, turn)
    if event.clock is not None:
        instance = look_at_clock(instance, event.clock)
    witness = Witness(Source.HEARTBEAT, None if event.at_ns is None else at_ns - sign_ns)
    end = End(at_ns, status, final=True, witness=witness, told=False)
    return close(instance, end, Exit(None, None, None, event.reason, None, ready=instance.readied), turn)


def _told(event: Exited, readied: bool) -> Exit:
    """How the command ended. What kills for want of memory is SIGKILL, which others send as well."""
    seen = event.error is None and (event.code is not None or event.signal is not None)
    oom: bool | None = None
    if event.oom is not None:
        oom = event.oom != Oom.NONE
    elif seen and event.signal != _SIGKILL:
        oom = False
    core = event.core_dumped if seen else None
    return Exit(event.code, event.signal, oom, _exit_reason(event), event.left, core, readied)


def _exit_reason(event: Exited) -> str:
    if event.error is not None:
        return "not_started"
    if event.oom in (Oom.LIMIT, Oom.NODE):
        return f"oom_{event.oom}"
    if event.signal is not None:
        return "signaled"
    return "exited" if event.code is not None else "unseen"
