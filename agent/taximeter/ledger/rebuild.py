"""Sets a damaged ledger aside, and begins another with what can still be read of it.

Owns what goes over: records that some sink has not had, in their order, each under its own id; how far each sink is;
what is open, with its place in its journal; what was closed, so that no journal is booked twice. Of whose records some
were lost before anybody had one, nothing goes over: its journal is still there, and is booked anew. The new ledger is
whole before it takes the place. Refuses to mend the old one, which is kept.
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from taximeter.billing.credit import Grant
from taximeter.billing.money import decimal_of
from taximeter.ledger import backfill, base, chain, outbox
from taximeter.ledger.damage import damage_of
from taximeter.ledger.database import door, open_for_writing
from taximeter.ledger.heads import new_id
from taximeter.ledger.mended import readable
from taximeter.ledger.rows import insert, save_open
from taximeter.ledger.salvage import Salvage, records, salvage
from taximeter.ledger.sayings import utc_ns
from taximeter.ledger.store import Ledger, NodeInfo
from taximeter.ledger.transaction import transaction
from taximeter.records import RecordType

if TYPE_CHECKING:
    import apsw

_CARRIED = frozenset({RecordType.PREDICTION, RecordType.INSTANCE, RecordType.CORRECTION})
_SIDES = ("-wal", "-shm")


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of a damaged ledger."""

    why: str
    kept_as: Path
    before: Mapping[str, object]  #: the ledger whose place it takes: its id, size, head
    carried: int  #: records that went over, since some sink had not had them
    lost: tuple[int, ...]  #: numbers of records that some sink has not had, and nobody can read any more
    from_journals: int  #: instances of these that are booked anew, from their journals
    open: int  #: instances that are gone on with
    given_up: int  #: instances that were open, and of which nobody can read how far they were: the rest is not billed


def rebuild_if_damaged(
    path: Path,
    node: NodeInfo,
    take_over: Callable[[str, Mapping[str, object]], object],
    reached: Callable[[str], Mapping[str, int]] = lambda _: {},
) -> Rebuilt | None:
    """Begin another ledger at `path` where that is damaged; None where it is not. Raises LedgerError, OSError.

    `take_over` is told the id of the new one and of the old one's head (ledger, size, head), before it takes the place.
    `reached` tells of sinks that can be asked up to which number each has the records of the ledger of that id.
    """
    why = damage_of(path)
    if why is None:
        return None
    with readable(path) as source:
        found = salvage(source)
        for sink, seq in reached(found.ledger_id or "").items():
            found.cursors[sink] = max(seq, found.cursors.get(sink, 0))
        plan = _Plan(source, found)
    fresh = path.with_name(f"{path.name}.new")
    for leftover in _with_sides(fresh):
        leftover.unlink(missing_ok=True)
    connection = open_for_writing(fresh)
    with contextlib.closing(connection), door("rebuild", fresh), transaction(connection):
        plan.write(connection)
    with contextlib.closing(Ledger.open(fresh, node)) as ledger:
        for grant in filter(None, (_left(*row) for row in found.purses)):
            ledger.grant(grant)
        before = {"ledger": found.ledger_id, "size": found.head_seq, "head": found.head}
        take_over(ledger.head.ledger_id, before)
    kept_as = _set_aside(path, fresh)
    return Rebuilt(
        why, kept_as, before, plan.carried, tuple(plan.lost), len(plan.anew), len(plan.open), len(plan.given_up)
    )


class _Plan:
    """What goes over of a damaged ledger."""

    def __init__(self, path: Path, found: Salvage) -> None:
        self._found = found
        everywhere = min(found.cursors.values(), default=0)
        whole: dict[int, Any] = {}
        for record in records(path, everywhere):
            found.take(record)  # whoever begins elsewhere in a damaged tree may find more
            whole[record.seq] = orjson.loads(record.body)
        self._seqs: dict[str, list[int]] = defaultdict(list)
        for seq, id_ in sorted(found.ids.items()):
            self._seqs[_instance(id_)].append(seq)
        missing = [seq for seq in found.ids if seq > everywhere and seq not in whole and not self._is_own(seq)]
        self.anew = self._anew({_instance(found.ids[seq]) for seq in missing} | found.broken.intersection(self._seqs))
        self.given_up = found.broken.intersection(self._seqs) - self.anew
        self.lost = [seq for seq in missing if _instance(found.ids[seq]) not in self.anew]
        self.open = [one for one in found.journals if one.state is not None and one.instance not in self.anew]
        self._events = [
            (seq, event)
            for seq, event in sorted(whole.items())
            if event["type"] in _CARRIED and _instance(event["id"]) not in self.anew
        ]

    @property
    def carried(self) -> int:
        """How many records go over."""
        return len(self._events)

    def write(self, connection: "apsw.Connection") -> None:
        """Write it into a ledger that has nothing yet."""
        found, ledger_id = self._found, new_id()
        meta = {"ledger_id": ledger_id} | ({"node_id": found.node_id} if found.node_id else {})
        connection.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
        digest, new = chain.GENESIS, dict[int, int]()
        for number, (seq, event) in enumerate(self._events, 1):
            event["data"]["ledger"] = chain.place_of(ledger_id, number, digest)
            body = msgspec.json.encode(event)
            digest = chain.digest_of(body)
            insert(connection, [(number, digest, body)], [_lookup(number, event)])
            new[seq] = number
        backfill.make_tables(connection)
        backfill.fill_all(connection)
        for sink, cursor in found.cursors.items():
            outbox.register(connection, sink)
            outbox.move(connection, sink, sum(seq <= cursor for seq in new))
        outbox.keep(connection, [(sink, new[seq], *rest) for sink, seq, *rest in found.letters if seq in new])
        last = {_instance(found.ids[seq]): number for seq, number in new.items()}
        self._write_instances(connection, last)

    def _write_instances(self, connection: "apsw.Connection", last: Mapping[str, int]) -> None:
        """Write what is open and what is over; `last` is the number of the last record of each that went over."""
        open_ = {one.instance for one in self.open}
        save_open(connection, self.open, [fact for fact in self._found.facts if fact[0] in open_])
        over = {name: last.get(name, 0) for name in self._seqs if name not in open_ and name not in self.anew}
        base.keep_closed(connection, list({**self._found.closed, **over}.items()))
        base.keep_elsewhere(connection, [(name, number, None) for name, number in self._begun(open_.union(last))])

    def _begun(self, names: set[str]) -> Iterator[tuple[str, int]]:
        """Those of whom some records stay behind, with the number of the first that does not."""
        first: dict[str, int] = {}
        for _, event in self._events:
            first.setdefault(_instance(event["id"]), _count(event["id"]))
        for name in names:
            behind = [_count(self._found.ids[seq]) for seq in self._seqs.get(name, ())]
            before = self._found.elsewhere.get(name, 0)
            number = first.get(name, 1 + max(behind, default=before - 1))
            if number > 0:
                yield name, number

    def _anew(self, hit: set[str]) -> set[str]:
        """Those of the instances that lost a record of whom nobody has had any: their journals tell all of it again."""
        anybody = max(self._found.cursors.values(), default=0)
        refused = {letter[1] for letter in self._found.letters}
        return {name for name in hit if self._seqs[name][0] > anybody and refused.isdisjoint(self._seqs[name])}

    def _is_own(self, seq: int) -> bool:
        """Whether a record is the ledger's own, and no instance's."""
        return _instance(self._found.ids[seq]) == self._found.ledger_id


def _instance(record_id: str) -> str:
    return record_id.rpartition("-")[0]


def _count(record_id: str) -> int:
    number = record_id.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() else 0


def _lookup(seq: int, event: Mapping[str, Any]) -> tuple[object, ...]:
    data = event["data"]
    prediction, root = data.get("prediction"), data.get("root")
    filed = (prediction, root if root != prediction else None, data.get("account"), data.get("model"))
    return (seq, event["id"], event["type"], utc_ns(event["time"]), *filed)


def _left(
    id_: str, account: str, currency: str, granted_utc_ns: int, expires_utc_ns: int | None, left: str
) -> Grant | None:
    """A grant of what is left of one; None where that is nothing."""
    amount = decimal_of(left)
    return Grant(id_, account, currency, amount, granted_utc_ns, expires_utc_ns) if amount > 0 else None


def _set_aside(path: Path, fresh: Path) -> Path:
    """Put `fresh` in the place of the ledger at `path`, which is kept under a name that says what and when."""
    kept_as = path.with_name(f"{path.stem}-damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}{path.suffix}")
    for side in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            os.link(f"{path}{side}", f"{kept_as}{side}")
    _sync(path.parent)
    for side in _SIDES:
        path.with_name(path.name + side).unlink(missing_ok=True)
    fresh.rename(path)
    _sync(path.parent)
    return kept_as


def _with_sides(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + side) for side in _SIDES)]


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
