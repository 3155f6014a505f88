"""The rules of spending: thresholds, prepaid credit, caps and limits, as config says them and as a ledger keeps them.

What is in force is a fact of the ledger, so that whoever reads it can find each crossing again. Refuses to apply them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from taximeter.billing.admission import Credit
from taximeter.billing.money import decimal_of, plain
from taximeter.billing.thresholds import Thresholds
from taximeter.errors import ConfigError

_NONE, _ALL = "none", "all"


@dataclass(frozen=True, slots=True)
class Spending:
    """All of them."""

    thresholds: Thresholds = field(default_factory=Thresholds)
    credit: Credit = field(default_factory=Credit)

    def content(self) -> dict[str, Any]:
        """The rules as plain JSON values, from which `parse_spending` makes them again."""
        thresholds, credit = self.thresholds, self.credit
        prepaid: object = _ALL if credit.prepaid is None else sorted(credit.prepaid) or _NONE
        return {
            "charges": {
                "thresholds": [plain(amount) for amount in thresholds.default],
                "accounts": {name: [plain(amount) for amount in own] for name, own in thresholds.accounts.items()},
            },
            "credit": {
                "prepaid": prepaid,
                "floor": plain(credit.floor),
                "caps": _written(credit.caps),
                "limits": {name: _written(own) for name, own in credit.limits.items()},
            },
        }


def parse_spending(mapping: Mapping[str, Any], source: str) -> Spending:
    """Rules from checked config or a ledger's fact; ConfigError where they are neither."""
    try:
        charges, credit = mapping["charges"], mapping["credit"]
        return Spending(
            Thresholds(
                _ascending(charges["thresholds"]),
                {name: _ascending(own) for name, own in charges["accounts"].items()},
            ),
            Credit(
                _accounts(credit["prepaid"]),
                signed_decimal_of(credit["floor"]),
                _read(credit["caps"]),
                {name: _read(own) for name, own in credit["limits"].items()},
            ),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError((f"{source}: expected charges and credit, got: {error!r}",)) from error


def signed_decimal_of(text: object) -> Decimal:
    """The number written in `text`, which may begin with a minus; ValueError for anything else."""
    if isinstance(text, str) and text.startswith("-"):
        return -decimal_of(text[1:])
    return decimal_of(text)


def _accounts(said: object) -> frozenset[str] | None:
    if said == _ALL:
        return None
    if said == _NONE:
        return frozenset()
    if not isinstance(said, list | tuple):
        raise TypeError(f"prepaid = {said!r}")
    return frozenset(said)


def _ascending(amounts: Any) -> tuple[Decimal, ...]:
    return tuple(sorted({decimal_of(amount) for amount in amounts}))


def _written(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    return {name: plain(amount) for name, amount in amounts.items()}


def _read(amounts: Mapping[str, object]) -> dict[str, Decimal]:
    return {name: decimal_of(amount) for name, amount in amounts.items()}
