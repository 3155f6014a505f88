"""What a ledger's writer does for sinks: how far each is, and what it refused.

Owns the calls; the outbox has the SQL. One part of the ledger's one writing connection, apart for its length alone.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from taximeter.errors import LedgerError
from taximeter.ledger import outbox
from taximeter.ledger.database import door
from taximeter.ledger.transaction import transaction
from taximeter.ledger.values import Stored

if TYPE_CHECKING:
    import apsw


class Shipments:
    """The sinks of an open ledger."""

    _path: Path
    _seq: int

    def _live(self) -> "apsw.Connection":
        raise NotImplementedError

    def register_sink(self, name: str) -> None:
        """Ship to `name` from now on; one that is new begins with the ledger's first record."""
        with door("write", self._path):
            outbox.register(self._live(), name)

    def drop_sink(self, name: str) -> None:
        """Ship to `name` no more, so that journals no longer wait for it."""
        with door("write", self._path):
            outbox.drop_sink(self._live(), name)

    def sinks(self) -> dict[str, int]:
        """Every sink, and the number of the last record that it acknowledged (or refused)."""
        with door("read", self._path):
            return outbox.cursors(self._live())

    def unshipped(self, sink: str, limit: int) -> tuple[Stored, ...]:
        """The next records for `sink`, in order, at most `limit`."""
        self._cursor(sink)
        with door("read", self._path):
            return outbox.unshipped(self._live(), sink, limit)

    def acknowledged(self, sink: str, after: int, since_utc_ns: int, limit: int) -> tuple[Stored, ...]:
        """The next records beyond a number that `sink` acknowledged, begun since an instant (UTC, ns)."""
        with door("read", self._path):
            return outbox.acknowledged(self._live(), sink, after, since_utc_ns, limit)

    def newest_unshipped(self, sink: str) -> Stored | None:
        """The newest record that `sink` has not acknowledged."""
        with door("read", self._path):
            return outbox.newest(self._live(), sink)

    def shipped(self, sink: str, seq: int, refused: Iterable[tuple[int, str, str]] = ()) -> None:
        """Note that `sink` acknowledged everything up to `seq`, but what it refused; a cursor never goes back.

        What was refused is said by its number, a bounded reason, and the receiver's words.
        """
        if seq > self._seq:
            raise LedgerError(
                f"cannot note {seq} as shipped to {sink}: expected at most {self._seq}, the newest record"
            )
        with door("write", self._path):
            outbox.shipped(self._live(), sink, seq, refused, time.time_ns())

    def pending(self, sink: str) -> int:
        """How many records `sink` has not acknowledged yet."""
        return self._seq - self._cursor(sink)

    def _cursor(self, sink: str) -> int:
        known = self.sinks()
        if sink not in known:
            raise LedgerError(f"cannot find sink {sink}: expected one of {', '.join(known) or 'none'}")
        return known[sink]

    # --- Dead letters ------------------------------------------------------------------------------------------------

    def dead_letters(self) -> dict[str, int]:
        """How many each sink has, if it has any."""
        with door("read", self._path):
            return outbox.counts(self._live())

    def chosen_letters(self, sink: str, ids: Sequence[str] | None) -> list[tuple[int, str]]:
        """Number and id of the dead letters of `sink` that are records of these ids; None: all of them."""
        with door("read", self._path):
            return outbox.chosen(self._live(), sink, None if ids is None else orjson.dumps(list(ids)).decode())

    def retry_letters(self, sink: str, seqs: Iterable[int]) -> None:
        """Have these dead letters of `sink` tried again."""
        with door("write", self._path), transaction(connection := self._live()):
            outbox.retry(connection, sink, seqs)

    def delete_letters(self, sink: str, seqs: Iterable[int]) -> None:
        """Forget these dead letters of `sink`: they were taken, or somebody gave them up."""
        with door("write", self._path), transaction(connection := self._live()):
            outbox.delete(connection, sink, seqs)

    def letters_to_retry(self, sink: str, limit: int) -> tuple[Stored, ...]:
        """The dead letters of `sink` that are to be tried again."""
        with door("read", self._path):
            return outbox.again(self._live(), sink, limit)
