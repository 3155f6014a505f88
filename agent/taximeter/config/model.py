"""What the agent is told, as frozen values.

Owns the names and units of the settings; what they default to is in the shipped agent.toml and nowhere else.
Refuses to know files and how any of it is checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from taximeter.billing.classes import Classes
from taximeter.billing.invoice import Rounding
from taximeter.billing.rates import RateCard
from taximeter.billing.spending import Spending
from taximeter.hardware.evidence import OnMismatch
from taximeter.hardware.tiers import Catalogue


@dataclass(frozen=True, slots=True)
class Node:
    """Who this node is."""

    id: str | None  #: None: the hostname at first start, kept
    region: str | None


@dataclass(frozen=True, slots=True)
class Listen:
    """Where HTTP is served."""

    host: str
    port: int  #: 0: any free one
    unix: str | None = None  #: path of a Unix socket where it is served, too


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """Whose journals are booked, how often the directory is looked at without being told to, and a disk's end."""

    owners: tuple[str, ...]  #: user names and uids as they were written; "self", "any"
    owner_uids: frozenset[int] | None  #: what they mean here; None: anybody's
    poll_s: float
    open_per_owner: int  #: so many open instances of one user are booked at a time
    when_full: str  #: "unknown": runs start all the same; "refuse": none does while the disk is full


@dataclass(frozen=True, slots=True)
class MarkSettings:
    """How far a mark's own claim of time is believed."""

    belief_ms: int


@dataclass(frozen=True, slots=True)
class BillingSettings:
    """How records are cut, and who pays for what."""

    interim_s: int
    classes: Classes
    corrects_late: bool = True  #: what was billed before a card came that was in force by then


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """How much is committed at once."""

    commit_delay_ms: int
    batch: int
    checkpoint_records: int  #: sealed after so many new ones
    checkpoint_s: float  #: and after so long, if there are any
    keep_days: float  #: records are kept for so long, and until every sink has them; 0: for ever


@dataclass(frozen=True, slots=True)
class HardwareSettings:
    """How devices are read."""

    nvml: bool
    deadline_s: float  #: of one round
    sample_s: float  #: from one round to the next
    on_mismatch: OnMismatch  #: which tier bills where declared and observed devices differ


@dataclass(frozen=True, slots=True)
class WitnessSettings:
    """Who is asked when a command started and ended."""

    kernel: bool  #: its process events, where the agent may listen to them


@dataclass(frozen=True, slots=True)
class PriceListSettings:
    """Where the platform publishes its models with their prices."""

    url: str
    key_file: Path | None  #: what goes into `x-api-key`
    poll_s: float
    timeout_s: float


@dataclass(frozen=True, slots=True)
class SinkConfig:
    """Where records go."""

    name: str
    type: str  #: "file", "http" or "nats"
    path: Path | None = None  #: file: where the lines are appended
    rotate_bytes: int | None = None  #: file: beyond which another is begun; None: never
    keep: int | None = None  #: file: how many full ones stay; None: all
    url: str | None = None  #: http: where batches are posted; nats: the server
    read_url: str | None = None  #: http: where what was posted can be read again
    subject: str | None = None  #: nats: what records are published under
    token_file: Path | None = None
    user: str | None = None  #: nats: whose password is in token_file
    creds_file: Path | None = None  #: nats: instead of these, what a challenge is signed with
    timeout_s: float = 10.0
    gzip: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the agent is told, checked."""

    source: str  #: the file, or "agent.toml (shipped)"
    node: Node
    listen: Listen
    journal: JournalSettings
    marks: MarkSettings
    billing: BillingSettings
    ledger: LedgerSettings
    hardware: HardwareSettings
    witness: WitnessSettings
    sinks: tuple[SinkConfig, ...]
    catalogue: Catalogue
    rate_card: RateCard
    spending: Spending  #: when accounts are charged early, and who is refused
    refuse_without_agent: bool
    content: Mapping[str, object]  #: agent.toml as it is in force, as plain JSON values
    tiers_content: Mapping[str, object]  #: tiers.toml, as plain JSON values
    price_list: PriceListSettings | None = None
    invoice: Mapping[str, Rounding] = field(default_factory=dict)  #: by currency; for show alone
    notes: tuple[str, ...] = ()  #: what is legal and may yet surprise, e.g. a tier without a price
