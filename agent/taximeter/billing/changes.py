"""Changes: from what was billed to what is due, line by line, each signed.

Refuses to know why it changes: an end, other hardware, or time that is taken back.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal

from taximeter.billing.dues import Due, Dues
from taximeter.billing.money import EXACT, plain, rounded
from taximeter.records import Billing, BillingStatus, Line

_ZERO = Decimal(0)


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
                yield _whole(one)
    for one in now.values():
        yield _whole(one)


def billing_of(lines: Sequence[Line], now: Dues) -> Billing:
    """What these lines come to."""
    total = Decimal(lines[0].amount)
    for line in lines[1:]:
        total = EXACT.add(total, Decimal(line.amount))
    return Billing(BillingStatus.RATED, tuple(lines), plain(total), now.currency, now.card)


def _price(due: Due) -> Decimal:
    return rounded(EXACT.multiply(EXACT.multiply(due.quantity, due.rate or _ZERO), due.multiplier))


def _whole(due: Due) -> Line:
    return _written(due, due.quantity, due.multiplier, _price(due))


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
    rate = plain(due.rate or _ZERO)
    return Line(due.meter, plain(quantity), due.unit, rate, plain(multiplier), plain(amount))
