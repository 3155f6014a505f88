"""The audit: walks the whole ledger once and names every fault, by record.

Owns the checks of the chain itself: bytes fit their hash, each record names the one before, numbers have no hole, rows
are where they say they are, and what they are found by (the lookups) is what they say. What records say about time and
money is for the balance. Streams, in bounded memory; refuses to repair anything.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from taximeter.billing.thresholds import Key, Standing
from taximeter.errors import LedgerError
from taximeter.ledger import chain
from taximeter.ledger.balance import Balance, Event
from taximeter.ledger.base import PRUNED, Base, Carried, Elsewhere
from taximeter.ledger.dues import Dues
from taximeter.ledger.notes import parse_note
from taximeter.ledger.values import Filed, Row
from taximeter.records import RecordType, utc_text

#: The lookups' columns, as a person calls them.
_FILED_BY = ("id", "type", "time", "prediction", "root", "account", "model")
#: So many records are walked between two pauses.
_STRETCH = 500
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

    def base_digest(self) -> str:
        """The digest of all that stands in the place of pruned records."""

    def elsewhere(self) -> Mapping[str, Elsewhere]:
        """Every instance of which there are older records that are not here."""

    def spends(self) -> tuple[int, Mapping[Key, Decimal]] | None:
        """The newest record's number, and the sums that were kept of accounts then; None where there are none (yet)."""


def audit(reader: Walked) -> Report:
    """Check every record of a ledger."""
    walk = _Walk(reader)
    faults = tuple(walk.faults()) or tuple(walk.differing())
    return Report(walk.records, faults)


def carry(reader: Walked, size: int, pause: Callable[[], object]) -> Carried | Fault:
    """What is to be kept of a ledger's records up to `size`, so that they can go; a fault where they may not.

    `pause` is called now and then.
    """
    walk = _Walk(reader)
    for fault in walk.faults_up_to(size, pause):
        return fault
    return walk.carried()


class _Walk:
    """One pass: where the chain stands, and the balance of what it says."""

    def __init__(self, reader: Walked) -> None:
        self.records = 0
        self._reader = reader
        self._base = reader.base
        self._seq = self._base.seq
        self._links = {chain.digest_text(self._base.hash)}  # what the next record may name as the one before
        self._vouched: Any = None  # what the newest record says that stands in the place of pruned ones
        self._closed: dict[str, int] = {}
        self._balance = Balance()
        self._dues = Dues()

    def faults(self) -> Iterator[Fault]:
        try:
            yield from self._walked(self._reader.ledger_id)
            for seq, filed_as in self._reader.strays():
                yield Fault(seq, filed_as, f"is no record, and is filed as {filed_as}: the lookups have a row too many")
            for what in self._dues.missing():
                yield Fault(self._seq, "", what)
            if self._base.seq and self._vouched != self._carried_digest():
                what = "what stands in the place of records that were pruned is not what a record vouches for"
                yield Fault(self._base.seq, "", what)
        except LedgerError as error:
            yield Fault(self._seq + 1, "", f"cannot be read, nor can what follows: {error}")

    def faults_up_to(self, size: int, pause: Callable[[], object]) -> Iterator[Fault]:
        """The same of all records up to one."""
        yield from self._walked(self._reader.ledger_id, size, pause)

    def carried(self) -> Carried:
        """What is open, was spent and was closed by the records that were walked."""
        return Carried(self._balance.carried(), self._dues.carried(), self._closed)

    def _walked(self, ledger_id: str, size: int | None = None, pause: Callable[[], object] = int) -> Iterator[Fault]:
        self._balance.resume(self._reader.elsewhere())
        self._dues.resume(self._reader.base_spends())
        for count, row in enumerate(self._reader.walk(0)):
            if size is not None and row.seq > size:
                return
            if count % _STRETCH == 0:
                pause()
            yield from self._look_at(row, ledger_id) if row.seq > self._base.seq else self._look_at_kept(row)

    def _carried_digest(self) -> dict[str, object]:
        head = chain.digest_text(self._base.hash)
        return {"size": self._base.seq, "head": head, "carried": self._reader.base_digest()}

    def differing(self) -> Iterator[Fault]:
        """Compare the sums that are kept with a sound ledger's records; those that came since are looked at first."""
        try:
            kept = self._reader.spends()
            if kept is None:
                return
            newest, sums = kept
            for row in self._reader.walk(self._seq):
                if row.seq > newest:
                    break
                yield from self._look_at(row, self._reader.ledger_id)
            for what in self._dues.differing(sums):
                yield Fault(self._seq, "", what)
        except LedgerError as error:
            yield Fault(self._seq, "", f"the sums of accounts cannot be read: {error}")

    def _look_at_kept(self, row: Row) -> Iterator[Fault]:
        """A fact that was kept of records that were pruned, which something else vouches for; or what is to go yet."""
        try:
            event = _decode(row.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield Fault(row.seq, "" if row.filed is None else str(row.filed.id), f"is no usage record: {error}")
            return
        if chain.digest_of(row.body) != row.hash:
            yield Fault(row.seq, event.id, "its bytes do not fit its hash: it was changed after it was written")
        if event.type == RecordType.FACT:
            for what in self._dues.enter(event):
                yield Fault(row.seq, event.id, what)

    def _look_at(self, row: Row, ledger_id: str) -> Iterator[Fault]:
        self.records += 1
        digest = chain.digest_of(row.body)
        try:
            event = _decode(row.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield Fault(row.seq, "" if row.filed is None else str(row.filed.id), f"is no usage record: {error}")
            self._go_on(row, digest)
            return
        for what in self._misplaced(row, digest, event, ledger_id):
            yield Fault(row.seq, event.id, what)
        self._go_on(row, digest)
        if event.type == RecordType.CHECKPOINT:
            sealing = (event.data.note or "", event.data.key or "", ledger_id)
            for what in unsealed(*sealing, self._reader.hash_at, self._base.seq):
                yield Fault(row.seq, event.id, what)
        elif event.type == RecordType.FACT and event.data.fact == PRUNED:
            self._vouched = event.data.content
        elif event.type == RecordType.INSTANCE and event.data.final and event.data.instance is not None:
            self._closed[event.data.instance] = row.seq
        for what in (*self._balance.enter(event), *self._dues.enter(event)):
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
        yield from _misfiled(row.filed, event)

    def _go_on(self, row: Row, digest: bytes) -> None:
        # Where a record's bytes were changed, that one is the fault; its successor, which names the old hash, is not.
        self._seq = row.seq
        self._links = {chain.digest_text(digest), chain.digest_text(row.hash)}


def unsealed(
    note: str, key: str, ledger_id: str, hash_at: Callable[[int], bytes | None], begins: int = 0
) -> Iterator[str]:
    """What is wrong with a checkpoint of this ledger, by the public key (base64) that is to have signed it.

    The record that it seals can be looked at where the ledger `begins` with it, or before it.
    """
    from taximeter.ledger.signing import is_signed  # noqa: PLC0415 -- 11 MB, only where something is sealed

    try:
        said = parse_note(note)
    except ValueError as error:
        yield f"is no checkpoint: {error}"
        return
    of = said.checkpoint
    if of.ledger_id != ledger_id:
        yield f"is a checkpoint of ledger {of.ledger_id}, expected {ledger_id}"
        return
    if not is_signed(said, key):
        yield f"is a checkpoint that key {key or '(none)'} did not sign"
    if of.size < begins:
        return
    found = hash_at(of.size) if of.size else chain.GENESIS
    if found is None:
        yield f"seals {of.size} records, and there are fewer: the ledger was cut, or an older copy put back"
    elif found != of.head:
        yield f"seals another record {of.size} than is there: the ledger was changed, or an older copy went on"


def _misfiled(filed: Filed | None, event: Event) -> Iterator[str]:
    """Compare what a record is found by with what it says."""
    if filed is None:
        yield "is filed nowhere, so that it is not found by what it says"
        return
    data = event.data
    root = data.root if data.root != data.prediction else None
    said = (event.id, event.type, event.time, data.prediction, root, data.account, data.model)
    at = filed._replace(time_utc_ns=_instant(filed.time_utc_ns))
    for name, found, expected in zip(_FILED_BY, at, said, strict=True):
        if found != expected:
            yield f"is filed under {name} {found}, not {expected}: it is not found by what it says"


def _instant(time_utc_ns: object) -> object:
    """A filed time as records write it; what is none stays as it is, and differs."""
    try:
        return utc_text(time_utc_ns) if isinstance(time_utc_ns, int) else time_utc_ns
    except (ValueError, OverflowError, OSError):
        return time_utc_ns
