"""Names, quantities and loose values, as they may enter a record; the one place where their limits are.

Owns what a well-formed name, quantity or attribute is. Refuses to know where they came from. Everything here
raises ValueError with a bounded word (a metric's label) as its only argument.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

import msgspec

from taximeter.wire import NAME_MAX_CHARS

#: A quantity, written out without exponent, has at most this many digits.
QUANTITY_MAX_DIGITS = 40
#: Attributes, labels or units of one mark or run.
MAP_MAX_ENTRIES = 64

# What breaks a line or a terminal, or makes two ids look alike: controls, line separators, bidirectional overrides,
# surrogates. A fixed list: str.isprintable() changes with Python's Unicode version, and a replay must not.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_QUANTITY = re.compile(r"[0-9]{1,64}(\.[0-9]{1,64})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", re.ASCII)


def name(value: str) -> str:
    """An id, account, model, …: 1 to 256 characters, none of which breaks a line, a terminal or a reader's eye."""
    if not 0 < len(value) <= NAME_MAX_CHARS:
        raise ValueError("bad_name")
    if not (value.isascii() and value.isprintable()) and _UNFIT.search(value):
        raise ValueError("bad_name")
    return value


#: The same of names that come again with every run: models, accounts, boots.
common_name = lru_cache(maxsize=1024)(name)


def optional_name(value: str | None) -> str | None:
    """A name, or None where nothing was said."""
    return None if value is None else name(value)


def optional_common_name(value: str | None) -> str | None:
    """The same of names that come again with every run."""
    return None if value is None else common_name(value)


def quantity(text: str) -> str:
    """A non-negative decimal number in its one exact form: no exponent, no padding zeros, at most 40 digits."""
    if len(text) <= QUANTITY_MAX_DIGITS and text.isascii() and text.isdigit():
        return text.lstrip("0") or "0"
    if not _QUANTITY.fullmatch(text):
        raise ValueError("bad_units")
    plain = f"{Decimal(text):f}"
    whole, _, fraction = plain.partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    if len(whole) + len(fraction) > QUANTITY_MAX_DIGITS:
        raise ValueError("bad_units")
    return f"{whole}.{fraction}" if fraction else whole


def units(raw: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    """Unit names to quantities; each was a decimal string or a JSON number, read without a float in between."""
    _check_count(raw, "bad_units")
    return {name(unit): quantity(_decimal_text(bytes(value))) for unit, value in raw.items()}


def attributes(raw: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    """Flat values as strings; numbers keep the digits they came with."""
    _check_count(raw, "bad_attributes")
    return {name(key): _flat(bytes(value)) for key, value in raw.items()}


def strings(raw: Mapping[str, str]) -> dict[str, str]:
    """Names to texts (labels); a text may be empty."""
    _check_count(raw, "bad_attributes")
    return {name(key): _text(value) for key, value in raw.items()}


def traceparent(value: str | None) -> str | None:
    """A W3C traceparent; what is none is treated as absent, as W3C asks."""
    if value is None or len(value) > NAME_MAX_CHARS or not _TRACEPARENT.fullmatch(value):
        return None
    return value


def _check_count(entries: Mapping[str, object], reason: str) -> None:
    if len(entries) > MAP_MAX_ENTRIES:
        raise ValueError(reason)


def _text(value: str) -> str:
    return name(value) if value else value


def _decimal_text(raw: bytes) -> str:
    if raw[:1] == b'"':
        return _string(raw)
    if raw in (b"true", b"false", b"null") or raw[:1] in b"{[":
        raise ValueError("bad_units")
    return raw.decode("ascii")


def _flat(raw: bytes) -> str:
    if raw[:1] == b'"':
        return _text(_string(raw))
    if raw == b"null" or raw[:1] in b"{[":
        raise ValueError("bad_attributes")
    return _text(raw.decode("ascii"))


def _string(raw: bytes) -> str:
    return msgspec.json.decode(raw, type=str)
