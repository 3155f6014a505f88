"""Reads a request to reconcile, and says what became of it. Pure; refuses to reconcile.

Owns what such a request may say.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from taximeter.errors import TaximeterError
from taximeter.observe.since import requested_ns

_KEYS = ("sink", "after", "since_utc", "dry_run")
_SINK = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_MOST = 1 << 53


class ReconcileError(TaximeterError):
    """A request that nobody can follow."""


@dataclass(frozen=True, slots=True)
class Request:
    """Which records to look at: those of a sink beyond a number, begun since an instant."""

    sink: str
    after: int = 0
    since_utc_ns: int | None = None
    dry_run: bool = False  #: send nothing


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found: so many were looked at, so many of them were missing, and (unless dry) sent again."""

    sink: str
    after: int  #: to go on from
    looked: int
    missing: int
    done: bool  #: there are no more


def read_request(body: bytes) -> Request:
    """What a request's body asks for. Raises ReconcileError."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ReconcileError(f"cannot reconcile by this body: expected JSON ({error})") from error
    if not isinstance(said, Mapping) or not said.keys() <= set(_KEYS):
        raise ReconcileError(f"cannot reconcile by this body: expected an object of {', '.join(_KEYS)}")
    sink, after, dry_run = said.get("sink"), said.get("after", 0), said.get("dry_run", False)
    if not isinstance(sink, str) or not _SINK.fullmatch(sink):
        raise ReconcileError(f"cannot find sink {str(sink)[:40]!r}: expected the name of one")
    if isinstance(after, bool) or not isinstance(after, int) or not 0 <= after < _MOST:
        raise ReconcileError(f"cannot go on after {str(after)[:40]!r}: expected the number of a record")
    if not isinstance(dry_run, bool):
        raise ReconcileError(f"cannot reconcile with dry_run = {str(dry_run)[:40]!r}: expected true or false")
    return Request(sink, after, requested_ns(said.get("since_utc"), "reconcile", ReconcileError), dry_run)


def looked_view(looked: Looked) -> dict[str, Any]:
    """What is answered."""
    return asdict(looked)
