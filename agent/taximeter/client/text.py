"""Texts of a mark: any string as JSON, and what a name or a quantity must be so that the agent takes it.

Owns the escaping. Refuses to import json or re, which cost a worker more than all of the client: ordinary strings are
ASCII and need nothing. The rules are those of journal.text (a test compares them): what it would refuse is left out of
a mark that must not be lost.
"""

from taximeter import wire
from taximeter.client.around import is_foreign

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Attributes or units of one mark.
MAP_MAX_ENTRIES = 64
QUANTITY_END = 10**40
_ESCAPES = {code: f"\\u{code:04x}" for code in range(0x20)} | {0x22: '\\"', 0x5C: "\\\\"}


def word(value: object) -> str:
    """What was given as a name, as a plain string: a UUID or a member of an enumeration is one, too."""
    if type(value) is str:
        return value
    try:
        return str.__str__(value) if isinstance(value, str) else str(value)
    except Exception:  # it is no name
        return ""


def quote(value: str) -> bytes:
    """A string in JSON, in UTF-8; surrogates, which UTF-8 cannot hold, become U+FFFD."""
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return b'"%b"' % value.encode()
    raw = value.translate(_ESCAPES).encode("utf-8", "surrogatepass")
    return b'"%b"' % raw.decode("utf-8", "replace").encode()


def is_name(value: str) -> bool:
    """Whether the agent takes it as a name: 1 to 256 characters that break no line, terminal or reader's eye."""
    if not 0 < len(value) <= wire.NAME_MAX_CHARS:
        return False
    return (value.isascii() and value.isprintable()) or not any(_is_unfit(ord(char)) for char in value)


def pairs(given: "Mapping[str, object]") -> "list[tuple[str, object]] | None":
    """What a mapping has; None where it is none, or fails. No plain one fails: what comes in its midst is foreign."""
    try:
        return list(given.items()) if type(given) is dict else [(key, value) for key, value in given.items()]
    except Exception as error:
        if type(given) is dict and is_foreign(error):
            raise
        return None


def quantity(amount: object) -> "int | str | None":
    """An amount of units, exact: an int, or a decimal number as text; None: it is none that can be counted."""
    if type(amount) is int:
        return amount if 0 <= amount < QUANTITY_END else None
    if type(amount) is bool:
        return None
    from taximeter.client import amounts  # what is no plain int is rare

    return amounts.exact(amount)


def _is_unfit(code: int) -> bool:
    if code < 0x2000:
        return code < 0x20 or 0x7F <= code < 0xA0
    is_direction = code in (0x200E, 0x200F) or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    return is_direction or code in (0x2028, 0x2029, 0xFEFF) or 0xD800 <= code <= 0xDFFF
