"""What is due for a run so far: its totals, each at its price (contracts, section 5).

Everything here is of totals to date and of nothing else, so that no cut and no order of marks changes what a run
costs. Refuses to know which price counts (tariffs), and what earlier records billed (rating).
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from taximeter.billing.money import seconds
from taximeter.billing.rates import RateCard
from taximeter.billing.readings import Totals
from taximeter.billing.tariffs import NO_TARIFF, Sale, Tariff, tariff_of, time_tariff

#: Makes a named tuple by place, in half the time: one is made for every record.
_new = tuple.__new__


class Due(NamedTuple):
    """So much on one meter, at its price."""

    meter: str
    unit: str
    quantity: Decimal
    rate: Decimal | None  #: None: nobody knows a price
    multiplier: Decimal


class Dues(NamedTuple):
    """All that is due for totals, or why nothing of it is priced."""

    tariff: Tariff
    quantities: tuple[Decimal, ...]  #: one for each of its items; none where one of them was not told
    reason: str | None = None

    @property
    def currency(self) -> str | None:
        """Of its prices."""
        return self.tariff.currency

    @property
    def card(self) -> str | None:
        """The hash of the rate card."""
        return self.tariff.card

    @property
    def lines(self) -> tuple[Due, ...]:
        """What there is any of."""
        return tuple(
            [
                Due(item.meter, item.unit, quantity, item.rate, item.multiplier)
                for item, quantity in zip(self.tariff.items, self.quantities, strict=False)
                if quantity
            ]
        )


NOTHING_DUE = Dues(NO_TARIFF, ())


def dues(sale: Sale, totals: Totals) -> Dues:
    """What a prediction of these totals costs, all in all."""
    return dues_by(tariff_of(sale), totals)


def dues_by(tariff: Tariff, totals: Totals) -> Dues:
    """The same by the tariff of its sale."""
    quantities: list[Decimal] = []
    for read in tariff.readings:
        quantity = read(totals)
        if quantity is None:
            return Dues(tariff, (), tariff.items[len(quantities)].missing)
        quantities.append(quantity)
    return _dues(tariff, quantities) if tariff.reason else _new(Dues, (tariff, tuple(quantities), None))


def of_time(parts: Sequence[tuple[str, int, Decimal]], tier: str, card: RateCard | None) -> Dues:
    """What stretches of hardware time cost on a tier: meter, nanoseconds and multiplier of each."""
    tariff = time_tariff([(meter, by) for meter, _, by in parts], tier, card)
    return _dues(tariff, [seconds(ns) for _, ns, by in parts if by])


def _dues(tariff: Tariff, quantities: list[Decimal]) -> Dues:
    """With the reason, where anything is due that has no price."""
    unpriced = any(quantity and item.rate is None for item, quantity in zip(tariff.items, quantities, strict=True))
    return Dues(tariff, tuple(quantities), tariff.reason if unpriced else None)
