"""Where the nanoseconds go: phases of an instance, shares of its predictions, over one stretch of unchanged state.

A stretch begins at the instance's `since_ns` and lasts while nobody joins or leaves. Looking at it (`phases_at`,
`times_at`) changes nothing; only `settle` begins a new one. So an interim cut, which only looks, can never change
how a nanosecond is shared. Refuses to know events, records and money.
"""

from taximeter.instance import Instance, Phases, Times
from taximeter.lifecycle import PHASES, Phase


def phases_at(instance: Instance, at_ns: int) -> Phases:
    """The instance's phases to date at `at_ns`, which is not before its `since_ns`."""
    passed = at_ns - instance.since_ns
    phases = instance.phases
    phase = PHASES.get(instance.stage)
    if phase is None:
        return phases
    if instance.lost:
        return phases._replace(unknown=phases.unknown + passed)
    if phase is Phase.ACTIVE:
        return phases._replace(active=phases.active + passed, crowd=phases.crowd + passed * instance.crowd)
    if phase is Phase.IDLE:
        return phases._replace(idle=phases.idle + passed)
    if phase is Phase.BOOT:
        return phases._replace(boot=phases.boot + passed)
    return phases._replace(teardown=phases.teardown + passed)


def times_at(instance: Instance, at_ns: int) -> tuple[Times, ...]:
    """Every open prediction's times to date at `at_ns`, in the order of `instance.predictions`.

    Of x ns that n predictions share, the k-th gets (x + n - 1 - k) // n: these add up to x for every x (Hermite's
    identity), each is x / n to within a nanosecond, and it depends on nothing but x, so no cut moves a nanosecond.
    """
    passed = at_ns - instance.since_ns
    if instance.lost:
        return tuple(
            prediction.times._replace(unknown=prediction.times.unknown + passed) for prediction in instance.predictions
        )
    crowd = instance.crowd
    times: list[Times] = []
    rank = 0
    for prediction in instance.predictions:
        if prediction.active:
            times.append(_shared(prediction.times, passed, crowd, rank))
            rank += 1
        else:
            times.append(prediction.times._replace(load=prediction.times.load + passed))
    return tuple(times)


def _shared(times: Times, passed: int, crowd: int, rank: int) -> Times:
    return Times(
        load=times.load,
        active=times.active + passed,
        share=times.share + (passed + crowd - 1 - rank) // crowd,
        suspended=times.suspended,
        unknown=times.unknown,
        crowd=times.crowd + passed * crowd,
    )


def settle(instance: Instance, at_ns: int) -> Instance:
    """The same instance with all times settled to `at_ns`: a new stretch begins."""
    if at_ns <= instance.since_ns:
        return instance
    phases = phases_at(instance, at_ns)
    if not instance.predictions:
        return instance._replace(phases=phases, since_ns=at_ns)
    settled = zip(instance.predictions, times_at(instance, at_ns), strict=True)
    predictions = tuple([prediction._replace(times=times) for prediction, times in settled])
    return instance._replace(phases=phases, predictions=predictions, since_ns=at_ns)


def suspend(instance: Instance, passed_ns: int) -> Instance:
    """Note that the machine slept for `passed_ns`: no part of the monotonic clock, billed to nobody."""
    phases = instance.phases._replace(suspended=instance.phases.suspended + passed_ns)
    predictions = tuple(
        prediction._replace(times=prediction.times._replace(suspended=prediction.times.suspended + passed_ns))
        for prediction in instance.predictions
    )
    return instance._replace(phases=phases, predictions=predictions)
