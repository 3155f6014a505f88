"""Reads what a question is narrowed to, written as in a query string: of records, of an estimate.

Owns the names, the limits and what is said of a word that cannot be meant. Refuses to answer.
"""

import time
from collections.abc import Mapping

from taximeter.errors import TaximeterError
from taximeter.ledger.reader import RecordFilter
from taximeter.ledger.runs import Kind
from taximeter.observe.since import since_ns
from taximeter.records import RecordType

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
SEQ_MAX = 2**63 - 1
#: What records are filtered by; each narrows the answer.
FILTERS = ("since", "account", "model", "prediction", "instance", "root", "type", "limit", "newest", "after")

#: Short for the records' types, so that a person can type them.
_TYPES = {name.rsplit(".", 2)[1]: name for name in (kind.value for kind in RecordType)}


class QuestionError(TaximeterError):
    """A question that cannot be answered as it was put."""


def filter_of(asked: Mapping[str, str]) -> RecordFilter:
    """Read the filters of a question for records, written as in a query string; QuestionError names what is wrong."""
    unknown = sorted(set(asked) - set(FILTERS))
    if unknown:
        raise QuestionError(f"cannot filter by {unknown[0][:40]!r}: expected some of {', '.join(FILTERS)}")
    kind = asked.get("type")
    if kind is not None and kind not in _TYPES and kind not in _TYPES.values():
        raise QuestionError(f"cannot filter by type = {kind[:40]!r}: expected one of {', '.join(_TYPES)}")
    return RecordFilter(
        since_utc_ns=_since_ns(asked["since"], time.time_ns()) if "since" in asked else None,
        account=asked.get("account"),
        model=asked.get("model"),
        prediction=asked.get("prediction"),
        instance=asked.get("instance"),
        root=asked.get("root"),
        type=None if kind is None else _TYPES.get(kind, kind),
        limit=_number(
            "limit", asked.get("limit", str(LIMIT_MAX if "newest" in asked else LIMIT_DEFAULT)), 1, LIMIT_MAX
        ),
        newest=_number("newest", asked["newest"], 1, LIMIT_MAX) if "newest" in asked else None,
        after_seq=_number("after", asked.get("after", "0"), 0, SEQ_MAX),
    )


def kind_of(model: str, asked: Mapping[str, str]) -> Kind:
    """Read of what an estimate is wanted, and what it is narrowed to; QuestionError names what is wrong."""
    unknown = sorted(set(asked) - {"version", "tier"})
    if unknown:
        raise QuestionError(f"cannot estimate by {unknown[0][:40]!r}: expected version or tier")
    return Kind(model, asked.get("version", ""), asked.get("tier", ""))


def _since_ns(text: str, now_ns: int) -> int:
    try:
        return since_ns(text, now_ns)
    except ValueError as error:
        raise QuestionError(f"cannot filter by since = {text[:40]!r}: {error}") from error


def _number(name: str, text: str, least: int, most: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most:
        return int(text)
    raise QuestionError(f"cannot use {name} = {text[:40]!r}: expected a number from {least} to {most}")
