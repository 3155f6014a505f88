"""What is known of a living instance: frozen state, small enough to be kept in the ledger with every commit.

Owns the shape of the state between two events; plain values, so that a door can write and read it.
Refuses to know how it changes (meter, spans) and how it is told (booking).
"""

from collections.abc import Mapping

from taximeter.clockwork import Reading
from taximeter.events import Held, Measured, Observed, Opened, ServiceClass, Source, Status, StopReason, Usage
from taximeter.hardware.inventory import Evidence, Hardware
from taximeter.lifecycle import Stage
from taximeter.records import Witness
from taximeter.values import Value, replace

_NOT_STARTED = Witness(Source.WRAPPER, None)
_NO_USAGE = Usage()
_NONE: Mapping[str, str] = {}


class Phases(Value):
    """An instance's nanoseconds by phase, to date. `crowd` is the integral of active predictions over time."""

    boot: int = 0
    idle: int = 0
    active: int = 0
    teardown: int = 0
    suspended: int = 0
    unknown: int = 0
    crowd: int = 0


class Times(Value):
    """A prediction's nanoseconds, to date."""

    load: int = 0
    active: int = 0
    share: int = 0
    suspended: int = 0
    unknown: int = 0
    crowd: int = 0


class Drawn(Value):
    """A prediction's part of what its instance drew, to date, and at its last cut."""

    energy_mj: int
    share_ns: int  #: its share when that was last measured
    cut_mj: int = 0
    cpu_ns: int = 0
    cut_cpu_ns: int = 0


class Looks(Value):
    """The last look at each kind of memory."""

    node: Held | None = None
    devices: Held | None = None


class Peaks(Value):
    """The most memory that its instance held at looks while a prediction was open, but for the last ones; bytes."""

    node: int | None = None
    devices: int | None = None


class Prediction(Value):
    """One open prediction. Its times are settled to the instance's `since_ns`."""

    id: str
    model: str | None
    version: str | None
    account: str | None
    service_class: ServiceClass
    pool: str | None
    parent: str | None
    root: str
    attributes: Mapping[str, str]
    traceparent: str | None
    card: str | None  #: hash of the rate card that was in force at its start
    start_ns: int
    start: Witness
    active: bool  #: False while its fine-tune loads
    times: Times = Times()
    crowd_max: int = 0  #: so many were active together, it among them, since the last cut
    units: Mapping[str, str] = _NONE  #: counted since the last cut
    cut_ns: int = 0
    cut_times: Times = Times()
    last_interim: str | None = None  #: id of its latest interim record, for a correction to name
    faults: int = 0  #: what the clocks did since the last cut, as bits of clockwork
    tier: str | None = None  #: that its last interim record was billed at
    drawn: Drawn | None = None  #: None: nothing is known of it
    peaks: Peaks = Peaks()
    owner: int | None = None  #: pid of the process that it ends with, as its start mark has it; None: the command
    marked_ns: int = 0  #: when something was last said of it
    units_total: Mapping[str, str] = _NONE  #: counted to date
    devices: int = 0  #: of the tier that its last interim record was billed at
    doubted: bool = False  #: a line was lost in which its end may have been, and nothing was said of it since

    @property
    def units_to_date(self) -> Mapping[str, str]:
        """All that was counted; an older agent kept what it had counted since the last cut, and no more."""
        return self.units_total or self.units


class Ended(Value):
    """A prediction that has ended, as its last record told it; its tier is what it was billed at.

    Or what was taken back of one: `less`, of which its times are what was left.
    """

    prediction: Prediction
    status: Status
    slept_ns: int = 0  #: how long the machine had slept by then
    less: Times | None = None


class Verdict(Value):
    """On what an instance runs, and how that is known."""

    evidence: Evidence
    observed: Observed | None


class Review(Value):
    """What has ended is looked through again, since by this verdict another tier bills it: records `at` to `until`."""

    by: Verdict
    at: int
    until: int
    again: bool = (
        False  #: another tier billed meanwhile, perhaps for a while only: what came since is to be reviewed, too
    )


class Reviewed(Value):
    """By which verdict all is billed that had ended before record `until`."""

    by: Verdict
    until: int


class Cut(Value):
    """Where the instance's last record ended, and its totals there."""

    at_ns: int
    phases: Phases = Phases()
    readied: bool = False
    cpu_ns: int = 0
    interim: str | None = None  #: id of the instance's record there, for a correction to name
    tier: str | None = None  #: that it was billed at
    energy_mj: int = 0


class Freed(Value):
    """What was told as active and was not, for it ended before: what it was instead, in nanoseconds."""

    idle: int = 0
    teardown: int = 0


class Piece(Value):
    """A stretch of an instance's life that is over, under a rate card which another one followed."""

    card: str | None  #: its hash
    since: Phases  #: totals where it began
    until: Phases  #: and where it ended; a boot that had not led to ready is left to the next one
    at_ns: int
    interim: str | None  #: id of its last record, for a correction to name
    tier: str | None  #: that it was billed at
    freed: Freed = Freed()


class Instance(Value):
    """One wrapped process with its descendants, from exec to exit."""

    opened: Opened
    rules: str  #: hash of the rules in force when it began
    card: str | None  #: hash of the rate card in force when it began
    hardware: Hardware | None = None
    stage: Stage = Stage.PENDING
    pid: int | None = None  #: the command's, as the wrapper sees it
    start_ns: int = 0
    start: Witness = _NOT_STARTED
    since_ns: int = 0  #: times are settled to here
    sign_ns: int = 0  #: the last sign of life
    offset_ns: int = 0  #: BOOTTIME - MONOTONIC when last looked at; growth is suspension
    phases: Phases = Phases()
    predictions: tuple[Prediction, ...] = ()
    crowd: int = 0  #: how many of them are active
    crowd_max: int = 0  #: so many at once since the last cut
    readied: bool = False
    cut: Cut = Cut(0)
    next_cut_ns: int = 0
    records: int = 0
    stop: StopReason | None = None
    interrupted: int | None = None  #: the terminal's signal, so that dying of it is a cancelation
    usage: Usage = _NO_USAGE
    lost: bool = False  #: time passes unseen: it counts as unknown
    host_pid: int | None = None  #: the command's pid as the agent sees it
    start_ticks: int | None = None  #: when that process was started; with the boot id it makes the pid unique
    adopted: bool = False  #: its wrapper is gone, and the agent watches the command itself
    reading: Reading | None = None  #: of the clocks, from which is measured what they do; None: the opening's
    faults: int = 0  #: what the clocks did since the last cut, as bits of clockwork
    utc_error_ns: int | None = None  #: how far off its UTC labels may be; None where nobody knows
    heard_bytes: int = 0  #: how much was booked of what the agent itself heard, in the file where it keeps that
    observed: Observed | None = None  #: what it was seen on
    evidence: Evidence = Evidence.DECLARED
    measured: Measured | None = None
    ended: tuple[Ended, ...] = ()  #: of older agents, which kept some here; all of it is in the ledger's records
    spawned_ns: int = (
        0  #: when the wrapper's call to spawn the command had returned, or the exec was, whichever is later
    )
    looks: Looks = Looks()  #: at the memory of a worker
    settled: int = 0  #: what ended before that record keeps its price
    review: Review | None = None
    reviewed: Reviewed | None = None
    held: tuple[int, ...] = ()  #: owners that the agent holds, as told before the end
    pieces: tuple[Piece, ...] = ()  #: of a class that is sold online, what is over of it under earlier rate cards
    stop_ns: int = 0  #: when the stop was
    freed: Freed = Freed()  #: of what was told under the rate card in force
    lag_ns: int = 0  #: so much earlier times would be settled, had nothing been cut
    unread: bool = False  #: a line of its journal was lost, in which it may have been stopped
    hidden: int = 0  #: so many more may be active, whose starts were in lines that were lost
    repriced: tuple[str, ...] = ()  #: cards that came late to it: once it is over its records are settled by them

    @property
    def service_class(self) -> ServiceClass:
        """The class the instance itself is of; what was left open is public."""
        return self.opened.options.service_class or ServiceClass.PUBLIC

    @property
    def told(self) -> Piece:
        """What its interim records have told under the card in force; a boot that has led to nothing yet is to come."""
        cut, since = self.cut, self.pieces[-1].until if self.pieces else Phases()
        until = cut.phases if cut.readied else replace(cut.phases, boot=since.boot)
        return Piece(self.card, since, until, cut.at_ns, cut.interim, cut.tier, self.freed)
