"""The read-only view of a node that every face is drawn from: metrics, HTTP API, CLI.

Owns the shape. The agent builds a new value when something changed; a face formats what it finds. Refuses to
compute, to read and to know where a value came from.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from taximeter.billing.classes import Terms
from taximeter.billing.rates import RateCard
from taximeter.hardware.inventory import Device, Inventory
from taximeter.hardware.samples import DeviceSample
from taximeter.hardware.tiers import Catalogue
from taximeter.ledger.values import PoolTime

#: Upper bounds of the commit histogram, in seconds: from a fast disk to one that stalls.
COMMIT_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

#: So many devices are shown: eight GPUs cut into seven slices each are 64.
MOST_DEVICES = 128


@dataclass(frozen=True, slots=True)
class PredictionView:
    """A prediction that is open on an instance."""

    prediction: str
    phase: str  #: "load" or "active"
    started_utc: str
    account: str | None = None
    model: str | None = None
    version: str | None = None
    service_class: str = "public"
    pool: str | None = None
    parent: str | None = None
    root: str | None = None  #: itself, where nobody called it


@dataclass(frozen=True, slots=True)
class InstanceView:
    """A wrapped process that has not been closed."""

    instance: str
    phase: str  #: "boot", "idle", "active" or "teardown"; "pending" before its command was started
    started_utc: str
    since_utc: str  #: when something last changed: its phase, or who shares it
    tier: str
    account: str | None = None
    model: str | None = None
    version: str | None = None
    service_class: str = "public"
    pool: str | None = None
    worker: bool = False
    adopted: bool = False  #: its wrapper is gone, and the agent watches the command itself
    pid: int | None = None
    devices: tuple[str, ...] = ()  #: UUIDs
    rule: str = ""  #: why this tier
    evidence: str = "declared"  #: how its devices are known
    declared: tuple[str, ...] = ()  #: UUIDs that its environment names
    observed: tuple[str, ...] = ()  #: UUIDs that it was seen on
    shared_devices: tuple[str, ...] = ()  #: UUIDs that others were on, or given, as well
    predictions: Collection[PredictionView] = ()


@dataclass(frozen=True, slots=True)
class SinkView:
    """How a sink is doing."""

    name: str
    kind: str | None  #: "file", "http", "nats"; None where only the ledger knows of it
    pending: int  #: records it has not taken yet
    shipped: int = 0  #: taken since the agent's start
    failures: Mapping[str, int] = field(default_factory=dict)  #: failed attempts by reason
    last_error: str | None = None  #: None once a batch has passed
    dead_letters: int = 0  #: records that it refuses, though it takes others


@dataclass(frozen=True, slots=True)
class Commits:
    """How long commits of the ledger took, as a histogram; `counts` has one more entry: what took longer."""

    counts: tuple[int, ...] = (0,) * (len(COMMIT_BUCKETS_S) + 1)  #: by bucket of COMMIT_BUCKETS_S, not cumulative
    sum_s: float = 0.0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """What was counted since the agent's start; every number only grows."""

    records: Mapping[tuple[str, str], int] = field(default_factory=dict)  #: (type, status)
    billed_s: Mapping[tuple[str, str, str], float] = field(default_factory=dict)  #: (tier, class, meter)
    amounts: Mapping[str, Decimal] = field(default_factory=dict)  #: currency -> what was charged
    corrected: Mapping[str, Decimal] = field(default_factory=dict)  #: currency -> what was taken back, positive
    unrated: Mapping[str, int] = field(default_factory=dict)  #: tier -> records without a price
    clock_flags: Mapping[str, int] = field(default_factory=dict)  #: what was wrong with a record's clocks
    clock_faults: Mapping[str, int] = field(default_factory=dict)  #: kind, as instances saw it happen
    mismatches: Mapping[str, int] = field(default_factory=dict)  #: tier declared -> instances that used another
    journal_faults: Mapping[str, int] = field(default_factory=dict)  #: reason
    rejected_marks: Mapping[str, int] = field(default_factory=dict)  #: reason
    illegal_events: Mapping[str, int] = field(default_factory=dict)  #: kind of event
    pools: Mapping[str, PoolTime] = field(default_factory=dict)  #: how the time of each pool was used
    commits: Commits = Commits()
    orphaned: Mapping[str, int] = field(default_factory=dict)  #: how an end is known that left predictions open
    call_faults: Mapping[str, int] = field(default_factory=dict)  #: what cannot be so of who called whom
    class_mismatches: Mapping[str, int] = field(
        default_factory=dict
    )  #: class -> predictions that are published as another
    published_elsewhere: Mapping[str, int] = field(default_factory=dict)  #: tier published -> predictions on another


@dataclass(frozen=True, slots=True)
class WitnessView:
    """Who is asked when a command started and ended, beside its wrapper."""

    kernel: bool = False  #: the kernel's process events come in
    trouble: str | None = None  #: why they do not, where they were wanted
    events: int = 0  #: taken in since the agent's start
    overruns: int = 0  #: times that some were lost, because more came than were taken in


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A GPU or a slice, and how it was when it was last sampled."""

    device: Device
    sample: DeviceSample | None = None  #: None: it was never sampled
    age_s: float | None = None  #: of the sample
    energy_j: float | None = None  #: since the agent first sampled it; None where it has no counter


@dataclass(frozen=True, slots=True)
class SamplingView:
    """What is seen of the devices, and how well they are seen."""

    devices: tuple[DeviceView, ...] = ()
    lost: int = 0  #: devices that were here and do not answer
    respawns: int = 0  #: of the process that talks to NVML
    hung: int = 0  #: of these processes, those that were left behind and have not ended
    late: int = 0  #: rounds that were given up at the deadline
    errors: Mapping[str, int] = field(default_factory=dict)  #: NVML's, by name
    xids: Mapping[tuple[str, str], int] = field(default_factory=dict)  #: (UUID, "device" or "application")
    instances: Mapping[tuple[str, str], int] = field(default_factory=dict)  #: (UUID, tier)


@dataclass(frozen=True, slots=True)
class PriceListView:
    """How the list of models that the platform publishes is doing."""

    url: str  #: without its query
    tag: str | None  #: what the list in force is called; None: there never was one
    checked_unix_s: float | None  #: when it was last known to be the newest; None: not since the agent's start
    failures: Mapping[str, int] = field(default_factory=dict)  #: failed attempts by reason
    last_error: str | None = None  #: None once an answer was good


@dataclass(frozen=True, slots=True)
class Pulse:
    """How a node is, for whoever asks every second: as much of the snapshot as costs nothing, however much runs."""

    ready: bool
    alive: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A node at one moment."""

    node: str
    started_utc: str
    started_unix_s: float  #: when the agent started, for the metric
    taken_unix_s: float  #: when this view was drawn
    version: str
    ready: bool  #: the ledger takes commits, and the journals that were there at the start are read
    alive: bool = True  #: the loop turns and the commit thread answers (the agent's own watchdog says so)
    region: str | None = None
    config: str | None = None  #: "sha256:…" of the configuration in force
    problems: tuple[str, ...] = ()  #: sentences for people: why it is not ready, what needs a hand
    instances: tuple[InstanceView, ...] = ()
    refused_marks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  #: of which instance, by reason
    counters: Counters = Counters()
    ledger_id: str = ""
    ledger_seq: int = 0  #: number of the newest record; 0 is none
    ledger_hash: str = ""
    set_aside: int = 0  #: damaged ledgers that lie beside it
    sinks: tuple[SinkView, ...] = ()
    hardware: Inventory | None = None  #: None until it was read
    catalogue: Catalogue | None = None  #: the tiers in force
    card: RateCard | None = None  #: the prices in force
    price_list: PriceListView | None = None  #: None where none is asked for
    terms: Terms | None = None  #: of the public class, as they are in force
    node_tier: str = "unknown"  #: what an instance that may use every device would be sold as
    node_tier_rule: str = ""
    witness: WitnessView = WitnessView()
    sampling: SamplingView = SamplingView()
    denied: int = 0  #: accounts, and models of one, that are refused now
    reader_lag_s: float = 0.0  #: how long the oldest unread journal bytes have waited
