"""Money and quantities: Decimal made from strings or integers, rounded in one function.

Refuses floats, unlike currencies and any rounding but `rounded`; display rounding belongs to the faces.
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation

#: Amounts are kept to this many places of the currency's unit.
PLACES = Decimal("1e-18")
#: Wide enough that no product of a price, a multiplier and whatever was measured or counted is ever rounded.
EXACT = Context(prec=200, rounding=ROUND_HALF_EVEN)

_GIGA = 1_000_000_000
_NANO = Decimal("1e-9")
_LONGEST_NUMBER = 40


def decimal_of(text: object) -> Decimal:
    """The plain, finite, non-negative number written in `text`; ValueError for anything else.

    Only ASCII digits and one point: no exponent (1E999999 would fill the memory), no sign, no underscores, no
    foreign digits, no float (0.1 is not a tenth).
    """
    if not isinstance(text, str) or not text.isascii() or len(text) > _LONGEST_NUMBER:
        raise ValueError(f"not a plain decimal string: {text!r}")
    whole, point, fraction = text.partition(".")
    if not whole.isdigit() or (point and not fraction.isdigit()):
        raise ValueError(f"not a plain decimal string: {text!r}")
    try:
        return Decimal(text)
    except InvalidOperation as error:  # pragma: no cover - the checks above leave nothing that Decimal refuses
        raise ValueError(f"not a plain decimal string: {text!r}") from error


def rounded(amount: Decimal) -> Decimal:
    """The one rounding of money: half to even, at 18 places."""
    return amount.quantize(PLACES, None, EXACT)


def plain(number: Decimal) -> str:
    """A number in full, without exponent and trailing zeros: `0.0022875`, `0`, `-1.5`."""
    text = str(number)
    if "E" in text:  # which seldom happens, and `str` takes half the time
        text = f"{number:f}"
    if text[-1] == "0" and "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def seconds(duration_ns: int) -> Decimal:
    """Nanoseconds as exact seconds."""
    return EXACT.multiply(Decimal(duration_ns), _NANO)


def seconds_text(duration_ns: int) -> str:
    """Nanoseconds, none of them negative, as exact seconds, written as `plain` writes them."""
    whole, fraction = divmod(duration_ns, _GIGA)
    return f"{whole}.{fraction:09d}".rstrip("0") if fraction else str(whole)
