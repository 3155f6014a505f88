"""What lines of units and of a model's own hardware time say, held against what was counted and measured.

Owns how much of a unit there can be in what a record says. Which of it a price is for, the rate card knows: so a line
may bill less, and never more. Refuses to know money (balance).
"""

from collections.abc import Iterator, Mapping
from decimal import Context, Decimal

from taximeter.billing.units import GPU, HARDWARE, UNITS, priced

_EXACT = Context(prec=250)


def add(counted: dict[str, Decimal], units: Mapping[str, str]) -> None:
    """Add what one record says was counted."""
    for name, amount in units.items():
        counted[name] = _EXACT.add(counted.get(name, Decimal(0)), Decimal(amount))


def miscounted(counted: Mapping[str, Decimal], to_date: Mapping[str, str] | None) -> Iterator[str]:
    """Say where a record's own totals are not the sum of its run's records."""
    for name, total in (to_date or {}).items():
        known = counted.get(name, Decimal(0))
        if Decimal(total) != known:
            yield f"units_to_date: {name} is {total}, expected {known:f}, the sum of its records"


def overbilled(meter: str, unit: str, quantity: Decimal, counted: Mapping[str, Decimal]) -> Iterator[str]:
    """Say where a meter's lines, summed, bill more than was counted under its name."""
    if meter not in counted or unit not in UNITS:
        return
    most = priced(counted[meter], UNITS[unit].size)
    if quantity > most:
        yield f"billing: {meter} bills {quantity:f} so far, expected at most the {most:f} that were counted"


def overtimed(meter: str, unit: str, quantity: Decimal, most_ns: int, devices: int) -> Iterator[str]:
    """Say where a line of a model's own price bills more hardware time than was active."""
    if unit not in HARDWARE or not meter.startswith(unit) or meter.endswith(" load"):
        return
    most_s = _EXACT.scaleb(Decimal(most_ns * (devices if unit == GPU else 1)), -9)
    if quantity > most_s:
        yield f"billing: {meter} bills {quantity:f}, expected at most the {most_s:f} s that were active"
