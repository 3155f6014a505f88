"""A model's own price: in which units, for which attributes, and what becomes of it where a run fails.

Owns these values and which of a model's prices holds for a prediction. Refuses to know how they are written down
(models_file) and what anything comes to (dues).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from operator import ge, gt, le, lt

from taximeter.billing.money import EXACT, plain
from taximeter.billing.units import HARDWARE, PREDICTION, UNITS, USUAL_NAMES

_ZERO = Decimal(0)
_NUMBER = re.compile(r"-?[0-9]{1,64}(\.[0-9]{1,64})?([eE][+-]?[0-9]{1,2})?", re.ASCII)


class OnFailure(StrEnum):
    """What a failed run of a model that is priced by units is billed."""

    TIME = "time"  #: the time that it ran, at its tier's price
    UNITS = "units"  #: what was counted
    NONE = "none"  #: nothing


@dataclass(frozen=True, slots=True)
class Price:
    """So much for each unit: of everything that is one, or of one thing that is counted; of all of it, or of a part."""

    amount: Decimal
    unit: str
    counts: str | None = None  #: the one thing that is counted, such as token_input; None: all that is of this unit
    above: Decimal = _ZERO  #: not for the first so many units
    up_to: Decimal | None = None  #: nor for any beyond so many

    @property
    def meter(self) -> str:
        """What its lines are called."""
        name = self.counts or self.unit
        if not self.above and self.up_to is None:
            return name
        from_ = f" above {plain(self.above)}" if self.above else ""
        return f"{name}{from_}" if self.up_to is None else f"{name}{from_} up to {plain(self.up_to)}"

    def part_of(self, quantity: Decimal) -> Decimal:
        """How many of so many units it is for."""
        if self.up_to is not None and quantity > self.up_to:
            quantity = self.up_to
        if not self.above:
            return quantity
        return EXACT.subtract(quantity, self.above) if quantity > self.above else _ZERO

    def content(self) -> dict[str, object]:
        """The price as plain JSON values."""
        said: dict[str, object] = {"amount": plain(self.amount), "unit": self.unit}
        if self.counts is not None:
            said["counts"] = self.counts
        if self.above:
            said["above"] = plain(self.above)
        if self.up_to is not None:
            said["up_to"] = plain(self.up_to)
        return said


#: These compare sizes: only numbers have one.
SIZES: Mapping[str, Callable[[Decimal, Decimal], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
OPERATORS = ("==", "!=", *SIZES, "in")


@dataclass(frozen=True, slots=True)
class Criteria:
    """Another price, in another unit, for predictions of which one attribute compares so."""

    field: str
    operator: str
    value: str | tuple[str, ...]  #: several where the operator is `in`
    price: Price

    @property
    def amount(self) -> Decimal:
        """What a unit then costs."""
        return self.price.amount

    @property
    def unit(self) -> str:
        """The unit then."""
        return self.price.unit

    def holds(self, attributes: Mapping[str, str]) -> bool:
        """Whether it holds for a prediction; what was not said compares to nothing, not even as different."""
        said = attributes.get(self.field)
        if said is None:
            return False
        if isinstance(self.value, tuple):
            return any(_is(said, value) for value in self.value)
        if self.operator == "==":
            return _is(said, self.value)
        if self.operator == "!=":
            return not _is(said, self.value)
        one, other = number_of(said), number_of(self.value)
        return one is not None and other is not None and SIZES[self.operator](one, other)

    def content(self) -> dict[str, object]:
        """The criterion as plain JSON values."""
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        price = self.price.content()
        return {"field": self.field, "operator": self.operator, "value": value, **price}


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """What one model costs, by its own price."""

    name: str
    currency: str
    prices: tuple[Price, ...]  #: the first is the model's price, which a criterion replaces; others come on top
    criterias: tuple[Criteria, ...] = ()
    plus_hardware: bool = False  #: the tier's price comes on top
    online_units: bool = False  #: private and deployment classes, which pay for time, pay for units as well
    on_failure: OnFailure = OnFailure.TIME
    billable: bool = True  #: False: it costs nobody anything
    counted: Mapping[str, str] = field(default_factory=dict)  #: what workers count -> what of it is priced
    versions: Mapping[str, bool] = field(default_factory=dict)  #: version -> whether it boots fast
    hardware: str | None = None  #: the tier that it is published with
    namespace: str | None = None
    type: str | None = None
    privacy: str | None = None
    #: The platform's own object, as it said it; no part of the price, nor of the card's hash.
    raw: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    @property
    def amount(self) -> Decimal:
        """What one unit costs, where no criterion holds."""
        return self.prices[0].amount

    @property
    def unit(self) -> str:
        """The unit of that."""
        return self.prices[0].unit

    @property
    def is_time(self) -> bool:
        """Whether it is priced by nothing but hardware time, which a failed run has used as any other."""
        prices = (*self.prices, *(criterion.price for criterion in self.criterias))
        return all(price.unit in HARDWARE for price in prices)

    def prices_for(self, attributes: Mapping[str, str]) -> tuple[Price, ...]:
        """The prices of a prediction with these attributes.

        A criterion that holds replaces the price that counts the same thing, else the first; the first that holds wins.
        """
        if not self.criterias or not attributes:
            return self.prices
        if len(self.prices) == 1:
            for criterion in self.criterias:
                if criterion.holds(attributes):
                    return (criterion.price,)
            return self.prices
        replaced: dict[int, Price] = {}
        for criterion in self.criterias:
            if criterion.holds(attributes):
                replaced.setdefault(self.place_of(criterion.price), criterion.price)
        if not replaced:
            return self.prices
        return tuple(replaced.get(at, price) for at, price in enumerate(self.prices))

    def place_of(self, other: Price) -> int:
        """Which of its prices a criterion's replaces."""
        for at, price in enumerate(self.prices):
            if other.counts is not None and price.counts == other.counts:
                return at
        return 0

    def names_of(self, base: str) -> tuple[str, ...]:
        """What workers may call some of the priced unit `base`."""
        usual = USUAL_NAMES[base]
        if not self.counted:
            return usual
        own = tuple(name for name, unit in self.counted.items() if unit == base)
        return (*own, *(name for name in usual if name not in self.counted))

    def content(self) -> dict[str, object]:
        """The model as plain JSON values, less what is as usual; a card's hash is over this."""
        said: dict[str, object] = {"currency": self.currency, "prices": [price.content() for price in self.prices]}
        if self.criterias:
            said["criterias"] = [criterion.content() for criterion in self.criterias]
        for key in ("plus_hardware", "online_units"):
            if getattr(self, key):
                said[key] = True
        if not self.billable:
            said["billable"] = False
        said["on_failure"] = self.on_failure.value
        for key in ("counted", "versions"):
            if getattr(self, key):
                said[key] = dict(sorted(getattr(self, key).items()))
        said |= {key: getattr(self, key) for key in _NAMES if getattr(self, key) is not None}
        return said


_NAMES = ("hardware", "namespace", "type", "privacy")


def counts_of(price: Price) -> str | None:
    """What has to be counted for this price, None where it is measured, or is the prediction itself."""
    return None if price.unit in HARDWARE or price.unit == PREDICTION else price.counts or UNITS[price.unit].base


def number_of(text: str) -> Decimal | None:
    """The number that an attribute is, None where it is none."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _is(said: str, value: str) -> bool:
    """Numbers are the same by size (5, 5.0), all else by its text."""
    if said == value:
        return True
    number = number_of(value)
    return number is not None and number_of(said) == number
