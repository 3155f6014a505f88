"""What crosses the ledger's door, as frozen values. Refuses to know SQL."""

from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from taximeter.ledger.runs import Call, Runs
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


class PoolTime(NamedTuple):
    """How a pool's time was used, in nanoseconds: the first six add up to the wall time of its instances."""

    boot: int = 0
    idle: int = 0
    active: int = 0
    teardown: int = 0
    suspended: int = 0
    unknown: int = 0
    load: int = 0  #: of its predictions, added up; it passes beside the phases of their instances
    sold: int = 0  #: that somebody pays for, at the full price
    returned: int = 0  #: of what was sold, what corrections took back

    @property
    def wall(self) -> int:
        """What the pool's instances took in all."""
        return self.boot + self.idle + self.active + self.teardown + self.suspended + self.unknown

    def plus(self, other: "PoolTime") -> "PoolTime":
        """Both together."""
        return PoolTime(*(one + more for one, more in zip(self, other, strict=True)))


#: All that a pool's time is one of.
POOL_PHASES = PoolTime._fields[:6]
#: What sums of pools are kept by.
HOUR_NS = 3_600_000_000_000


class PoolHour(NamedTuple):
    """What a batch's records say of a pool's time in one hour."""

    hour: int  #: since 1970 UTC
    pool: str
    time: PoolTime


@dataclass(frozen=True, slots=True)
class Batch:
    """What is committed together, or not at all."""

    records: tuple[UsageRecord, ...]
    journals: tuple[JournalState, ...]
    facts: tuple[tuple[str, bytes], ...] = ()  #: instance and what the agent itself saw of it
    pools: tuple[PoolHour, ...] = ()  #: what `records` add to the sums that are kept of pools
    runs: tuple[Runs, ...] = ()  #: and to what is kept of models' runs
    calls: tuple[Call, ...] = ()  #: and of which model called which


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


class Filed(msgspec.Struct, frozen=True, gc=False):
    """What a record is found by: its row of the lookups, whatever the file says there."""

    id: object
    type: object
    time_utc_ns: object
    prediction: object
    root: object  #: None where the prediction is its own root
    account: object
    model: object


class Row(msgspec.Struct, frozen=True, gc=False):
    """A record as the audit looks at it; a field is whatever the file says, believed or not."""

    seq: int
    hash: bytes
    body: bytes
    filed: Filed | None  #: what the lookups have under this number; None where they have nothing
