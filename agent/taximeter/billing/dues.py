"""What is due for a run so far: its totals, each at its price (contracts, section 5).

Owns which price counts: a model's own or its tier's, or both; and what becomes of it where a run fails or is aborted.
Everything here is of totals to date and of nothing else, so that no cut and no order of marks changes what a run
costs. Refuses to know what earlier records billed (rating).
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

from taximeter.billing.classes import Terms
from taximeter.billing.models import ModelPrice, OnFailure, Price
from taximeter.billing.money import EXACT, seconds
from taximeter.billing.rates import RateCard
from taximeter.billing.units import COMPUTING_SECOND, GPU, HARDWARE, PREDICTION, UNITS, priced
from taximeter.events import Status

_ZERO, _ONE = Decimal(0), Decimal(1)
_FAILED, _ABORTED = Status.FAILED, Status.ABORTED
#: Makes a named tuple by place, in half the time: one is made for every line of every record.
_new = tuple.__new__


class Due(NamedTuple):
    """So much on one meter, at its price."""

    meter: str
    unit: str
    quantity: Decimal
    rate: Decimal | None  #: None: nobody knows a price
    multiplier: Decimal


class Dues(NamedTuple):
    """All that is due for totals, or why nothing of it is priced; in one currency."""

    lines: tuple[Due, ...]
    currency: str | None
    card: str | None  #: its hash
    reason: str | None = None


class Totals(NamedTuple):
    """What a prediction used and was counted, to date."""

    load_ns: int
    busy_ns: int  #: its share of active time, or all of it: whichever its class bills
    units: Mapping[str, str]
    processed: bool  #: it was active at some time: what only loaded brought nothing
    ended: bool  #: there is no more to come


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


def dues(sale: Sale, totals: Totals) -> Dues:
    """What a prediction of these totals costs, all in all."""
    model = sale.model
    if model is None:
        return _of_tier(sale, totals)
    if not model.billable:
        return _nothing(model, sale.card)
    if sale.status is Status.FAILED and model.on_failure is not OnFailure.UNITS and not model.is_time:
        by_time = model.on_failure is OnFailure.TIME and not sale.online
        return _of_tier(sale, totals) if by_time else _nothing(model, sale.card)
    lines, reason = _of_model(model, sale, totals)
    if model.plus_hardware and not sale.online and reason is None:
        tier = _of_tier(sale, totals)
        return Dues((*tier.lines, *lines), *tier[1:])
    return Dues(lines, model.currency, sale.card.hash if sale.card else None, reason)


def as_before_its_end(sale: Sale, before: Sale) -> bool:
    """Whether how it ended, or on what, changes nothing of what was due before: for most, which spares a third."""
    if sale.status is _FAILED or sale.status is _ABORTED or sale.terms.on(sale.status) != _ONE:
        return False
    return sale.tier == before.tier and sale.devices == before.devices


def of_time(parts: Iterable[tuple[str, int, Decimal]], tier: str, card: RateCard | None) -> Dues:
    """What stretches of hardware time cost on a tier: meter, nanoseconds and multiplier of each."""
    price = card.tiers.get(tier) if card else None
    lines = tuple(
        [_new(Due, (meter, COMPUTING_SECOND, seconds(ns), price, by)) for meter, ns, by in parts if ns and by]
    )
    if card is None:
        return Dues(lines, None, None, "no rate card was in force" if lines else None)
    reason = f"the rate card has no tier {tier!r}" if lines and price is None else None
    return Dues(lines, card.currency, card.hash, reason)


def multiplied(terms: Terms, status: Status, phase: Decimal) -> Decimal:
    """A phase's multiplier, and that of how it ended."""
    by = terms.on(status)
    return phase if by == _ONE else EXACT.multiply(phase, by)


def _of_tier(sale: Sale, totals: Totals) -> Dues:
    terms, status = sale.terms, sale.status
    busy = (terms.quantity, totals.busy_ns, multiplied(terms, status, terms.active))
    if not totals.load_ns:
        return of_time((busy,), sale.tier, sale.card)
    return of_time((("load", totals.load_ns, multiplied(terms, status, terms.load)), busy), sale.tier, sale.card)


def _nothing(model: ModelPrice, card: RateCard | None) -> Dues:
    return Dues((), model.currency, card.hash if card else None)


def _of_model(model: ModelPrice, sale: Sale, totals: Totals) -> tuple[tuple[Due, ...], str | None]:
    """The lines of a model's own prices, or why there are none."""
    attributes, terms, status, online = sale.attributes, sale.terms, sale.status, sale.online
    by = multiplied(terms, status, terms.active)
    if online and status is Status.ABORTED:
        by = _ZERO  # of an online class, what is certain of its time is paid; what the platform broke off is not
    if not by:
        return (), None
    lines: list[Due] = []
    for price in model.prices_for(attributes):
        if price.unit not in HARDWARE:
            quantity = _counted(price, model, sale, totals)
            if quantity is None:
                what = price.counts or price.unit
                return (), f"nothing was counted that is {what!r}, by which {model.name!r} is priced"
            quantity = price.part_of(quantity)
            if quantity:
                lines.append(_new(Due, (price.meter, price.unit, quantity, price.amount, by)))
        elif online:
            continue
        elif price.unit == GPU and not sale.devices and totals.busy_ns:
            return (), f"it ran on no device, and {model.name!r} is priced by {GPU}"
        else:
            lines.extend(_measured(price, sale, totals, by))
    return tuple(lines), None


def _measured(price: Price, sale: Sale, totals: Totals, by: Decimal) -> Iterable[Due]:
    """Hardware time at the model's own price; loading, too, where its class pays for that."""
    busy = seconds(totals.busy_ns)
    if price.unit == GPU:
        busy = EXACT.multiply(busy, Decimal(sale.devices))
    elif totals.load_ns and not price.above and price.up_to is None:
        load = multiplied(sale.terms, sale.status, sale.terms.load)
        if load:
            yield Due(f"{price.meter} load", COMPUTING_SECOND, seconds(totals.load_ns), price.amount, load)
    part = price.part_of(busy)
    if part:
        yield Due(price.meter, price.unit, part, price.amount, by)


def _counted(price: Price, model: ModelPrice, sale: Sale, totals: Totals) -> Decimal | None:
    """How many units there are; None where it succeeded, and what it is priced by was never counted."""
    if not totals.processed:
        return _ZERO
    if price.unit == PREDICTION:
        return _ONE if totals.ended else _ZERO
    unit, units = UNITS[price.unit], totals.units
    if price.counts is not None:
        found = [units[price.counts]] if price.counts in units else []
    else:
        found = [units[name] for name in model.names_of(unit.base) if name in units]
    if not found:
        return None if totals.ended and sale.status is Status.SUCCEEDED and price.amount else _ZERO
    total = Decimal(found[0])
    for amount in found[1:]:
        total = EXACT.add(total, Decimal(amount))
    return priced(total, unit.size)
