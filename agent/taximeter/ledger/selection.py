"""Which records are asked for: by what they are filed under, in the order of their numbers.

Owns the filter, and the SQL that it becomes. Refuses to know what a record says.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from taximeter.ledger.pages import ROWS, Pages

_SELECT = "SELECT seq, body FROM lookups JOIN records USING (seq) WHERE seq > ?"
_SELECT_SEQ = "SELECT seq FROM lookups WHERE seq > ?"


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which records; None does not ask."""

    since_utc_ns: int | None = None  #: whose interval begins then or later
    account: str | None = None
    model: str | None = None
    prediction: str | None = None
    instance: str | None = None
    id: str | None = None  #: the record's own
    root: str | None = None
    type: str | None = None
    limit: int | None = None  #: at most so many, the oldest
    newest: int | None = None  #: at most so many, the newest; the order stays that of the numbers
    after_seq: int = 0  #: only those beyond this number: to read on
    until_seq: int | None = None  #: and none beyond this one


#: No filter.
ALL = RecordFilter()


def records(pages: Pages, wanted: RecordFilter) -> Iterator[bytes]:
    """The stored bytes of the records that `wanted` asks for, in the order of their numbers."""
    clauses, values = _conditions(wanted)
    sql = " AND ".join((_SELECT, *clauses)) + " ORDER BY seq LIMIT ?"
    seq, left = max(wanted.after_seq, _before_newest(pages, wanted)), wanted.limit
    while left is None or left > 0:
        page = ROWS if left is None else min(left, ROWS)
        rows = pages.ask(sql, seq, *values, page)
        yield from (body for _, body in rows)
        if len(rows) < page:
            return
        seq = pages.beyond(seq, rows)
        left = None if left is None else left - page


def _before_newest(pages: Pages, wanted: RecordFilter) -> int:
    """The number behind which the newest ones that are asked for begin."""
    if wanted.newest is None:
        return 0
    clauses, values = _conditions(wanted)
    sql = " AND ".join((_SELECT_SEQ, *clauses)) + " ORDER BY seq DESC LIMIT 1 OFFSET ?"
    rows = pages.ask(sql, wanted.after_seq, *values, max(wanted.newest, 0))
    return int(rows[0][0]) if rows else 0


def _conditions(wanted: RecordFilter) -> tuple[list[str], list[str | int]]:
    asked: tuple[tuple[str, str | int | None], ...] = (
        ("time_utc_ns >= ?", wanted.since_utc_ns),
        ("account = ?", wanted.account),
        ("model = ?", wanted.model),
        ("prediction = ?", wanted.prediction),
        ("id = ?", wanted.id),
        ("type = ?", wanted.type),
        ("seq <= ?", wanted.until_seq),
    )
    clauses = [clause for clause, value in asked if value is not None]
    values = [value for _, value in asked if value is not None]
    if wanted.instance is not None:
        clauses.append("id >= ? || '-' AND id < ? || '.' AND rtrim(id, '0123456789') = ? || '-'")
        values += [wanted.instance] * 3
    if wanted.root is not None:
        clauses.append("(root = ? OR (prediction = ? AND root IS NULL))")
        values += [wanted.root, wanted.root]
    return clauses, values
