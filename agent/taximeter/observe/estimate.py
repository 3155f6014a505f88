"""What a run of a model takes and costs, from what its runs took so far. Pure; whoever shows it only lays it out.

An estimate is a JSON-able dict; durations are integer nanoseconds, money and quantities decimal strings:

    model, version, tier    what was asked for; null: any
    published               the tier that the model is published with, where the card says
    price                   the model's own prices, each "0.03 USD per image"; [] where it is priced by its tier
    currency, rate_card     of the card in force; null: none
    kinds[]                 a version on a tier, those with most runs first, KINDS_LISTED at most:
      version, tier, ended, succeeded, thin, first_utc, last_utc
      active, share         {"n", "p5_ns", "p50_ns", "p95_ns", "mean_ns"} of those that succeeded, or null
      cost[]                as it was billed: {"currency", "n", "p5", "p50", "p95", "mean", "total"}; total is exact
      units{}               by what was counted: {"n", "p5", "p50", "p95", "mean"}
      expected              {"tier", "currency", "p5", "p50", "p95", "lines"} or {"reason"}: what those times, with the
                            median units, cost by the card in force; null where there are none
      what_if[]             the same on each other tier that the card prices, the cheapest first, if it took the same
                            time there; [] where its hardware is no part of its price
    kinds_more              how many kinds are left out
    thin                    whether there are fewer than THIN runs, in all
    calls[]                 models that this one was seen to call
    within                  how far off a quantile may be, as a part of it; counts, means and totals are not
    models[]                all models that are known, where of this one no run is; else []

No estimate is made of nothing: where no run succeeded, there are no numbers. Refuses to read, and to know what a price
comes to (billing).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from taximeter.billing.classes import Terms
from taximeter.billing.dues import Due, dues
from taximeter.billing.models import ModelPrice
from taximeter.billing.money import EXACT, plain, rounded
from taximeter.billing.rates import RateCard
from taximeter.billing.readings import Totals
from taximeter.billing.tariffs import Sale
from taximeter.events import Status
from taximeter.hardware.tiers import Catalogue
from taximeter.ledger.distribution import ERROR, Distribution, together
from taximeter.ledger.runs import THIN, Call, Kind, Runs
from taximeter.observe.experience import ACTIVE, COST, COST_PLACES, SHARE, UNIT_PLACES, UNITS
from taximeter.observe.sums import SHORT_UNITS
from taximeter.records import utc_text

Json = dict[str, Any]

KINDS_LISTED = 50
MODELS_LISTED = 100
_PERCENTS = (5, 50, 95)
#: A quantile is known to two digits, more or less: the third is for telling neighbours apart.
_DIGITS = Context(prec=3, rounding=ROUND_HALF_EVEN)
_MEAN = Context(prec=4, rounding=ROUND_HALF_EVEN)
_WHOLE = 10**UNIT_PLACES


@dataclass(frozen=True, slots=True)
class Prices:
    """By what estimates are priced."""

    card: RateCard | None = None
    terms: Terms | None = None  #: of the class that is estimated for
    devices: Mapping[str, int] = field(default_factory=dict)  #: tier -> how many it has; 1 where that is not said


def prices_of(card: RateCard | None, terms: Terms | None, catalogue: Catalogue | None) -> Prices:
    """The prices of a node."""
    return Prices(card, terms, {tier.slug: tier.count for tier in catalogue.tiers} if catalogue else {})


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of models, as a ledger has it."""

    runs: Sequence[Runs]  #: of the model that is asked for, as `chosen` from them
    more: int = 0  #: how many kinds were left out of these
    calls: Sequence[Call] = ()
    models: Sequence[str] = ()  #: of all models, the names


def names_of(card: RateCard | None, model: str) -> tuple[str, ...]:
    """Every name that marks may say for a model: its own, and its namespace where the card knows it by that."""
    priced = card.model(model) if card else None
    if card is None or priced is None:
        return (model,)
    others = (name for name in (priced.name, priced.namespace) if name and card.model(name) is priced)
    return tuple(dict.fromkeys((model, *others)))


def estimate(wanted: Kind, known: Known, prices: Prices) -> Json:
    """Estimate a run of a model, of one version or on one tier where `wanted` names it (else it is "")."""
    card, names = prices.card, names_of(prices.card, wanted.model)
    priced = card.model(wanted.model) if card else None
    seen = chosen(merged(known.runs), wanted)
    return {
        "model": wanted.model,
        "version": wanted.version or None,
        "tier": wanted.tier or None,
        "published": priced.hardware if priced else None,
        "price": price_texts(priced),
        "currency": card.currency if card else None,
        "rate_card": card.hash if card else None,
        "kinds": [_kind(one, wanted.tier, priced, prices) for one in seen],
        "kinds_more": known.more,
        "thin": sum(one.succeeded for one in seen) < THIN,
        "calls": sorted({call.called for call in known.calls if call.caller in names}),
        "within": plain(_MEAN.plus(ERROR)),
        "models": [] if seen else list(known.models[:MODELS_LISTED]),
    }


def chosen(runs: Iterable[Runs], wanted: Kind) -> list[Runs]:
    """Of a model's runs those that are asked for, most of them first; on a tier where it never ran, all others."""
    kinds = [one for one in runs if wanted.version in ("", one.kind.version)]
    seen = [one for one in kinds if wanted.tier in ("", one.kind.tier)] or kinds
    return sorted(seen, key=lambda one: (-one.succeeded, -one.ended, one.kind))


def merged(runs: Iterable[Runs]) -> list[Runs]:
    """Runs of one model, whatever it was called: each version and tier once."""
    alike: dict[tuple[str, str], list[Runs]] = {}
    for one in runs:
        alike.setdefault((one.kind.version, one.kind.tier), []).append(one)
    return [_together(some) if len(some) > 1 else some[0] for some in alike.values()]


def _together(some: Sequence[Runs]) -> Runs:
    measures = {name for one in some for name in one.measures}
    return Runs(
        some[0].kind,
        sum(one.ended for one in some),
        sum(one.succeeded for one in some),
        min(one.first_utc_ns for one in some),
        max(one.last_utc_ns for one in some),
        {name: together(one.measures[name] for one in some if name in one.measures) for name in sorted(measures)},
    )


def price_texts(priced: ModelPrice | None) -> list[str]:
    """A model's own prices in words; what depends on attributes is said so."""
    if priced is None:
        return []
    said = [f"{plain(price.amount)} {priced.currency} per {_unit(price.unit, price.meter)}" for price in priced.prices]
    for one in priced.criterias:
        price, value = one.price, one.value if isinstance(one.value, str) else ", ".join(one.value)
        where = f"where {one.field} {one.operator} {value}"
        said.append(f"{plain(price.amount)} {priced.currency} per {_unit(price.unit, price.meter)} {where}")
    return [*said, "plus hardware"] if priced.plus_hardware else said


def _unit(unit: str, meter: str) -> str:
    return unit if meter == unit else f"{unit} ({meter})"


def _kind(one: Runs, asked_tier: str, priced: ModelPrice | None, prices: Prices) -> Json:
    kind, measures = one.kind, one.measures
    units = units_of(one)
    share = measures.get(SHARE)
    by_price = {} if prices.card is None else prices.card.tiers
    tiers = sorted(by_price, key=lambda tier: (by_price[tier], tier))
    others = [tier for tier in tiers if tier != kind.tier and asked_tier in ("", kind.tier, tier)]
    by_hardware = priced is None or priced.plus_hardware or priced.is_time
    return {
        "version": kind.version or None,
        "tier": kind.tier,
        "ended": one.ended,
        "succeeded": one.succeeded,
        "thin": one.succeeded < THIN,
        "first_utc": utc_text(one.first_utc_ns),
        "last_utc": utc_text(one.last_utc_ns),
        "active": _time(measures.get(ACTIVE)),
        "share": _time(share),
        "cost": [
            {"currency": name.removeprefix(COST), **_spread(spread, COST_PLACES, 1)}
            | {"total": plain(EXACT.scaleb(spread.total, -COST_PLACES))}
            for name, spread in measures.items()
            if name.startswith(COST)
        ],
        "units": {name: _spread(spread, UNIT_PLACES, _WHOLE) for name, spread in units.items()},
        "expected": None if share is None else expected(kind.tier, share, units, priced, prices),
        "what_if": [
            expected(tier, share, units, priced, prices) for tier in others if share is not None and by_hardware
        ],
    }


def units_of(one: Runs) -> dict[str, Distribution]:
    """How what was counted is spread, by its name."""
    return {name.removeprefix(UNITS): spread for name, spread in one.measures.items() if name.startswith(UNITS)}


def _time(spread: Distribution | None) -> Json | None:
    if spread is None:
        return None
    quantiles = {f"p{percent}_ns": spread.quantile(percent) for percent in _PERCENTS}
    return {"n": spread.n, **quantiles, "mean_ns": int(spread.mean)}


def _spread(spread: Distribution, places: int, step: int) -> Json:
    found = {f"p{percent}": Decimal(spread.quantile(percent, step)) for percent in _PERCENTS}
    quantiles = {name: _short(EXACT.scaleb(number, -places)) for name, number in found.items()}
    return {"n": spread.n, **quantiles, "mean": plain(_MEAN.plus(EXACT.scaleb(spread.mean, -places)))}


def expected(
    tier: str, share: Distribution, units: Mapping[str, Distribution], priced: ModelPrice | None, prices: Prices
) -> Json:
    """What a run that succeeds costs by the card in force, on a tier, by the quantiles of time and the median units.

    Priced by its share of the tier; it has no attributes, so no criterion holds.
    """
    if prices.terms is None:
        return {"tier": tier, "reason": "the terms of its class are not known"}
    median = {
        name: plain(EXACT.scaleb(Decimal(spread.quantile(50, _WHOLE)), -UNIT_PLACES)) for name, spread in units.items()
    }
    sale = Sale(prices.card, priced, prices.terms, Status.SUCCEEDED, tier, prices.devices.get(tier, 1), {})
    told: Json = {"tier": tier}
    lines: list[str] = []
    for percent in _PERCENTS:
        due = dues(sale, Totals(0, share.quantile(percent), median, processed=True, ended=True))
        if due.reason is not None or due.currency is None:
            return {"tier": tier, "reason": due.reason or "no rate card is in force"}
        told |= {"currency": due.currency, f"p{percent}": _short(sum(map(_amount, due.lines), Decimal(0)))}
        if percent == 50:
            lines = [_arithmetic(line, due.currency) for line in due.lines]
    return told | {"lines": lines}


def _amount(line: Due) -> Decimal:
    return rounded(EXACT.multiply(EXACT.multiply(line.quantity, line.rate or Decimal(0)), line.multiplier))


def _arithmetic(line: Due, currency: str) -> str:
    rate = plain(line.rate or Decimal(0))
    unit = SHORT_UNITS.get(line.unit, line.unit)
    return f"{_short(line.quantity)} {unit} × {rate} {currency}/{unit} × {plain(line.multiplier)}"


def _short(number: Decimal) -> str:
    return plain(_DIGITS.plus(number))
