"""The outbox: how far each sink has got, and what it refused.

Owns the tables' SQL: a cursor a sink, and a dead letter for each record that it would not have though it takes others.
Both change in one transaction, so that a record is always either beyond the cursor, or taken, or a dead letter. Refuses
to know what a record says.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from taximeter.ledger import cursors as marks
from taximeter.ledger.transaction import transaction
from taximeter.ledger.values import Stored

if TYPE_CHECKING:
    import apsw

TABLES = """
CREATE TABLE dead_letters (
    sink TEXT NOT NULL, seq INTEGER NOT NULL, reason TEXT NOT NULL, said TEXT NOT NULL, at_utc_ns INTEGER NOT NULL,
    again INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (sink, seq)
) WITHOUT ROWID;
"""

_REGISTER = "INSERT OR IGNORE INTO sinks VALUES (?, 0)"
_NEXT = "SELECT seq, body FROM records WHERE seq > (SELECT seq FROM sinks WHERE name = ?) ORDER BY seq LIMIT ?"
_ACKNOWLEDGED = """
SELECT seq, body FROM lookups JOIN records USING (seq) WHERE seq > ?2 AND seq <= (SELECT seq FROM sinks WHERE name = ?1)
AND time_utc_ns >= ?3 AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE sink = ?1 AND dead_letters.seq = records.seq)
ORDER BY seq LIMIT ?4
"""
_NEWEST = """
SELECT seq, body FROM records WHERE seq > (SELECT seq FROM sinks WHERE name = ?) ORDER BY seq DESC LIMIT 1
"""
_MOVE = "UPDATE sinks SET seq = max(seq, ?2) WHERE name = ?1 RETURNING seq"
_SET_ASIDE = """
INSERT INTO dead_letters VALUES (?1, ?2, ?3, ?4, ?5, 0)
ON CONFLICT (sink, seq) DO UPDATE SET reason = ?3, said = ?4, at_utc_ns = ?5, again = 0
"""
_AGAIN = """
SELECT seq, body FROM dead_letters JOIN records USING (seq) WHERE sink = ? AND again ORDER BY seq LIMIT ?
"""
_COUNTS = "SELECT sink, count(*) FROM dead_letters GROUP BY sink"
_LETTERS = """
SELECT sink, seq, coalesce(id, ''), reason, said, at_utc_ns, again FROM dead_letters LEFT JOIN lookups USING (seq)
WHERE (?1 IS NULL OR sink = ?1) AND (sink, seq) > (?2, ?3) ORDER BY sink, seq LIMIT ?4
"""
_CHOSEN = """
SELECT seq, coalesce(id, '') FROM dead_letters LEFT JOIN lookups USING (seq) WHERE sink = ?1
AND (?2 IS NULL OR id IN (SELECT value FROM json_each(?2))) ORDER BY seq
"""


class DeadLetter(NamedTuple):
    """A record that a sink would not have."""

    sink: str
    seq: int
    id: str  #: of the record; empty where it is filed nowhere
    reason: str  #: a bounded word
    said: str  #: what the receiver said, for people
    at_utc_ns: int  #: when it was refused last
    again: bool  #: it is to be tried again


def register(connection: "apsw.Connection", sink: str) -> None:
    """Ship to `sink` from now on; one that is new begins with the first record."""
    with transaction(connection):
        connection.execute(_REGISTER, (sink,))
        said = connection.execute("SELECT seq FROM sinks WHERE name = ?", (sink,)).get
        seq = marks.settled(connection, sink, said)
        if seq != said:
            connection.execute("UPDATE sinks SET seq = ? WHERE name = ?", (seq, sink))
        marks.keep(connection, sink, seq)


def drop_sink(connection: "apsw.Connection", sink: str) -> None:
    """Ship to `sink` no more."""
    with transaction(connection):
        connection.execute("DELETE FROM sinks WHERE name = ?", (sink,))
        connection.execute("DELETE FROM dead_letters WHERE sink = ?", (sink,))
        marks.forget(connection, sink)


def cursors(connection: "apsw.Connection") -> dict[str, int]:
    """Every sink, and up to which record it has taken or refused them."""
    rows: list[Any] = connection.execute("SELECT name, seq FROM sinks").fetchall()
    return dict(rows)


def unshipped(connection: "apsw.Connection", sink: str, limit: int) -> tuple[Stored, ...]:
    """The next records for `sink`, in order."""
    return tuple(Stored(*row) for row in connection.execute(_NEXT, (sink, limit)))


def acknowledged(
    connection: "apsw.Connection", sink: str, after: int, since_utc_ns: int, limit: int
) -> tuple[Stored, ...]:
    """The next records beyond a number that `sink` has taken, begun since an instant, in order."""
    rows = connection.execute(_ACKNOWLEDGED, (sink, after, since_utc_ns, limit))
    return tuple(Stored(*row) for row in rows)


def newest(connection: "apsw.Connection", sink: str) -> Stored | None:
    """The last of them."""
    row = connection.execute(_NEWEST, (sink,)).fetchone()
    return None if row is None else Stored(*row)


def shipped(
    connection: "apsw.Connection", sink: str, seq: int, refused: Iterable[tuple[int, str, str]], now_utc_ns: int
) -> None:
    """Move the cursor of `sink`, and keep what it refused on the way: number, reason, what was said."""
    with transaction(connection):
        move(connection, sink, seq)
        connection.executemany(_SET_ASIDE, [(sink, *one, now_utc_ns) for one in refused])


def move(connection: "apsw.Connection", sink: str, seq: int) -> None:
    """Move the cursor of `sink`; a cursor never goes back."""
    with transaction(connection):
        row = connection.execute(_MOVE, (sink, seq)).fetchone()
        if row is not None:
            marks.keep(connection, sink, row[0])


def keep(connection: "apsw.Connection", letters: Iterable[tuple[Any, ...]]) -> None:
    """Keep whole rows of dead letters, from elsewhere."""
    connection.executemany("INSERT INTO dead_letters VALUES (?, ?, ?, ?, ?, ?)", letters)


def again(connection: "apsw.Connection", sink: str, limit: int) -> tuple[Stored, ...]:
    """The dead letters that are to be tried again."""
    return tuple(Stored(*row) for row in connection.execute(_AGAIN, (sink, limit)))


def delete(connection: "apsw.Connection", sink: str, seqs: Iterable[int]) -> None:
    """Forget dead letters: they were taken, or somebody gave them up."""
    connection.executemany("DELETE FROM dead_letters WHERE sink = ? AND seq = ?", [(sink, seq) for seq in seqs])


def retry(connection: "apsw.Connection", sink: str, seqs: Iterable[int]) -> None:
    """Have dead letters tried again."""
    connection.executemany(
        "UPDATE dead_letters SET again = 1 WHERE sink = ? AND seq = ?", [(sink, seq) for seq in seqs]
    )


def counts(connection: "apsw.Connection") -> dict[str, int]:
    """How many dead letters each sink has, if it has any."""
    rows: list[Any] = connection.execute(_COUNTS).fetchall()
    return dict(rows)


def chosen(connection: "apsw.Connection", sink: str, ids: str | None) -> list[tuple[int, str]]:
    """The number and the id of those dead letters of `sink` that a JSON list names; None names all."""
    return [(seq, id_) for seq, id_ in connection.execute(_CHOSEN, (sink, ids))]


def letters(
    connection: "apsw.Connection", sink: str | None, after: tuple[str, int], limit: int
) -> Sequence[DeadLetter]:
    """Dead letters of a sink, or of all, in the order of sinks and numbers, beyond one of them."""
    rows: Iterable[Any] = connection.execute(_LETTERS, (sink, *after, limit))
    return [DeadLetter(*row)._replace(again=bool(row[-1])) for row in rows]
