"""Rerates what has no price, or has another one since: finds it in the ledger, works it out, books the corrections.

Owns one request at a time, and slices between which everybody else has a turn. What still runs, or is being reviewed,
is left for later: its records are not over. Refuses to know what anything costs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import anyio
import anyio.to_thread
import orjson

from taximeter.agent.billed import decode, is_late
from taximeter.agent.books import Books
from taximeter.agent.inforce import read_known
from taximeter.agent.scribe import Scribe
from taximeter.billing.money import EXACT, plain
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.observe.rerating import Asked, Rerated
from taximeter.records import BillingStatus, RecordType, UsageRecord
from taximeter.rerating import LateCards, Outcome, rerate

#: What may be found a price for: predictions, and what an instance is billed for itself.
_RATED = (RecordType.PREDICTION, RecordType.INSTANCE)
#: So many instances are worked out at once.
_SLICE = 64


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
            names = await anyio.to_thread.run_sync(self._unrated, asked)
            open_ = {name for name in names if name in self._books.accounts or name in self._books.settling}
            closed = [name for name in names if name not in open_]
            left: Counter[str] = Counter(open=len(open_))
            sums: dict[str, Decimal] = {}
            corrected = 0
            for at in range(0, len(closed), _SLICE):
                slice_ = closed[at : at + _SLICE]
                outcomes = await anyio.to_thread.run_sync(self._outcomes, slice_, asked)
                records = [record for outcome in outcomes for record in outcome.records]
                left.update(word for outcome in outcomes for word in outcome.left)
                add(sums, records)
                corrected += len(records)
                if records and not asked.dry_run:
                    self._books.book_corrections(records)
                    await self._scribe.commit()
            amounts = {currency: plain(amount) for currency, amount in sorted(sums.items())}
            return Rerated(corrected, {word: count for word, count in left.items() if count}, amounts, asked.dry_run)

    def _unrated(self, asked: Asked) -> list[str]:
        """The instances that have records without a price, or with one that a late card may change; oldest first."""
        wanted = RecordFilter(
            since_utc_ns=asked.since_utc_ns,
            model=asked.model,
            account=asked.account,
            prediction=asked.prediction,
        )
        found: dict[str, None] = {}
        late = LateCards(self._books.book.cards if asked.late_cards else ())
        with LedgerReader(self._path) as reader:
            for kind in _RATED:
                for body in reader.records(replace(wanted, type=kind)):
                    data = decode(body).data
                    if data.billing.status == BillingStatus.UNRATED or is_late(data, late):
                        found[data.instance] = None
        return list(found)

    def _outcomes(self, names: Iterable[str], asked: Asked) -> list[Outcome]:
        return list(self._worked_out(names, asked))

    def _worked_out(self, names: Iterable[str], asked: Asked) -> Iterator[Outcome]:
        units = {asked.prediction: asked.units} if asked.prediction is not None else {}
        with LedgerReader(self._path) as reader:
            known = read_known(reader)
            book = self._books.book
            for name in names:
                events = [orjson.loads(body) for body in reader.records(RecordFilter(instance=name))]
                rules = known.rules_at(events[0]["data"]["interval"]["start_utc"]) or book.rules[book.current]
                yield rerate(events, book, rules, units, late_cards=asked.late_cards)


def add(sums: dict[str, Decimal], records: Iterable[UsageRecord]) -> None:
    """Add up what corrections come to, by currency."""
    for record in records:
        billing = record.data["billing"]
        sums[billing.currency] = EXACT.add(sums.get(billing.currency, Decimal(0)), Decimal(billing.amount))  # type: ignore[attr-defined]
