"""Puts rate cards in force while the agent runs: a fact of the ledger first, then what runs are priced by.

Owns that no card takes prices back. Refuses to know where a card comes from.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from taximeter.agent.books import Books
from taximeter.agent.desk import Desk
from taximeter.agent.inforce import Known, card_record, is_late, is_news, with_card
from taximeter.agent.pricing import Prices
from taximeter.billing.price_list import is_older
from taximeter.billing.rates import RateCard, card_in_force
from taximeter.config import Config, Directories
from taximeter.records import utc_text

logger = logging.getLogger(__name__)

_PRICE_LIST = "price_list.json"
_CORRECTED = "what was billed since it took effect is corrected now"
_LEFT = (
    "what ended since it took effect was billed by the card before (billing.late_cards); `taximeter rerate "
    "--late-cards --dry-run` says what that comes to, and without `--dry-run` corrects it"
)


def open_prices(config: Config, where: Directories, known: tuple[RateCard, ...]) -> Prices:
    """The prices that a config names, on a node that has had these cards; asks for nothing yet."""
    listed, lists = config.price_list, None
    if listed is not None:
        from taximeter.prices.fetch import Fetcher  # noqa: PLC0415 -- 20 MB, only where a list is asked for

        lists = Fetcher(listed.url, listed.key_file, listed.timeout_s)
    poll_s = listed.poll_s if listed else 0.0
    return Prices(config.rate_card, lists, where.state / _PRICE_LIST, poll_s, is_first=not known)


async def first_card(prices: Prices, known: Known, *, corrects_late: bool) -> RateCard | None:
    """The card to begin with; None: what the ledger knows stays in force, for there is none, or it is older."""
    card = await prices.begin()
    if card is None:
        return None
    prices.refused = refusal(card, card_in_force(known.cards, time.time_ns()))
    if prices.refused is None:
        if is_news(card, known) and known.newest and is_late(card, time.time_ns()):  # of the first nothing was billed
            _say_late(card, corrects=corrects_late)
        return card
    logger.error("rates.refused: %s", prices.refused)
    return None


class Enforcer:
    """Whoever may change the prices of these books; `came_late` is told where that concerns what was billed before."""

    def __init__(self, books: Books, desk: Desk, came_late: Callable[[], None], *, corrects_late: bool) -> None:
        self._books = books
        self._desk = desk
        self._came_late = came_late
        self._corrects_late = corrects_late

    async def __call__(self, card: RateCard) -> str | None:
        """Put a card in force; says why not, where it is older than the one that is."""
        book, now_utc_ns = self._books.book, time.time_ns()
        refused = refusal(card, book.card_at(now_utc_ns))
        if refused is not None:
            return refused
        if not book.cards or book.cards[-1].hash != card.hash:
            late = is_late(card, now_utc_ns)
            corrects = late and self._corrects_late
            await self._desk.say(lambda record_id: card_record(card, record_id, now_utc_ns, corrects=corrects))
            book = self._books.book
            self._books.book = replace(book, cards=with_card(book.cards, card))
            logger.info("rates.in_force version=%s effective=%s", card.version, utc_text(card.effective_utc_ns))
            if late:
                _say_late(card, corrects=corrects)
            if corrects:
                self._came_late()
        return None


def _say_late(card: RateCard, *, corrects: bool) -> None:
    """What becomes of what was billed before a card came."""
    logger.warning("rates.late version=%s: %s", card.version, _CORRECTED if corrects else _LEFT)


def refusal(card: RateCard, in_force: RateCard | None) -> str | None:
    """Why a card is not put in force over another; None: it may be."""
    if in_force is None or not is_older(card, in_force):
        return None
    return (
        f"cannot go back to rate card {card.version}, effective {utc_text(card.effective_utc_ns)}: expected none older "
        f"than {in_force.version}, which has been in force since {utc_text(in_force.effective_utc_ns)} and stays; give "
        "these prices a new version, effective later"
    )
