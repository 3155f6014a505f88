"""How an amount is rounded where somebody is asked to pay it: by currency, and never in a record.

Records keep every digit, so that sums stay exact; only a sum is rounded, once, and only for show.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_UP, Decimal

from taximeter.billing.currencies import CURRENCIES
from taximeter.billing.money import EXACT
from taximeter.errors import ConfigError

MODES: Mapping[str, str] = {
    "half_even": ROUND_HALF_EVEN,
    "half_up": ROUND_HALF_UP,
    "up": ROUND_UP,
    "down": ROUND_DOWN,
}
_KEYS = ("places", "mode")
_MOST_PLACES = 18


@dataclass(frozen=True, slots=True)
class Rounding:
    """To so many places of the currency's unit, in one of MODES."""

    places: int
    mode: str

    def applied(self, amount: Decimal) -> Decimal:
        """The amount as it is invoiced."""
        return amount.quantize(Decimal(1).scaleb(-self.places), MODES[self.mode], EXACT)


def invoiced(amount: Decimal, currency: str, rules: Mapping[str, Rounding]) -> Decimal | None:
    """A sum as it is invoiced; None where nothing says how sums of this currency are rounded."""
    rounding = rules.get(currency)
    return None if rounding is None else rounding.applied(amount)


def parse_invoice(mapping: Mapping[str, object], source: str) -> Mapping[str, Rounding]:
    """The rules from what the config said, a table for each currency; ConfigError names every fault."""
    faults: list[str] = []
    rules: dict[str, Rounding] = {}
    for currency, row in mapping.items():
        where = f"{source}.{currency}"
        if currency not in CURRENCIES:
            faults.append(f"{where}: expected an ISO 4217 code such as 'USD'")
        if not isinstance(row, Mapping):
            faults.append(f"{where} = {row!r}: expected a table with {', '.join(_KEYS)}")
            continue
        faults.extend(f"{where}.{key}: expected one of {', '.join(_KEYS)}" for key in row if key not in _KEYS)
        places, mode = row.get("places"), row.get("mode", "half_even")
        if not isinstance(places, int) or isinstance(places, bool) or not 0 <= places <= _MOST_PLACES:
            faults.append(f"{where}.places = {places!r}: expected a whole number from 0 to {_MOST_PLACES}")
        elif not isinstance(mode, str) or mode not in MODES:
            faults.append(f"{where}.mode = {mode!r}: expected one of {', '.join(MODES)}")
        else:
            rules[currency] = Rounding(places, str(mode))
    if faults:
        raise ConfigError(tuple(faults))
    return rules
