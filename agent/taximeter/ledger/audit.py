"""The audit: walks the whole ledger once and names every fault, by record.

Owns the checks of the chain itself: bytes fit their hash, each record names the one before, numbers have no hole, rows
are where they say they are. What records say about time and money is for the balance. Streams, in bounded memory;
refuses to repair anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from taximeter.errors import LedgerError
from taximeter.ledger import chain
from taximeter.ledger.balance import Balance, Event
from taximeter.ledger.values import Row

_decode = msgspec.json.Decoder(Event).decode


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one record."""

    seq: int  #: the number under which it is kept
    id: str  #: what it calls itself; empty where that cannot be read
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of an audit."""

    records: int
    faults: tuple[Fault, ...]


class Walked(Protocol):
    """What the audit needs of a ledger's reader."""

    @property
    def ledger_id(self) -> str:
        """The ledger's own id."""

    def walk(self) -> Iterator[Row]:
        """Every row in the order of its number."""


def audit(reader: Walked) -> Report:
    """Check every record of a ledger."""
    walk = _Walk(reader)
    faults = tuple(walk.faults())
    return Report(walk.records, faults)


class _Walk:
    """One pass: where the chain stands, and the balance of what it says."""

    def __init__(self, reader: Walked) -> None:
        self.records = 0
        self._reader = reader
        self._seq = 0
        self._links = {chain.digest_text(chain.GENESIS)}  # what the next record may name as the one before
        self._balance = Balance()

    def faults(self) -> Iterator[Fault]:
        try:
            ledger_id = self._reader.ledger_id
            for row in self._reader.walk():
                self.records += 1
                yield from self._look_at(row, ledger_id)
        except LedgerError as error:
            yield Fault(self._seq + 1, "", f"cannot be read, nor can what follows: {error}")

    def _look_at(self, row: Row, ledger_id: str) -> Iterator[Fault]:
        digest = chain.digest_of(row.body)
        try:
            event = _decode(row.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield Fault(row.seq, row.filed_as or "", f"is no usage record: {error}")
            self._go_on(row, digest)
            return
        for what in self._misplaced(row, digest, event, ledger_id):
            yield Fault(row.seq, event.id, what)
        self._go_on(row, digest)
        for what in self._balance.enter(event):
            yield Fault(row.seq, event.id, what)

    def _misplaced(self, row: Row, digest: bytes, event: Event, ledger_id: str) -> Iterator[str]:
        place = event.data.ledger
        if digest != row.hash:
            yield "its bytes do not fit its hash: it was changed after it was written"
        if place.id != ledger_id:
            yield f"belongs to ledger {place.id}, expected {ledger_id}"
        if place.seq != row.seq:
            yield f"says that it is number {place.seq}: it was moved, or repeated"
        if row.seq != self._seq + 1:
            missing = row.seq - self._seq - 1
            yield f"follows number {self._seq}: {missing} record{'s are' if missing > 1 else ' is'} missing before it"
        elif place.previous not in self._links:
            yield f"does not follow number {self._seq} as that is now: one of both was replaced"
        if row.filed_as != event.id:
            yield f"is filed as {row.filed_as}, so that it is not found by what it says"

    def _go_on(self, row: Row, digest: bytes) -> None:
        # Where a record's bytes were changed, that one is the fault; its successor, which names the old hash, is not.
        self._seq = row.seq
        self._links = {chain.digest_text(digest), chain.digest_text(row.hash)}
