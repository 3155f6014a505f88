"""What models took so far, kept beside the records so that nobody has to read a million of them.

Of each model, version and tier: how many predictions ended, how many of these succeeded, and how their time, cost and
units are spread; and which model called which. It goes into the ledger's own transaction, and is no part of what the
ledger vouches for. A bounded number of each is kept: where there are more, those that were seen least go first. Owns
the tables. Refuses to know what is measured, and to read records.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from taximeter.billing.money import EXACT, plain
from taximeter.ledger.distribution import Distribution
from taximeter.ledger.transaction import transaction

if TYPE_CHECKING:
    import apsw

#: So many kinds (model, version and tier) are kept.
KINDS_MAX = 1_000
#: In one commit so many new ones are taken: a flood of names takes no room from whoever was seen just now.
NEW_MAX = 50
#: Of one kind so many things are measured: beside its time and cost, what its workers count.
MEASURES_MAX = 24
#: So many pairs of caller and called are kept, and so many of one caller.
CALLS_MAX = 1_000
CALLED_MAX = 32
#: A kind with fewer runs than these makes room first: of so few, nothing much is known.
THIN = 20


class Kind(NamedTuple):
    """Predictions that have as much in common as makes their time comparable."""

    model: str
    version: str  #: "" where none was named
    tier: str


class Runs(NamedTuple):
    """What is known of predictions of one kind."""

    kind: Kind
    ended: int
    succeeded: int
    first_utc_ns: int  #: when the first of them began
    last_utc_ns: int
    measures: Mapping[str, Distribution]  #: of those that succeeded, by what is measured


class Call(NamedTuple):
    """So often one model called another."""

    caller: str
    called: str
    times: int
    last_utc_ns: int


SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, tier TEXT NOT NULL, ended INTEGER NOT NULL,
    succeeded INTEGER NOT NULL, first_utc_ns INTEGER NOT NULL, last_utc_ns INTEGER NOT NULL,
    UNIQUE (model, version, tier)
);
CREATE TABLE IF NOT EXISTS run_sums (
    run INTEGER NOT NULL, measure TEXT NOT NULL, count INTEGER NOT NULL, total TEXT NOT NULL,
    PRIMARY KEY (run, measure)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS run_buckets (
    run INTEGER NOT NULL, measure TEXT NOT NULL, bucket INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (run, measure, bucket)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS run_calls (
    caller TEXT NOT NULL, called TEXT NOT NULL, count INTEGER NOT NULL, last_utc_ns INTEGER NOT NULL,
    PRIMARY KEY (caller, called)
) WITHOUT ROWID;
"""
_KNOWN = "SELECT run FROM runs WHERE model = ? AND version = ? AND tier = ?"
_SEEN = """
UPDATE runs SET ended = ended + ?2, succeeded = succeeded + ?3, first_utc_ns = min(first_utc_ns, ?4),
last_utc_ns = max(last_utc_ns, ?5) WHERE run = ?1
"""
_NEW = """
INSERT INTO runs (model, version, tier, ended, succeeded, first_utc_ns, last_utc_ns) VALUES (?, ?, ?, 0, 0, ?, ?)
"""
_CROWDED = "SELECT run FROM runs ORDER BY ended >= ?, last_utc_ns LIMIT max(0, (SELECT count(*) FROM runs) - ?)"
_TOTALS = "SELECT measure, total FROM run_sums WHERE run = ?"
_ADD_SUM = """
INSERT INTO run_sums VALUES (?1, ?2, ?3, ?4) ON CONFLICT (run, measure) DO UPDATE SET count = count + ?3, total = ?4
"""
_ADD_BUCKET = """
INSERT INTO run_buckets VALUES (?1, ?2, ?3, ?4) ON CONFLICT (run, measure, bucket) DO UPDATE SET count = count + ?4
"""
_ADD_CALL = """
INSERT INTO run_calls SELECT ?1, ?2, 0, 0 WHERE (SELECT count(*) FROM run_calls WHERE caller = ?1) < ?3
ON CONFLICT (caller, called) DO NOTHING
"""
_COUNT_CALL = """
UPDATE run_calls SET count = count + ?3, last_utc_ns = max(last_utc_ns, ?4) WHERE caller = ?1 AND called = ?2
"""
_FORGET_CALLS = """
DELETE FROM run_calls WHERE (caller, called) IN (
    SELECT caller, called FROM run_calls ORDER BY last_utc_ns LIMIT max(0, (SELECT count(*) FROM run_calls) - ?)
)
"""
_HAS_RUNS = "SELECT 1 FROM sqlite_schema WHERE name = 'run_calls'"
_RUNS = "SELECT run, model, version, tier, ended, succeeded, first_utc_ns, last_utc_ns FROM runs"
_OF_KIND = "WHERE model = ? AND version = ? AND tier = ?"
_IN_ORDER = "ORDER BY model, version, tier"
_SUMS = "SELECT measure, count, total FROM run_sums WHERE run = ?"
_BUCKETS = "SELECT measure, bucket, count FROM run_buckets WHERE run = ? ORDER BY measure, bucket"
_CALLS = "SELECT caller, called, count, last_utc_ns FROM run_calls ORDER BY caller, called"


# --- Writing, inside a transaction -----------------------------------------------------------------------------------


def add(connection: "apsw.Connection", runs: Iterable[Runs], calls: Iterable[Call]) -> None:
    """Add what a batch's records say of runs and calls."""
    room = NEW_MAX
    for one in runs:
        known: tuple[Any, ...] | None = connection.execute(_KNOWN, one.kind).fetchone()
        if known is None and room > 0:
            room -= 1
            connection.execute(_NEW, (*one.kind, one.first_utc_ns, one.last_utc_ns))
            known = (connection.last_insert_rowid(),)
        if known is not None:
            _add_run(connection, known[0], one)
    if room < NEW_MAX:
        _make_room(connection)
    added = [(call.caller, call.called) for call in calls]
    if added:
        connection.executemany(_ADD_CALL, [(*pair, CALLED_MAX) for pair in added])
        connection.executemany(_COUNT_CALL, calls)
        connection.execute(_FORGET_CALLS, (CALLS_MAX,))


def _add_run(connection: "apsw.Connection", run: int, more: Runs) -> None:
    connection.execute(_SEEN, (run, more.ended, more.succeeded, more.first_utc_ns, more.last_utc_ns))
    kept: list[tuple[Any, ...]] = connection.execute(_TOTALS, (run,)).fetchall()
    totals: dict[str, str] = dict(kept)
    for measure, distribution in more.measures.items():
        if measure not in totals and len(totals) >= MEASURES_MAX:
            continue
        total = EXACT.add(Decimal(totals.get(measure, "0")), distribution.total)
        totals[measure] = plain(total)
        connection.execute(_ADD_SUM, (run, measure, distribution.n, plain(total)))
        connection.executemany(_ADD_BUCKET, [(run, measure, *bucket) for bucket in distribution.buckets])


def _make_room(connection: "apsw.Connection") -> None:
    """Forget those that are too many: first those of which little is known, of these who was seen longest ago."""
    crowded = connection.execute(_CROWDED, (THIN, KINDS_MAX)).fetchall()
    for table in ("runs", "run_sums", "run_buckets"):
        connection.executemany(f"DELETE FROM {table} WHERE run = ?", crowded)  # noqa: S608 -- names of our own


# --- Reading ---------------------------------------------------------------------------------------------------------


def read_kinds(connection: "apsw.Connection", model: str | None = None) -> list[Runs]:
    """Every kind that is known, or every one of a model, without what was measured."""
    where, values = ("", ()) if model is None else ("WHERE model = ?", (model,))
    return [_runs(row, {}) for row in _rows(connection, f"{_RUNS} {where} {_IN_ORDER}", *values)]


def read_runs(connection: "apsw.Connection", kinds: Iterable[Kind]) -> list[Runs]:
    """What is known of these kinds, in their order; of what is not known any more, nothing."""
    read: list[Runs] = []
    with transaction(connection):  # all of it as it was at one moment
        for kind in kinds:
            read += [_read(connection, row) for row in _rows(connection, f"{_RUNS} {_OF_KIND}", *kind)]
    return read


def read_calls(connection: "apsw.Connection") -> list[Call]:
    """Which model called which."""
    return [Call(*row) for row in _rows(connection, _CALLS)]


def _rows(connection: "apsw.Connection", sql: str, *values: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql, values).fetchall() if connection.execute(_HAS_RUNS).fetchall() else []


def _read(connection: "apsw.Connection", row: tuple[Any, ...]) -> Runs:
    buckets: dict[str, list[tuple[int, int]]] = {}
    found: list[tuple[Any, ...]] = connection.execute(_BUCKETS, row[:1]).fetchall()
    for measure, bucket, count in found:
        buckets.setdefault(measure, []).append((bucket, count))
    sums: list[tuple[Any, ...]] = connection.execute(_SUMS, row[:1]).fetchall()
    return _runs(row, {name: Distribution(n, Decimal(total), tuple(buckets[name])) for name, n, total in sums})


def _runs(row: tuple[Any, ...], measures: Mapping[str, Distribution]) -> Runs:
    _, model, version, tier, ended, succeeded, first_utc_ns, last_utc_ns = row
    return Runs(Kind(model, version, tier), ended, succeeded, first_utc_ns, last_utc_ns, measures)
