"""Attributes of a prediction: flat values, in JSON.

Owns which of them the agent takes (journal.text has the rule, and a test compares them): one that it does not would
cost the whole mark. Loaded by the first prediction that has some.
"""

from collections.abc import Mapping

from taximeter.client.around import is_foreign
from taximeter.client.text import MAP_MAX_ENTRIES, QUANTITY_END, is_name, pairs, quote, word


def attributes(given: Mapping[str, object]) -> tuple[list[bytes], int]:
    """The attributes as pairs of JSON, and how many are left out, since the agent would refuse the whole mark."""
    items = pairs(given)
    if items is None:
        return [], 1
    told: list[bytes] = []
    for key, value in items:
        text = _attribute(value) if is_name(word(key)) else None
        if text is not None and len(told) < MAP_MAX_ENTRIES:
            told.append(b"%b:%b" % (quote(word(key)), text))
    return told, len(items) - len(told)


def _attribute(value: object) -> bytes | None:
    """A flat value in JSON; None if it is none."""
    try:
        return _flat(value)
    except Exception as error:  # what a type of somebody's own may raise, nobody knows
        if type(value) in (str, int, float, bool) and is_foreign(error):
            raise
        return None


def _flat(value: object) -> bytes | None:
    if isinstance(value, str):
        return quote(word(value)) if not value or is_name(value) else None
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, float):
        said = float.__repr__(value)
        return None if "n" in said else said.encode()  # nan and inf are not in JSON
    if isinstance(value, int):
        number = int.__int__(value)
        return b"%d" % number if -QUANTITY_END < number < QUANTITY_END else None
    return None
