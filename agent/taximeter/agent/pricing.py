"""Which rate card is in force while the agent runs: its own, or that and the models which the platform publishes.

Owns when the list is asked for, and what becomes of an answer: a list that is sound and new is kept on the disk first,
and then put in force; whatever else comes, the last good card stays. Refuses to know what a price means, and how a card
becomes a fact of the ledger.
"""

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
import anyio.to_thread

from taximeter.billing import exact
from taximeter.billing.models_file import Document
from taximeter.billing.price_list import card_with
from taximeter.billing.rates import RateCard
from taximeter.errors import ConfigError
from taximeter.headers import instant_of
from taximeter.observe.snapshot import PriceListView
from taximeter.prices import Answer, Copy, Lists, Refusal, read_copy, write_copy

logger = logging.getLogger(__name__)

FIRST_BACK_OFF_S = 1.0
#: A list may ask for patience, but not for ever.
RETRY_AFTER_MAX_S = 3600.0
ERROR_MAX_CHARS = 1000

#: Puts a card in force; says why not, where it is not to be.
Enforce = Callable[[RateCard], Awaitable[str | None]]


@dataclass(slots=True)
class _Standing:
    """How the list is doing."""

    checked_s: float | None = None  #: since 1970: when the last good answer came
    failing: int = 0
    last_reason: str | None = None
    last_error: str | None = None


class Prices:
    """The node's `own` card, and the list that it is put together with, where there is one to ask for.

    The first list of a node that never had a card (`is_first`) holds from the own card's beginning: there are no other
    prices for what began before it was seen. Any later one holds from when it was seen.
    """

    def __init__(
        self, own: RateCard, lists: Lists | None, kept_at: Path, poll_s: float, *, is_first: bool = False
    ) -> None:
        self._own = own
        self._is_first = is_first
        self._lists = lists
        self._kept_at = kept_at
        self._poll_s = poll_s
        self._copy: Copy | None = None
        self._failures: Counter[str] = Counter()
        self._standing = _Standing()
        self.refused: str | None = None  #: why the node's own card is not in force

    @property
    def view(self) -> PriceListView | None:
        """How the list is doing, for the snapshot; None where there is none."""
        if self._lists is None:
            return None
        copy, now = self._copy, self._standing
        return PriceListView(
            self._lists.source, copy.tag if copy else None, now.checked_s, dict(self._failures), now.last_error
        )

    async def begin(self) -> RateCard | None:
        """The card to begin with; None: a list is wanted, and there is not even a copy of one. Asks once, then."""
        if self._lists is None:
            return self._own
        card = await anyio.to_thread.run_sync(self._kept, self._lists.source)
        if card is not None:
            return card
        try:
            return await self._look(self._lists)
        except Refusal as refusal:
            self._note(refusal)
            return None

    async def run(self, enforce: Enforce, jitter: Callable[[], float]) -> None:
        """Ask for the list for ever, and put in force what is new; `jitter` gives numbers in [0, 1)."""
        lists = self._lists
        if lists is None:
            return
        pause_s = 0.0 if self._standing.checked_s is None else self._poll_s
        while True:
            await anyio.sleep(pause_s * (0.9 + 0.2 * jitter()))
            pause_s = await self._ask(lists, enforce, jitter)

    async def reload(self, own: RateCard, enforce: Enforce) -> str | None:
        """Go over to another own card; says why not, where it cannot be. ConfigError: it does not go with the list."""
        card: RateCard | None = own
        if self._lists is not None:
            card = None if self._copy is None else _card(own, self._copy)
        refused = None if card is None else await enforce(card)
        if refused is None:
            self._own = own
        self.refused = refused
        return refused

    async def _ask(self, lists: Lists, enforce: Enforce, jitter: Callable[[], float]) -> float:
        """Ask once; how long to wait then."""
        try:
            card = await self._look(lists)
            if card is not None:
                self.refused = await enforce(card)
        except Refusal as refusal:
            self._note(refusal)
            if refusal.retry_after_s is not None:
                return min(max(refusal.retry_after_s, FIRST_BACK_OFF_S), RETRY_AFTER_MAX_S)
            doubled_s: float = FIRST_BACK_OFF_S * 2 ** min(self._standing.failing, 12)
            return min(self._poll_s, doubled_s * (0.5 + jitter()))
        return self._poll_s

    async def _look(self, lists: Lists) -> RateCard | None:
        """The card with the list as it is now; None where nothing is new. Raises Refusal."""
        known = self._copy
        answer = await lists.fetch(known.etag if known else None)
        card = None if answer is None else await anyio.to_thread.run_sync(self._take, lists.source, answer)
        if self._standing.failing:
            logger.warning("prices.recovered after_failures=%d", self._standing.failing)
        self._standing = _Standing(checked_s=time.time())
        return card

    def _take(self, source: str, answer: Answer) -> RateCard | None:
        """Judge an answer, and keep what is good."""
        known = self._copy
        if known is not None and _is_older(answer, known):
            said = f"a list last modified {answer.modified}, and {known.modified} is known"
            raise Refusal("older", f"cannot take the price list of {source}: {said}: expected none that is older")
        since_utc_ns = 0 if self._is_first and known is None else time.time_ns()
        copy = Copy(source, answer.body, since_utc_ns, answer.etag, answer.modified)
        try:
            card = _card(self._own, copy)
            before = None if known is None else _card(self._own, known)
        except ConfigError as error:
            raise Refusal("bad_list", str(error)) from error
        if before is not None and _is_emptied(before, card, self._own):
            raise Refusal("bad_list", f"cannot take the price list of {source}: expected a model, as before")
        if known is not None and before is not None and before.models == card.models:
            self._copy, card = replace(known, etag=answer.etag, modified=answer.modified), before
            return None
        try:
            write_copy(self._kept_at, copy)
        except OSError as error:
            # Put in force without a copy, it would be forgotten by the next agent, which began with an older list.
            raise Refusal(
                "disk", f"cannot keep {self._kept_at}: {error.strerror}: expected room on the disk"
            ) from error
        self._copy = copy
        logger.info("prices.list url=%s models=%d version=%s", source, len(card.models), card.version)
        return card

    def _kept(self, source: str) -> RateCard | None:
        """The card with the copy that is on the disk, if that is of the same source and good."""
        try:
            copy = read_copy(self._kept_at)
            if copy is None or copy.url != source:
                return None
            card = _card(self._own, copy)
        except (ValueError, ConfigError) as error:
            self._note(Refusal("copy", str(error)))
            return None
        self._copy = copy
        return card

    def _note(self, refusal: Refusal) -> None:
        now, text = self._standing, str(refusal)[:ERROR_MAX_CHARS]
        if now.last_reason != refusal.reason:
            logger.warning("prices.failed reason=%s: %s", refusal.reason, text)
        self._failures[refusal.reason] += 1
        self._standing = replace(now, failing=now.failing + 1, last_reason=refusal.reason, last_error=text)


def _card(own: RateCard, copy: Copy) -> RateCard:
    listed = exact.loads(copy.body, copy.url)
    return card_with(own, Document(listed, copy.url), copy.tag, copy.since_utc_ns)


def _is_emptied(before: RateCard, card: RateCard, own: RateCard) -> bool:
    """Whether a list has no model any more: an outage rather than a price, by which each run would cost its time."""
    return card.models.keys() <= own.models.keys() < before.models.keys() | own.models.keys()


def _is_older(answer: Answer, known: Copy) -> bool:
    then, now = instant_of(known.modified), instant_of(answer.modified)
    return then is not None and now is not None and now < then
