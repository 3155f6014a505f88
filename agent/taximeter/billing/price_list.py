"""A rate card of two parts: the node's own, and models that somebody else lists and may change at any time.

A list has no version and no beginning of its own: it holds from when it was first seen. Pure; refuses to know where a
list comes from.
"""

from datetime import UTC, datetime

from taximeter.billing.models_file import Document
from taximeter.billing.rates import RateCard, parse_card

_SECOND = 1_000_000_000


def card_with(own: RateCard, listed: Document, tag: str, since_utc_ns: int) -> RateCard:
    """The node's `own` card, and the models of a list that was first seen at `since_utc_ns`; ConfigError as parse_card.

    The version is that of the own card and `tag`. It takes effect with the list, but never before the own card does;
    a part of a second counts as the whole, so that it never takes effect before it was seen.
    """
    effective_s = max(own.effective_utc_ns // _SECOND, -(-since_utc_ns // _SECOND))
    effective = datetime.fromtimestamp(effective_s, UTC).isoformat()
    said = own.content() | {"version": f"{own.version}+{tag}", "effective": effective}
    return parse_card(said, listed.source, listed)


def is_older(card: RateCard, in_force: RateCard | None) -> bool:
    """Whether a card would take prices back to before those in force; the very card that is, is not older."""
    return in_force is not None and card.hash != in_force.hash and card.effective_utc_ns < in_force.effective_utc_ns
