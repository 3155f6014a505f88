"""Reads an instance's records in portions, for whoever corrects what they billed: there may be millions of them.

Owns what is kept of them meanwhile: of predictions their names, of the instance's own time as few records as may be.
Refuses to know what anything costs.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from taximeter.agent.billed import Told, decode
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.online_rerating import as_one
from taximeter.recall import number_of
from taximeter.records import RecordType
from taximeter.rulebook import Rulebook

#: So many records are read in one breath.
PAGE = 500
#: What of an instance's own records nobody needs here.
_NOT_NEEDED = ("resources", "timing", "labels", "concurrency", "node", "ledger")

IsConcerned = Callable[[Told], bool]


class Portions:
    """The records of one instance, read on from where they were left off at."""

    def __init__(self, path: Path, name: str, book: Rulebook, is_concerned: IsConcerned) -> None:
        self._path = path
        self._name = name
        self._cards = book.cards
        self._is_concerned = is_concerned
        self._after = ""
        self._seen: set[str] = set()
        self.own: list[Any] = []  #: records of its own time, and their corrections
        self.is_done = False

    def read(self) -> list[str]:
        """Read the next ones; gives the predictions that they bring of those that are concerned."""
        found: list[str] = []
        with LedgerReader(self._path) as reader:
            rows = reader.of_instance(self._name, self._after, PAGE)
        for _, kind, prediction, body in rows:
            if kind != RecordType.PREDICTION and prediction is None and b'"status":"informative"' not in body:
                self._add(_slim(orjson.loads(body)))
            elif kind != RecordType.PREDICTION or prediction is None or prediction in self._seen:
                continue
            elif self._is_concerned(decode(body).data):
                self._seen.add(prediction)
                found.append(prediction)
        self.is_done = len(rows) < PAGE
        self._after = rows[-1][0] if rows else self._after
        return found

    def _add(self, event: Any) -> None:
        both = as_one(self.own[-1], event, self._cards) if self.own else None
        if both is not None:
            self.own.pop()
        self.own.append(both or event)


def events_of(reader: LedgerReader, name: str, prediction: str) -> Iterator[Any]:
    """All records of a prediction on an instance, in order."""
    return map(orjson.loads, reader.records(RecordFilter(instance=name, prediction=prediction)))


def began(path: Path, name: str) -> str:
    """When the first of an instance's records that is here begins."""
    with LedgerReader(path) as reader:
        rows = reader.of_instance(name, "", 1)
    return str(orjson.loads(rows[0][-1])["data"]["interval"]["start_utc"]) if rows else ""


def next_number(path: Path, name: str) -> int:
    """The number of an instance's next record."""
    with LedgerReader(path) as reader:
        last = reader.last_of(name)
    return 0 if last is None else 1 + number_of(last)


def _slim(event: Any) -> Any:
    """A record without what nobody needs of it here."""
    for key in _NOT_NEEDED:
        event["data"].pop(key, None)
    return event
