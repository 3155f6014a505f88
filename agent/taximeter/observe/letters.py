"""Reads a request about dead letters, and says what became of it. Pure; refuses to do it.

Owns what such a request may say, and how a dead letter is shown.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from taximeter.errors import TaximeterError
from taximeter.ledger.outbox import DeadLetter
from taximeter.records import utc_text

#: So many records are named at most in one request; more than its body has room for.
MOST_NAMED = 100
_KEYS = ("do", "sink", "records")
_SINK = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_ID = re.compile(r"[^\x00-\x1f\x7f]{1,256}")


class Deed(StrEnum):
    """What can be done with a dead letter."""

    RETRY = "retry"
    DROP = "drop"


class LetterError(TaximeterError):
    """A request that nobody can follow."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do with which dead letters."""

    deed: Deed
    sink: str
    records: tuple[str, ...] | None  #: their ids; None: all of the sink's


def read_order(body: bytes) -> Order:
    """What a request's body orders. Raises LetterError."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise LetterError(f"cannot treat dead letters by this body: expected JSON ({error})") from error
    if not isinstance(said, Mapping) or not said.keys() <= set(_KEYS):
        raise LetterError(f"cannot treat dead letters by this body: expected an object of {', '.join(_KEYS)}")
    deed, sink = said.get("do"), said.get("sink")
    if deed not in list(Deed):
        raise LetterError(f"cannot do {str(deed)[:40]!r} with dead letters: expected retry or drop")
    if not isinstance(sink, str) or not _SINK.fullmatch(sink):
        raise LetterError(f"cannot find sink {str(sink)[:40]!r}: expected the name of one")
    return Order(Deed(deed), sink, _records(said.get("records")))


def _records(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > MOST_NAMED:
        raise LetterError(f"cannot choose records by {str(value)[:40]!r}: expected a list of {MOST_NAMED} ids at most")
    for id_ in value:
        if not isinstance(id_, str) or not _ID.fullmatch(id_):
            raise LetterError(f"cannot choose record {str(id_)[:40]!r}: expected an id")
    return tuple(value)


def letter_view(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as it is answered."""
    return {
        "sink": letter.sink,
        "seq": letter.seq,
        "id": letter.id,
        "reason": letter.reason,
        "said": letter.said,
        "refused_utc": utc_text(letter.at_utc_ns),
        "again": letter.again,
    }
