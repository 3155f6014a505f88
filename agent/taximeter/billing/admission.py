"""Admission: which accounts, and which models of an account, a node refuses to begin anything for.

Owns the rules of prepaid credit, monthly caps and limits of models. What runs is never stopped by any of them. Refuses
to know how a refusal is published.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from taximeter.billing.money import plain
from taximeter.billing.thresholds import ALL_MODELS, ZERO


@dataclass(frozen=True, slots=True)
class Credit:
    """Who pays in advance, and what is the most that anybody may spend in a month."""

    prepaid: frozenset[str] | None = frozenset()  #: accounts; None: all of them
    floor: Decimal = ZERO  #: a balance at or below it refuses
    caps: Mapping[str, Decimal] = field(default_factory=dict)  #: account -> per UTC month
    limits: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)  #: account -> model -> per UTC month

    def is_prepaid(self, account: str) -> bool:
        """Whether an account uses only what was granted to it."""
        return self.prepaid is None or account in self.prepaid

    @property
    def named(self) -> frozenset[str]:
        """Every account that a rule names: they may be refused before they ever used anything."""
        return (self.prepaid or frozenset()) | self.caps.keys() | self.limits.keys()


class Holdings(NamedTuple):
    """What an account has and has spent."""

    balances: Mapping[str, Decimal] = {}  #: by currency
    spends: Mapping[tuple[str, str], Decimal] = {}  #: by currency and model (or ALL_MODELS), in this month


class Denial(NamedTuple):
    """What a node refuses to begin."""

    account: str
    model: str | None  #: None: anything of this account
    why: str


def denials(account: str, holdings: Holdings, credit: Credit) -> tuple[Denial, ...]:
    """What is refused to an account, and why; the first reason counts."""
    reason = next(_reasons(account, holdings, credit), None)
    own = () if reason is None else (Denial(account, None, reason),)
    return own + tuple(_models(account, holdings, credit.limits.get(account, {})))


def _reasons(account: str, holdings: Holdings, credit: Credit) -> Iterator[str]:
    if credit.is_prepaid(account):
        balances, floor = holdings.balances, credit.floor
        shown = ", ".join(f"{plain(amount)} {currency}" for currency, amount in sorted(balances.items()))
        if not balances:
            yield "prepaid, and nothing was granted"
        elif max(balances.values()) <= floor or min(balances.values()) < min(floor, ZERO):
            yield f"prepaid, and the balance is {shown}: expected more than {plain(floor)}"
    cap = credit.caps.get(account)
    if cap is not None:
        for spend, currency in _at_least(cap, ALL_MODELS, holdings):
            yield f"spent {plain(spend)} {currency} this month, and its cap is {plain(cap)}"


def _models(account: str, holdings: Holdings, limits: Mapping[str, Decimal]) -> Iterator[Denial]:
    for model, limit in limits.items():
        for spend, currency in _at_least(limit, model, holdings)[:1]:
            why = f"spent {plain(spend)} {currency} on {model} this month, and the limit is {plain(limit)}"
            yield Denial(account, model, why)


def _at_least(most: Decimal, model: str, holdings: Holdings) -> list[tuple[Decimal, str]]:
    """Where as much was spent: a cap or limit of nothing refuses at once."""
    found = [(spend, currency) for (currency, of), spend in holdings.spends.items() if of == model and spend >= most]
    return found or ([(ZERO, "of any currency")] if most <= 0 else [])
