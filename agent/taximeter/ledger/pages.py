"""Asks a ledger in pages, so that no reader however slow keeps the writer from checkpointing.

Owns how large a page is, and that what is damaged is not read for ever. Refuses to know what is asked.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taximeter.errors import LedgerError
from taximeter.ledger.database import door

if TYPE_CHECKING:
    import apsw

ROWS = 500


class Pages:
    """One connection to a ledger, asked a page at a time."""

    def __init__(self, path: Path, connection: "apsw.Connection") -> None:
        self._path = path
        self._connection = connection

    def ask(self, sql: str, *values: str | int) -> list[tuple[Any, ...]]:
        """All rows of one question."""
        with door("read", self._path):
            return self._connection.execute(sql, values).fetchall()

    def bodies(self, sql: str, *values: str | int) -> Iterator[bytes]:
        """The stored bytes of what a question without an order gives (number and bytes), in the order of numbers."""
        seq, full = 0, True
        while full:
            rows = self.ask(f"{sql} AND seq > ? ORDER BY seq LIMIT ?", *values, seq, ROWS)
            yield from (body for _, body in rows)
            full = len(rows) == ROWS
            seq = self.beyond(seq, rows) if full else seq

    def beyond(self, after_seq: int, rows: list[tuple[Any, ...]]) -> int:
        """The number of the last of some rows; in a damaged file they may be in any order, and come again for ever."""
        last = rows[-1][0]
        if isinstance(last, int) and last > after_seq:
            return last
        raise LedgerError(
            f"cannot read ledger {self._path}: expected numbers that ascend, got {last} after {after_seq}"
        )
