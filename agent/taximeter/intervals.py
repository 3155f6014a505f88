"""How a record tells its time: from when until when, in which parts, by whose word.

Owns the labels and the sums of `interval`, `time`, `concurrency` and `timing`. Refuses to know who pays, and to change
any state.
"""

from decimal import Decimal

from taximeter import clockwork
from taximeter.billing.money import plain
from taximeter.clockwork import utc_ns
from taximeter.events import Opened
from taximeter.instance import Instance, Phases, Times
from taximeter.records import Concurrency, InstanceTime, Interval, PredictionTime, Timing, Witness, utc_text
from taximeter.values import Value

_HUNDREDTH = Decimal("0.01")


class Moment(Value):
    """An end of an interval: by MONOTONIC, and how long the machine had slept by then, which the calendar knows."""

    at_ns: int
    slept_ns: int


def interval(opened: Opened, start: Moment, end: Moment) -> Interval:
    """From when until when; the labels are as far apart as the wall is long."""
    return {
        "start_utc": utc_text(utc_ns(opened, start.at_ns, start.slept_ns)),
        "end_utc": utc_text(utc_ns(opened, end.at_ns, end.slept_ns)),
        "start_ns": start.at_ns,
        "end_ns": end.at_ns,
        "boot_id": opened.clock.boot_id,
    }


def prediction_time(start_ns: int, end_ns: int, before: Times, now: Times) -> PredictionTime:
    """Where a prediction's nanoseconds went between two totals."""
    suspended_ns = now.suspended - before.suspended
    return {
        "wall_ns": end_ns - start_ns + suspended_ns,
        "load_ns": now.load - before.load,
        "active_ns": now.active - before.active,
        "share_ns": now.share - before.share,
        "suspended_ns": suspended_ns,
        "unknown_ns": now.unknown - before.unknown,
    }


def instance_time(start_ns: int, end_ns: int, before: Phases, now: Phases) -> InstanceTime:
    """Where an instance's nanoseconds went between two totals."""
    suspended_ns = now.suspended - before.suspended
    return {
        "wall_ns": end_ns - start_ns + suspended_ns,
        "boot_ns": now.boot - before.boot,
        "idle_ns": now.idle - before.idle,
        "active_ns": now.active - before.active,
        "teardown_ns": now.teardown - before.teardown,
        "suspended_ns": suspended_ns,
        "unknown_ns": now.unknown - before.unknown,
    }


def concurrency(crowd: int, active_ns: int, most: int) -> Concurrency:
    """How many were active together: on the mean, rounded once to hundredths (half to even), and at most."""
    if not active_ns:
        return {"mean": "0", "max": most}
    if crowd == active_ns:
        return {"mean": "1", "max": most}
    mean = (Decimal(crowd) / Decimal(active_ns)).quantize(_HUNDREDTH)
    return {"mean": plain(mean), "max": most}


def timing(instance: Instance, start: Witness, end: Witness, faults: int) -> Timing:
    """The witnesses of both ends, and what the clocks did in between."""
    if instance.opened.timens is not None:
        faults |= clockwork.TIME_NAMESPACE
    return {
        "start": start,
        "end": end,
        "clock": clockwork.text(faults),
        "utc_uncertainty_ns": instance.utc_error_ns,
    }
