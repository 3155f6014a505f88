"""Where the nanoseconds go: phases of an instance, shares of its predictions, over one stretch of unchanged state.

A stretch begins at the instance's `since_ns` and lasts while nobody joins or leaves. Looking at it (`phases_at`,
`times_at`) changes nothing; only `settle` begins a new one. So an interim cut, which only looks, can never change
how a nanosecond is shared. Refuses to know events, records and money.
"""

from taximeter.instance import Instance, Phases, Prediction, Times
from taximeter.lifecycle import PHASES, Phase
from taximeter.values import replace


def phases_at(instance: Instance, at_ns: int) -> Phases:
    """The instance's phases to date at `at_ns`, which is not before its `since_ns`."""
    passed = at_ns - instance.since_ns
    phases = instance.phases
    if instance.lost:
        return replace(phases, unknown=phases.unknown + passed)
    phase = PHASES.get(instance.stage)
    if phase is None:
        return phases
    if phase is Phase.ACTIVE:
        active, crowd = passed, phases.crowd + passed * instance.crowd
        if instance.hidden:
            active -= _hidden_part(instance, passed)
            return replace(phases, active=phases.active + active, unknown=phases.unknown + passed - active, crowd=crowd)
        return replace(phases, active=phases.active + active, crowd=crowd)
    if phase is Phase.IDLE:
        return replace(phases, idle=phases.idle + passed)
    if phase is Phase.BOOT:
        return replace(phases, boot=phases.boot + passed)
    return replace(phases, teardown=phases.teardown + passed)


def times_at(instance: Instance, at_ns: int) -> tuple[Times, ...]:
    """Every open prediction's times to date at `at_ns`, in the order of `instance.predictions`.

    Of x ns that n predictions share, the k-th gets (x + n - 1 - k) // n, which is x // n, and one more for the first
    x % n: these add up to x for every x (Hermite's identity), each is x / n to within a nanosecond, and it depends on
    nothing but x, so no cut moves a nanosecond. Who may be there, and nobody knows, comes first: that part is unknown.
    """
    passed = at_ns - instance.since_ns
    if instance.lost:
        return tuple(
            replace(prediction.times, unknown=prediction.times.unknown + passed) for prediction in instance.predictions
        )
    crowd, rank = instance.crowd, instance.hidden
    whole, rest = divmod(passed, crowd + rank) if crowd else (0, 0)
    times: list[Times] = []
    for prediction in instance.predictions:
        if prediction.active:
            times.append(_shared(prediction.times, passed, whole + (rank < rest), passed * crowd))
            rank += 1
        else:
            times.append(replace(prediction.times, load=prediction.times.load + passed))
    return tuple(times)


def _hidden_part(instance: Instance, passed: int) -> int:
    """What of the active time belongs to those who may be there, for all that is known."""
    whole, rest = divmod(passed, instance.crowd + instance.hidden)
    return instance.hidden * whole + min(instance.hidden, rest)


def _shared(times: Times, passed: int, share: int, crowd: int) -> Times:
    """The times of one that is active, by place: this is done for everyone whenever somebody joins or leaves."""
    return Times(
        times.load, times.active + passed, times.share + share, times.suspended, times.unknown, times.crowd + crowd
    )


def settle(instance: Instance, at_ns: int) -> Instance:
    """The same instance with all times settled to `at_ns`: a new stretch begins."""
    if at_ns <= instance.since_ns:
        return instance
    phases = phases_at(instance, at_ns)
    if not instance.predictions:
        return replace(instance, phases=phases, since_ns=at_ns, lag_ns=0)
    crowd = _new_crowd(instance, at_ns)
    predictions: list[Prediction] = []
    for prediction, times in zip(instance.predictions, times_at(instance, at_ns), strict=True):
        if prediction.crowd_max < crowd and prediction.active:
            predictions.append(replace(prediction, times=times, crowd_max=crowd))
        else:
            predictions.append(replace(prediction, times=times))
    crowd_max = max(crowd, instance.crowd_max)
    settled = tuple(predictions)
    return replace(instance, phases=phases, predictions=settled, since_ns=at_ns, lag_ns=0, crowd_max=crowd_max)


def settle_late(instance: Instance, at_ns: int, true_ns: int) -> Instance:
    """The same for what was at `true_ns`, and more was told by then: how far times would lag behind is kept."""
    uncut_ns = max(true_ns, instance.since_ns - instance.lag_ns)
    return replace(settle(instance, at_ns), lag_ns=at_ns - uncut_ns)


def note_crowd(instance: Instance, at_ns: int) -> Instance:
    """Note how many are active together until `at_ns`, where some of that time is new since the last cut."""
    crowd = _new_crowd(instance, at_ns)
    predictions = [
        replace(prediction, crowd_max=crowd) if prediction.active and prediction.crowd_max < crowd else prediction
        for prediction in instance.predictions
    ]
    return replace(instance, predictions=tuple(predictions), crowd_max=max(instance.crowd_max, crowd))


def _new_crowd(instance: Instance, at_ns: int) -> int:
    """How many are active together until `at_ns`; 0 where none of that time is new since the last cut.

    Whoever came and went at one and the same instant was nobody's company.
    """
    return 0 if instance.lost or at_ns <= max(instance.since_ns, instance.cut.at_ns) else instance.crowd


def suspend(instance: Instance, passed_ns: int) -> Instance:
    """Note that the machine slept for `passed_ns`: no part of the monotonic clock, billed to nobody."""
    phases = replace(instance.phases, suspended=instance.phases.suspended + passed_ns)
    predictions = tuple(
        replace(prediction, times=replace(prediction.times, suspended=prediction.times.suspended + passed_ns))
        for prediction in instance.predictions
    )
    return replace(instance, phases=phases, predictions=predictions)
