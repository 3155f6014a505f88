"""Rating: from what is due to what a record bills, and what it corrects.

Amounts telescope: a record's amount is price(totals to date) - price(totals before), each rounded once, so that
cutting a run changes nothing. Refuses to know what is due (dues), phases and statuses.
"""

from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

from taximeter.billing.changes import billing_of, changed
from taximeter.billing.dues import NOTHING_DUE, Dues
from taximeter.billing.money import EXACT, plain, rounded
from taximeter.billing.rates import RateCard
from taximeter.billing.tariffs import Item
from taximeter.records import Billing, BillingStatus, Line


class Rating(NamedTuple):
    """What an interval costs, and what earlier intervals turn out to have cost too much (negative) or too little."""

    billing: Billing
    correction: Billing | None = None
    sold_ns: int | None = None  #: of the interval's hardware time, what is paid for; told of predictions on pools alone
    resold_ns: int | None = None  #: what the correction changes of that, signed


_ZERO = Decimal(0)
_RATED = BillingStatus.RATED
_NOTHING = repeat(_ZERO)
_add, _subtract, _multiply = EXACT.add, EXACT.subtract, EXACT.multiply
_new = tuple.__new__


def rate(now: Dues, before: Dues = NOTHING_DUE, billed: Dues = NOTHING_DUE) -> Rating:
    """What is due `now` and was not `before`; and where earlier records have `billed` another sum than that, the rest.

    What has no price is not priced at all: the record is unrated, never guessed and never zero, and what was billed of
    that run is taken back.
    """
    lines, sum_ = _grown(now, before)
    if now.reason is not None:
        billing = _unrated(now) if lines or not now.lines else _free(now)
    elif lines:
        amount = lines[0].amount if len(lines) == 1 else plain(sum_)
        billing = Billing(_RATED, tuple(lines), amount, now.tariff.currency, now.tariff.card)
    else:
        billing = _free(now)
    if billed is before and now.reason is None and before.reason is None:  # as mostly: no end, no evidence counts
        return _new(Rating, (billing, None, None, None))
    told, meant = () if billed.reason else billed.lines, () if now.reason else before.lines
    changes = list(changed(told, meant))
    return Rating(billing, billing_of(changes, now) if changes else None)


def _grown(now: Dues, before: Dues) -> tuple[list[Line], Decimal]:
    """A line for each item of which more is due than was before, and what they come to."""
    lines: list[Line] = []
    sum_ = _ZERO
    for item, quantity, was in _both(now, before):
        if quantity == was or not quantity:
            continue
        more = _subtract(quantity, was) if was else quantity
        if item.quantum is not None and more.same_quantum(item.quantum):  # both are as coarse, so neither is rounded
            amount = _multiply(more, item.each)
        else:
            amount = _difference(item.each, quantity, was)
        sum_ = _add(sum_, amount) if lines else amount
        lines.append(Line(item.meter, plain(more), item.unit, item.rate_text, item.multiplier_text, plain(amount)))
    return lines, sum_


def _both(now: Dues, before: Dues) -> Iterable[tuple[Item, Decimal, Decimal]]:
    """Each item, how much of it is due, and how much of it was before."""
    tariff, quantities, _ = now
    known, were, _ = before
    if not were:
        return zip(tariff.items, quantities, _NOTHING, strict=False)
    if known is tariff:
        return zip(tariff.items, quantities, were, strict=False)
    was = {(due.meter, due.unit): due.quantity for due in before.lines}
    found = [was.get((item.meter, item.unit), _ZERO) for item in tariff.items]
    return zip(tariff.items, quantities, found, strict=False)


def _difference(each: Decimal, quantity: Decimal, was: Decimal) -> Decimal:
    """Of two prices, each rounded once."""
    price = rounded(_multiply(quantity, each))
    return _subtract(price, rounded(_multiply(was, each))) if was else price


def taken_back(whole: Dues, left: Dues) -> Billing:
    """What it changes that of `whole`, which was billed, only what is `left` is due."""
    if left.reason is not None or whole.reason is not None:
        return _unrated(whole if left.reason is None else left)
    lines = list(changed(whole.lines, left.lines))
    return billing_of(lines, left) if lines else _free(left)


def taken_back_anew(now: tuple[Dues, Dues], before: tuple[Dues, Dues]) -> Rating:
    """What it changes that what was taken back as of one price turns out to be of another; each of whole and left."""
    lines = taken_back(*now).lines
    undone = tuple(_opposite(line) for line in taken_back(*before).lines)
    billing = _free(now[1])
    if undone == tuple(_opposite(line) for line in lines):
        return Rating(billing)
    return Rating(billing, billing_of([*undone, *lines], now[1]))


def _opposite(line: Line) -> Line:
    multiplier, amount = EXACT.minus(Decimal(line.multiplier)), EXACT.minus(Decimal(line.amount))
    return Line(line.meter, line.quantity, line.unit, line.rate, plain(multiplier), plain(amount))


def informative(card: RateCard | None) -> Billing:
    """Another record bills this time."""
    return _without_lines(BillingStatus.INFORMATIVE, None, *((card.currency, card.hash) if card else (None, None)))


def _free(now: Dues) -> Billing:
    return _without_lines(BillingStatus.FREE, "0", now.currency, now.card)


@lru_cache(maxsize=64)
def _without_lines(status: BillingStatus, amount: str | None, currency: str | None, card: str | None) -> Billing:
    return Billing(status, (), amount, currency, card)


def _unrated(now: Dues) -> Billing:
    return Billing(BillingStatus.UNRATED, (), None, None, now.card, now.reason)
