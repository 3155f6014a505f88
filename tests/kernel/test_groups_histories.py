"""Random lives of processes and threads, told by events of which some are lost: an answer is the truth, or none."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from taximeter.kernel.groups import NEVER_NS, REORDERED_NS, ThreadGroups


@dataclass
class Life:
    """What really happened to one process."""

    pid: int
    parent: int
    fork_ns: int
    threads: list[int]
    exec_ns: int | None = None
    exit_ns: int | None = None
    statuses: frozenset[int] = frozenset()  #: what its parent may be told, by this kernel or another
    codes: dict[int, int] = field(default_factory=dict)  #: of each thread since the last exec


class World:
    """A machine with few pids: what happens on it is told, in `events`, as calls of ThreadGroups."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * REORDERED_NS
        self.free = list(range(10, 18))
        self.lives: list[Life] = []
        self.events: list[tuple[int, str, tuple[int, ...]]] = []

    @property
    def alive(self) -> list[Life]:
        return [life for life in self.lives if life.exit_ns is None]

    def tell(self, what: str, *values: int) -> None:
        self.events.append((self.now_ns, what, values))

    def fork(self, parent: int) -> None:
        if self.free:
            pid = self.free.pop(0)
            self.lives.append(Life(pid, parent, self.now_ns, [pid]))
            self.tell("forked", parent, pid, pid)

    def thread(self, life: Life) -> None:
        if self.free:
            life.threads.append(self.free.pop(0))
            self.tell("forked", life.parent, life.threads[-1], life.pid)

    def run(self, life: Life, thread: int) -> None:
        """One thread runs a program: the others end, and it takes the leader's place."""
        for other in life.threads:
            if other != thread:
                self.tell("exited", other, life.pid, 0)
        self.free += [other for other in life.threads if other != life.pid]
        life.threads, life.codes = [life.pid], {}
        life.exec_ns = life.exec_ns or self.now_ns
        self.tell("execed", life.pid)

    def end_thread(self, life: Life, thread: int, code: int) -> None:
        life.threads.remove(thread)
        life.codes[thread] = code
        self.tell("exited", thread, life.pid, code)
        if thread != life.pid:
            self.free.append(thread)
        if not life.threads:
            self._end(life, {life.codes[life.pid], code})

    def end(self, life: Life, code: int) -> None:
        """All threads at once, as by exit_group or a signal."""
        for thread in life.threads:
            life.codes[thread] = code
            self.tell("exited", thread, life.pid, code)
        self.free += [thread for thread in life.threads if thread != life.pid]
        life.threads = []
        self._end(life, {code})

    def _end(self, life: Life, statuses: set[int]) -> None:
        life.exit_ns = self.now_ns
        life.statuses = frozenset(statuses)
        self.free.append(life.pid)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world = World()
    for _ in range(draw(st.integers(1, 40))):
        world.now_ns += draw(st.sampled_from([1, REORDERED_NS // 3, 2 * REORDERED_NS]))
        happens = draw(st.sampled_from(["fork", "thread", "run", "end_thread", "end"]))
        if happens == "fork" or not world.alive:
            world.fork(draw(st.sampled_from([1, 2])))
            continue
        life = draw(st.sampled_from(world.alive))
        thread = draw(st.sampled_from(life.threads))
        if happens == "thread":
            world.thread(life)
        elif happens == "run":
            world.run(life, thread)
        elif happens == "end_thread":
            world.end_thread(life, thread, draw(st.sampled_from([0, 1 << 8])))
        else:
            world.end(life, draw(st.sampled_from([0, 1 << 8, 9])))
    return world


def tell(groups: ThreadGroups, world: World, lost: tuple[int, int] = (0, 0)) -> None:
    first, last = lost
    for number, (at_ns, what, values) in enumerate(world.events):
        if first <= number < last:
            if number == first:
                groups.lost(at_ns, NEVER_NS)
        else:
            getattr(groups, what)(at_ns, *values)
        if number == last - 1 and first < last:
            groups.lost(at_ns, at_ns)


def check(groups: ThreadGroups, life: Life, everything: bool) -> None:
    started = groups.started(life.parent, life.fork_ns, life.fork_ns)
    assert started is not None or not everything
    if started is not None:
        assert (started.pid, started.fork_ns) == (life.pid, life.fork_ns)
        assert started.exec_ns in ((life.exec_ns,) if everything else (life.exec_ns, None))
    for since_ns in (life.fork_ns, life.exit_ns):
        if since_ns is None:
            continue
        ended = groups.ended(life.pid, since_ns)
        assert ended is not None or life.exit_ns is None or not everything
        if ended is not None:
            assert ended.at_ns == life.exit_ns
            assert ended.status is None or life.statuses == {ended.status}
        if everything:
            assert groups.pending(life.pid, since_ns) == (life.exit_ns is None)


@given(worlds())
def test_where_nothing_is_lost_everything_is_known(world: World) -> None:
    groups = ThreadGroups()
    tell(groups, world)
    for life in world.lives:
        check(groups, life, everything=True)


@given(worlds(), st.data())
def test_where_something_is_lost_an_answer_is_the_truth(world: World, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(world.events)))
    last = data.draw(st.integers(first, len(world.events)))
    groups = ThreadGroups()
    tell(groups, world, (first, last))
    for life in world.lives:
        check(groups, life, everything=False)


@given(worlds(), st.integers(1, 6), st.integers(0, 3))
def test_within_any_bound_an_answer_is_the_truth(world: World, most: int, most_threads: int) -> None:
    groups = ThreadGroups(most, most_threads)
    tell(groups, world)
    assert len(groups) <= most
    for life in world.lives:
        check(groups, life, everything=False)


@given(worlds(), st.integers(0, 40))
def test_who_begins_to_listen_late_learns_the_ends_of_those_that_it_follows(world: World, heard_from: int) -> None:
    """The threads that live then are the ones whose events come later."""
    later = world.events[heard_from:]
    groups = ThreadGroups()
    at_ns = world.events[min(heard_from, len(world.events)) - 1][0] if heard_from else 0
    for life in world.lives:
        if life.fork_ns <= at_ns and heard_from:
            threads = _threads_then(world, life, heard_from)
            if threads:
                groups.follow(at_ns, life.pid, life.fork_ns, threads)
    for happened_ns, what, values in later:
        getattr(groups, what)(happened_ns, *values)
    for life in world.lives:
        check(groups, life, everything=False)


def _threads_then(world: World, life: Life, heard_from: int) -> set[int]:
    """Who lives in `life` after the first so many events."""
    threads: set[int] = set()
    of_this_life = False
    for at_ns, what, values in world.events[:heard_from]:
        if what == "forked" and values[1] == values[2] == life.pid:
            of_this_life = at_ns == life.fork_ns
            threads = {life.pid} if of_this_life else set()
        elif of_this_life and what == "forked" and values[2] == life.pid:
            threads.add(values[1])
        elif of_this_life and what == "exited" and values[1] == life.pid:
            threads.discard(values[0])
        elif of_this_life and what == "execed" and values[0] == life.pid:
            threads = {life.pid}
    return threads
