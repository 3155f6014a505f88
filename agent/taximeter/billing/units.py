"""What may be priced: the platform's units, and how much of one is in what was counted.

Owns the list of units and their scales. Refuses to know prices and what workers call what they count.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from taximeter.billing.money import EXACT, rounded


class Unit(NamedTuple):
    """A priced unit: so many of `base` are one of it."""

    base: str
    size: int = 1


PREDICTION = "prediction"
COMPUTING_SECOND = "computing_second"
GPU = "gpu"

ONE, NANO, MILLIONTH = Decimal(1), Decimal("1e-9"), Decimal("1e-6")
_MILLION = 1_000_000
#: `second` is a second of output media; of these only `computing_second` and `gpu` are hardware time.
UNITS: Mapping[str, Unit] = {
    "image": Unit("image"),
    "image_megapixel": Unit("image_megapixel"),
    "video": Unit("video"),
    "second": Unit("second"),
    "5 seconds": Unit("second", 5),
    "minute": Unit("second", 60),
    "audio_second": Unit("audio_second"),
    "video_second": Unit("video_second"),
    "token": Unit("token"),
    "million_token": Unit("token", _MILLION),
    PREDICTION: Unit(PREDICTION),
    COMPUTING_SECOND: Unit(COMPUTING_SECOND),
    GPU: Unit(GPU),
}
#: Time of the hardware: measured, never counted by a worker.
HARDWARE = frozenset({COMPUTING_SECOND, GPU})
#: What a worker counts: each of these, or whatever a card says is one of them.
COUNTED = frozenset({unit.base for name, unit in UNITS.items() if name not in HARDWARE}) - {PREDICTION}
#: What workers count as it comes, where a card says nothing else; whatever else they count is what it is called.
USUAL_COUNTS: Mapping[str, str] = {"token_input": "token", "token_output": "token"}
#: The names under which each of these is counted, then.
USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    base: (base, *(name for name, unit in USUAL_COUNTS.items() if unit == base)) for base in COUNTED
}


def quantum_of(unit: str) -> Decimal:
    """How fine a unit mostly comes: time by the nanosecond, all else in whole numbers of what is counted."""
    if unit in HARDWARE:
        return NANO
    return MILLIONTH if UNITS[unit].size == _MILLION else ONE


def priced(counted: Decimal, size: int) -> Decimal:
    """How many units of `size` are in what was counted, to 18 places, which only minutes need."""
    if size == 1:
        return counted
    if size == _MILLION:
        return rounded(EXACT.multiply(counted, MILLIONTH))  # the same as to divide, at half the cost
    return rounded(EXACT.divide(counted, Decimal(size)))
