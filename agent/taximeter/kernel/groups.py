"""Thread groups as the kernel tells of them: forked, first exec, last exit; remembered for a while, within bounds.

Owns what counts as start, end and status of a process, and what a loss of events may have hidden: then it does not
know. Pure: time comes with the events. Refuses to know sockets, wrappers and instances.
"""

from collections import deque
from collections.abc import Iterable

from taximeter.kernel.group import MIXED, End, Group, Start, agreed, is_fatal

NEVER_NS = 2**63 - 1

#: Processes that are remembered, about half a kilobyte each: over a second of a machine that does nothing but fork.
MOST_GROUPS = 32_768
MOST_THREADS = 262_144

#: A stamp is taken a moment before its event is queued; a busy machine may put many time slices between the two. So
#: what was lost from some moment on may bear a stamp that is as much older.
REORDERED_NS = 100_000_000

#: Nobody nests deeper.
_DEEPEST = 64
#: Losses that are told apart; the oldest are joined, which makes more unknown, never less.
_LOSSES = 64


class ThreadGroups:
    """What is known of the machine's processes, at most `most` of them with `most_threads` threads in all."""

    def __init__(self, most: int = MOST_GROUPS, most_threads: int = MOST_THREADS) -> None:
        self._most = most
        self._most_threads = most_threads
        self._threads = 0  # beside leaders
        self._count = 0
        self._latest: dict[int, Group] = {}  # by pid
        self._youngest: dict[int, Group] = {}  # by parent
        self._leaving: deque[Group] = deque()  # to be forgotten first, oldest first
        self._losses: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self._count

    # --- What happens ---

    def forked(self, at_ns: int, parent: int, pid: int, tgid: int) -> None:
        """Process `parent` made thread `pid` of group `tgid`: a process of its own where the two are equal."""
        if pid == tgid:
            self._add(Group(tgid, parent, at_ns, at_ns))
        elif (group := self._latest.get(tgid)) is not None:
            if group.ended:
                group.whole_ns = NEVER_NS  # it had a thread that was not known: the one that made this one
            self._add_thread(group, pid)

    def execed(self, at_ns: int, tgid: int) -> None:
        """The group runs another program; the thread that asked for it is now its leader and only thread."""
        group = self._latest.get(tgid)
        if group is None:
            return
        if group.ended:
            group.whole_ns = NEVER_NS  # it had a thread that was not known: this one
        if group.exec_ns == 0:
            group.exec_ns = at_ns
        self._forget_threads(group)
        group.leader = True
        group.exit_ns = 0
        group.code = None

    def exited(self, at_ns: int, pid: int, tgid: int, code: int) -> None:
        """Thread `pid` ended with `code`, as wait would give it."""
        group = self._latest.get(tgid)
        if group is None:
            return
        if pid == tgid and group.leader:
            group.leader = False
            if code and not is_fatal(group.code):
                group.code = None  # it did not leave the others alone (pthread_exit has code 0), but ended all
        elif group.others and pid in group.others:
            group.others.remove(pid)
            self._threads -= 1
        else:
            return  # of the program before the exec, whose threads' events may come late
        group.exit_ns = max(group.exit_ns, at_ns)
        group.code = code if group.code is None else agreed(group.code, code)
        if group.ended:
            self._let_go(group)

    def lost(self, from_ns: int, to_ns: int) -> None:
        """Events with stamps between these two may be missing (to NEVER_NS: it goes on)."""
        if self._losses and self._losses[-1][1] == NEVER_NS:
            from_ns = min(from_ns, self._losses.pop()[0])
        self._losses.append((from_ns, to_ns))
        if len(self._losses) > _LOSSES:
            (oldest, _), (_, next_oldest) = self._losses[:2]
            self._losses[:2] = [(oldest, next_oldest)]
        for group in self._latest.values():
            self._let_go(group)  # what lives may have ended unheard, and would stay forever

    def follow(self, at_ns: int, pid: int, since_ns: int, threads: Iterable[int]) -> None:
        """The process that had `pid` at `since_ns` had exactly these living threads at `at_ns`."""
        group = self._latest.get(pid)
        if group is None or group.ended or self._hidden(group.whole_ns, since_ns):
            group = Group(pid, 0, since_ns, at_ns)
            if not self._add(group):
                return
        self._forget_threads(group)
        group.kept = True
        group.whole_ns = at_ns
        group.leader = False
        for thread in threads:
            if thread == pid:
                group.leader = True
            else:
                self._add_thread(group, thread)
        if not group.leader:
            group.code = MIXED  # for all we know

    # --- What is asked ---

    def started(self, parent: int, before_ns: int, at_ns: int) -> Start | None:
        """The process that `parent` forked between the two moments; of several the one that ran a program.

        Meant is who had that pid at the first of them: who has got it since is another.
        """
        if self._hidden(before_ns, at_ns):
            return None
        at_ns = min(at_ns, self._handed_on_ns(parent, before_ns))
        found: list[Group] = []
        group = self._youngest.get(parent)
        while group is not None and group.fork_ns >= before_ns:
            if group.fork_ns <= at_ns:
                found.append(group)
            group = group.elder
        if len(found) > 1:
            found = [group for group in found if group.exec_ns]
        if len(found) != 1:
            return None
        (group,) = found
        exec_ns = group.exec_ns or None
        if exec_ns is not None and self._hidden(group.fork_ns, exec_ns):
            exec_ns = None
        return Start(group.pid, group.fork_ns, exec_ns)

    def ended(self, pid: int, since_ns: int) -> End | None:
        """How the process ended that had `pid` at `since_ns`; None while it lives, and where that is not certain."""
        group = self._holder(pid, since_ns)
        # A loss between its end and that moment might hide the fork of the one that is meant.
        if group is None or not group.ended or self._hidden(group.whole_ns, max(group.exit_ns, since_ns)):
            return None
        return End(group.exit_ns, None if group.code == MIXED else group.code)

    def descends(self, pid: int, since_ns: int, ancestor: int) -> bool:
        """Whether the process that had `pid` at `since_ns` was forked by `ancestor`, or by whom that had forked."""
        for _ in range(_DEEPEST):
            group = self._holder(pid, since_ns)
            if group is None or self._hidden(group.fork_ns, since_ns):
                return False
            if group.parent == ancestor:
                return True
            pid, since_ns = group.parent, group.fork_ns
        return False

    def pending(self, pid: int, since_ns: int) -> bool:
        """Whether the end of the process that had `pid` at `since_ns` is still to be told, and will be certain."""
        group = self._holder(pid, since_ns)
        return group is not None and not group.ended and not self._hidden(group.whole_ns, NEVER_NS)

    def _handed_on_ns(self, pid: int, since_ns: int) -> int:
        """When that pid was given to the next process after the one that had it at `since_ns`."""
        next_ns = NEVER_NS
        group = self._latest.get(pid)
        while group is not None and group.fork_ns > since_ns:
            next_ns, group = group.fork_ns, group.earlier
        return next_ns

    def _holder(self, pid: int, at_ns: int) -> Group | None:
        group = self._latest.get(pid)
        while group is not None and group.fork_ns > at_ns:
            group = group.earlier
        return group

    def _hidden(self, from_ns: int, to_ns: int) -> bool:
        return from_ns == NEVER_NS or any(
            lost_ns - REORDERED_NS <= to_ns and from_ns <= until_ns for lost_ns, until_ns in self._losses
        )

    # --- What is kept ---

    def _add(self, group: Group) -> bool:
        earlier = self._latest.get(group.pid)
        if earlier is not None and not earlier.ended:
            # Its end is missing, or comes late and would be taken for that of the new one.
            earlier.whole_ns = group.whole_ns = NEVER_NS
            self._let_go(earlier)
        if self._count >= self._most and not self._make_room():
            return False  # so many are alive: the newest has no witness
        self._count += 1
        earlier = self._latest.get(group.pid)  # if it did not make the room
        if earlier is not None:
            group.earlier, earlier.later = earlier, group
        self._latest[group.pid] = group
        elder = self._youngest.get(group.parent)
        if elder is not None:
            group.elder, elder.younger = elder, group
        self._youngest[group.parent] = group
        return True

    def _add_thread(self, group: Group, pid: int) -> None:
        if self._threads >= self._most_threads:
            group.whole_ns = NEVER_NS
            return
        if group.others is None:
            group.others = set()
        if pid not in group.others:
            group.others.add(pid)
            self._threads += 1

    def _forget_threads(self, group: Group) -> None:
        if group.others:
            self._threads -= len(group.others)
        group.others = None

    def _let_go(self, group: Group) -> None:
        group.kept = False
        if not group.queued:
            group.queued = True
            self._leaving.append(group)

    def _make_room(self) -> bool:
        while self._leaving:
            group = self._leaving.popleft()
            group.queued = False
            if not group.kept:
                self._remove(group)
                return True
        return False

    def _remove(self, group: Group) -> None:
        self._count -= 1
        self._forget_threads(group)
        if group.later is not None:
            group.later.earlier = group.earlier
        elif group.earlier is not None:
            self._latest[group.pid] = group.earlier
        else:
            del self._latest[group.pid]
        if group.earlier is not None:
            group.earlier.later = group.later
        if group.younger is not None:
            group.younger.elder = group.elder
        elif group.elder is not None:
            self._youngest[group.parent] = group.elder
        else:
            del self._youngest[group.parent]
        if group.elder is not None:
            group.elder.younger = group.younger
