"""Puts rate cards in force while the agent runs: a fact of the ledger first, then what runs are priced by.

Owns that no card takes prices back. Refuses to know where a card comes from.
"""

import logging
import time
from dataclasses import replace

from taximeter.agent.books import Books
from taximeter.agent.desk import Desk
from taximeter.agent.inforce import card_record, with_card
from taximeter.agent.pricing import Prices
from taximeter.billing.price_list import is_older
from taximeter.billing.rates import RateCard, card_in_force
from taximeter.config import Config, Directories
from taximeter.records import utc_text

logger = logging.getLogger(__name__)

_PRICE_LIST = "price_list.json"
#: A list takes effect when it is seen, and a file as it is written: neither is late by less than this.
_LATE_NS = 1_000_000_000
_LATE = (
    "what ended since it took effect was billed by the card before; `taximeter rerate --late-cards --dry-run` says "
    "what that comes to, and without `--dry-run` corrects it"
)


def open_prices(config: Config, where: Directories, known: tuple[RateCard, ...]) -> Prices:
    """The prices that a config names, on a node that has had these cards; asks for nothing yet."""
    listed, lists = config.price_list, None
    if listed is not None:
        from taximeter.prices.fetch import Fetcher  # noqa: PLC0415 -- 20 MB, only where a list is asked for

        lists = Fetcher(listed.url, listed.key_file, listed.timeout_s)
    poll_s = listed.poll_s if listed else 0.0
    return Prices(config.rate_card, lists, where.state / _PRICE_LIST, poll_s, is_first=not known)


async def first_card(prices: Prices, known: tuple[RateCard, ...]) -> RateCard | None:
    """The card to begin with; None: what the ledger knows stays in force, for there is none, or it is older."""
    card = await prices.begin()
    if card is None:
        return None
    prices.refused = refusal(card, card_in_force(known, time.time_ns()))
    if prices.refused is None:
        return card
    logger.error("rates.refused: %s", prices.refused)
    return None


class Enforcer:
    """Whoever may change the prices of these books."""

    def __init__(self, books: Books, desk: Desk) -> None:
        self._books = books
        self._desk = desk

    async def __call__(self, card: RateCard) -> str | None:
        """Put a card in force; says why not, where it is older than the one that is."""
        book, now_utc_ns = self._books.book, time.time_ns()
        refused = refusal(card, book.card_at(now_utc_ns))
        if refused is not None:
            return refused
        if not book.cards or book.cards[-1].hash != card.hash:
            await self._desk.say(lambda record_id: card_record(card, record_id, now_utc_ns))
            book = self._books.book
            self._books.book = replace(book, cards=with_card(book.cards, card))
            logger.info("rates.in_force version=%s effective=%s", card.version, utc_text(card.effective_utc_ns))
            if book.cards and card.effective_utc_ns < now_utc_ns - _LATE_NS:
                logger.warning("rates.late version=%s: %s", card.version, _LATE)
        return None


def refusal(card: RateCard, in_force: RateCard | None) -> str | None:
    """Why a card is not put in force over another; None: it may be."""
    if in_force is None or not is_older(card, in_force):
        return None
    return (
        f"cannot go back to rate card {card.version}, effective {utc_text(card.effective_utc_ns)}: expected none older "
        f"than {in_force.version}, which has been in force since {utc_text(in_force.effective_utc_ns)} and stays; give "
        "these prices a new version, effective later"
    )
