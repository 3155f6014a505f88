"""Models as they are written down: in the platform's shape, or in our own; every fault named at once.

The platform's shape is an object of its `GET /v1/models`, known by its `pricing`; what it says beside the price is
kept as it came. Our own is the same flattened, prices as strings, with what only we know (contracts, section 6):

    name = "acme/chat"
    prices = [{ counts = "token_input", unit = "million_token", amount = "3" }, …]   # or amount = … and unit = …

Refuses to know files, and what any of it comes to.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from taximeter.billing.currencies import CURRENCIES
from taximeter.billing.models import Criteria, ModelPrice, OnFailure, Price, counts_of
from taximeter.billing.prices_file import Faults, criterias_of, name_of, price_of, prices_of, their_criterias
from taximeter.billing.units import COUNTED, UNITS

_OURS = (
    *("currency", "prices", "criterias", "plus_hardware", "online_units", "on_failure", "billable", "counted"),
    *("versions", "hardware", "namespace", "type", "privacy"),
)
_OWN = ("name", "amount", "unit", *_OURS)
_PRICING = ("amount", "currency", "unit", "criterias", "formula")


class Document(NamedTuple):
    """What says the models of a card."""

    said: object  #: a list of models, or an object with `data`, as the platform answers
    source: str
    path: str = ""  #: its key within that


def parse_models(document: Document, currency: str, found: list[str]) -> Iterator[ModelPrice]:
    """The models of a document that are well-formed; whatever is wrong goes to `found`."""
    faults, said, path = Faults(document.source, found), document.said, document.path
    if isinstance(said, Mapping) and isinstance(said.get("data"), list):
        said, path = said["data"], f"{path}.data" if path else "data"
    if isinstance(said, Mapping):  # as a ledger has it: by name
        said = [{"name": name, **terms} if isinstance(terms, Mapping) else terms for name, terms in said.items()]
    if not isinstance(said, list | tuple):
        faults.add(path or "(document)", said, "a list of models")
        return
    for at, item in enumerate(said):
        where = f"{path}[{at}]"
        if not isinstance(item, Mapping):
            faults.add(where, item, "a model")
            continue
        before = len(found)
        model = _theirs(item, where, currency, faults) if "pricing" in item else _own(item, where, currency, faults)
        if len(found) == before:
            yield model


def _theirs(item: Mapping[str, object], where: str, currency: str, faults: Faults) -> ModelPrice:
    """A model as the platform lists it; keys that we have beside its own may stand in it, too."""
    pricing, path = item["pricing"], f"{where}.pricing"
    if not isinstance(pricing, Mapping):
        faults.add(path, pricing, "an object with amount, currency and unit")
        pricing = {}
    faults.others(pricing, path, _PRICING)
    if pricing.get("formula"):
        faults.add(f"{path}.formula", pricing["formula"], "none: a price that depends on a formula is not known")
    first = price_of({"amount": pricing.get("amount"), "unit": pricing.get("unit")}, path, faults)
    criterias = tuple(their_criterias(pricing.get("criterias"), path, first, faults))
    own = {key: item[key] for key in ("prices", *_OURS) if item.get(key) is not None}
    own["currency"] = pricing.get("currency")
    metadata = item.get("metadata")
    deployed = metadata.get("deployment_hardware") if isinstance(metadata, Mapping) else None
    if "hardware" not in own and isinstance(deployed, Mapping) and deployed.get("slug"):
        own["hardware"] = deployed["slug"]
    more = tuple(prices_of(own.get("prices"), where, faults))
    return _model(item, own, (first, *more), criterias, (where, currency, faults))


def _own(item: Mapping[str, object], where: str, currency: str, faults: Faults) -> ModelPrice:
    faults.others(item, where, _OWN)
    prices = list(prices_of(item.get("prices"), where, faults))
    if "amount" in item or "unit" in item or not item.get("prices"):
        first = {key: item[key] for key in ("amount", "unit") if key in item}
        prices.insert(0, price_of(first, where, faults))
    criterias = tuple(criterias_of(item.get("criterias"), where, prices[0], faults)) if prices else ()
    return _model(item, item, tuple(prices), criterias, (where, currency, faults))


def _model(
    item: Mapping[str, object],
    own: Mapping[str, object],
    prices: tuple[Price, ...],
    criterias: tuple[Criteria, ...],
    at: tuple[str, str, Faults],
) -> ModelPrice:
    where, card_currency, faults = at
    currency = own.get("currency") or card_currency
    if not isinstance(currency, str) or currency not in CURRENCIES:
        key = f"{where}.pricing.currency" if "pricing" in item else f"{where}.currency"
        faults.add(key, currency, "an ISO 4217 code such as 'USD'")
    foreign = currency != card_currency
    on_failure = own.get("on_failure") or (OnFailure.NONE if foreign else OnFailure.TIME).value
    if on_failure not in tuple(OnFailure):
        faults.add(f"{where}.on_failure", on_failure, f"one of {', '.join(OnFailure)}")
        on_failure = OnFailure.TIME.value
    elif foreign and on_failure == OnFailure.TIME:
        faults.add(f"{where}.on_failure", on_failure, f"units or none: its tier's price is in {card_currency}")
    plus_hardware = _flag(own, "plus_hardware", False, (where, faults))
    if foreign and plus_hardware:
        faults.add(f"{where}.plus_hardware", True, f"false: the hardware's price is in {card_currency}")
    model = ModelPrice(
        name=name_of(item.get("name"), f"{where}.name", faults) or "",
        currency=str(currency),
        prices=prices,
        criterias=criterias,
        plus_hardware=plus_hardware,
        online_units=_flag(own, "online_units", False, (where, faults)),
        on_failure=OnFailure(str(on_failure)),
        billable=_flag(own, "billable", True, (where, faults)),
        counted=_counted(own.get("counted"), f"{where}.counted", faults),
        versions=_versions(own.get("versions"), f"{where}.versions", faults),
        hardware=_optional(own, "hardware", where, faults),
        namespace=_optional(own, "namespace", where, faults),
        type=_optional(own, "type", where, faults),
        privacy=_optional(own, "privacy", where, faults),
        raw=dict(item) if "pricing" in item else {},
    )
    _check_meters(model, where, faults)
    return model


def _flag(own: Mapping[str, object], key: str, usual: bool, at: tuple[str, Faults]) -> bool:
    value = own.get(key, usual)
    if not isinstance(value, bool):
        at[1].add(f"{at[0]}.{key}", value, "true or false")
        return usual
    return value


def _counted(value: object, path: str, faults: Faults) -> Mapping[str, str]:
    """What workers count, to what of it is priced; nothing else can be a priced unit that is counted."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        faults.add(path, value, "a table of what is counted = the priced unit that it is")
        return {}
    for name, unit in value.items():
        if not isinstance(unit, str) or unit not in COUNTED:
            faults.add(f"{path}.{name}", unit, f"one of {', '.join(sorted(COUNTED))}")
    return {str(name): str(unit) for name, unit in value.items()}


def _versions(value: object, path: str, faults: Faults) -> Mapping[str, bool]:
    """A list of objects, as the platform has it; or a table of version = whether it boots fast."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        value = [{"id": name, "fast_boot": fast} for name, fast in value.items()]
    versions: dict[str, bool] = {}
    for at, item in enumerate(value) if isinstance(value, list | tuple) else ((-1, value),):
        said = {"id": item} if isinstance(item, str) else item
        fast = said.get("fast_boot", False) if isinstance(said, Mapping) else None
        name = (said.get("id") or said.get("version") or said.get("name")) if isinstance(said, Mapping) else None
        if not isinstance(name, str) or not isinstance(fast, bool):
            faults.add(f"{path}[{at}]" if at >= 0 else path, item, "a version with its id, and fast_boot true or false")
        elif name in versions:
            faults.add(f"{path}[{at}]", name, "a version that was not said before")
        else:
            versions[name] = fast
    return versions


def _optional(own: Mapping[str, object], key: str, where: str, faults: Faults) -> str | None:
    return None if own.get(key) in (None, "") else name_of(own[key], f"{where}.{key}", faults)


def _check_meters(model: ModelPrice, where: str, faults: Faults) -> None:
    """No two prices that hold at once may count the same thing."""
    for criterion in (None, *model.criterias):
        prices = list(model.prices)
        if criterion is not None and prices:
            prices[model.place_of(criterion.price)] = criterion.price
        keys = [(price.counts or UNITS[price.unit].base, price.above, price.up_to) for price in prices]
        twice = [key[0] for at, key in enumerate(keys) if key in keys[:at]]
        for price in prices:
            if price.counts is None and counts_of(price) is not None:
                names = model.names_of(UNITS[price.unit].base)
                twice += [other.counts for other in prices if other.counts in names]
        if twice:
            faults.add(f"{where}.prices", twice[0], "prices of which no two count the same thing")
            return
