"""What an instance and its predictions used beside time, as a record says it: pure.

Owns how energy is shared out over predictions, in whole millijoules, and the difference of totals that a record tells.
What was not measured in an interval is None there: unknown, never zero. Refuses to know how anything is measured.
"""

from collections.abc import Sequence

from taximeter.events import Measured
from taximeter.instance import Drawn, Instance, Prediction
from taximeter.records import Resources
from taximeter.spans import times_at

_UNKNOWN = Resources(cpu_ns=None, rss_peak_bytes=None, gpu_memory_peak_bytes=None, energy_mj=None, energy_source=None)


def apportion(total: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Part a whole number by weight: each part is right to within one, and all add up to `total` (largest remainder).

    Where all weights are zero the parts are equal; of equal remainders the first is served.
    """
    if not any(weights):
        weights = [1] * len(weights)
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda at: (-(total * weights[at] % whole), at))
    for at in order[: total - sum(parts)]:
        parts[at] += 1
    return tuple(parts)


def measure(instance: Instance, event: Measured) -> Instance:
    """Take a measurement: what was drawn since the last one is shared out over the open predictions by their shares.

    A share is time. What else passed meanwhile, idle or with predictions that have ended since, takes its part, too,
    which is the instance's alone.
    """
    before = instance.measured
    after = instance._replace(measured=event)
    if event.energy_mj is None or before is None or instance.predictions == ():
        return after
    grown_mj = max(event.energy_mj - (before.energy_mj or 0), 0)
    shares = [times.share for times in times_at(instance, max(event.at_ns, instance.since_ns))]
    known = [prediction.drawn or Drawn(0, 0) for prediction in instance.predictions]
    weights = [max(share - drawn.share_ns, 0) for share, drawn in zip(shares, known, strict=True)]
    parts = apportion(grown_mj, [*weights, max(event.at_ns - before.at_ns - sum(weights), 0)])
    predictions = [
        prediction._replace(drawn=drawn._replace(energy_mj=drawn.energy_mj + part_mj, share_ns=share))
        for prediction, drawn, part_mj, share in zip(instance.predictions, known, parts, shares, strict=False)
    ]
    return after._replace(predictions=tuple(predictions))


def of_instance(instance: Instance) -> Resources:
    """What the instance used since its last cut; peaks are to date."""
    cpu_ns, rss_peak_bytes = instance.usage
    measured, cut = instance.measured, instance.cut
    if measured is None:
        return {
            "cpu_ns": None if cpu_ns is None else max(cpu_ns - cut.cpu_ns, 0),
            "rss_peak_bytes": rss_peak_bytes,
            "gpu_memory_peak_bytes": None,
            "energy_mj": None,
            "energy_source": None,
        }
    cpu_ns = _more(cpu_ns, measured.cpu_ns)
    energy_mj = None if measured.energy_mj is None else max(measured.energy_mj - cut.energy_mj, 0)
    if not energy_mj and measured.at_ns <= cut.at_ns:
        energy_mj = None  # nobody has looked since; what was told late is told now
    return {
        "cpu_ns": None if cpu_ns is None else max(cpu_ns - cut.cpu_ns, 0),
        "rss_peak_bytes": _more(rss_peak_bytes, measured.rss_peak_bytes),
        "gpu_memory_peak_bytes": measured.gpu_memory_peak_bytes,
        "energy_mj": energy_mj,
        "energy_source": None if energy_mj is None else measured.energy_source,
    }


def of_prediction(instance: Instance, prediction: Prediction) -> Resources:
    """What a prediction used since its last cut: a one-shot is its instance, of a worker's only energy is known."""
    if not instance.opened.options.worker:
        return of_instance(instance)
    measured, drawn = instance.measured, prediction.drawn
    energy_mj = drawn.energy_mj - drawn.cut_mj if drawn is not None else 0
    if measured is None or drawn is None or (not energy_mj and measured.at_ns <= prediction.cut_ns):
        return _UNKNOWN
    return {**_UNKNOWN, "energy_mj": energy_mj, "energy_source": measured.energy_source}


def cpu_to_date(instance: Instance) -> int | None:
    """The instance's processor time so far, by whoever saw more of it."""
    return (
        instance.usage.cpu_ns if instance.measured is None else _more(instance.usage.cpu_ns, instance.measured.cpu_ns)
    )


def _more(one: int | None, other: int | None) -> int | None:
    """The larger of two: each saw a part, and neither saw too much."""
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
