"""Rating: what stretches of hardware time cost at a tier's price.

Amounts telescope: a record's amount is price(totals to date) - price(totals before), each rounded once, so that
cutting a run changes nothing. Refuses to know phases and statuses; it is given quantities and multipliers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from taximeter.billing.money import EXACT, plain, rounded, seconds, seconds_text
from taximeter.billing.rates import RateCard
from taximeter.records import Billing, BillingStatus, Line


class Charge(NamedTuple):
    """Time on one meter: its totals when the last record was cut and now, and what it is multiplied by."""

    meter: str
    before_ns: int
    now_ns: int
    multiplier: Decimal
    multiplier_before: Decimal


class Rating(NamedTuple):
    """What an interval costs, and what earlier intervals turn out to have cost too much (negative) or too little."""

    billing: Billing
    correction: Billing | None = None


_ONE = Decimal(1)
#: Prices and multipliers come again with every record.
_repeated = lru_cache(maxsize=256)(plain)


def rate_time(charges: Sequence[Charge], tier: str, card: RateCard | None, tier_before: str | None = None) -> Rating:
    """Price `charges` on `tier`; without a card or a price the record is unrated, never guessed and never zero.

    `tier_before` is what earlier records were billed at, where that was another one: what they billed is corrected.
    """
    now_due: list[Charge] = []
    redone: list[Charge] = []
    for charge in charges:
        _, before_ns, now_ns, multiplier, multiplier_before = charge
        if now_ns != before_ns and multiplier:
            now_due.append(charge)
        if before_ns and multiplier != multiplier_before:
            redone.append(charge)
    if card is not None and tier_before is not None and tier_before != tier:
        before, now = card.tiers.get(tier_before), card.tiers.get(tier)
        if before != now:
            billing = _rate_now(now_due, tier, now, card)
            again = [line for charge in charges for line in _again(charge, before, now)]
            return Rating(billing, _billing(tuple(again), card) if again else None)
    if not now_due and not redone:
        return Rating(free(card))
    price = card.tiers.get(tier) if card else None
    if card is None or price is None:
        return Rating(_unrated(tier, card))
    lines = tuple([_line(charge, price) for charge in now_due])
    billing = _billing(lines, card) if lines else free(card)
    return Rating(billing, _billing(tuple(_redo(charge, price) for charge in redone), card) if redone else None)


def take_back(charges: Sequence[Charge], tier: str, card: RateCard | None) -> Billing:
    """What it changes that a total turns out to be less: of each charge `now_ns`, where `before_ns` was billed."""
    due = [charge for charge in charges if charge.now_ns != charge.before_ns and charge.multiplier]
    price = card.tiers.get(tier) if card else None
    if not due:
        return free(card)
    return _unrated(tier, card) if card is None or price is None else _billing(_less(due, price), card)


def take_back_anew(charges: Sequence[Charge], tiers: tuple[str, str], card: RateCard | None) -> Rating:
    """What it changes that what was taken back at the price of the one tier turns out to be of the other."""
    due = [charge for charge in charges if charge.now_ns != charge.before_ns and charge.multiplier]
    before, now = (card.tiers.get(tier) if card else None for tier in tiers)
    if card is None or before == now or not due:
        return Rating(free(card))
    given = () if before is None else tuple(_opposite(line) for line in _less(due, before))
    return Rating(free(card), _billing((*given, *(() if now is None else _less(due, now))), card))


def _less(charges: Sequence[Charge], price: Decimal) -> tuple[Line, ...]:
    lines: list[Line] = []
    for meter, before_ns, now_ns, multiplier, _ in charges:
        amount = EXACT.subtract(_price(now_ns, price, multiplier), _price(before_ns, price, multiplier))
        lines.append(_written(meter, before_ns - now_ns, price, EXACT.minus(multiplier), amount))
    return tuple(lines)


def _opposite(line: Line) -> Line:
    multiplier, amount = EXACT.minus(Decimal(line.multiplier)), EXACT.minus(Decimal(line.amount))
    return replace(line, multiplier=plain(multiplier), amount=plain(amount))


def _rate_now(now_due: Sequence[Charge], tier: str, price: Decimal | None, card: RateCard) -> Billing:
    """What this interval costs, whatever was before."""
    if not now_due:
        return free(card)
    return _unrated(tier, card) if price is None else _billing(tuple(_line(charge, price) for charge in now_due), card)


def _again(charge: Charge, before: Decimal | None, now: Decimal | None) -> Iterator[Line]:
    """Another price than before: what was billed is taken back, and billed at the new one, if there is one."""
    if not charge.before_ns:
        return
    if before is not None and charge.multiplier_before:
        amount = _price(charge.before_ns, before, charge.multiplier_before)
        back = EXACT.minus(charge.multiplier_before)
        yield _written(charge.meter, charge.before_ns, before, back, EXACT.minus(amount))
    if now is not None and charge.multiplier:
        amount = _price(charge.before_ns, now, charge.multiplier)
        yield _written(charge.meter, charge.before_ns, now, charge.multiplier, amount)


def free(card: RateCard | None) -> Billing:
    """Nothing of this interval is billed to anybody."""
    return _without_lines(BillingStatus.FREE, "0", *((card.currency, card.hash) if card else (None, None)))


def informative(card: RateCard | None) -> Billing:
    """Another record bills this time."""
    return _without_lines(BillingStatus.INFORMATIVE, None, *((card.currency, card.hash) if card else (None, None)))


@lru_cache(maxsize=64)
def _without_lines(status: BillingStatus, amount: str | None, currency: str | None, card: str | None) -> Billing:
    return Billing(status, (), amount, currency, card)


def _unrated(tier: str, card: RateCard | None) -> Billing:
    reason = f"the rate card has no tier {tier!r}" if card else "no rate card was in force"
    return Billing(BillingStatus.UNRATED, (), None, None, card.hash if card else None, reason)


def _price(duration_ns: int, price: Decimal, multiplier: Decimal) -> Decimal:
    amount = EXACT.multiply(seconds(duration_ns), price)
    return rounded(amount if multiplier == _ONE else EXACT.multiply(amount, multiplier))


def _line(charge: Charge, price: Decimal) -> Line:
    meter, before_ns, now_ns, multiplier, _ = charge
    amount = _price(now_ns, price, multiplier)
    if before_ns:
        amount = EXACT.subtract(amount, _price(before_ns, price, multiplier))
    return _written(meter, now_ns - before_ns, price, multiplier, amount)


def _redo(charge: Charge, price: Decimal) -> Line:
    """What was billed before the end was known, billed again at the end's multiplier."""
    amount = EXACT.subtract(
        _price(charge.before_ns, price, charge.multiplier), _price(charge.before_ns, price, charge.multiplier_before)
    )
    change = EXACT.subtract(charge.multiplier, charge.multiplier_before)
    return _written(charge.meter, charge.before_ns, price, change, amount)


def _written(meter: str, duration_ns: int, price: Decimal, multiplier: Decimal, amount: Decimal) -> Line:
    quantity = seconds_text(duration_ns)
    return Line(meter, quantity, "computing_second", _repeated(price), _repeated(multiplier), plain(amount))


def _billing(lines: tuple[Line, ...], card: RateCard) -> Billing:
    amount = lines[0].amount if len(lines) == 1 else _sum(lines)
    return Billing(BillingStatus.RATED, lines, amount, card.currency, card.hash)


def _sum(lines: Sequence[Line]) -> str:
    total = Decimal(0)
    for line in lines:
        total = EXACT.add(total, Decimal(line.amount))
    return plain(total)
