"""An account as JSON: what it spent since its period began, which thresholds that crossed, its credit, what is refused.

Owns the shape of that answer. Refuses to read, and to decide anything: the rules are the core's.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from taximeter.billing.admission import Holdings, denials
from taximeter.billing.credit import Part, Purse, balance
from taximeter.billing.money import plain
from taximeter.billing.spending import Spending
from taximeter.billing.thresholds import ALL_MODELS, begin_of, period_of
from taximeter.ledger.accounts import Statement, total
from taximeter.observe.sums import LISTED_MAX
from taximeter.records import utc_text

Json = dict[str, Any]


def account_view(account: str, kept: Statement, rules: Spending, now_utc_ns: int) -> Json:
    """Everything of one account, by currency; amounts are decimal strings."""
    period = period_of(now_utc_ns)
    spends = {(currency, model): amount for (currency, of, model), amount in kept.spends.items() if of == period}
    holdings = Holdings({currency: balance(purse, now_utc_ns) for currency, purse in kept.purses.items()}, spends)
    currencies = sorted({currency for currency, *_ in kept.spends} | kept.purses.keys())
    refused = denials(account, holdings, rules.credit)
    return {
        "account": account,
        "period": period,
        "since_utc": utc_text(begin_of(period)),
        "prepaid": rules.credit.is_prepaid(account),
        "cap": _text(rules.credit.caps.get(account)),
        "currencies": [_currency(account, currency, (kept, rules), now_utc_ns) for currency in currencies],
        "denials": [{"model": one.model, "why": one.why} for one in refused],
    }


def _currency(account: str, currency: str, of: tuple[Statement, Spending], now_utc_ns: int) -> Json:
    kept, rules = of
    period, purse = period_of(now_utc_ns), kept.purses.get(currency)
    spend = kept.spends.get((currency, period, ALL_MODELS), Decimal(0))
    return {
        "currency": currency,
        "spend": plain(spend),
        "spend_ever": plain(total(kept.spends, currency)),
        "thresholds": _thresholds(account, currency, period, of),
        "models": _models(kept.spends, currency, period, rules.credit.limits.get(account, {})),
        "balance": None if purse is None else plain(balance(purse, now_utc_ns)),
        "grants": [] if purse is None else _grants(purse, now_utc_ns),
    }


def _thresholds(account: str, currency: str, period: str, of: tuple[Statement, Spending]) -> list[Json]:
    """Those in force, and those that were crossed before they were taken away."""
    kept, rules = of
    crossed = {
        Decimal(one.threshold): {"id": one.id, "seq": one.seq, "time_utc": utc_text(one.time_utc_ns)}
        for one in kept.crossings
        if (one.currency, one.period) == (currency, period)
    }
    amounts = sorted({*rules.thresholds.of(account), *crossed})
    return [{"threshold": plain(amount), "crossed": crossed.get(amount)} for amount in amounts]


def _models(
    spends: Mapping[tuple[str, str, str], Decimal], currency: str, period: str, limits: Mapping[str, Decimal]
) -> list[Json]:
    """What was spent on which model in this period, the most first."""
    own = {model: amount for (of, at, model), amount in spends.items() if (of, at) == (currency, period) and model}
    largest = sorted(own.items(), key=lambda pair: (-pair[1], pair[0]))[:LISTED_MAX]
    return [{"model": model, "spend": plain(spend), "limit": _text(limits.get(model))} for model, spend in largest]


def _grants(purse: Purse, now_utc_ns: int) -> list[Json]:
    """In the order in which they are used up."""
    return [_grant(part, now_utc_ns) for part in purse.parts]


def _grant(part: Part, now_utc_ns: int) -> Json:
    grant = part.grant
    return {
        "grant": grant.id,
        "amount": plain(grant.amount),
        "left": plain(part.left),
        "granted_utc": utc_text(grant.granted_utc_ns),
        "expires_utc": None if grant.expires_utc_ns is None else utc_text(grant.expires_utc_ns),
        "expired": not part.covers(now_utc_ns),
    }


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)
