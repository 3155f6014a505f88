"""Service classes: who pays for which phase, as multipliers (contracts, section 5).

Owns the matrix and its checks. Refuses to know prices and time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import StrEnum

from taximeter.billing.money import decimal_of, plain
from taximeter.errors import ConfigError
from taximeter.events import ServiceClass, Status


class Quantity(StrEnum):
    """What a prediction's active time is billed by where predictions overlap."""

    SHARE = "share"
    ACTIVE = "active"


#: Classes whose instance is billed for being online; their predictions are informative, so nothing bills twice.
ONLINE = frozenset({ServiceClass.PRIVATE, ServiceClass.DEPLOYMENT})


_ONE = Decimal(1)
_FAILED, _CANCELED, _ABORTED = Status.FAILED, Status.CANCELED, Status.ABORTED


@dataclass(frozen=True, slots=True)
class Terms:
    """One class's row: a multiplier per phase, one per way to end, and the quantity that bills."""

    boot: Decimal
    load: Decimal
    idle: Decimal
    active: Decimal
    teardown: Decimal
    failed: Decimal
    canceled: Decimal
    aborted: Decimal
    quantity: Quantity

    def on(self, status: Status) -> Decimal:
        """The multiplier that an end in `status` puts on the whole run."""
        if status is _FAILED:
            return self.failed
        if status is _CANCELED:
            return self.canceled
        return self.aborted if status is _ABORTED else _ONE


@dataclass(frozen=True, slots=True)
class Classes:
    """The whole matrix."""

    terms: Mapping[ServiceClass, Terms]

    def content(self) -> dict[str, dict[str, str]]:
        """The matrix as plain JSON values, from which `parse_classes` makes it again."""
        return {name.value: _row(terms) for name, terms in self.terms.items()}


_MULTIPLIERS = tuple(field.name for field in fields(Terms) if field.name != "quantity")
_KEYS = (*_MULTIPLIERS, "quantity")


def parse_classes(mapping: Mapping[str, object], source: str) -> Classes:
    """The matrix from what the config said, every class and cell present; ConfigError names every fault."""
    known = {name.value for name in ServiceClass}
    faults = [f"{source}: {name}: expected one of {', '.join(sorted(known))}" for name in mapping if name not in known]
    terms: dict[ServiceClass, Terms] = {}
    for name in ServiceClass:
        row = mapping.get(name.value)
        if isinstance(row, Mapping):
            parsed = _terms(row, f"{source}: {name}", faults)
            if parsed is not None:
                terms[name] = parsed
        else:
            faults.append(f"{source}: {name}: expected a table with {', '.join(_KEYS)}")
    if faults:
        raise ConfigError(tuple(faults))
    return Classes(terms)


def _terms(row: Mapping[str, object], where: str, faults: list[str]) -> Terms | None:
    before = len(faults)
    faults.extend(f"{where}.{key}: expected one of {', '.join(_KEYS)}" for key in row if key not in _KEYS)
    cells: dict[str, Decimal] = {}
    for key in _MULTIPLIERS:
        try:
            cells[key] = decimal_of(row.get(key))
        except ValueError:
            faults.append(f"{where}.{key} = {row.get(key)!r}: expected a multiplier as a string, such as '1' or '0.5'")
    quantity = row.get("quantity")
    if quantity not in tuple(Quantity):
        faults.append(f"{where}.quantity = {quantity!r}: expected 'share' or 'active'")
    if len(faults) > before:
        return None
    return Terms(**cells, quantity=Quantity(str(quantity)))


def _row(terms: Terms) -> dict[str, str]:
    row = {key: plain(getattr(terms, key)) for key in _MULTIPLIERS}
    row["quantity"] = terms.quantity.value
    return row
