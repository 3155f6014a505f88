"""Recutting: how much of an instance's online time lies before an instant within it, by its records. Pure.

Where a rate card was known in time, the instance was cut as it took effect. Of one that came later the records that
hold the instant tell how long each phase was, and not when: a boot comes first and a teardown last, which mostly
settles it. What it does not settle (idle and active time, sleep, and time that nobody saw, in any order) is taken as
favours the payer: as little of it as can have been before a card that is cheaper, as much before one that is not.
Refuses to know prices.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from taximeter.billing.classes import Terms
from taximeter.instance import Freed, Phases
from taximeter.recall import realtime_ns

Json = Mapping[str, Any]
_NAMES = ("boot", "idle", "active", "teardown")


def phases_until(own: Sequence[Json], at_utc_ns: int, terms: Terms, *, least: bool) -> Phases:
    """Phases to date at an instant that lies within these records, boot included; `least`: as little as can be."""
    within = next(event for event in own if at_utc_ns < _end_utc_ns(event))["data"]
    time, to_date = within["time"], within["to_date"]
    passed_ns = max(0, at_utc_ns - realtime_ns(within["interval"]["start_utc"]))
    middle = sorted(("idle", "active"), key=lambda phase: terms.idle if phase == "idle" else terms.active)
    order = ("boot", *(middle if least else reversed(middle)), "teardown")
    before = _before(time, passed_ns, order, least=least)
    return Phases(*(to_date[f"{name}_ns"] - time[f"{name}_ns"] + before[name] for name in _NAMES))


def freed_until(freed: Freed, active_after_ns: int) -> Freed:
    """How much of what was freed is before an instant: it was the last of the active time."""
    before_ns = max(0, freed.idle + freed.teardown - active_after_ns)
    idle_ns = min(freed.idle, before_ns)
    return Freed(idle_ns, before_ns - idle_ns)


def _end_utc_ns(event: Json) -> int:
    data = event["data"]
    return realtime_ns(data["interval"]["start_utc"]) + int(data["time"]["wall_ns"])


def _before(time: Json, passed_ns: int, order: Sequence[str], *, least: bool) -> dict[str, int]:
    """How much of each phase of a record is in the first `passed_ns` of it."""
    nobodys_ns = time["suspended_ns"] + time["unknown_ns"]
    left_ns = max(0, passed_ns - nobodys_ns) if least else min(passed_ns, time["wall_ns"] - nobodys_ns)
    found: dict[str, int] = {}
    for name in order:
        found[name] = min(time[f"{name}_ns"], left_ns)
        left_ns -= found[name]
    return found
