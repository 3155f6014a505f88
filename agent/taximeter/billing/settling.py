"""Settling: from what was billed of a run, line by line, to what is due for it.

For whoever prices a run anew, long after its records were written: by another card, or since its units came. What was
billed is read from the records themselves, corrections included, so settling twice yields nothing the second time.
Refuses to know what is due (dues) and where lines come from.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from taximeter.billing.dues import Due, Dues
from taximeter.billing.money import EXACT, plain, rounded
from taximeter.records import Billing, BillingStatus, Line

_ZERO = Decimal(0)
_NAMES = ("meter", "quantity", "unit", "rate", "multiplier", "amount")
_Key = tuple[str, str, Decimal]  # meter, unit, rate


def settle(due: Dues, billed: Iterable[Line]) -> Billing | None:
    """The signed lines that make what was `billed` into what is `due`; None where nothing is missing."""
    return settle_all((due,), billed)


def line_of(due: Due) -> Line:
    """What is due on one meter, as it was billed."""
    rate = due.rate or _ZERO
    amount = rounded(EXACT.multiply(EXACT.multiply(due.quantity, due.multiplier), rate))
    return Line(due.meter, plain(due.quantity), due.unit, plain(rate), plain(due.multiplier), plain(amount))


def summed(lines: Iterable[Line]) -> list[dict[str, str]]:
    """Lines as few as may be that come to the same, as records write them."""
    sums: dict[_Key, tuple[Decimal, Decimal]] = {}
    for line in lines:
        quantity = EXACT.multiply(Decimal(line.quantity), Decimal(line.multiplier))
        _add(sums, (line.meter, line.unit, Decimal(line.rate)), quantity, Decimal(line.amount))
    told = (_line(key, quantity, amount) for key, (quantity, amount) in sums.items())
    return [{name: getattr(line, name) for name in _NAMES} for line in told]


def settle_all(due: Sequence[Dues], billed: Iterable[Line]) -> Billing | None:
    """The same of several that are due, under the card of the last of them.

    A line is so many more units (multiplier 1), or less (-1): units here are already times their multipliers. What is
    not priced is due nothing, so what was billed of it is taken back. All lines must be of one currency.
    """
    owed: dict[_Key, tuple[Decimal, Decimal]] = {}
    for line in billed:
        quantity = EXACT.multiply(Decimal(line.quantity), Decimal(line.multiplier))
        _add(
            owed, (line.meter, line.unit, Decimal(line.rate)), EXACT.minus(quantity), EXACT.minus(Decimal(line.amount))
        )
    for one in (line for part in due if part.reason is None for line in part.lines):
        quantity, rate = EXACT.multiply(one.quantity, one.multiplier), one.rate or _ZERO
        _add(owed, (one.meter, one.unit, rate), quantity, rounded(EXACT.multiply(quantity, rate)))
    lines = tuple(_line(key, quantity, amount) for key, (quantity, amount) in owed.items() if quantity or amount)
    if not lines:
        return None
    total = _ZERO
    for line in lines:
        total = EXACT.add(total, Decimal(line.amount))
    return Billing(BillingStatus.RATED, lines, plain(total), due[-1].currency, due[-1].card)


def _add(owed: dict[_Key, tuple[Decimal, Decimal]], key: _Key, quantity: Decimal, amount: Decimal) -> None:
    before = owed.get(key, (_ZERO, _ZERO))
    owed[key] = (EXACT.add(before[0], quantity), EXACT.add(before[1], amount))


def _line(key: _Key, quantity: Decimal, amount: Decimal) -> Line:
    meter, unit, rate = key
    multiplier = "-1" if quantity < _ZERO else "1"
    return Line(meter, plain(EXACT.abs(quantity)), unit, plain(rate), multiplier, plain(amount))
