"""What lines of units and of a model's own hardware time say, held against what was counted and measured.

Owns how much of a unit there can be in what a record says. Which of it a price is for, the rate card knows: so a line
may bill less, and never more. Refuses to know money (balance).
"""

from collections.abc import Callable, Mapping
from decimal import Context, Decimal

from taximeter.billing.units import GPU, HARDWARE, UNITS, priced

#: Is told what is wrong. A sound record says nothing, and should cost nothing: there is no iterator to make and ask.
Say = Callable[[str], object]

_EXACT = Context(prec=250)
_NOTHING = Decimal(0)


def add(counted: dict[str, Decimal], units: Mapping[str, str]) -> None:
    """Add what one record says was counted."""
    for name, amount in units.items():
        counted[name] = _EXACT.add(counted.get(name, _NOTHING), Decimal(amount))


def compare(counted: Mapping[str, Decimal], to_date: Mapping[str, str], say: Say) -> None:
    """Say where a record's own totals are not the sum of its run's records."""
    for name, total in to_date.items():
        known = counted.get(name, _NOTHING)
        if Decimal(total) != known:
            say(f"units_to_date: {name} is {total}, expected {known:f}, the sum of its records")


def hold_to_counts(meter: str, unit: str, quantity: Decimal, counted: Mapping[str, Decimal], say: Say) -> None:
    """Say where a meter's lines, summed, bill more than was counted under its name."""
    if meter not in counted or unit not in UNITS:
        return
    most = priced(counted[meter], UNITS[unit].size)
    if quantity > most:
        say(f"billing: {meter} bills {quantity:f} so far, expected at most the {most:f} that were counted")


def hold_to_time(meter: str, unit: str, quantity: Decimal, active: tuple[int, int], say: Say) -> None:
    """Say where a line of a model's own price bills more than was active: so many ns, on so many devices."""
    if unit not in HARDWARE or not meter.startswith(unit) or meter.endswith(" load"):
        return
    most_ns, devices = active
    most_s = _EXACT.scaleb(Decimal(most_ns * (devices if unit == GPU else 1)), -9)
    if quantity > most_s:
        say(f"billing: {meter} bills {quantity:f}, expected at most the {most_s:f} s that were active")
