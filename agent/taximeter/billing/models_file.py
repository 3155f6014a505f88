"""Models as they are written down: in the platform's shape, or in our own; every fault named at once.

The platform's shape is an object of its `GET /v1/models`, known by its `pricing`; what it says beside the price is
kept as it came. Our own is the same flattened, prices as strings, with what only we know (contracts, section 6):

    name = "acme/chat"
    prices = [{ counts = "token_input", unit = "million_token", amount = "3" }, …]   # or amount = … and unit = …

Refuses to know files, and what any of it comes to.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from taximeter.billing.currencies import CURRENCIES
from taximeter.billing.models import OPERATORS, SIZES, Criteria, ModelPrice, OnFailure, Price, number_of
from taximeter.billing.money import decimal_of, plain
from taximeter.billing.units import COUNTED, HARDWARE, PREDICTION, UNITS

_LONGEST = 256
_PRICE = ("amount", "unit", "counts", "above", "up_to")
_CRITERIA = ("field", "operator", "value", *_PRICE)
_OURS = (
    *("currency", "prices", "criterias", "plus_hardware", "online_units", "on_failure", "billable", "counted"),
    *("versions", "hardware", "namespace", "type", "privacy"),
)
_OWN = ("name", "amount", "unit", *_OURS)
_PRICING = ("amount", "currency", "unit", "criterias", "formula")
_THEIR_CRITERIA = ("field", "operator", "value", "billable_price", "unit")


class Faults:
    """What is wrong with a document's models."""

    def __init__(self, source: str, found: list[str]) -> None:
        self.source, self.found = source, found

    def add(self, path: str, value: object, expected: str) -> None:
        """Note that the value at a path is not what was expected."""
        self.found.append(f"{self.source}: {path} = {_shown(value)}: expected {expected}")

    def others(self, said: Mapping[str, object], path: str, known: tuple[str, ...]) -> None:
        """Note every key that is none of the known ones."""
        self.found.extend(
            f"{self.source}: {path}.{key}: expected one of {', '.join(known)}" for key in said if key not in known
        )


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
    first = _price({"amount": pricing.get("amount"), "unit": pricing.get("unit")}, path, faults)
    criterias = tuple(_their_criterias(pricing.get("criterias"), path, first, faults))
    own = {key: item[key] for key in ("prices", *_OURS) if item.get(key) is not None}
    own["currency"] = pricing.get("currency")
    metadata = item.get("metadata")
    deployed = metadata.get("deployment_hardware") if isinstance(metadata, Mapping) else None
    if "hardware" not in own and isinstance(deployed, Mapping) and deployed.get("slug"):
        own["hardware"] = deployed["slug"]
    more = tuple(_prices(own.get("prices"), where, faults))
    return _model(item, own, (first, *more), criterias, (where, currency, faults))


def _own(item: Mapping[str, object], where: str, currency: str, faults: Faults) -> ModelPrice:
    faults.others(item, where, _OWN)
    prices = list(_prices(item.get("prices"), where, faults))
    if "amount" in item or "unit" in item or not item.get("prices"):
        first = {key: item[key] for key in ("amount", "unit") if key in item}
        prices.insert(0, _price(first, where, faults))
    criterias = tuple(_criterias(item.get("criterias"), where, prices[0], faults)) if prices else ()
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
    if currency not in CURRENCIES:
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
        name=_name(item.get("name"), f"{where}.name", faults) or "",
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


def _prices(value: object, where: str, faults: Faults) -> Iterator[Price]:
    if value is None:
        return
    if not isinstance(value, list | tuple):
        faults.add(f"{where}.prices", value, "a list of prices, each with amount and unit")
        return
    for at, item in enumerate(value):
        path = f"{where}.prices[{at}]"
        if isinstance(item, Mapping):
            faults.others(item, path, _PRICE)
            yield _price(item, path, faults)
        else:
            faults.add(path, item, "a price with amount and unit")


def _price(said: Mapping[str, object], path: str, faults: Faults, amount: str = "amount") -> Price:
    unit = said.get("unit")
    if not isinstance(unit, str) or unit not in UNITS:
        faults.add(f"{path}.unit", unit, f"one of {', '.join(UNITS)}")
        unit = PREDICTION
    counts = None if said.get("counts") is None else _name(said["counts"], f"{path}.counts", faults)
    if counts is not None and (unit in HARDWARE or unit == PREDICTION):
        faults.add(f"{path}.counts", counts, f"nothing: {unit} is not counted by anybody")
    above = _amount(said.get("above", "0"), f"{path}.above", faults, "a number of units")
    up_to = None if said.get("up_to") is None else _amount(said["up_to"], f"{path}.up_to", faults, "a number of units")
    if up_to is not None and up_to <= above:
        faults.add(f"{path}.up_to", plain(up_to), f"more than {plain(above)}")
    return Price(_amount(said.get(amount), f"{path}.{amount}", faults, "a price"), unit, counts, above, up_to)


def _amount(value: object, path: str, faults: Faults, what: str) -> Decimal:
    """A number that was written as a string, or read from JSON as it is written; never a float."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    elif isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) < _LONGEST:
        value = plain(value)
    try:
        return decimal_of(value)
    except ValueError:
        faults.add(path, value, f"{what}, none below zero, as a string such as '0.03'")
        return Decimal(0)


def _their_criterias(value: object, path: str, first: Price, faults: Faults) -> Iterator[Criteria]:
    for where, item in _each(value, f"{path}.criterias", faults):
        faults.others(item, where, _THEIR_CRITERIA)
        unit = item.get("unit") or first.unit
        said = {"billable_price": item.get("billable_price"), "unit": unit, "counts": None}
        yield _criteria(item, _price(said, where, faults, "billable_price"), where, faults)


def _criterias(value: object, path: str, first: Price, faults: Faults) -> Iterator[Criteria]:
    for where, item in _each(value, f"{path}.criterias", faults):
        faults.others(item, where, _CRITERIA)
        yield _criteria(item, _price({"unit": first.unit, **item}, where, faults), where, faults)


def _each(value: object, path: str, faults: Faults) -> Iterator[tuple[str, Mapping[str, object]]]:
    if value is None:
        return
    if not isinstance(value, list | tuple):
        faults.add(path, value, "a list of criteria")
        return
    for at, item in enumerate(value):
        if isinstance(item, Mapping):
            yield f"{path}[{at}]", item
        else:
            faults.add(f"{path}[{at}]", item, "a criterion with field, operator and value")


def _criteria(item: Mapping[str, object], price: Price, where: str, faults: Faults) -> Criteria:
    field, operator, value = item.get("field"), item.get("operator"), item.get("value")
    if not isinstance(field, str) or not field:
        faults.add(f"{where}.field", field, "the name of an attribute")
    if operator not in OPERATORS:
        faults.add(f"{where}.operator", operator, f"one of {' '.join(OPERATORS)}")
    compared: str | tuple[str, ...] = ""
    if operator == "in" and isinstance(value, list | tuple):
        compared = tuple(_value(one, f"{where}.value[{at}]", faults) for at, one in enumerate(value))
    elif operator == "in":
        faults.add(f"{where}.value", value, "a list of values")
    else:
        compared = _value(value, f"{where}.value", faults)
        if operator in SIZES and number_of(compared) is None:
            faults.add(f"{where}.value", value, f"a number, for {operator} compares sizes")
    return Criteria(str(field), str(operator), compared, price)


def _value(value: object, path: str, faults: Faults) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value)
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) < _LONGEST:
        return plain(value)
    faults.add(path, value, "a text, a number, true or false")
    return ""


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
        if unit not in COUNTED:
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


def _name(value: object, path: str, faults: Faults) -> str | None:
    if isinstance(value, str) and 0 < len(value) <= _LONGEST:
        return value
    faults.add(path, value, f"a name of 1 to {_LONGEST} characters")
    return None


def _optional(own: Mapping[str, object], key: str, where: str, faults: Faults) -> str | None:
    return None if own.get(key) in (None, "") else _name(own[key], f"{where}.{key}", faults)


def _check_meters(model: ModelPrice, where: str, faults: Faults) -> None:
    """No two prices that hold at once may count the same thing."""
    for criterion in (None, *model.criterias):
        prices = list(model.prices)
        if criterion is not None and prices:
            prices[model.place_of(criterion.price)] = criterion.price
        keys = [(price.counts or UNITS[price.unit].base, price.above, price.up_to) for price in prices]
        twice = [key[0] for at, key in enumerate(keys) if key in keys[:at]]
        for price in prices:
            named = [other.counts for other in prices if other.counts] if price.counts is None else []
            twice += [name for name in named if model.is_counted_as(name, UNITS[price.unit].base)]
        if twice:
            faults.add(f"{where}.prices", twice[0], "prices of which no two count the same thing")
            return


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
