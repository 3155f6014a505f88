"""Attributes of a prediction: flat values, in JSON.

Owns which of them the agent takes (journal.text has the rule, and a test compares them): one that it does not would
cost the whole mark. Loaded by the first prediction that has some.
"""

from collections.abc import Mapping

from taximeter.client.text import MAP_MAX_ENTRIES, QUANTITY_END, is_name, quote, word


def attributes(given: Mapping[str, object]) -> tuple[list[bytes], int]:
    """The attributes as pairs of JSON, and how many are left out, since the agent would refuse the whole mark."""
    pairs: list[bytes] = []
    for key, value in given.items():
        text = _attribute(value) if is_name(word(key)) else None
        if text is not None and len(pairs) < MAP_MAX_ENTRIES:
            pairs.append(b"%b:%b" % (quote(word(key)), text))
    return pairs, len(given) - len(pairs)


def _attribute(value: object) -> bytes | None:
    """A flat value in JSON; None if it is none."""
    if isinstance(value, str):
        return quote(word(value)) if not value or is_name(value) else None
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, float):
        return float.__repr__(value).encode() if value - value == 0 else None  # NaN and infinities are not in JSON
    if isinstance(value, int) and -QUANTITY_END < value < QUANTITY_END:
        return b"%d" % value
    return None
