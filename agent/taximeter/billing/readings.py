"""Readings: how a meter is read off what a run used and was counted, to date.

Refuses to know what a unit of it costs, and what was read before.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import NamedTuple

from taximeter.billing.models import ModelPrice, Price
from taximeter.billing.money import EXACT
from taximeter.billing.units import NANO, ONE, PREDICTION, UNITS, priced
from taximeter.events import Status

_ZERO = Decimal(0)
#: How a count is written in units of so many; one of fewer digits than this has no more than 18 places then.
_EXPONENTS: Mapping[int, str] = {1: "", 1_000_000: "E-6"}
_SHORT = 14
_multiply, _add = EXACT.multiply, EXACT.add


class Totals(NamedTuple):
    """What a prediction used and was counted, to date."""

    load_ns: int
    busy_ns: int  #: its share of active time, or all of it: whichever its class bills
    units: Mapping[str, str]
    processed: bool  #: it was active at some time: what only loaded brought nothing
    ended: bool  #: there is no more to come


#: How a meter is read off a run's totals; None where it ought to have been told, and was not.
Reading = Callable[[Totals], Decimal | None]


def loading(totals: Totals) -> Decimal:
    """The seconds that it loaded."""
    return _multiply(totals[0], NANO)


def busy(totals: Totals) -> Decimal:
    """The seconds that it was busy."""
    return _multiply(totals[1], NANO)


def busy_on(devices: int) -> Reading:
    """The same, times its devices; without any of them there is no saying how much that is."""
    if not devices:
        return lambda totals: None if totals.busy_ns else _ZERO
    each = _multiply(NANO, devices)
    return lambda totals: _multiply(totals[1], each)


def part_of(price: Price, read: Reading) -> Reading:
    """Of what is read, what the price is for."""
    if not price.above and price.up_to is None:
        return read

    def part(totals: Totals) -> Decimal | None:
        quantity = read(totals)
        return quantity if quantity is None else price.part_of(quantity)

    return part


def counting(price: Price, model: ModelPrice, status: Status) -> Reading:
    """How many units there are; None where it succeeded, and what it is priced by was never counted."""
    if price.unit == PREDICTION:
        return part_of(price, lambda totals: ONE if totals.ended and totals.processed else _ZERO)
    unit = UNITS[price.unit]
    first, *others = model.names_of(unit.base) if price.counts is None else (price.counts,)
    needed, size = status is Status.SUCCEEDED and bool(price.amount), unit.size
    if not others and size in _EXPONENTS:
        return part_of(price, _alone(first, size, needed=needed))

    def counted(totals: Totals) -> Decimal | None:
        _, _, units, processed, ended = totals
        if not processed:
            return _ZERO
        text = units.get(first)
        total = None if text is None else Decimal(text)
        for name in others:
            if name in units:
                total = Decimal(units[name]) if total is None else _add(total, Decimal(units[name]))
        if total is None:
            return None if ended and needed else _ZERO
        return priced(total, size)

    return part_of(price, counted)


def _alone(name: str, size: int, *, needed: bool) -> Reading:
    """How many units there are of what is counted under one name, as most are."""
    exponent = _EXPONENTS[size]

    def counted(totals: Totals) -> Decimal | None:
        if not totals[3]:
            return _ZERO
        text = totals[2].get(name)
        if text is None:
            return None if needed and totals[4] else _ZERO
        if len(text) < _SHORT:
            return Decimal(text + exponent)
        return priced(Decimal(text), size)

    return counted
