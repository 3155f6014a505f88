"""Rating: from what is due to what a record bills, and what it corrects.

Amounts telescope: a record's amount is price(totals to date) - price(totals before), each rounded once, so that
cutting a run changes nothing. Refuses to know what is due (dues), phases and statuses.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from taximeter.billing.dues import Due, Dues
from taximeter.billing.money import EXACT, plain, rounded
from taximeter.billing.rates import RateCard
from taximeter.records import Billing, BillingStatus, Line


class Rating(NamedTuple):
    """What an interval costs, and what earlier intervals turn out to have cost too much (negative) or too little."""

    billing: Billing
    correction: Billing | None = None
    sold_ns: int | None = None  #: of the interval's hardware time, what is paid for; told of predictions on pools alone
    resold_ns: int | None = None  #: what the correction changes of that, signed


_ZERO, _ONE = Decimal(0), Decimal(1)
NOTHING_DUE = Dues((), None, None)
#: Prices and multipliers come again with every record.
_repeated = lru_cache(maxsize=256)(plain)


def rate(now: Dues, before: Dues = NOTHING_DUE, billed: Dues = NOTHING_DUE) -> Rating:
    """What is due `now` and was not `before`; and where earlier records have `billed` another sum than that, the rest.

    What has no price is not priced at all: the record is unrated, never guessed and never zero, and what was billed of
    that run is taken back.
    """
    if not before.lines:
        grown = [(due, _ZERO) for due in now.lines if due.quantity]
    else:
        grown = [pair for pair in _paired(now.lines, before.lines) if pair[0].quantity != pair[1]]
    if now.reason is not None:
        billing = _unrated(now) if grown or not now.lines else _free(now)
    else:
        billing = _billing([_line(due, was) for due, was in grown], now) if grown else _free(now)
    told, meant = () if billed.reason else billed.lines, () if now.reason else before.lines
    if told == meant:  # as mostly: neither the end nor evidence changes a price
        return Rating(billing)
    lines = list(changed(told, meant))
    return Rating(billing, _billing(lines, now) if lines else None)


def changed(billed: Sequence[Due], due: Sequence[Due]) -> Iterator[Line]:
    """The lines that make what was billed into what is due."""
    now = {(one.meter, one.unit): one for one in due}
    for was in billed:
        one = now.pop((was.meter, was.unit), None)
        if one == was:
            continue
        if one is not None and one.rate == was.rate and one.quantity == was.quantity:
            yield _redone(was, one)
        elif one is not None and one.rate == was.rate and one.multiplier == was.multiplier:
            yield _more_or_less(was, one)
        else:
            yield _written(was, was.quantity, EXACT.minus(was.multiplier), EXACT.minus(_price(was)))
            if one is not None:
                yield _line(one, _ZERO)
    for one in now.values():
        yield _line(one, _ZERO)


def taken_back(whole: Dues, left: Dues) -> Billing:
    """What it changes that of `whole`, which was billed, only what is `left` is due."""
    if left.reason is not None or whole.reason is not None:
        return _unrated(whole if left.reason is None else left)
    lines = list(changed(whole.lines, left.lines))
    return _billing(lines, left) if lines else _free(left)


def taken_back_anew(now: tuple[Dues, Dues], before: tuple[Dues, Dues]) -> Rating:
    """What it changes that what was taken back as of one price turns out to be of another; each of whole and left."""
    lines = taken_back(*now).lines
    undone = tuple(_opposite(line) for line in taken_back(*before).lines)
    billing = _free(now[1])
    if undone == tuple(_opposite(line) for line in lines):
        return Rating(billing)
    return Rating(billing, _billing([*undone, *lines], now[1]))


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


def _paired(now: Sequence[Due], before: Sequence[Due]) -> Sequence[tuple[Due, Decimal]]:
    """Each line that is due, and how much of it was before."""
    was = {(due.meter, due.unit): due.quantity for due in before}
    return [(due, was.get((due.meter, due.unit), _ZERO)) for due in now]


def _price(due: Due, quantity: Decimal | None = None) -> Decimal:
    _, _, whole, rate, multiplier = due
    amount = EXACT.multiply(whole if quantity is None else quantity, rate or _ZERO)
    return rounded(amount if multiplier == _ONE else EXACT.multiply(amount, multiplier))


def _line(due: Due, before: Decimal) -> Line:
    if not before:
        return _written(due, due.quantity, due.multiplier, _price(due))
    amount = EXACT.subtract(_price(due), _price(due, before))
    return _written(due, EXACT.subtract(due.quantity, before), due.multiplier, amount)


def _redone(was: Due, now: Due) -> Line:
    """What was billed before the end was known, billed again at the end's multiplier."""
    change = EXACT.subtract(now.multiplier, was.multiplier)
    return _written(was, was.quantity, change, EXACT.subtract(_price(now), _price(was)))


def _more_or_less(was: Due, now: Due) -> Line:
    """More of the same, or less, which is taken back."""
    difference = EXACT.subtract(now.quantity, was.quantity)
    by = was.multiplier if difference > 0 else EXACT.minus(was.multiplier)
    return _written(was, EXACT.abs(difference), by, EXACT.subtract(_price(now), _price(was)))


def _written(due: Due, quantity: Decimal, multiplier: Decimal, amount: Decimal) -> Line:
    meter, unit, _, rate, _ = due
    return Line(meter, plain(quantity), unit, _repeated(rate or _ZERO), _repeated(multiplier), plain(amount))


def _billing(lines: Sequence[Line], now: Dues) -> Billing:
    amount = lines[0].amount if len(lines) == 1 else _sum(lines)
    return Billing(BillingStatus.RATED, tuple(lines), amount, now.currency, now.card)


def _sum(lines: Sequence[Line]) -> str:
    total = Decimal(lines[0].amount)
    for line in lines[1:]:
        total = EXACT.add(total, Decimal(line.amount))
    return plain(total)
