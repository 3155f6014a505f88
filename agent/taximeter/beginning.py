"""How a command begins: it is started, it is ready; and how most do, which is taken at once.

Owns what a start and readiness do to an instance, and a shortcut: a one-shot that is ready by being started, and beats
while nothing happens to it or to the clocks, goes on by all these facts in one step, to the very state to which each
of them would lead. Refuses to write a record: what is out of the ordinary is left to whoever takes fact by fact.
"""

from collections.abc import Sequence

from taximeter import lineage, wire
from taximeter.billing.classes import ONLINE
from taximeter.clockwork import moved, outdates, reading, slept_ns, utc_error_ns
from taximeter.events import BecameReady, Event, Heartbeat, Source, Spawned
from taximeter.instance import Cut, Instance
from taximeter.lifecycle import Input, Stage, advance
from taximeter.moves import become_ready
from taximeter.predictions import begin_one_shot
from taximeter.records import Witness
from taximeter.turn import KERNEL_NS, LATE_NS, PIDFD_NS, Turn, arrive
from taximeter.values import replace

#: Ways of becoming ready that the wrapper looks for itself, and so knows since when it may have been so.
_ASKED = frozenset({wire.BY_HTTP, wire.BY_TCP, wire.BY_LOG})


def spawned(instance: Instance, event: Spawned, turn: Turn) -> Instance:
    """The bill runs from the kernel's stamp of the exec; without one from spawn-returned, which is near it."""
    if event.exec_ns is None:
        # The kernel lets the parent go on before it is done with the exec, and either may wait for a core.
        start_ns, start = event.at_ns, Witness(event.source, max(event.at_ns - event.before_ns, PIDFD_NS))
    else:
        start_ns, start = max(event.exec_ns, instance.since_ns), Witness(Source.KERNEL, KERNEL_NS)
    stage = advance(instance.stage, Input.SPAWNED)
    told = instance.opened.options
    if told.parent is not None and told.parent == told.prediction:
        turn.doubts.append(lineage.OWN_PARENT)
    return replace(
        instance,
        stage=stage,
        pid=event.pid,
        host_pid=event.host_pid,
        start_ticks=event.start_ticks,
        start_ns=start_ns,
        since_ns=start_ns,
        sign_ns=max(start_ns, event.at_ns),
        spawned_ns=max(start_ns, event.at_ns),
        start=start,
        cut=Cut(start_ns),
        next_cut_ns=start_ns + turn.book.rules_of(instance.rules).interim_ns,
    )


def ready(instance: Instance, event: BecameReady, turn: Turn) -> Instance:
    """Ready; who is so by exec was it from the start, whose witness may be better than who says it."""
    untouched = instance.since_ns == instance.cut.at_ns == instance.start_ns
    with_the_spawn = untouched and event.by == wire.BY_EXEC and event.at_ns <= instance.spawned_ns
    at_ns = instance.start_ns if with_the_spawn else event.at_ns
    return become_ready(arrive(instance, at_ns, turn), at_ns, _ready_witness(instance, event), turn)


def _ready_witness(instance: Instance, event: BecameReady) -> Witness:
    """Who is ready as soon as it runs began when it ran; who is asked had just not been; who says so may be late."""
    if event.by == wire.BY_EXEC:
        return instance.start
    return Witness(Source.WRAPPER, event.within_ns if event.by in _ASKED else None)


def begun(instance: Instance, events: Sequence[Event], turn: Turn) -> tuple[Instance, int]:
    """The instance behind as many of these facts as are those of an undisturbed one-shot, and how many they are."""
    start, is_ready = events[:2] if len(events) > 1 else (None, None)
    if type(start) is not Spawned or type(is_ready) is not BecameReady or is_ready.by != wire.BY_EXEC:
        return instance, 0
    is_in_order = max(instance.sign_ns, instance.since_ns) <= start.at_ns and is_ready.at_ns <= start.at_ns
    if not is_in_order or not _is_fresh(instance, turn):
        return instance, 0
    return _beating(spawned(instance, start, turn), events, turn)


def _is_fresh(instance: Instance, turn: Turn) -> bool:
    """Whether it is a one-shot to which nothing has happened, and no card can begin to bill it on its way."""
    fresh = instance.stage is Stage.PENDING and not (instance.lost or instance.predictions)
    one_card = len(turn.book.cards) < 2 or instance.service_class not in ONLINE
    return fresh and one_card and not instance.opened.options.worker


def _beating(instance: Instance, events: Sequence[Event], turn: Turn) -> tuple[Instance, int]:
    """The instance, just started and so ready, behind the heartbeats that follow, as long as they are all that is."""
    known = instance.reading or reading(instance.opened.clock)
    sign_ns, usage, error_ns = instance.sign_ns, instance.usage, instance.utc_error_ns
    taken = 2
    for event in events[2:]:
        if type(event) is not Heartbeat or not sign_ns <= event.at_ns <= sign_ns + LATE_NS:
            break
        clock = event.clock
        now = reading(clock)
        if event.at_ns >= instance.next_cut_ns or moved(known, now) or slept_ns(instance.offset_ns, clock):
            break
        sign_ns, taken = event.at_ns, taken + 1
        if outdates(known, now):
            known = now
        if event.usage.cpu_ns is not None:
            usage = event.usage
        if not turn.knows_utc:
            error_ns = utc_error_ns(instance.opened, clock)
    after = replace(
        instance,
        stage=Stage.ACTIVE,
        readied=True,
        predictions=(begin_one_shot(instance, instance.start_ns, instance.start, turn.book),),
        crowd=1,
        sign_ns=sign_ns,
        usage=usage,
        reading=known if taken > 2 else instance.reading,
        utc_error_ns=error_ns,
    )
    return after, taken
