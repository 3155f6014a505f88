"""Prices and criteria as they are written down: their shapes and limits, every fault named at once.

Refuses to know models.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from taximeter.billing.models import OPERATORS, SIZES, Criteria, Price, number_of
from taximeter.billing.money import decimal_of, plain
from taximeter.billing.units import HARDWARE, PREDICTION, UNITS

_LONGEST = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PRICE = ("amount", "unit", "counts", "above", "up_to")
_CRITERIA = ("field", "operator", "value", *_PRICE)
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


def prices_of(value: object, where: str, faults: Faults) -> Iterator[Price]:
    """The prices of a list."""
    if value is None:
        return
    if not isinstance(value, list | tuple):
        faults.add(f"{where}.prices", value, "a list of prices, each with amount and unit")
        return
    for at, item in enumerate(value):
        path = f"{where}.prices[{at}]"
        if isinstance(item, Mapping):
            faults.others(item, path, _PRICE)
            yield price_of(item, path, faults)
        else:
            faults.add(path, item, "a price with amount and unit")


def price_of(said: Mapping[str, object], path: str, faults: Faults, amount: str = "amount") -> Price:
    """One price; its amount stands under the key `amount`."""
    unit = said.get("unit")
    if not isinstance(unit, str) or unit not in UNITS:
        faults.add(f"{path}.unit", unit, f"one of {', '.join(UNITS)}")
        unit = PREDICTION
    counts = None if said.get("counts") is None else name_of(said["counts"], f"{path}.counts", faults)
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


def their_criterias(value: object, path: str, first: Price, faults: Faults) -> Iterator[Criteria]:
    """Criteria as the platform lists them; without a unit they are of the first price's."""
    for where, item in _each(value, f"{path}.criterias", faults):
        faults.others(item, where, _THEIR_CRITERIA)
        unit = item.get("unit") or first.unit
        said = {"billable_price": item.get("billable_price"), "unit": unit, "counts": None}
        yield _criteria(item, price_of(said, where, faults, "billable_price"), where, faults)


def criterias_of(value: object, path: str, first: Price, faults: Faults) -> Iterator[Criteria]:
    """Criteria in our own shape."""
    for where, item in _each(value, f"{path}.criterias", faults):
        faults.others(item, where, _CRITERIA)
        yield _criteria(item, price_of({"unit": first.unit, **item}, where, faults), where, faults)


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
    if not isinstance(operator, str) or operator not in OPERATORS:
        faults.add(f"{where}.operator", operator, f"one of {' '.join(OPERATORS)}")
        operator = None
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


def name_of(value: object, path: str, faults: Faults) -> str | None:
    """A name that is not too long, None where it is none."""
    if isinstance(value, str) and 0 < len(value) <= _LONGEST and not _CONTROL.search(value):
        return value
    faults.add(path, value, f"a name of 1 to {_LONGEST} characters, none of them a control character")
    return None


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
