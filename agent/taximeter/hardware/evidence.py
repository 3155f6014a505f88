"""How it is known which devices an instance used, and which of two tiers that makes it pay: pure.

Owns the verdict over what the environment declares and what NVML saw, and the choice of the tier that bills. Refuses
to know how a process was found on a device, and what time is: evidence never moves a nanosecond.

    declared   nothing was seen (yet), or NVML cannot say
    observed   the environment settles no devices, and it was seen on some
    both       it was seen on devices that it declared, and on no other
    mismatch   it was seen on a device that it did not declare; or one that it declared was never used although it
               was seen on others for long enough (`is_unused_settled`)

What no tier fits, or what has no price, cannot be compared with anything: then the tier that was declared bills, at its
price or, where it has none, at none. Nothing is guessed, and nobody pays for what was not agreed.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

from taximeter.events import Observed
from taximeter.hardware.inventory import Evidence, Hardware

#: A declared device may lie idle for so long while others are used: libraries load one device after the other.
UNUSED_NS = 60_000_000_000


class OnMismatch(StrEnum):
    """Which tier bills where declared and observed devices differ."""

    CHEAPER = "cheaper"
    DECLARED = "declared"
    OBSERVED = "observed"


def weigh(declared: Hardware | None, observed: Observed | None, ended: tuple[int, int] | None = None) -> Evidence:
    """Return the verdict so far; of an instance that has ended, with the ends of its life."""
    if observed is None or observed.hardware is None:
        return Evidence.DECLARED
    if declared is None or not declared.settled:
        return Evidence.OBSERVED
    named, seen = uuids(declared), uuids(observed.hardware)
    if seen - named:
        return Evidence.MISMATCH
    if named - seen and is_unused_settled(observed, ended):
        return Evidence.MISMATCH
    return Evidence.BOTH


def is_unused_settled(observed: Observed, ended: tuple[int, int] | None) -> bool:
    """Say whether it was seen for long enough that what it was never seen on counts as unused.

    That is a minute between the first and the last look; of a shorter life, half of it.
    """
    watched_ns = observed.at_ns - observed.since_ns
    if ended is None:
        return watched_ns >= UNUSED_NS
    start_ns, end_ns = ended
    return watched_ns >= UNUSED_NS or 0 < end_ns - start_ns <= 2 * watched_ns


def billed(
    declared: Hardware, observed: Hardware, evidence: Evidence, choice: OnMismatch, prices: Mapping[str, Decimal]
) -> Hardware:
    """Return the one of both that bills."""
    if evidence is Evidence.OBSERVED:
        return observed
    if evidence is not Evidence.MISMATCH or choice is OnMismatch.DECLARED:
        return declared
    if choice is OnMismatch.OBSERVED:
        return observed
    ours, theirs = prices.get(observed.tier), prices.get(declared.tier)
    return observed if ours is not None and theirs is not None and ours < theirs else declared


def uuids(hardware: Hardware) -> set[str]:
    """Return which devices these are."""
    return {device.uuid for device in hardware.devices}
