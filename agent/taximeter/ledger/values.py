"""What crosses the ledger's door, as frozen values. Refuses to know SQL."""

from dataclasses import dataclass
from typing import NamedTuple

from taximeter.records import UsageRecord


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """The node that writes, as every record names it."""

    id: str
    region: str | None
    software: str
    config: str  #: "sha256:…", the configuration in force


class JournalState(NamedTuple):
    """How far an instance's journals are booked, and the folded state behind that position."""

    instance: str
    segment: int
    offset: int  #: bytes
    state: bytes | None  #: None: closed, its last record is in the ledger


@dataclass(frozen=True, slots=True)
class Batch:
    """What is committed together, or not at all."""

    records: tuple[UsageRecord, ...]
    journals: tuple[JournalState, ...]
    facts: tuple[tuple[str, bytes], ...] = ()  #: instance and what the agent itself saw of it


@dataclass(frozen=True, slots=True)
class Head:
    """The newest record: 0 and the hash of nothing where there is none."""

    ledger_id: str
    seq: int
    hash: str  #: "sha256:…" over its stored bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it is kept and shipped."""

    seq: int
    body: bytes


class Filed(NamedTuple):
    """What a record is found by: its row of the lookups, whatever the file says there."""

    id: object
    type: object
    time_utc_ns: object
    prediction: object
    root: object  #: None where the prediction is its own root
    account: object
    model: object


@dataclass(frozen=True, slots=True)
class Row:
    """A record as the audit looks at it; a field is whatever the file says, believed or not."""

    seq: int
    hash: bytes
    body: bytes
    filed: Filed | None  #: what the lookups have under this number; None where they have nothing
