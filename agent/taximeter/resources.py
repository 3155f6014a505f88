"""What an instance and its predictions used beside time, as a record says it: pure.

Owns how energy and processor time are shared out over predictions, in whole millijoules and nanoseconds, the
difference of totals that a record tells, and which looks at memory fell into which prediction.
What was not measured in an interval is None there: unknown, never zero. Refuses to know how anything is measured.
"""

from collections.abc import Sequence

from taximeter.events import Held, Measured
from taximeter.instance import Drawn, Instance, Peaks, Prediction
from taximeter.records import Resources
from taximeter.spans import times_at
from taximeter.values import replace

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
    after = replace(instance, measured=event)
    if before is None or instance.predictions == ():
        return after
    grown_mj = 0 if event.energy_mj is None else max(event.energy_mj - (before.energy_mj or 0), 0)
    grown_ns = 0 if event.cpu_ns is None or before.cpu_ns is None else max(event.cpu_ns - before.cpu_ns, 0)
    shares = [times.share for times in times_at(instance, max(event.at_ns, instance.since_ns))]
    known = [prediction.drawn or Drawn(0, 0) for prediction in instance.predictions]
    weights = [max(share - drawn.share_ns, 0) for share, drawn in zip(shares, known, strict=True)]
    weights.append(max(event.at_ns - before.at_ns - sum(weights), 0))
    parts = zip(apportion(grown_mj, weights), apportion(grown_ns, weights), strict=True)
    predictions = [
        replace(prediction, drawn=Drawn(drawn.energy_mj + mj, share, drawn.cut_mj, drawn.cpu_ns + ns, drawn.cut_cpu_ns))
        for prediction, drawn, (mj, ns), share in zip(instance.predictions, known, parts, shares, strict=False)
    ]
    return replace(after, predictions=tuple(predictions))


def hold(instance: Instance, event: Held) -> Instance:
    """Take a look at memory: the one before it counts for what was begun by then, and is open still.

    The newest one waits, since marks of before it may be read after it: it counts where a prediction's own times say.
    """
    looks = instance.looks
    before = looks.devices if event.on_devices else looks.node
    after = replace(looks, devices=event) if event.on_devices else replace(looks, node=event)
    predictions = instance.predictions
    if before is not None:
        predictions = tuple([replace(open_, peaks=_raised(open_, before)) for open_ in predictions])
    return replace(instance, looks=after, predictions=predictions)


def peaks_until(instance: Instance, prediction: Prediction, at_ns: int) -> Peaks:
    """The most memory that the instance held at a look while a prediction was open, to date at `at_ns`."""
    peaks = prediction.peaks
    for look in (instance.looks.node, instance.looks.devices):
        if look is not None and look.at_ns <= at_ns:
            peaks = _raised(replace(prediction, peaks=peaks), look)
    return peaks


def _raised(prediction: Prediction, look: Held) -> Peaks:
    peaks, on_devices = prediction.peaks, look.on_devices
    if prediction.start_ns > look.at_ns:
        return peaks
    known = _more(peaks.devices if on_devices else peaks.node, look.size_bytes)
    return replace(peaks, devices=known) if on_devices else replace(peaks, node=known)


def told(drawn: Drawn | None) -> Drawn | None:
    """The same after a cut, which told of all of it."""
    return drawn and replace(drawn, cut_mj=drawn.energy_mj, cut_cpu_ns=drawn.cpu_ns)


def of_instance(instance: Instance) -> Resources:
    """What the instance used since its last cut; peaks are to date."""
    cpu_ns, rss_peak_bytes = instance.usage.cpu_ns, instance.usage.rss_peak_bytes
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


def of_prediction(instance: Instance, prediction: Prediction, until_ns: int) -> Resources:
    """What a prediction used from its last cut to `until_ns`: a one-shot is its instance, of a worker's its part.

    Memory is nobody's part: what the process holds, it holds for all of them, so it is what was seen of all of it.
    """
    if not instance.opened.options.worker:
        return of_instance(instance)
    peaks = peaks_until(instance, prediction, until_ns)
    held: Resources = {**_UNKNOWN, "rss_peak_bytes": peaks.node, "gpu_memory_peak_bytes": peaks.devices}
    measured, drawn = instance.measured, prediction.drawn
    if measured is None or drawn is None:
        return held
    looked = measured.at_ns > prediction.cut_ns
    energy_mj = _part(drawn.energy_mj - drawn.cut_mj, measured.energy_mj, looked)
    cpu_ns = _part(drawn.cpu_ns - drawn.cut_cpu_ns, measured.cpu_ns, looked)
    source = None if energy_mj is None else measured.energy_source
    return {**held, "cpu_ns": cpu_ns, "energy_mj": energy_mj, "energy_source": source}


def _part(since_cut: int, total: int | None, looked: bool) -> int | None:
    """What is known of a part: nothing where nobody measures, or has looked since."""
    return since_cut if since_cut or (looked and total is not None) else None


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
