"""Prepaid credit: what was granted to an account, and what of it is left.

Usage takes from the grant that expires first, of those that had not expired when the usage began; what no grant covers
is owed by a prepaid account, and the next grant pays it first. What corrections give back lowers what is owed, then
fills the grants again, the one that expires last first. So, for a prepaid account, what is left of all grants, less
what is owed, is always grants less usage, to the last digit. Refuses to know clocks, and who is prepaid.
"""

from decimal import Decimal
from typing import NamedTuple

from taximeter.billing.money import EXACT
from taximeter.billing.thresholds import ZERO

_NEVER = 1 << 63


class Grant(NamedTuple):
    """Credit that billing gives a node for an account."""

    id: str  #: of billing's choice, unique on the node
    account: str
    currency: str
    amount: Decimal
    granted_utc_ns: int
    expires_utc_ns: int | None = None  #: from this instant on it covers nothing


class Part(NamedTuple):
    """A grant, and what is left of it."""

    grant: Grant
    left: Decimal

    def covers(self, at_utc_ns: int) -> bool:
        """Whether it has not expired by then."""
        return self.grant.expires_utc_ns is None or at_utc_ns < self.grant.expires_utc_ns


class Purse(NamedTuple):
    """An account's credit in one currency; the grant that expires first comes first."""

    parts: tuple[Part, ...] = ()
    owed: Decimal = ZERO


def put_in(purse: Purse, grant: Grant) -> Purse:
    """The purse with another grant, which pays at once what is owed."""
    paid = min(purse.owed, grant.amount)
    parts = (*purse.parts, Part(grant, EXACT.subtract(grant.amount, paid)))
    return Purse(tuple(sorted(parts, key=_turn)), EXACT.subtract(purse.owed, paid))


def take_out(purse: Purse, amount: Decimal, at_utc_ns: int, *, prepaid: bool) -> Purse:
    """The purse after usage that began at an instant; a negative amount is given back."""
    if amount < 0:
        return _give_back(purse, EXACT.minus(amount))
    parts: list[Part] = []
    for part in purse.parts:
        taken = min(part.left, amount) if part.covers(at_utc_ns) else ZERO
        parts.append(Part(part.grant, EXACT.subtract(part.left, taken)))
        amount = EXACT.subtract(amount, taken)
    return Purse(tuple(parts), EXACT.add(purse.owed, amount) if prepaid else purse.owed)


def balance(purse: Purse, at_utc_ns: int) -> Decimal:
    """What may still be used then; negative where more was used than granted."""
    left = ZERO
    for part in purse.parts:
        if part.covers(at_utc_ns):
            left = EXACT.add(left, part.left)
    return EXACT.subtract(left, purse.owed)


def _give_back(purse: Purse, amount: Decimal) -> Purse:
    forgiven = min(purse.owed, amount)
    amount = EXACT.subtract(amount, forgiven)
    parts: list[Part] = []
    for part in reversed(purse.parts):
        filled = min(EXACT.subtract(part.grant.amount, part.left), amount)
        parts.append(Part(part.grant, EXACT.add(part.left, filled)))
        amount = EXACT.subtract(amount, filled)
    return Purse(tuple(reversed(parts)), EXACT.subtract(purse.owed, forgiven))


def _turn(part: Part) -> tuple[int, int, str]:
    expires_utc_ns = part.grant.expires_utc_ns
    return _NEVER if expires_utc_ns is None else expires_utc_ns, part.grant.granted_utc_ns, part.grant.id
