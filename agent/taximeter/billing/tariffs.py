"""Tariffs: by which meters a run is billed, each at its price; all of it that a run's totals do not change.

Owns which price counts: a model's own or its tier's, or both; and what becomes of it where a run fails or is aborted.
A tariff is worked out once for all runs that are sold alike, so that a record costs little more than its arithmetic.
Refuses to know what a run used (readings, dues), and what earlier records billed (rating).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import NamedTuple

from taximeter.billing.classes import Terms
from taximeter.billing.models import ModelPrice, OnFailure, Price
from taximeter.billing.money import EXACT, plain, rounded
from taximeter.billing.rates import RateCard
from taximeter.billing.readings import Reading, busy, busy_on, counting, loading, part_of
from taximeter.billing.units import COMPUTING_SECOND, GPU, HARDWARE, quantum_of
from taximeter.events import Status

_ZERO, _ONE = Decimal(0), Decimal(1)
_LOAD = "load"
#: Attributes are as customers say them: no more of them are remembered.
_REMEMBERED = 256
_FAILED, _ABORTED = Status.FAILED, Status.ABORTED


class Sale(NamedTuple):
    """Under which terms a prediction is sold."""

    card: RateCard | None
    model: ModelPrice | None
    terms: Terms
    status: Status  #: PROCESSING: it goes on
    tier: str
    devices: int  #: of that tier
    attributes: Mapping[str, str]
    online: bool = False  #: its time is billed by its instance


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A meter, and its price."""

    meter: str
    unit: str
    rate: Decimal | None  #: None: nobody knows a price
    multiplier: Decimal
    each: Decimal  #: what one unit comes to
    quantum: Decimal | None  #: of quantities as coarse as this, or coarser, nothing is rounded; None: of none
    rate_text: str
    multiplier_text: str
    missing: str = ""  #: what it says where it was not told
    is_load: bool = False  #: of the time that a prediction loads


def item_of(
    meter: str, unit: str, rate: Decimal | None, by: Decimal, *, missing: str = "", is_load: bool = False
) -> Item:
    """An item, with what every line of it needs worked out."""
    each, quantum = EXACT.multiply(rate or _ZERO, by), quantum_of(unit)
    least = EXACT.multiply(quantum, each)
    known = quantum if rounded(least) == least else None
    return Item(meter, unit, rate, by, each, known, plain(rate or _ZERO), plain(by), missing, is_load)


@dataclass(frozen=True, slots=True, eq=False)
class Tariff:
    """What all runs cost that are sold alike, in one currency."""

    currency: str | None
    card: str | None  #: its hash
    items: tuple[Item, ...] = ()
    readings: tuple[Reading, ...] = ()  #: of each item
    reason: str | None = None  #: why those have no price that have none


NO_TARIFF = Tariff(None, None)


class Offer:
    """What is sold, but for the attributes of a prediction; the tariff of those that were asked for is remembered."""

    __slots__ = ("_as_before", "_known", "_looked_at", "sale")

    def __init__(self, sale: Sale) -> None:
        self.sale = sale
        ends_so = sale.status is not _FAILED and sale.status is not _ABORTED and sale.terms.on(sale.status) == _ONE
        self._as_before = (sale.tier, sale.devices) if ends_so else None
        criterias = sale.model.criterias if sale.model else ()
        self._looked_at = tuple(dict.fromkeys(criterion.field for criterion in criterias))
        self._known: dict[tuple[str | None, ...], Tariff] = {}

    def as_before(self, tier: str, devices: int) -> bool:
        """Whether how it ended, or on what, changes nothing of what was due before on that: for most."""
        return self._as_before == (tier, devices)

    def tariff(self, attributes: Mapping[str, str]) -> Tariff:
        """The tariff of predictions with these attributes."""
        said = tuple([attributes.get(name) for name in self._looked_at]) if self._looked_at else ()
        tariff = self._known.get(said)
        if tariff is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            tariff = self._known[said] = tariff_of(self.sale._replace(attributes=attributes))
        return tariff


def tariff_of(sale: Sale) -> Tariff:
    """The tariff of a sale."""
    model = sale.model
    if model is None:
        return _of_tier(sale)
    nothing = Tariff(model.currency, sale.card.hash if sale.card else None)
    if not model.billable:
        return nothing
    if sale.status is _FAILED and model.on_failure is not OnFailure.UNITS and not model.is_time:
        return _of_tier(sale) if model.on_failure is OnFailure.TIME and not sale.online else nothing
    if model.plus_hardware and not sale.online:
        return _plus(_of_tier(sale), _of_model(model, sale))
    return _plus(nothing, _of_model(model, sale))


def time_tariff(meters: Iterable[tuple[str, Decimal]], tier: str, card: RateCard | None) -> Tariff:
    """Hardware time on a tier: meters, each with its multiplier."""
    rate = card.tiers.get(tier) if card else None
    items = tuple([item_of(meter, COMPUTING_SECOND, rate, by, is_load=meter == _LOAD) for meter, by in meters if by])
    if card is None:
        return Tariff(None, None, items, reason="no rate card was in force")
    reason = f"the rate card has no tier {tier!r}" if rate is None else None
    return Tariff(card.currency, card.hash, items, reason=reason)


def multiplied(terms: Terms, status: Status, phase: Decimal) -> Decimal:
    """A phase's multiplier, and that of how it ended."""
    by = terms.on(status)
    return phase if by == _ONE else EXACT.multiply(phase, by)


def _of_tier(sale: Sale) -> Tariff:
    terms, status = sale.terms, sale.status
    load, active = (multiplied(terms, status, phase) for phase in (terms.load, terms.active))
    readings = tuple([read for by, read in ((load, loading), (active, busy)) if by])
    return replace(time_tariff(((_LOAD, load), (terms.quantity, active)), sale.tier, sale.card), readings=readings)


def _plus(tariff: Tariff, more: Iterable[tuple[Item, Reading]]) -> Tariff:
    added = tuple(more)
    items, readings = (item for item, _ in added), (reading for _, reading in added)
    return replace(tariff, items=(*tariff.items, *items), readings=(*tariff.readings, *readings))


def _of_model(model: ModelPrice, sale: Sale) -> Iterator[tuple[Item, Reading]]:
    """What a model's own prices are for."""
    by = multiplied(sale.terms, sale.status, sale.terms.active)
    if not by or (sale.online and sale.status is _ABORTED):
        return  # of an online class, what is certain of its time is paid; what the platform broke off is not
    for price in model.prices_for(sale.attributes):
        if price.unit not in HARDWARE:
            what = price.counts or price.unit
            missing = f"nothing was counted that is {what!r}, by which {model.name!r} is priced"
            item = item_of(price.meter, price.unit, price.amount, by, missing=missing)
            yield item, counting(price, model, sale.status)
        elif not sale.online:
            yield from _measured(price, model, sale, by)


def _measured(price: Price, model: ModelPrice, sale: Sale, by: Decimal) -> Iterator[tuple[Item, Reading]]:
    """Hardware time at the model's own price; loading, too, where its class pays for that."""
    whole = not price.above and price.up_to is None
    if price.unit == GPU:
        missing = f"it ran on no device, and {model.name!r} is priced by {GPU}"
        yield item_of(price.meter, GPU, price.amount, by, missing=missing), part_of(price, busy_on(sale.devices))
        return
    load = multiplied(sale.terms, sale.status, sale.terms.load)
    if load and whole:
        meter = f"{price.meter} {_LOAD}"
        yield item_of(meter, COMPUTING_SECOND, price.amount, load, is_load=True), loading
    yield item_of(price.meter, COMPUTING_SECOND, price.amount, by), part_of(price, busy)
