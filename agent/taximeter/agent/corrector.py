"""Corrects what was billed before a rate card came that was in force by then: by itself, in pieces, once.

Owns which cards these are (facts of the ledger say so, until another says that all is corrected), and the slices,
between which everybody else has a turn. What is open goes on under the card first; then all that the ledger holds is
looked through. Whatever is corrected is worked out from records, corrections included, so an agent that is killed
begins again, and corrects nothing twice. Refuses to know what anything costs.
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from taximeter.agent.billed import decode, is_late
from taximeter.agent.desk import Desk
from taximeter.agent.inforce import BILLS_CORRECTED, Known, read_known
from taximeter.agent.portions import Portions, began, events_of, next_number
from taximeter.agent.rerater import add
from taximeter.agent.scribe import Scribe
from taximeter.agent.unsettled import Unsettled
from taximeter.billing.money import plain
from taximeter.billing.rates import RateCard
from taximeter.digest import digest
from taximeter.errors import LedgerError
from taximeter.ledger.reader import LedgerReader
from taximeter.records import RecordType, UsageRecord, fact
from taximeter.rerating import LateCards, Outcome, numbered, rerate_runs, rerate_stretches
from taximeter.rulebook import Rules

logger = logging.getLogger(__name__)

#: So many records are looked at in one breath, and so many predictions are worked out.
_PAGE, _SLICE = 500, 64
#: So many instances go under a card before others have a turn: each may have many predictions open.
_AT_ONCE = 8
#: How soon it is looked after what has ended meanwhile, and tried again where the disk gave nothing back.
_REST_S = 1.0


class _Done:
    """What one card's corrections come to."""

    def __init__(self) -> None:
        self.corrected = 0
        self.sums: dict[str, Decimal] = {}
        self.left: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        self.corrected += len(outcome.records)
        add(self.sums, outcome.records)
        self.left.update(outcome.left)

    @property
    def text(self) -> str:
        """In a line of the log."""
        amounts = {currency: plain(amount) for currency, amount in sorted(self.sums.items())}
        return f"bills={self.corrected} amounts={amounts} left={dict(self.left)}"


class Corrector:
    """Whoever corrects bills by cards that came late."""

    def __init__(self, path: Path, unsettled: Unsettled, desk: Desk, scribe: Scribe, one_at_a_time: anyio.Lock) -> None:
        self._path = path
        self._unsettled = unsettled
        self._halves = unsettled.halves
        self._books = unsettled.books
        self._desk = desk
        self._scribe = scribe
        self._one_at_a_time = one_at_a_time
        self._uncommitted: set[str] = set()  #: instances that are over, and of which not all is in the ledger
        self._came_late = anyio.Event()
        self._came_late.set()  # an agent before this one may have been stopped in the midst of it

    def wake(self) -> None:
        """A card has come late, as its fact says."""
        self._came_late.set()

    async def run(self) -> None:
        """Correct for ever."""
        while True:
            try:
                await self.go_on()
            except LedgerError as error:
                logger.warning("rates.correcting_put_off: %s", error)
                self._came_late.set()
                await anyio.sleep(_REST_S)
            with anyio.move_on_after(_REST_S):
                await self._came_late.wait()

    async def go_on(self) -> None:
        """Correct by every card that came late, and what has ended since of what one came late to."""
        if self._came_late.is_set():
            self._came_late = anyio.Event()
            known = await anyio.to_thread.run_sync(self._known)
            for known_as in known.late:
                card = self._books.book.card_of(known_as)
                if card is not None:
                    await self._by(card, known)
        if self._unsettled.repriced:
            await self._commit()
            known = await anyio.to_thread.run_sync(self._known)
            for name in self._unsettled.repriced:
                await self._settle(name, known)
            await self._commit()

    def _known(self) -> Known:
        with LedgerReader(self._path) as reader:
            return read_known(reader)

    async def _by(self, card: RateCard, known: Known) -> None:
        """Correct all that one card came late to."""
        done = _Done()
        for at, name in enumerate(self._unsettled.names, 1):
            records = await self._put_under(name, card)
            done.add(Outcome(tuple([one for one in records if one.type is RecordType.CORRECTION]), ()))
            if self._books.waiting >= _PAGE:
                await self._commit()
            elif at % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        await self._commit()
        for name in await self._concerned(card):
            await self._correct(name, card, known, done)
        await self._commit()
        content = {"card": card.hash, "left": dict(sorted(done.left.items()))}
        await self._desk.say(lambda id_: fact(id_, time.time_ns(), (BILLS_CORRECTED, digest(content), content)))
        logger.info("rates.corrected version=%s %s", card.version, done.text)

    async def _put_under(self, name: str, card: RateCard) -> tuple[UsageRecord, ...]:
        """Have what is open go under a card, others having a turn between two pieces; what that led to."""
        await self._whole(name)
        under = self._unsettled.put_under(name, card.hash)
        while under is not None and under.records is None and name in self._halves.names:
            await anyio.lowlevel.checkpoint()
            self._halves.go_on(name)
        return under.records or () if under is not None else ()

    async def _whole(self, name: str) -> None:
        """Have what is half folded of an instance folded to its end, others having a turn between two pieces."""
        while name in self._halves.names:
            self._halves.go_on(name)
            await anyio.lowlevel.checkpoint()

    async def _settle(self, name: str, known: Known) -> None:
        """Correct what came after that of an instance which is over now, and let go of it."""
        account = self._books.settling.get(name)
        instance = account.instance if account is not None else None
        for known_as in () if instance is None else instance.repriced:
            card = self._books.book.card_of(known_as)
            if card is not None:
                await self._correct(name, card, known, _Done())
        self._unsettled.settled(name)

    async def _concerned(self, card: RateCard) -> list[str]:
        """The instances of which something may have been billed by another card since this one took effect."""
        late, names, seq = LateCards(self._books.book.cards, card), dict[str, None](), 0
        while seq >= 0:
            found, seq = await anyio.to_thread.run_sync(self._look, seq, late)
            names.update(dict.fromkeys(found))
        return list(names)

    def _look(self, seq: int, late: LateCards) -> tuple[list[str], int]:
        """The same of the next records, and the number of the last of them; -1 where there are no more."""
        with LedgerReader(self._path) as reader:
            rows = reader.usage(seq, _PAGE)
        told = (decode(body).data for _, body in rows)
        return [data.instance for data in told if is_late(data, late)], rows[-1][0] if rows else -1

    async def _correct(self, name: str, card: RateCard, known: Known, done: _Done) -> None:
        """Correct what the card came late to of an instance, by its records."""
        late, book = LateCards(self._books.book.cards, card), self._books.book
        portions = Portions(self._path, name, book, lambda told: is_late(told, late))
        async with self._one_at_a_time:
            rules = await self._rules(name, known)
            while not portions.is_done:
                names = await anyio.to_thread.run_sync(portions.read)
                for at in range(0, len(names), _SLICE):
                    some = names[at : at + _SLICE]
                    outcome = await anyio.to_thread.run_sync(self._runs, name, some, card, rules)
                    done.add(await self._book(name, outcome))
            if portions.own:
                outcome = await anyio.to_thread.run_sync(self._own, name, portions.own, card, rules)
                done.add(await self._book(name, outcome))

    async def _rules(self, name: str, known: Known) -> Rules:
        """The rules that were in force when an instance began."""
        book = self._books.book
        account = self._unsettled.account(name)
        if account is not None and account.instance is not None:
            return book.rules_of(account.instance.rules)
        since = await anyio.to_thread.run_sync(began, self._path, name)
        return known.rules_at(since) or book.rules[book.current]

    def _runs(self, name: str, predictions: Sequence[str], card: RateCard, rules: Rules) -> Outcome:
        """The corrections of some predictions that have ended."""
        records, left = list[UsageRecord](), list[str]()
        with LedgerReader(self._path) as reader:
            for prediction in predictions:  # one at a time: each may have a record for each minute of days
                outcome = rerate_runs(events_of(reader, name, prediction), self._books.book, rules, card)
                records.extend(outcome.records)
                left.extend(outcome.left)
        return Outcome(tuple(records), tuple(left))

    def _own(self, name: str, own: Sequence[Any], card: RateCard, rules: Rules) -> Outcome:
        """The corrections of an instance's own time."""
        account = self._books.accounts.get(name)
        under = account.instance.card if account is not None and account.instance is not None else None
        return rerate_stretches(own, self._books.book, rules, card, under)

    async def _book(self, name: str, outcome: Outcome) -> Outcome:
        """Book corrections; many of them are committed together."""
        await self._whole(name)
        if outcome.records and not self._unsettled.correct(name, outcome.records):
            if name in self._uncommitted:
                await self._commit()
            number = await anyio.to_thread.run_sync(next_number, self._path, name)
            self._books.book_corrections(numbered(outcome.records, (), number).records)
            self._uncommitted.add(name)
        if self._books.waiting >= _SLICE:
            await self._commit()
        return outcome

    async def _commit(self) -> None:
        await self._scribe.commit()
        self._uncommitted.clear()
