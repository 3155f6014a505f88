"""The audit: walks the whole ledger once and names every fault, by record.

Owns the checks of the chain itself: bytes fit their hash, each record names the one before, numbers have no hole, rows
are where they say they are, and what they are found by (the lookups) is what they say. What records say about time and
money is for the balance. Streams, in bounded memory; refuses to repair anything.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from taximeter.billing.credit import Purse
from taximeter.billing.tab import PurseKey
from taximeter.billing.thresholds import Key, Standing
from taximeter.errors import LedgerError
from taximeter.ledger import chain, filing
from taximeter.ledger.balance import Balance, Event
from taximeter.ledger.base import PRUNED, Base, Carried, Elsewhere
from taximeter.ledger.dues import Dues
from taximeter.ledger.metered import Say
from taximeter.ledger.outline import Outline, Spend
from taximeter.ledger.unsealed import unsealed
from taximeter.ledger.values import Row
from taximeter.records import RecordType

_CHECKPOINT, _FACT, _INSTANCE = (kind.value for kind in (RecordType.CHECKPOINT, RecordType.FACT, RecordType.INSTANCE))
#: So many records are walked between two words to whoever waits.
_STRETCH = 500
#: Where records are entered instead of in the balance and the dues, by who goes through a part of a ledger.
Entries = tuple[Callable[[Event, Say], object], Callable[[Event, int | None, Say], object]]
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

    def walk(self, after_seq: int) -> Iterator[Row]:
        """Every row beyond that number, in the order of theirs."""

    def strays(self) -> Iterator[tuple[int, str]]:
        """What is filed and no record: number and id."""

    def hash_at(self, seq: int) -> bytes | None:
        """The hash of that record; None where there is none."""

    @property
    def base(self) -> Base:
        """The record behind which the ledger begins."""

    def base_spends(self) -> Mapping[Key, Standing]:
        """What every account had spent by then."""

    def base_purses(self) -> Mapping[PurseKey, Purse]:
        """What every account had left of its credit, and owed, by then."""

    def base_digest(self) -> str:
        """The digest of all that stands in the place of pruned records."""

    def elsewhere(self) -> Mapping[str, Elsewhere]:
        """Every instance of which there are older records that are not here."""

    def sums(self) -> tuple[int, Mapping[Key, Decimal], Mapping[PurseKey, Purse]] | None:
        """The newest record's number, and what accounts spent and had left by then; None where none is kept (yet)."""


def audit(reader: Walked, passed: Callable[[int], object] = lambda _: None, outlines: Iterable[Outline] = ()) -> Report:
    """Check every record of a ledger; `passed` is told now and then which number has been reached.

    `outlines` are of its records from the first on, by who has looked at some of them already; the report is the same
    with them and without.
    """
    walk = Walk(reader, passed)
    walk.check(outlines)
    return Report(walk.records, tuple(walk.faults))


def carry(reader: Walked, size: int, pause: Callable[[], object]) -> Carried | Fault:
    """What is to be kept of a ledger's records up to `size`, so that they can go; a fault where they may not.

    `pause` is called now and then.
    """
    return Walk(reader, lambda _: pause()).carry(size)


class Walk:
    """One pass: where the chain stands, and the balance of what it says."""

    def __init__(
        self,
        reader: Walked,
        passed: Callable[[int], object] = lambda _: None,
        entries: Entries | None = None,
    ) -> None:
        self.records = 0
        self.faults: list[Fault] = []
        self._reader = reader
        self._passed = passed
        self._base = reader.base
        self._seq = self._base.seq
        self._hash = self._digest = self._base.hash  # either of which the next record may name as that before it
        self._vouched: Any = None  # what the newest record says that stands in the place of pruned ones
        self._closed: dict[str, int] | None = None  # instances that are over, where that is asked
        self._balance = Balance()
        self._dues = Dues()
        self._enter_balance, self._enter_dues = entries or (self._balance.enter, self._dues.enter)
        self._said: list[str] = []  # of the record that is looked at
        self._say = self._said.append

    def check(self, outlines: Iterable[Outline] = ()) -> None:
        """Look at everything; sums that are kept are compared with those of a sound ledger only."""
        try:
            self._check_records(outlines)
        except LedgerError as error:
            self._blame(self._seq + 1, f"cannot be read, nor can what follows: {error}")
        if self.faults:
            return
        try:
            self._check_sums()
        except LedgerError as error:
            self._blame(self._seq, f"the sums of accounts cannot be read: {error}")

    def carry(self, size: int) -> Carried | Fault:
        """What is open, was spent and was closed by the records up to one; the first fault, where there is any."""
        self._closed = {}
        self._resume()
        for seq in self._look_at(0, size):
            if self.faults:
                break
            self._passed(seq)
        if self.faults:
            return self.faults[0]
        return Carried(self._balance.carried(), *self._dues.carried(), self._closed)

    def prove(self, after_seq: int, until_seq: int) -> tuple[bytes, bytes] | None:
        """The hash behind which some records stand, and that of the last; None where any is missing, or has a fault."""
        begins = self._base.hash if after_seq == self._base.seq else self._reader.hash_at(after_seq)
        if begins is None or after_seq < self._base.seq:
            return None
        self._seq, self._hash, self._digest = after_seq, begins, begins
        ledger_id = self._reader.ledger_id
        for row in self._reader.walk(after_seq):
            self._enter(row, ledger_id)
            if self.faults or self._seq >= until_seq:
                break
        return (begins, self._hash) if self._seq == until_seq and not self.faults else None

    def _check_records(self, outlines: Iterable[Outline]) -> None:
        self._resume()
        if self._base.seq:
            for seq in self._look_at(0, self._base.seq):
                self._passed(seq)
        for outline in outlines:
            before = self._seq
            self._go_through(outline)
            if self._seq == before:
                break  # the file says numbers that are none: whoever outlines them would go on for ever
        for seq in self._look_at(self._seq):
            self._passed(seq)
        for seq, filed_as in self._reader.strays():
            self._blame(seq, f"is no record, and is filed as {filed_as}: the lookups have a row too many", filed_as)
        for what in self._dues.missing():
            self._blame(self._seq, what)
        if self._base.seq and self._vouched != self._carried_digest():
            what = "what stands in the place of records that were pruned is not what a record vouches for"
            self._blame(self._base.seq, what)

    def _check_sums(self) -> None:
        """Compare the sums that are kept with the records'; those that came since are looked at first."""
        kept = self._reader.sums()
        if kept is None:
            return
        newest, spends, purses = kept
        for seq in self._look_at(self._seq, newest):
            self._passed(seq)
        for what in self._dues.differing(spends, purses):
            self._blame(self._seq, what)

    def _go_through(self, outline: Outline) -> None:
        """Take an outline for what it stands for; where it does not stand behind what came before, look for oneself."""
        is_next = outline.is_sound and (outline.after_seq, outline.begins) == (self._seq, self._hash)
        if not is_next or self._balance.has_any(outline.begun):
            for seq in self._look_at(self._seq, outline.until_seq):
                self._passed(seq)
            return
        known = len(self.faults)
        for event in outline.foreign:
            self._balance.enter(event, self._say)
            if self._said:
                self._name(event.data.ledger.seq, event)
        self._balance.adopt(outline.open)
        self._add_dues(outline)
        self.faults[known:] = sorted(self.faults[known:], key=lambda fault: fault.seq)
        self.records += outline.until_seq - outline.after_seq
        self._seq, self._hash, self._digest = outline.until_seq, outline.hash, outline.hash
        self._passed(self._seq)

    def _add_dues(self, outline: Outline) -> None:
        at = outline.after_seq
        for seq, one in outline.dues():
            if seq > at + 1:
                self._remind(at)
            at = seq
            if isinstance(one, Spend):
                self._dues.spend(one.id, one.spent, self._say)
            else:
                self._dues.enter(one, None, self._say)
                if (one.type, one.data.fact) == (_FACT, PRUNED):
                    self._vouched = one.data.content
            if self._said:
                self.faults.extend(Fault(seq, one.id, what) for what in self._said)
                self._said.clear()
        if at < outline.until_seq:
            self._remind(at)

    def _remind(self, seq: int) -> None:
        """Say what is due, of the next record, which tells of nothing that is."""
        if not self._dues.is_waiting:
            return
        for row in self._reader.walk(seq):
            event = self._read(row)
            if event is not None:
                self._said.extend(self._dues.missing())
                self._name(row.seq, event)
            return

    def _resume(self) -> None:
        self._balance.resume(self._reader.elsewhere())
        self._dues.resume(self._reader.base_spends(), self._reader.base_purses())

    def _carried_digest(self) -> dict[str, object]:
        head = chain.digest_text(self._base.hash)
        return {"size": self._base.seq, "head": head, "carried": self._reader.base_digest()}

    def _blame(self, seq: int, what: str, id_: str = "") -> None:
        self.faults.append(Fault(seq, id_, what))

    def _look_at(self, after_seq: int, newest: float = math.inf) -> Iterator[int]:
        """Look at the records beyond a number, up to another; gives the number that is reached, now and then."""
        ledger_id, begins = self._reader.ledger_id, self._base.seq
        for count, row in enumerate(self._reader.walk(after_seq)):
            if row.seq > newest:
                return
            if count % _STRETCH == 0:
                yield row.seq
            if row.seq > begins:
                self._enter(row, ledger_id)
            else:
                self._enter_kept(row)

    def _enter_kept(self, row: Row) -> None:
        """A fact that was kept of records that were pruned, which something else vouches for; or what is to go yet."""
        event = self._read(row)
        if event is None:
            return
        if chain.digest_of(row.body) != row.hash:
            self._say("its bytes do not fit its hash: it was changed after it was written")
        if event.type == _FACT:
            self._dues.enter(event, None, self._say)
        self._name(row.seq, event)

    def _enter(self, row: Row, ledger_id: str) -> None:
        self.records += 1
        digest = chain.digest_of(row.body)
        event = self._read(row)
        if event is None:
            self._go_on(row, digest)
            return
        self._place(row, digest, event, ledger_id)
        time_utc_ns = filing.compare(row.filed, event, self._say)
        self._go_on(row, digest)
        kind, data = event.type, event.data
        if kind == _CHECKPOINT:
            self._name(row.seq, event)
            sealing = (data.note or "", data.key or "", ledger_id)
            for what in unsealed(*sealing, self._reader.hash_at, self._base.seq):
                self._say(what)
        elif kind == _FACT and data.fact == PRUNED:
            self._vouched = data.content
        elif self._closed is not None and kind == _INSTANCE and data.final and data.instance is not None:
            self._closed[data.instance] = row.seq
        self._enter_balance(event, self._say)
        self._enter_dues(event, time_utc_ns, self._say)
        if self._said:
            self._name(row.seq, event)

    def _read(self, row: Row) -> Event | None:
        try:
            return _decode(row.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            id_ = "" if row.filed is None else str(row.filed.id)
            self._blame(row.seq, f"is no usage record: {error}", id_)
            return None

    def _name(self, seq: int, event: Event) -> None:
        """Make faults of what was said of a record."""
        self.faults.extend(Fault(seq, event.id, what) for what in self._said)
        self._said.clear()

    def _place(self, row: Row, digest: bytes, event: Event, ledger_id: str) -> None:
        seq, place = row.seq, event.data.ledger
        if digest != row.hash:
            self._say("its bytes do not fit its hash: it was changed after it was written")
        if place.id != ledger_id:
            self._say(f"belongs to ledger {place.id}, expected {ledger_id}")
        if place.seq != seq:
            self._say(f"says that it is number {place.seq}: it was moved, or repeated")
        if seq != self._seq + 1:
            missing = seq - self._seq - 1
            records = f"record{'s are' if missing > 1 else ' is'} missing before it"
            self._say(f"follows number {self._seq}: {missing} {records}")
        elif place.previous != chain.digest_text(self._hash) and place.previous != chain.digest_text(self._digest):
            self._say(f"does not follow number {self._seq} as that is now: one of both was replaced")

    def _go_on(self, row: Row, digest: bytes) -> None:
        # Where a record's bytes were changed, that one is the fault; its successor, which names the old hash, is not.
        self._seq = row.seq
        self._hash, self._digest = row.hash, digest
