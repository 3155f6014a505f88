"""Whether the command was killed for want of memory, and whose want that was.

Owns the reading of the kernel's own counts. Such a kill is counted in the victim's memory cgroup before the victim gets
its SIGKILL, and where it was a limit that was reached, the cgroup of that limit counts an `oom` (version 2), or the
kernel tells those who asked, of groups below it as well (version 1). So a kill that no limit explains was the node's,
if all groups above are in sight. Refuses to guess: what cannot be read, or seen up to the top, leaves it open.
"""

import posix

from taximeter import wire
from taximeter.wrap import proc
from taximeter.wrap.entry import read_file

LIMIT, NODE, NONE = "limit", "node", "none"  # wire.OOM

_MOUNT = "/sys/fs/cgroup"
_ENOENT = 2
_UNREADABLE = (OSError, ValueError, IndexError)


class Unified:
    """The memory cgroups of version 2, from one directory up to the top of what is seen."""

    def __init__(self, mount: str, path: str) -> None:
        """Raises OSError where no group on the way counts: then memory is the node's alone."""
        place, files = mount + path.rstrip("/"), []
        while True:
            file = f"{place}/memory.events.local"
            if posix.access(file, posix.R_OK):
                files.append(file)
            if place == mount:
                break
            place = place.rpartition("/")[0]
        if not files:
            raise FileNotFoundError(_ENOENT, "no memory cgroup")
        self._files = files
        #: Only the root has no events: in a container the top of what is seen is not the top.
        self.to_the_top = not posix.access(f"{mount}/cgroup.events", posix.F_OK)
        self.moves_are_seen = True

    def counts(self) -> tuple[int, int]:
        """Kills in the nearest group, and limits reached there and above."""
        contents = [read_file(file) for file in self._files]
        return _count(contents[0], b"oom_kill"), sum([_count(content, b"oom") for content in contents])

    def is_exact(self) -> bool:
        """Whether the command was not killed for want of memory if nobody was in this group."""
        return True

    def close(self) -> None:
        """Nothing is held."""


class Legacy:
    """A memory cgroup of version 1, which tells of limits that are reached above it, too, in sight or not."""

    to_the_top = True
    moves_are_seen = False  # the group of a zombie is not told

    def __init__(self, mount: str, path: str) -> None:
        """Raises OSError where there are no counts, or we may not ask to be told."""
        place = mount + path.rstrip("/")
        self._file = f"{place}/memory.oom_control"
        self._limits = 0
        self._node = Node()
        self._told = posix.eventfd(0, posix.EFD_NONBLOCK | posix.EFD_CLOEXEC)
        try:
            self._ask(place)
        except OSError:
            posix.close(self._told)
            raise

    def counts(self) -> tuple[int, int]:
        """Kills in this group, and limits reached here and above."""
        try:
            self._limits += posix.eventfd_read(self._told)
        except BlockingIOError:
            pass
        return _count(read_file(self._file), b"oom_kill"), self._limits

    def is_exact(self) -> bool:
        """Whether the command was not killed for want of memory if nobody was in this group: it may be in another."""
        return self._node.is_exact()

    def close(self) -> None:
        """Ask no more."""
        posix.close(self._told)

    def _ask(self, place: str) -> None:
        control = posix.open(self._file, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            ask = posix.open(f"{place}/cgroup.event_control", posix.O_WRONLY | posix.O_CLOEXEC)
            try:
                posix.write(ask, b"%d %d" % (self._told, control))
            finally:
                posix.close(ask)
        finally:
            posix.close(control)


class Node:
    """The node as a whole, for want of a group: where nobody was killed the command was not, and more is not known."""

    to_the_top = False
    moves_are_seen = False

    def __init__(self) -> None:
        """Raises OSError, and ValueError where the kernel does not count."""
        self._first = self.counts()

    def counts(self) -> tuple[int, int]:
        """Kills on this node."""
        return _count(read_file("/proc/vmstat"), b"oom_kill"), 0

    def is_exact(self) -> bool:
        """Whether nobody was killed for want of memory since we began."""
        return self.counts() == self._first

    def close(self) -> None:
        """Nothing is held."""


class Oom:
    """The counts that one command's end is judged by. Nothing here raises."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._group: Unified | Legacy | Node | None = None
        self._before = self._last = (0, 0)
        self._said = ""
        self._looked_ns = 0
        self._begin()

    def look(self, now_ns: int) -> None:
        """Look anew, with each heartbeat: what was counted before the last but one explains no end that is to come.

        Not the last, since a limit is counted before its victim is. A victim that takes long to die is waited for.
        """
        if now_ns - self._looked_ns < wire.HEARTBEAT_NS // 2:
            return  # a heartbeat out of turn
        self._looked_ns = now_ns
        try:
            if self._group is None or groups_of(self._pid) != self._said:
                self._begin()
                return
            now = self._group.counts()
            if now[0] == self._last[0] or not proc.is_ending(self._pid):
                self._before, self._last = self._last, now
        except _UNREADABLE:
            pass

    def whose(self) -> str | None:
        """Whose want of memory the command was killed for, which has died of SIGKILL and is not yet waited for."""
        try:
            return None if self._group is None else self._judge(self._group)
        except _UNREADABLE:
            return None

    def _judge(self, group: Unified | Legacy | Node) -> str | None:
        if group.moves_are_seen and groups_of(self._pid) != self._said:
            return None
        kills, limits = group.counts()
        if kills == self._before[0]:
            return NONE if group.is_exact() else None
        if limits != self._before[1]:
            return LIMIT
        return NODE if group.to_the_top else None

    def _begin(self) -> None:
        """Find where the command's memory is counted, and count; too late for one that is being killed already."""
        self._end()
        try:
            self._said = groups_of(self._pid)
            self._group = find(self._pid, self._said)
            self._before = self._last = self._group.counts()
            if proc.is_ending(self._pid):
                self._end()
        except _UNREADABLE:
            self._end()

    def _end(self) -> None:
        if self._group is not None:
            self._group.close()
        self._group = None


def groups_of(pid: int) -> str:
    """What /proc says of a process's cgroups; one that was removed since is no other one."""
    return read_file(f"/proc/{pid}/cgroup").decode("utf-8", "surrogateescape").replace(" (deleted)\n", "\n")


def find(pid: int, said: str) -> Unified | Legacy | Node:
    """The counts of the groups that a process is in, by its /proc/PID/cgroup; the node's for want of any.

    Raises as Node does.
    """
    try:
        unified = "/"
        for line in said.splitlines():
            number, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return Legacy(*_place(f"{_MOUNT}/memory", path, pid, "memory"))
            if number == "0":
                unified = path
        return Unified(*_place(_MOUNT, unified, pid, ""))
    except _UNREADABLE:
        return Node()


def _place(usual: str, path: str, pid: int, controller: str) -> tuple[str, str]:
    """Where the group lies: a mount, and a path below it, at which the process is really found.

    A path is told from the top of a namespace, and a mount may begin anywhere: so it is looked for, not believed.
    """
    if _holds(usual + path, pid):
        return usual, path
    for line in read_file("/proc/self/mountinfo").decode("utf-8", "surrogateescape").splitlines():
        ours, _, theirs = line.partition(" - ")
        kind, _, options = theirs.split(" ", 2)
        root, point = ours.split(" ")[3:5]
        wanted = kind == "cgroup" and controller in options.split(",") if controller else kind == "cgroup2"
        below = path.removeprefix(root.rstrip("/"))
        if wanted and _holds(point + below, pid):
            return point, below
    raise FileNotFoundError(_ENOENT, "not found in any hierarchy")


def _holds(place: str, pid: int) -> bool:
    try:
        return b"\n%d\n" % pid in b"\n" + read_file(f"{place}/cgroup.procs")
    except OSError:
        return False


def _count(content: bytes, name: bytes) -> int:
    return int(content.partition(b"\n" + name + b" ")[2].split(None, 1)[0])
