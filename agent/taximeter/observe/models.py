"""The models of a node in the platform's shape, as its `GET /v1/models` answers: its clients list them from here.

A model is what the platform's own object says, with its price from the card in force: name, namespace, type, privacy,
billable, status, vendor, pricing {amount, currency, unit, criterias, formula} and metadata. Amounts are Decimals, to be
written as JSON numbers. What a price is beyond that is said in our own words of a rate card (prices, plus_hardware,
on_failure, counted). And this node says of it:

    versions[]      {"id", "fast_boot", "succeeded"}: those that the card names, and those that ran here
    run_time[]      by version and tier, those with most runs first, in seconds: {"version", "tier", "n", "thin", "p5",
                    "p50", "p95", "mean"}; n is how many predictions succeeded
    cost[]          as run_time, in `currency`: by the card in force; null where that gives no price
    deployment      {"published", "found", "matches"}: the tier it is published with, those it ran on, whether they are
                    the same; null where nobody can say
    downstream[]    models that it was seen to call

A model that is on no card is priced by its tier. Pure; owns this shape. Refuses to read, and to know who asks.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from taximeter.billing.models import ModelPrice, Price
from taximeter.billing.units import COMPUTING_SECOND
from taximeter.hardware.inventory import UNKNOWN_TIER
from taximeter.ledger.distribution import Distribution
from taximeter.ledger.runs import THIN, Call, Kind, Runs
from taximeter.observe.estimate import Prices, chosen, expected, merged, units_of
from taximeter.observe.experience import ACTIVE, SHARE

Json = dict[str, Any]

#: So many models are listed.
MODELS_MAX = 500
#: Of each model so many versions and tiers, and of all together so many, are told of; an estimate tells of any.
KINDS_MAX = 8
KINDS_READ_MAX = 200

_QUANTILES = {"p5": 5, "p50": 50, "p95": 95}
_PRIVATE = "private"


def names_on(prices: Prices) -> tuple[str, ...]:
    """The models of the card in force."""
    return tuple(prices.card.models)[:MODELS_MAX] if prices.card else ()


def to_read(kinds: Iterable[Runs], prices: Prices) -> list[Kind]:
    """Of all kinds that are known those that are told of: first that of each model with most runs, then the second."""
    by_name: dict[str, list[Runs]] = {}
    for one in kinds:
        by_name.setdefault(_name(one.kind.model, prices), []).append(one)
    ranked = [
        (rank, -one.succeeded, one.kind)
        for name, runs in by_name.items()
        for rank, one in enumerate(chosen(runs, Kind(name, "", ""))[:KINDS_MAX])
    ]
    return [kind for _, _, kind in sorted(ranked)[:KINDS_READ_MAX]]


def listed(runs: Iterable[Runs], calls: Sequence[Call], prices: Prices) -> list[Json]:
    """All models: those of the card, then those that ran here and are not on it."""
    by_name: dict[str, list[Runs]] = {name: [] for name in names_on(prices)}
    for one in runs:
        by_name.setdefault(_name(one.kind.model, prices), []).append(one)
    called: dict[str, set[str]] = {}
    for call in calls:
        called.setdefault(_name(call.caller, prices), set()).add(_name(call.called, prices))
    return [
        _model(name, chosen(merged(seen), Kind(name, "", "")), sorted(called.get(name, ())), prices)
        for name, seen in list(by_name.items())[:MODELS_MAX]
    ]


def public(models: Iterable[Json], prices: Prices) -> list[Json]:
    """What anybody may know: models of the card that are not private, and of whom they call, those alone."""
    names = {name for name in names_on(prices) if prices.card and prices.card.models[name].privacy != _PRIVATE}
    return [
        model | {"downstream": [name for name in model["downstream"] if name in names]}
        for model in models
        if model["name"] in names
    ]


def found_by(models: Iterable[Json], slug: str) -> Json | None:
    """The model that is called so, by its namespace or its name."""
    return next((model for model in models if slug in (model["namespace"], model["name"])), None)


def _name(said: str, prices: Prices) -> str:
    """What the card calls the model that marks call so."""
    priced = prices.card.model(said) if prices.card else None
    return priced.name if priced else said


def _model(name: str, seen: Sequence[Runs], called: Sequence[str], prices: Prices) -> Json:
    priced = prices.card.models.get(name) if prices.card else None
    raw: Mapping[str, Any] = priced.raw if priced else {}
    return {
        "name": name,
        "namespace": (priced.namespace if priced else None) or name,
        "type": (priced.type if priced else None) or "",
        "privacy": (priced.privacy if priced else _PRIVATE) or "public",
        "billable": priced.billable if priced else True,
        "status": "operational",
        "vendor": {"name": "", "slug": "", "verified": False},
        **{key: value for key, value in raw.items() if key not in _OURS},
        "pricing": _pricing(priced, raw) if priced else _by_tier(seen, prices),
        "metadata": _metadata(priced, raw),
        **(_beyond(priced) if priced else {}),
        "versions": _versions(priced, seen, raw),
        "run_time": [_run_time(one) for one in seen[:KINDS_MAX] if one.succeeded],
        "cost": [_cost(one, priced, prices) for one in seen[:KINDS_MAX] if one.succeeded],
        "deployment": _deployment(priced, seen),
        "downstream": list(called),
    }


#: Keys of a platform's object that are said from the card, or by this node.
_OURS = frozenset(
    {"name", "pricing", "prices", "metadata", "versions", "run_time", "cost", "deployment", "downstream", "hardware"}
)


def _pricing(priced: ModelPrice, raw: Mapping[str, Any]) -> Json:
    said = raw.get("pricing") or {}
    first = priced.prices[0]
    criterias = [
        {"field": one.field, "operator": one.operator, "value": _value(one.value), "billable_price": one.amount}
        | {"unit": one.unit}
        for one in priced.criterias
    ]
    return {
        **_amounts(first),
        "currency": priced.currency,
        "criterias": said.get("criterias") or criterias,
        "formula": said.get("formula") or {},
    }


def _amounts(price: Price) -> Json:
    """A price with its amount as a number; what the platform has no word for is said in ours, where there is any."""
    more = {key: value for key, value in price.content().items() if key not in ("amount", "unit")}
    return {"amount": price.amount, "unit": price.unit, **more}


def _value(value: str | tuple[str, ...]) -> str | list[str]:
    return value if isinstance(value, str) else list(value)


def _by_tier(seen: Sequence[Runs], prices: Prices) -> Json | None:
    """What a second costs on the tier that it mostly runs on; None where that has no price."""
    price = prices.card.tiers.get(seen[0].kind.tier) if prices.card and seen else None
    if price is None or prices.card is None:
        return None
    currency = prices.card.currency
    return {"amount": price, "unit": COMPUTING_SECOND, "currency": currency, "criterias": [], "formula": {}}


def _metadata(priced: ModelPrice | None, raw: Mapping[str, Any]) -> Json:
    said = raw.get("metadata")
    metadata: Json = dict(said) if isinstance(said, Mapping) else {}
    if priced and priced.hardware and not metadata.get("deployment_hardware"):
        metadata["deployment_hardware"] = {"type": "", "slug": priced.hardware}
    return metadata


def _beyond(priced: ModelPrice) -> Json:
    """What of a price the platform's shape does not hold."""
    said: Json = {"on_failure": priced.on_failure.value}
    if len(priced.prices) > 1:
        said["prices"] = [_amounts(price) for price in priced.prices[1:]]
    if priced.plus_hardware:
        said["plus_hardware"] = True
    if priced.online_units:
        said["online_units"] = True
    if priced.counted:
        said["counted"] = dict(priced.counted)
    return said


def _versions(priced: ModelPrice | None, seen: Sequence[Runs], raw: Mapping[str, Any]) -> list[Json]:
    """The card's, with whatever else the platform says of each, then those that ran here and are not on it."""
    said = raw.get("versions")
    told = {one.get("id"): one for one in said if isinstance(one, Mapping)} if isinstance(said, list | tuple) else {}
    succeeded: dict[str, int] = {}
    for one in seen:
        succeeded[one.kind.version] = succeeded.get(one.kind.version, 0) + one.succeeded
    fast: Mapping[str, bool] = priced.versions if priced else {}
    names = [*fast, *(name for name in succeeded if name and name not in fast)]
    return [
        {**told.get(name, {}), "id": name, "fast_boot": fast.get(name, False), "succeeded": succeeded.get(name, 0)}
        for name in names
    ]


def _run_time(one: Runs) -> Json:
    active = one.measures[ACTIVE]
    quantiles = {name: _seconds(active.quantile(percent)) for name, percent in _QUANTILES.items()}
    return _of(one, active) | quantiles | {"mean": _seconds(int(active.mean))}


def _cost(one: Runs, priced: ModelPrice | None, prices: Prices) -> Json:
    share = one.measures[SHARE]
    told = expected(one.kind.tier, share, units_of(one), priced, prices)
    amounts = {name: Decimal(told[name]) if name in told else None for name in _QUANTILES}
    return _of(one, share) | {"currency": told.get("currency")} | amounts


def _of(one: Runs, spread: Distribution) -> Json:
    return {"version": one.kind.version or None, "tier": one.kind.tier, "n": spread.n, "thin": one.succeeded < THIN}


def _seconds(duration_ns: int) -> Decimal:
    """To the microsecond."""
    return Decimal(duration_ns // 1_000).scaleb(-6)


def _deployment(priced: ModelPrice | None, seen: Sequence[Runs]) -> Json:
    published = priced.hardware if priced else None
    found = list(dict.fromkeys(one.kind.tier for one in seen))
    known = [tier for tier in found if tier != UNKNOWN_TIER]
    matches = None if published is None or not known else known == [published]
    return {"published": published, "found": found, "matches": matches}
