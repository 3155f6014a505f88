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
from typing import Any, NamedTuple

import anyio
import anyio.lowlevel
import anyio.to_thread
import orjson

from taximeter.agent.billed import decode, is_late
from taximeter.agent.books import Books
from taximeter.agent.desk import Desk
from taximeter.agent.inforce import BILLS_CORRECTED, read_known
from taximeter.agent.rerater import add
from taximeter.agent.scribe import Scribe
from taximeter.billing.money import plain
from taximeter.billing.rates import RateCard
from taximeter.digest import digest
from taximeter.errors import LedgerError
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.online_rerating import as_one
from taximeter.recall import number_of
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
#: What of an instance's own records nobody needs here.
_NOT_NEEDED = ("resources", "timing", "labels", "concurrency", "node", "ledger")


class _Page(NamedTuple):
    """What some of an instance's records say."""

    after: str  #: the id of the last of them; empty where there are no more
    runs: list[str]  #: predictions that have ended, and whose card came late


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

    def __init__(self, path: Path, books: Books, desk: Desk, scribe: Scribe, one_at_a_time: anyio.Lock) -> None:
        self._path = path
        self._books = books
        self._desk = desk
        self._scribe = scribe
        self._one_at_a_time = one_at_a_time
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
            for known_as in known:
                card = self._books.book.card_of(known_as)
                if card is not None:
                    await self._by(card)
        if self._books.repriced:
            await self._scribe.commit()
            for name in list(self._books.repriced):
                await self._settle(name)
            await self._scribe.commit()

    def _known(self) -> tuple[str, ...]:
        with LedgerReader(self._path) as reader:
            return read_known(reader).late

    async def _by(self, card: RateCard) -> None:
        """Correct all that one card came late to."""
        done = _Done()
        for at, name in enumerate([*self._books.accounts, *self._books.settling], 1):
            records = self._books.put_under(name, card.hash)
            done.add(Outcome(tuple([one for one in records if one.type is RecordType.CORRECTION]), ()))
            if self._books.waiting >= _PAGE:
                await self._scribe.commit()
            elif at % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        await self._scribe.commit()
        for name in await self._concerned(card):
            await self._correct(name, card, done)
        content = {"card": card.hash, "left": dict(sorted(done.left.items()))}
        await self._desk.say(lambda id_: fact(id_, time.time_ns(), (BILLS_CORRECTED, digest(content), content)))
        logger.info("rates.corrected version=%s %s", card.version, done.text)

    async def _settle(self, name: str) -> None:
        """Correct what came after that of an instance which is over now, and let go of it."""
        account = self._books.settling.get(name)
        known = account.instance if account is not None else None
        for known_as in () if known is None else known.repriced:
            card = self._books.book.card_of(known_as)
            if card is not None:
                await self._correct(name, card, _Done())
        self._books.settled(name)

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

    async def _correct(self, name: str, card: RateCard, done: _Done) -> None:
        """Correct what the card came late to of an instance, by its records."""
        late, after, own = LateCards(self._books.book.cards, card), "", list[Any]()
        async with self._one_at_a_time:
            rules = await anyio.to_thread.run_sync(self._rules, name)
            while True:
                page = await anyio.to_thread.run_sync(self._read, name, after, late, own)
                for at in range(0, len(page.runs), _SLICE):
                    some = page.runs[at : at + _SLICE]
                    done.add(
                        await self._book(name, await anyio.to_thread.run_sync(self._runs, name, some, card, rules))
                    )
                after = page.after
                if not after:
                    break
            if own:
                done.add(await self._book(name, await anyio.to_thread.run_sync(self._own, name, own, card, rules)))

    def _rules(self, name: str) -> Rules:
        """The rules that were in force when an instance began."""
        book = self._books.book
        account = self._books.accounts.get(name) or self._books.settling.get(name)
        if account is not None and account.instance is not None:
            return book.rules_of(account.instance.rules)
        with LedgerReader(self._path) as reader:
            known, rows = read_known(reader), reader.of_instance(name, "", 1)
        began = orjson.loads(rows[0][-1])["data"]["interval"]["start_utc"] if rows else ""
        return known.rules_at(began) or book.rules[book.current]

    def _read(self, name: str, after: str, late: LateCards, own: list[Any]) -> _Page:
        """The next of an instance's records; those of its own time, and their corrections, go into `own`."""
        runs = dict[str, None]()
        with LedgerReader(self._path) as reader:
            rows = reader.of_instance(name, after, _PAGE)
        for _, kind, prediction, body in rows:
            if kind == RecordType.PREDICTION:
                if prediction is not None and is_late(decode(body).data, late):
                    runs[prediction] = None
            elif prediction is None and b'"status":"informative"' not in body:
                event = _slim(orjson.loads(body))
                both = as_one(own[-1], event, self._books.book.cards) if own else None
                own[len(own) - (both is not None) :] = [both or event]
        return _Page(rows[-1][0] if len(rows) == _PAGE else "", list(runs))

    def _runs(self, name: str, predictions: Sequence[str], card: RateCard, rules: Rules) -> Outcome:
        """The corrections of some predictions that have ended."""
        records, left = list[UsageRecord](), list[str]()
        with LedgerReader(self._path) as reader:
            for prediction in predictions:  # one at a time: each may have a record for each minute of days
                bodies = reader.records(RecordFilter(instance=name, prediction=prediction))
                outcome = rerate_runs(map(orjson.loads, bodies), self._books.book, rules, card)
                records.extend(outcome.records)
                left.extend(outcome.left)
        return Outcome(tuple(records), tuple(left))

    def _own(self, name: str, own: Sequence[Any], card: RateCard, rules: Rules) -> Outcome:
        """The corrections of an instance's own time."""
        account = self._books.accounts.get(name)
        under = account.instance.card if account is not None and account.instance is not None else None
        return rerate_stretches(own, self._books.book, rules, card, under)

    async def _book(self, name: str, outcome: Outcome) -> Outcome:
        """Have corrections in the ledger."""
        if outcome.records:
            if not self._books.correct(name, outcome.records):
                await self._scribe.commit()
                last = await anyio.to_thread.run_sync(self._last_of, name)
                self._books.book_corrections(numbered(outcome.records, (), 1 + number_of(last)).records)
            await self._scribe.commit()
        return outcome

    def _last_of(self, name: str) -> str:
        with LedgerReader(self._path) as reader:
            return reader.last_of(name) or f"{name}-{0}"


def _slim(event: Any) -> Any:
    """A record without what nobody needs of it here."""
    for key in _NOT_NEEDED:
        event["data"].pop(key, None)
    return event
