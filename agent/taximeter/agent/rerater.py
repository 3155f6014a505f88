"""Rerates what has no price, or has another one since: finds it in the ledger, works it out, books the corrections.

Owns one request at a time, and slices between which everybody else has a turn. What still runs, or is being reviewed,
is left for later: its records are not over. Refuses to know what anything costs.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import anyio
import anyio.to_thread

from taximeter.agent.billed import Told, convert, decode, is_late
from taximeter.agent.books import Books
from taximeter.agent.inforce import Known, read_known
from taximeter.agent.portions import Portions, began, events_of, next_number
from taximeter.agent.scribe import Scribe
from taximeter.billing.money import EXACT, plain
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.observe.rerating import Asked, Rerated
from taximeter.recall import realtime_ns
from taximeter.records import BillingStatus, RecordType, UsageRecord
from taximeter.rerating import LateCards, Outcome, numbered, rerate
from taximeter.rulebook import Rules

#: What may be found a price for: predictions, and what an instance is billed for itself.
_RATED = (RecordType.PREDICTION, RecordType.INSTANCE)
#: So many predictions are worked out at once.
_SLICE = 64
#: So many records are looked at in one breath, whoever is asked for.
_STRETCH = 5_000


class Rerater:
    """Whoever has what is unrated rated."""

    def __init__(self, path: Path, books: Books, scribe: Scribe, one_at_a_time: anyio.Lock) -> None:
        self._path = path
        self._books = books
        self._scribe = scribe
        self._one_at_a_time = one_at_a_time  #: whoever writes corrections of what is over reads first what others wrote

    async def __call__(self, asked: Asked) -> Rerated:
        """Rerate what is asked for. Raises LedgerError."""
        async with self._one_at_a_time:
            names = await self._unrated(asked)
            open_ = {name for name in names if name in self._books.accounts or name in self._books.settling}
            closed = [name for name in names if name not in open_]
            left: Counter[str] = Counter(open=len(open_))
            sums: dict[str, Decimal] = {}
            corrected = 0
            known = await anyio.to_thread.run_sync(self._known)
            for name in closed:
                async for outcome in self._outcomes(name, asked, known):
                    left.update(outcome.left)
                    add(sums, outcome.records)
                    corrected += len(outcome.records)
                    if outcome.records and not asked.dry_run:
                        number = await anyio.to_thread.run_sync(next_number, self._path, name)
                        self._books.book_corrections(numbered(outcome.records, (), number).records)
                        await self._scribe.commit()
            amounts = {currency: plain(amount) for currency, amount in sorted(sums.items())}
            return Rerated(corrected, {word: count for word, count in left.items() if count}, amounts, asked.dry_run)

    def _known(self) -> Known:
        with LedgerReader(self._path) as reader:
            return read_known(reader)

    async def _unrated(self, asked: Asked) -> list[str]:
        """The instances that have records without a price, or with one that a late card may change; oldest first."""
        wanted = RecordFilter(
            since_utc_ns=asked.since_utc_ns,
            model=asked.model,
            account=asked.account,
            prediction=asked.prediction,
        )
        found: dict[str, None] = {}
        late = LateCards(self._books.book.cards if asked.late_cards else ())
        begins, newest = await anyio.to_thread.run_sync(self._reach)
        for after in range(begins, newest, _STRETCH):
            some = replace(wanted, after_seq=after, until_seq=after + _STRETCH)
            found.update(dict.fromkeys(await anyio.to_thread.run_sync(self._look, some, late)))
        return list(found)

    def _reach(self) -> tuple[int, int]:
        """Behind which number the ledger's records begin, and that of the newest."""
        with LedgerReader(self._path) as reader:
            return reader.base.seq, reader.head.seq

    def _look(self, wanted: RecordFilter, late: LateCards) -> list[str]:
        """The same of a stretch of the ledger: whoever stops the agent waits for no more."""
        with LedgerReader(self._path) as reader:
            told = (decode(body).data for kind in _RATED for body in reader.records(replace(wanted, type=kind)))
            return [data.instance for data in told if _is_unrated(data, late)]

    async def _outcomes(self, name: str, asked: Asked, known: Known) -> AsyncIterator[Outcome]:
        """What becomes of an instance that is over, of some of its predictions at a time, and of its own time last."""
        book = self._books.book
        late = LateCards(book.cards if asked.late_cards else ())
        since = await anyio.to_thread.run_sync(began, self._path, name)
        rules = known.rules_at(since) or book.rules[book.current]
        portions = Portions(self._path, name, book, lambda told: _is_asked(told, asked) and _is_unrated(told, late))
        while not portions.is_done:
            names = await anyio.to_thread.run_sync(portions.read)
            for at in range(0, len(names), _SLICE):
                yield await anyio.to_thread.run_sync(self._runs, name, names[at : at + _SLICE], asked, rules)
        own = portions.own
        last = next((convert(one).data for one in reversed(own) if one["type"] == RecordType.INSTANCE), None)
        if last is not None and asked.prediction is None and _is_asked(last, asked):
            yield await anyio.to_thread.run_sync(lambda: rerate(own, book, rules, {}, late_cards=asked.late_cards))

    def _runs(self, name: str, predictions: Sequence[str], asked: Asked, rules: Rules) -> Outcome:
        records, left = list[UsageRecord](), list[str]()
        units = {asked.prediction: asked.units} if asked.prediction is not None else {}
        with LedgerReader(self._path) as reader:
            for prediction in predictions:
                events = list(events_of(reader, name, prediction))
                outcome = rerate(events, self._books.book, rules, units, late_cards=asked.late_cards)
                records.extend(outcome.records)
                left.extend(outcome.left)
        return Outcome(tuple(records), tuple(left))


def _is_unrated(told: Told, late: LateCards) -> bool:
    """Whether it has no price, or one that a late card may change."""
    return told.billing.status == BillingStatus.UNRATED or is_late(told, late)


def _is_asked(told: Told, asked: Asked) -> bool:
    """Whether a record is one of those that are asked for."""
    since_ns = asked.since_utc_ns
    return (
        asked.prediction in (None, told.prediction)
        and asked.account in (None, told.account)
        and asked.model in (None, told.model)
        and (since_ns is None or realtime_ns(told.interval.start_utc) >= since_ns)
    )


def add(sums: dict[str, Decimal], records: Iterable[UsageRecord]) -> None:
    """Add up what corrections come to, by currency."""
    for record in records:
        billing = record.data["billing"]
        sums[billing.currency] = EXACT.add(sums.get(billing.currency, Decimal(0)), Decimal(billing.amount))  # type: ignore[attr-defined]
