"""Random histories of everything that can befall a node, in simulated time, against a small model (stopwatch).

Injects: wrappers that are stopped, killed, killed with their command; commands that end in any way, seen by anybody or
nobody; an agent that is killed and goes on from what it had saved, through its own codec, reading facts in pieces of
any length; a machine that sleeps or reboots; marks that come late, out of order, twice, or make no sense. Each history
ends with the laws checked.

TAXIMETER_SOAK=N runs N histories instead of the few that the suite has time for.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from taximeter.events import (
    Alive,
    BadMark,
    BecameReady,
    Clock,
    Event,
    Exited,
    FinishMark,
    Heartbeat,
    Lost,
    Mark,
    Marked,
    Opened,
    Options,
    OwnerEnded,
    OwnersHeld,
    ReadyTimedOut,
    Signaled,
    Source,
    Spawned,
    StartMark,
    Status,
    Stopping,
    Usage,
)
from taximeter.hardware.inventory import Hardware
from taximeter.instance import Instance
from taximeter.lifecycle import Stage
from taximeter.meter import fold, open_instance
from taximeter.records import RecordType, UsageRecord
from taximeter.rulebook import Rulebook
from taximeter.values import replace
from tests.core.draws import (
    ENDED,
    ENDS,
    GAPS,
    INTERIMS,
    MARKS,
    MATRICES,
    MOSTLY,
    OPTIONS,
    READ,
    REASONS,
    SAID_BEFORE,
    SELDOM,
    STARTS,
    WHICH,
    around,
)
from tests.core.reading_back import taken_up
from tests.core.stopwatch import BEAT_NS, ONLINE, Life, Row
from tests.core.stories import BOOT_ID, MS, REALTIME_AT_ZERO, SECOND, book, card, in_pieces
from tests.core.verdict import billed, check, data_of

SOAK = int(os.environ.get("TAXIMETER_SOAK", "0"))
pytestmark = pytest.mark.timeout(0 if SOAK else 600)  # with every branch counted, a hundred take two minutes


FOREVER_NS = 10**18
PRICE = "0.000123457"
WELL = Exited(0, 0, None, core_dumped=False, clock=None)


@dataclass
class Ride:
    """One instance: what truly is, what was written, and what the agent made of it so far."""

    options: Options
    opened: Opened
    life: Life
    state: Instance
    running: bool = False
    end: Exited = WELL  #: how the command ended
    wrapper: str = "awake"  #: or "stopped", "gone"
    beat_ns: int = 0
    unread: list[tuple[Mark, int | None]] = field(default_factory=list)  #: marks in the FIFO, with when they were said
    facts: list[Event] = field(default_factory=list)
    taken: int = 0
    records: list[UsageRecord] = field(default_factory=list)
    saved: tuple[Instance | None, int, int] = (None, 0, 0)

    def write(self, fact: Event) -> None:
        self.facts.append(fact)
        self.life.hear(fact)

    @property
    def is_attended(self) -> bool:
        return self.running and self.wrapper == "awake"


class Histories(RuleBasedStateMachine):
    """A node over time."""

    @initialize(interim_ns=INTERIMS, matrix=MATRICES, at_ns=around(10, 100), took_ns=READ, options=OPTIONS)
    def node(self, interim_ns: int, matrix: Mapping[str, Row], at_ns: int, took_ns: int, options: Options) -> None:
        self.now_ns, self.slept_ns, self.took_ns = at_ns, 0, took_ns
        self.matrix = matrix
        self.interim_ns = interim_ns
        self.rules = self.make_rules(interim_ns)
        self.rides: list[Ride] = []
        self.begins(options, spawns=True, ready=True, seen=True)

    def make_rules(self, interim_ns: int) -> Rulebook:
        return book(interim_ns, (card(PRICE),), **self.matrix)

    def clock(self) -> Clock:
        slept_ns = self.now_ns + self.slept_ns
        return Clock(self.now_ns, slept_ns, self.now_ns, REALTIME_AT_ZERO + slept_ns, BOOT_ID, self.took_ns)

    def ride(self, which: int) -> Ride:
        """One of those that have not ended, while there are any."""
        rides = [ride for ride in self.rides if ride.life.end is None] or self.rides
        return rides[which % len(rides)]

    # --- What happens on the node ---

    @precondition(lambda self: len(self.rides) < 3)
    @rule(options=OPTIONS, spawns=MOSTLY, ready=MOSTLY, seen=st.booleans())
    def begins(self, options: Options, spawns: bool, ready: bool, seen: bool) -> None:
        name = f"0198c2aa-0000-7000-8000-00000000000{len(self.rides)}"
        opened = Opened(self.now_ns, name, 0, ("true",), options, self.clock(), 0, 4000)
        life = Life(options, self.now_ns, self.slept_ns, self.interim_ns)
        ride = Ride(options, opened, life, self.open(opened, self.rules))
        ride.saved = (taken_up(ride.state), 0, 0)
        self.rides.append(ride)
        if spawns:
            self.spawns(len(self.rides) - 1, 300_000, seen)
            if ready:
                ride.write(BecameReady(self.now_ns, "exec"))

    def open(self, opened: Opened, rules: Rulebook) -> Instance:
        return open_instance(opened, rules, Hardware("cpu", 1, rule="test"))

    @precondition(lambda self: self.rides)
    @rule(which=WHICH, took_ns=around(0, 9), seen=st.booleans())
    def spawns(self, which: int, took_ns: int, seen: bool) -> None:
        ride = self.ride(which)
        if ride.wrapper == "awake":
            self.now_ns += took_ns
            exec_ns = self.now_ns - took_ns // 3 if seen else None
            ride.write(Spawned(self.now_ns, self.now_ns - took_ns, 4711, 12345, exec_ns=exec_ns))
            ride.running = ride.life.end is None
            ride.beat_ns = self.now_ns + BEAT_NS

    @precondition(lambda self: self.rides)
    @rule(which=WHICH, marks=st.lists(st.tuples(MARKS, GAPS), min_size=1, max_size=4))
    def talks(self, which: int, marks: list[tuple[Mark, int]]) -> None:
        for mark, gap_ns in marks:
            self.says(which, mark, 0)
            self.time_passes(gap_ns)

    @rule(gap_ns=GAPS)
    def time_passes(self, gap_ns: int) -> None:
        """Whoever is awake beats each second."""
        until_ns = self.now_ns + gap_ns
        while beating := [ride for ride in self.rides if ride.is_attended and ride.beat_ns <= until_ns]:
            ride = min(beating, key=lambda ride: ride.beat_ns)
            self.now_ns = max(self.now_ns, ride.beat_ns)
            self.beat(ride)
        self.now_ns = until_ns

    def beat(self, ride: Ride) -> None:
        ride.write(Heartbeat(self.now_ns, self.clock(), Usage(self.now_ns // 2, None)))
        ride.beat_ns = self.now_ns + BEAT_NS

    @precondition(lambda self: self.rides)
    @rule(which=WHICH, mark=MARKS, before_ns=SAID_BEFORE)
    def says(self, which: int, mark: Mark, before_ns: int | None) -> None:
        """A mark goes into the FIFO, whoever reads it and when."""
        ride = self.ride(which)
        if ride.running:
            ride.unread.append((mark, None if before_ns is None else self.now_ns - before_ns))
            self.take_marks(ride)

    @precondition(lambda self: any(ride.life.here for ride in self.rides))
    @rule(which=WHICH, whom=st.integers(0, 2), status=ENDED, before_ns=SAID_BEFORE)
    def finishes(self, which: int, whom: int, status: Status, before_ns: int | None) -> None:
        """A finish of somebody who is there, now or, by its own word, long ago."""
        here = self.ride(which).life.here
        if here:
            self.says(which, FinishMark(here[whom % len(here)].name, status, {"image": "1"}), before_ns)

    @precondition(lambda self: self.rides)
    @rule(which=WHICH)
    def is_ready(self, which: int) -> None:
        ride = self.ride(which)
        if ride.is_attended:
            ride.write(BecameReady(self.now_ns, "notify"))

    @precondition(lambda self: self.rides)
    @rule(which=WHICH, marks=st.lists(st.tuples(STARTS, GAPS), min_size=1, max_size=4))
    def is_busy(self, which: int, marks: list[tuple[StartMark, int]]) -> None:
        """One prediction after the other, over one another."""
        for mark, gap_ns in marks:
            self.says(which, mark, None)
            self.time_passes(gap_ns)

    def take_marks(self, ride: Ride) -> None:
        if ride.wrapper == "awake":
            for mark, said_ns in ride.unread:
                ride.write(Marked(self.now_ns, mark, said_ns))
            ride.unread.clear()

    @precondition(lambda self: any(ride.life.here for ride in self.rides))
    @rule(which=WHICH, pid=st.sampled_from([11, 12]), before_ns=SAID_BEFORE, until_ns=st.sampled_from([0, MS, SECOND]))
    def child_ends(self, which: int, pid: int, before_ns: int | None, until_ns: int) -> None:
        """The agent tells of it, sooner or later, or finds that it is gone."""
        ride = self.ride(which)
        if ride.running:
            ended_ns = None if before_ns is None else max(0, self.now_ns - max(before_ns, 0))
            until_ns += self.now_ns if ended_ns is None else ended_ns
            ride.write(OwnerEnded(self.now_ns, pid, ended_ns, until_ns, Source.KERNEL if pid == 11 else Source.AGENT))

    @precondition(lambda self: self.rides)
    @rule(which=WHICH, pids=st.sampled_from([(11,), (12,), (11, 12)]))
    def children_are_held(self, which: int, pids: tuple[int, ...]) -> None:
        self.ride(which).write(OwnersHeld(self.now_ns, pids))

    @precondition(lambda self: self.rides)
    @rule(which=WHICH, number=st.sampled_from([2, 10, 15]), by_kernel=st.booleans(), outside=st.booleans())
    def is_signaled(self, which: int, number: int, by_kernel: bool, outside: bool) -> None:
        ride = self.ride(which)
        if ride.is_attended:
            ride.write(Signaled(self.now_ns, number, by_kernel, outside))

    @precondition(lambda self: self.rides)
    @rule(which=WHICH, sure=SELDOM, end=ENDS)
    def ends(self, which: int, sure: bool, end: Exited) -> None:
        """The command ends; who watches it says so, a stopped wrapper on waking, and the agent where it holds it."""
        ride = self.ride(which)
        if ride.running and sure:
            ride.running, ride.end = False, replace(end, kernel_ns=self.now_ns if end.kernel_ns else None)
            if ride.wrapper == "awake":
                self.exit(ride)

    def exit(self, ride: Ride, source: Source = Source.WRAPPER) -> None:
        used = Usage(self.now_ns // 2, 1 << 20)
        ride.write(replace(ride.end, at_ns=self.now_ns, clock=self.clock(), usage=used, source=source))

    @precondition(lambda self: self.rides)
    @rule(which=WHICH, sure=st.booleans())
    def wrapper_is_stopped(self, which: int, sure: bool) -> None:
        ride = self.ride(which)
        if ride.wrapper == "awake" and sure:
            ride.wrapper = "stopped"

    @precondition(lambda self: any(ride.wrapper == "stopped" for ride in self.rides))
    @rule(which=WHICH)
    def wrapper_goes_on(self, which: int) -> None:
        """It reads what it finds: marks of long ago, or an end."""
        ride = self.ride(which)
        if ride.wrapper == "stopped":
            ride.wrapper = "awake"
            self.take_marks(ride)
            if ride.running:
                self.beat(ride)
            elif ride.life.exec is not None:
                self.exit(ride)

    @precondition(lambda self: self.rides)
    @rule(which=WHICH, with_command=st.booleans(), sure=SELDOM)
    def wrapper_is_killed(self, which: int, with_command: bool, sure: bool) -> None:
        ride = self.ride(which)
        if sure:
            ride.wrapper, ride.running = "gone", ride.running and not with_command

    @precondition(lambda self: any(ride.wrapper == "gone" for ride in self.rides))
    @rule(held=st.booleans())
    def agent_looks_after_orphans(self, held: bool) -> None:
        """What lives is adopted; what does not has ended unseen, or as the agent saw it where it held it."""
        for ride in self.rides:
            if ride.wrapper != "gone":
                continue
            if ride.running:
                for mark, said_ns in ride.unread:
                    ride.write(Marked(self.now_ns, mark, said_ns, held=True))
                ride.unread.clear()
                ride.write(Alive(self.now_ns, self.clock(), Usage(self.now_ns // 2)))
            elif held:
                self.exit(ride, Source.AGENT)
            else:
                ride.write(Lost(self.now_ns, "wrapper_lost", self.clock()))

    @rule(slept_ns=st.one_of(st.integers(0, 3 * MS), around(0, 1000)))
    def machine_sleeps(self, slept_ns: int) -> None:
        self.slept_ns += slept_ns

    @precondition(lambda self: self.rides)
    @rule(sure=SELDOM, quite=SELDOM)
    def machine_reboots(self, sure: bool, quite: bool) -> None:
        for ride in self.rides if sure and quite else ():
            ride.wrapper, ride.running = "gone", False
            ride.write(Lost(None, "rebooted"))

    @precondition(lambda self: self.rides)
    @rule(which=WHICH, back_ns=st.sampled_from([0, 0, 1, SECOND, 100 * SECOND]), said_ns=SAID_BEFORE, data=st.data())
    def anything_is_written(self, which: int, back_ns: int, said_ns: int | None, data: st.DataObject) -> None:
        """Any fact at all, of now or of long ago."""
        at_ns = max(0, self.now_ns - back_ns)
        facts: list[st.SearchStrategy[Event]] = [
            st.builds(Spawned, st.just(at_ns), st.just(at_ns), st.just(4711), st.none()),
            st.builds(BecameReady, st.just(at_ns), st.just("exec")),
            st.builds(ReadyTimedOut, st.just(at_ns)),
            st.builds(Marked, st.just(at_ns), MARKS, st.just(None if said_ns is None else at_ns - said_ns), SELDOM),
            st.builds(BadMark, st.just(at_ns), st.just("not_json"), SELDOM),
            st.builds(Stopping, st.just(at_ns), REASONS),
            st.builds(Signaled, st.just(at_ns), st.sampled_from([2, 15]), st.booleans(), st.booleans()),
            st.builds(Heartbeat, st.just(at_ns), st.just(self.clock())),
            st.builds(Alive, st.just(at_ns), st.just(self.clock())),
            *[st.just(Exited(at_ns, None, None, False, None, error="not found", source=Source.WRAPPER))]
            * (not back_ns),
        ]
        self.ride(which).write(data.draw(st.sampled_from(facts).flatmap(lambda fact: fact)))

    # --- What the agent does ---

    @precondition(lambda self: self.rides)
    @rule(which=WHICH, most=st.integers(1, 20))
    def agent_reads(self, which: int, most: int) -> None:
        self.read(self.ride(which), most)

    def read(self, ride: Ride, most: int) -> None:
        facts = ride.facts[ride.taken : ride.taken + most]
        step = fold(ride.state, facts, self.rules)
        assert in_pieces(ride.state, facts, self.rules, at_once=1 + most % 3)[-1] == step
        ride.taken = min(ride.taken + most, len(ride.facts))
        ride.state = step.instance
        ride.records.extend(step.records)

    @precondition(lambda self: self.rides)
    @rule(which=WHICH)
    def agent_commits(self, which: int) -> None:
        ride = self.ride(which)
        ride.saved = (taken_up(ride.state), ride.taken, len(ride.records))

    @precondition(lambda self: self.rides)
    @rule()
    def agent_is_killed(self) -> None:
        """What was not committed is gone, and is read again."""
        for ride in self.rides:
            state, ride.taken, committed = ride.saved
            assert state is not None
            ride.state = state
            del ride.records[committed:]

    # --- What must be true ---

    @invariant()
    def nothing_that_was_recorded_is_negative(self) -> None:
        for ride in getattr(self, "rides", ()):
            for record in ride.records[-3:]:
                if record.type is not RecordType.CORRECTION:
                    assert min(data_of(record)["time"].values()) >= 0

    def teardown(self) -> None:
        for ride in getattr(self, "rides", ()):
            if ride.is_attended:
                self.exit(ride)
            elif ride.life.end is None:
                ride.write(Lost(self.now_ns, "wrapper_lost", self.clock()))
            self.read(ride, len(ride.facts))
            assert ride.state.stage is Stage.CLOSED
            assert ride.records == self.tell(ride, self.rules) == self.tell(ride, self.rules)
            check(ride.records, ride.life, self.matrix, PRICE)
            self.check_uncut(ride)

    def check_uncut(self, ride: Ride) -> None:
        """Without a cut it is the same time and money, but where a mark would have taken back what was told.

        That, too, changes nothing of what is sold online, unless it is when somebody began.
        """
        life = Life(ride.options, ride.opened.at_ns, ride.opened.clock.boottime - ride.opened.at_ns, FOREVER_NS)
        for fact in ride.facts:
            life.hear(fact)
        records = self.tell(ride, self.make_rules(FOREVER_NS))
        check(records, life, self.matrix, PRICE)
        begun = [[guest.begins for guest in told.guests] for told in (life, ride.life)]
        if life.instants == ride.life.instants or (life.kind in ONLINE and begun[0] == begun[1]):
            assert billed(records) == billed(ride.records)

    def tell(self, ride: Ride, rules: Rulebook) -> list[UsageRecord]:
        return list(fold(self.open(ride.opened, rules), ride.facts, rules).records)


@pytest.mark.many
def test_histories() -> None:
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=SOAK or 100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
