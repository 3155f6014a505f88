"""Amounts that are no plain int: floats, decimals, texts, and what counts as an int or a float.

Owns how such an amount becomes exact text. Loaded by the first one: re and decimal cost a millisecond each.
"""

import re
from decimal import Context, Decimal

from taximeter.client.around import is_foreign

_QUANTITY = re.compile(r"[0-9]{1,64}(\.[0-9]{1,64})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_MOST_DIGITS = 40
_PLAIN = (float, str, Decimal, int, bool)
#: Exact for any two such numbers.
_CONTEXT = Context(prec=2 * _MOST_DIGITS + 1)


def exact(amount: object) -> "int | str | None":
    """The amount, an int or a decimal number without exponent; None if it is none, negative, or too long to count."""
    try:
        text = _text(amount)
    except Exception as error:  # what a type of somebody's own may raise, nobody knows
        if type(amount) in _PLAIN and is_foreign(error):
            raise
        return None
    if not _QUANTITY.fullmatch(text):
        return None
    plain = f"{Decimal(text):f}"
    whole, _, fraction = plain.partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    if len(whole) + len(fraction) > _MOST_DIGITS:
        return None
    return f"{whole}.{fraction}" if fraction else int(whole)


def total(one: "int | str", other: "int | str") -> "int | str":
    """The exact sum of two amounts that `exact` gave."""
    found = exact(_CONTEXT.add(Decimal(one), Decimal(other)))
    return "" if found is None else found


def _text(amount: object) -> str:
    if type(amount) is bool:
        return "none"
    if isinstance(amount, str):
        return str.__str__(amount)
    if isinstance(amount, Decimal):
        return Decimal.__format__(amount, "f") if abs(Decimal.adjusted(amount)) < 100 else "none"
    if hasattr(amount, "__index__"):
        return str(amount.__index__())
    if hasattr(amount, "__float__"):
        return repr(float(amount))
    return "none"
