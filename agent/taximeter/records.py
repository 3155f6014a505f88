"""What is kept: usage records, whose fields are named and ordered as in the published schema.

Owns the shape that billing reads: plain parts of a record are typed dicts, which are what is written, and what is
kept or compared is a frozen value. Durations are integer nanoseconds, quantities and money decimal strings.
Refuses to know how a record came about, how it is chained and where it goes; the ledger adds its envelope
(source, node, ledger) when it writes the bytes that are shipped.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import TypedDict

from taximeter.values import Part, Value

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/json"


class RecordType(StrEnum):
    """The CloudEvents types that Taximeter emits."""

    PREDICTION = "taximeter.usage.prediction.v1"
    INSTANCE = "taximeter.usage.instance.v1"
    CORRECTION = "taximeter.usage.correction.v1"
    FACT = "taximeter.ledger.fact.v1"
    THRESHOLD = "taximeter.charge.threshold.v1"
    GRANT = "taximeter.credit.grant.v1"
    CHECKPOINT = "taximeter.ledger.checkpoint.v1"


#: Why what was told beyond a prediction's true end is taken back: its finish came late, or its process was found to
#: have ended, or not to be there, or its finish may have been in a line that nobody can read.
LATE_FINISH, OWNER_ENDED, OWNER_UNSEEN, LINE_UNREAD = "late_finish", "owner_ended", "owner_unseen", "line_unread"
TAKEN_BACK = frozenset({LATE_FINISH, OWNER_ENDED, OWNER_UNSEEN, LINE_UNREAD})
#: Why an instance's own time is corrected then: it was told to be active, and was idle, or on its way out.
FREED = "freed"

#: Why a prediction that had no price is billed after all: its card, or its units, came later.
RERATED = "rerated"

#: The subject of what no customer pays for, and of what nobody is known to pay for.
PLATFORM = "platform"
UNATTRIBUTED = "unattributed"


class Interval(TypedDict):
    """A half-open stretch of one boot's CLOCK_MONOTONIC, with its UTC labels."""

    start_utc: str
    end_utc: str
    start_ns: int
    end_ns: int
    boot_id: str


class PredictionTime(TypedDict):
    """Where a prediction's nanoseconds went; wall = end - start + suspended."""

    wall_ns: int
    load_ns: int
    active_ns: int
    share_ns: int
    suspended_ns: int
    unknown_ns: int


class InstanceTime(TypedDict):
    """Where an instance's nanoseconds went: the six parts add up to wall, exactly."""

    wall_ns: int
    boot_ns: int
    idle_ns: int
    active_ns: int
    teardown_ns: int
    suspended_ns: int
    unknown_ns: int


class Concurrency(TypedDict):
    """How many predictions were active together while this one was."""

    mean: str
    max: int


class Witness(Part):
    """Who saw an instant, and how far off it may have been."""

    source: str
    uncertainty_ns: int | None  #: None where nothing bounds it


class Timing(TypedDict):
    """The witnesses of both ends, and what the clocks did in between ("ok", or words of clockwork joined by `+`)."""

    start: Witness
    end: Witness
    clock: str
    utc_uncertainty_ns: int | None  #: of the UTC labels; None where nobody knows


class DeviceUse(Part):
    """A device as a record names it."""

    uuid: str
    name: str
    memory_bytes: int | None


class HardwareUse(Part):
    """The tier that is billed and the devices behind it."""

    tier: str
    count: int
    devices: tuple[DeviceUse, ...]
    evidence: str
    rule: str = ""  #: why this tier, in words
    declared: tuple[str, ...] = ()  #: UUIDs that the environment names
    observed: tuple[str, ...] = ()  #: UUIDs that it was seen on so far
    shared: bool = False  #: another instance was on one of them, or was given it, at the same time
    shared_devices: tuple[str, ...] = ()


class HardwareElsewhere(HardwareUse):
    """Another tier than the one that its model is published with."""

    published: str = ""


class Resources(TypedDict):
    """What was used beside time; null is unknown."""

    cpu_ns: int | None
    rss_peak_bytes: int | None
    gpu_memory_peak_bytes: int | None
    energy_mj: int | None
    energy_source: str | None  #: "counter", "power" (integrated); None where there is no energy


class BillingStatus(StrEnum):
    """What a record means for the bill."""

    RATED = "rated"
    INFORMATIVE = "informative"  #: another record bills this time
    FREE = "free"  #: it has a price, and that comes to nothing here: amount 0, and why
    UNRATED = "unrated"  #: no price was found: amount null, flagged, never a guess


class Line(Part):
    """One priced line: amount = price(totals to date) - price(totals before)."""

    meter: str
    quantity: str
    unit: str
    rate: str
    multiplier: str
    amount: str


class Billing(Part):
    """What this interval costs."""

    status: str
    lines: tuple[Line, ...]
    amount: str | None
    currency: str | None
    rate_card: str | None
    reason: str | None = None  #: why it is unrated, or comes to nothing


class Exit(Part):
    """How an instance's command ended; on its last record only."""

    code: int | None
    signal: int | None
    oom: bool | None
    reason: str
    left_running: int | None
    core: bool | None = None  #: whether it left a core dump
    ready: bool | None = None  #: whether it ever was; a boot that never became ready bills nothing


class UsageRecord(Value):
    """One immutable line for billing, before the ledger numbers and chains it."""

    id: str
    type: RecordType
    subject: str
    time_utc_ns: int  #: start of the interval, so that a late record belongs to its period
    data: Mapping[str, object]  #: the published `data`, less `node` and `ledger`

    # What the ledger files it under:
    instance: str | None = None
    prediction: str | None = None
    root: str | None = None
    account: str | None = None
    model: str | None = None
    #: Of a prediction on a pool: how much hardware time it is that somebody pays for, signed; None: its lines say it.
    sold_ns: int | None = None


def fact(record_id: str, now_utc_ns: int, said: tuple[str, str, object]) -> UsageRecord:
    """A record of what was put in force, or became of the ledger: its kind, the hash of its content, the content."""
    kind, known_as, content = said
    data = {"fact": kind, "hash": known_as, "content": content}
    return UsageRecord(record_id, RecordType.FACT, PLATFORM, now_utc_ns, data)


@lru_cache(maxsize=256)
def utc_text(realtime_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds, e.g. `2026-11-22T10:00:03.123456789Z`."""
    seconds, fraction = divmod(realtime_ns, 1_000_000_000)
    return f"{_second_text(seconds)}.{fraction:09d}Z"


@lru_cache(maxsize=256)
def _second_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
