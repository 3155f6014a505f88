"""What happened, as frozen values: the facts of a journal and those that the agent saw itself.

Owns the vocabulary that crosses from the doors (journal, kernel, hardware) into the core. Time is data:
every event carries `at_ns`, CLOCK_MONOTONIC in nanoseconds of the boot named by the instance's clock.
Values, for one is made for each line of every journal; marks are dataclasses, which a fact keeps by their names.
A kept state holds an opening as a row of its fields: a new one goes last and has a default.
Refuses to know bytes, files, money and records.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from taximeter.hardware.inventory import Hardware
from taximeter.values import Value


class ServiceClass(StrEnum):
    """Who pays for which phase (contracts, section 5)."""

    PUBLIC = "public"
    PRIVATE = "private"
    FAST_BOOT = "fast_boot"
    DEPLOYMENT = "deployment"
    TRAINING = "training"


class Status(StrEnum):
    """How a prediction stands or ended."""

    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    ABORTED = "aborted"


class StopReason(StrEnum):
    """Why an instance was asked to stop: by its customer, by the platform, or to finish what it has."""

    CANCELED = "canceled"
    ABORTED = "aborted"
    DRAIN = "drain"


class Source(StrEnum):
    """The witness of an instant, best first."""

    KERNEL = "kernel"
    WRAPPER = "wrapper"
    AGENT = "agent"
    MARK = "mark"
    HEARTBEAT = "heartbeat"


class Oom(StrEnum):
    """Whose want of memory the kernel killed a command for; where that is not known there is no word."""

    LIMIT = "limit"  #: a memory limit of its own, or of a group that it is in
    NODE = "node"  #: the node had none left
    NONE = "none"  #: nobody's: it was killed for something else


#: No labels, no units: what is left out, once for all.
NOTHING: Mapping[str, str] = {}


#: What is assumed of wrappers that do not say how long they took to read the clocks.
UNTOLD_NS = 10_000_000


class Clock(Value):
    """The three clocks and the calendar, read one after the other, MONOTONIC first."""

    monotonic: int  #: CLOCK_MONOTONIC, ns
    boottime: int  #: CLOCK_BOOTTIME, ns
    raw: int  #: CLOCK_MONOTONIC_RAW, ns
    realtime: int  #: CLOCK_REALTIME, ns since 1970 UTC; a label only, never subtracted
    boot_id: str
    took_ns: int = UNTOLD_NS  #: none of them was read later than this after MONOTONIC
    utc_error_ns: int | None = None  #: how far off the kernel says that REALTIME may be; None: nobody knows


class TimeOffsets(Value):
    """By how much the clocks of a time namespace are ahead of the machine's own (time_namespaces(7))."""

    monotonic: int = 0  #: of CLOCK_MONOTONIC and CLOCK_MONOTONIC_RAW, ns
    boottime: int = 0


class Usage(Value):
    """What the process and its waited-for children used so far; None is unknown, never zero."""

    cpu_ns: int | None = None
    rss_peak_bytes: int | None = None


NO_USAGE = Usage()


class Options(Value):
    """What `taximeter run` was told; None is left open, for marks to set."""

    worker: bool = False
    model: str | None = None
    version: str | None = None
    account: str | None = None
    service_class: ServiceClass | None = None
    pool: str | None = None
    prediction: str | None = None  #: the one-shot's prediction id; None for a worker
    parent: str | None = None
    root: str | None = None
    labels: Mapping[str, str] = NOTHING
    units: Mapping[str, str] = NOTHING  #: unit name -> decimal string
    on_term: StopReason = StopReason.CANCELED
    ready: str = "exec"


class Opened(Value):
    """A wrapper began an instance's journal (or a segment of it)."""

    at_ns: int
    instance: str
    segment: int
    argv: tuple[str, ...]
    options: Options
    clock: Clock
    uid: int
    wrapper_pid: int
    visible: Mapping[str, str] = NOTHING  #: CUDA_VISIBLE_DEVICES and its kin
    traceparent: str | None = None
    timens: TimeOffsets | None = (
        None  #: of the time namespace that the wrapper is in, if its clocks are not the machine's
    )
    session: int | None = None  #: that the wrapper is in, by the pid of its leader there; None: it did not say
    pid_namespace: str | None = None  #: that the wrapper is in, if a pid there is none of the machine's


class Spawned(Value):
    """The command runs: posix_spawn was called at `before_ns` and had returned at `at_ns`."""

    at_ns: int
    before_ns: int
    pid: int
    start_ticks: int | None  #: field 22 of /proc/PID/stat; with the boot id it makes the pid unique
    # What the agent puts beside the wrapper's words:
    host_pid: int | None = None  #: the pid as the agent sees it; another one where the wrapper is in a pid namespace
    exec_ns: int | None = None  #: the kernel's own stamp of the exec
    source: Source = Source.WRAPPER  #: who says so


class BecameReady(Value):
    """The instance can take work: since `at_ns`, or for `within_ns` longer, where that was found out by asking."""

    at_ns: int
    by: str
    within_ns: int = 0


class ReadyTimedOut(Value):
    """It did not become ready in the time it was given; noted, and stops nothing."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class StartMark:
    """A worker took on a prediction."""

    prediction: str
    model: str | None = None
    version: str | None = None
    account: str | None = None
    service_class: ServiceClass | None = None
    pool: str | None = None
    parent: str | None = None
    root: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    pid: int | None = None
    detached: bool = False
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class ActiveMark:
    """A prediction's fine-tune is loaded: it processes now."""

    prediction: str


@dataclass(frozen=True, slots=True)
class UnitsMark:
    """Increments of what a prediction took in or put out, as decimal strings."""

    prediction: str | None  #: None: the one-shot's own
    units: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FinishMark:
    """A prediction ended."""

    prediction: str
    status: Status
    units: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadyMark:
    """The worker says that it is ready."""


@dataclass(frozen=True, slots=True)
class StoppingMark:
    """The worker says that it is about to stop, and why."""

    reason: StopReason = StopReason.DRAIN


Mark = StartMark | ActiveMark | UnitsMark | FinishMark | ReadyMark | StoppingMark


class Marked(Value):
    """A mark as it was received at `at_ns`; `said_ns` is the sender's claim of when, if it made one."""

    at_ns: int
    mark: Mark
    said_ns: int | None = None
    held: bool = False  #: read by the agent, which holds the command: that one has lived without a break until then


class BadMark(Value):
    """A mark that could not be read; kept in the journal, counted, and otherwise without effect."""

    at_ns: int
    reason: str  #: a bounded word for the metric
    held: bool = False  #: as of a mark


class Stopping(Value):
    """The instance was asked to stop, or says that it stops."""

    at_ns: int
    reason: StopReason


class Signaled(Value):
    """A signal reached the wrapper."""

    at_ns: int
    signal: int
    by_kernel: bool  #: a terminal's Ctrl-C, a hang-up: the kernel gave it to the whole group
    outside: bool  #: the sender is not known to be a process of the instance itself
    sender: int | None = None  #: its pid as the wrapper sees it; None where the kernel sent it, or it is out of sight


class Heartbeat(Value):
    """The wrapper lives, and so does its command."""

    at_ns: int
    clock: Clock
    usage: Usage = NO_USAGE


class Alive(Value):
    """The agent holds the command itself: it has lived without a break since it was first seen, whoever was silent.

    The agent's own heartbeat for an instance whose wrapper is gone.
    """

    at_ns: int
    clock: Clock
    usage: Usage = NO_USAGE


class Observed(Value):
    """On which devices the agent has seen an instance so far, and which of them others were on meanwhile.

    The agent's own fact, made when there is something new to say. Evidence, and no sign of life: it moves no time.
    """

    at_ns: int  #: the last look that saw it on a device, before this was said
    since_ns: int  #: the first one
    hardware: Hardware | None  #: all that it was seen on, placed together; None: on nothing
    shared: tuple[str, ...] = ()  #: UUIDs of its devices that another open instance was given or seen on


class Measured(Value):
    """What an instance's processes used until `at_ns`, together; None is unknown, never zero. The agent's own fact."""

    at_ns: int
    cpu_ns: int | None = None
    rss_peak_bytes: int | None = None
    gpu_memory_peak_bytes: int | None = None
    energy_mj: int | None = None  #: since its first Measured
    energy_source: str | None = None  #: "counter", or "power": integrated


class Held(Value):
    """How much memory a worker's processes held together at a look. The agent's own fact, told as it looks."""

    at_ns: int
    size_bytes: int
    on_devices: bool = False  #: the memory of its devices, not of the node


class OwnerEnded(Value):
    """A process that had started predictions has ended, or is nowhere to be found. The agent's own fact.

    It tells of a moment that has passed, after everything that was said before it.
    """

    at_ns: int  #: when this is told
    pid: int  #: as its start marks have it
    ended_ns: int | None  #: None: nobody saw it end
    until_ns: int  #: whatever that pid started later is another process's
    source: Source = Source.AGENT


class OwnersHeld(Value):
    """Of these pids, as start marks have them, the agent holds the process: it lives, or outlived the command.

    The agent's own fact, told before an instance's end.
    """

    at_ns: int
    pids: tuple[int, ...]


class Exited(Value):
    """The command ended; with `error`, it never started (and there was no Spawned)."""

    at_ns: int
    code: int | None
    signal: int | None
    core_dumped: bool
    clock: Clock | None
    usage: Usage = NO_USAGE
    error: str | None = None
    source: Source = Source.WRAPPER
    dropped: int = 0  #: facts before this one that found no room on the disk
    kernel_ns: int | None = None  #: the kernel's own stamp of the end
    oom: str | None = None  #: an Oom, where the wrapper knows
    left: int | None = None  #: descendants that lived on


class Lost(Value):
    """Nobody saw the end: the wrapper is gone and so is the command.

    `at_ns` is when the agent found out, by the clock of the same boot; None after a reboot, when the last
    sign of life is all there is.
    """

    at_ns: int | None
    reason: str  #: "wrapper_lost", "rebooted" or "unwritten"
    clock: Clock | None = None


class Unread(Value):
    """A line of the journal that nobody can read: it may have said anything, between the lines around it."""

    at_ns: int | None = None  #: nobody knows


Event = (
    Opened
    | Spawned
    | BecameReady
    | ReadyTimedOut
    | Marked
    | BadMark
    | Stopping
    | Signaled
    | Heartbeat
    | Alive
    | Observed
    | Measured
    | Held
    | OwnerEnded
    | OwnersHeld
    | Exited
    | Lost
    | Unread
)
