"""One thread group: its start, its end, its status, and what its threads' codes say together.

Owns the values that are told, and one process's life as far as it is known. Refuses to know the others.
"""

from dataclasses import dataclass
from signal import SIGSYS

#: A group's code where its threads ended differently.
MIXED = -1


@dataclass(frozen=True, slots=True)
class Start:
    """A process that was forked, in the pids of the machine."""

    pid: int
    fork_ns: int
    exec_ns: int | None  #: the first exec; None: not yet, or hidden by a loss


@dataclass(frozen=True, slots=True)
class End:
    """The last exit event of a thread group all of whose threads are gone."""

    at_ns: int
    status: int | None  #: as wait gives it; None where threads ended differently, and their parent alone knows


class Group:
    """One process: its life so far, and its neighbours (by pid and by parent)."""

    __slots__ = (
        "code",
        "earlier",
        "elder",
        "exec_ns",
        "exit_ns",
        "fork_ns",
        "kept",
        "later",
        "leader",
        "others",
        "parent",
        "pid",
        "queued",
        "whole_ns",
        "younger",
    )

    def __init__(self, pid: int, parent: int, fork_ns: int, whole_ns: int) -> None:
        self.pid = pid
        self.parent = parent
        self.fork_ns = fork_ns
        self.whole_ns = whole_ns  #: since when all of its threads are known
        self.exec_ns = 0
        self.exit_ns = 0
        self.code: int | None = None
        self.leader = True  #: lives
        self.others: set[int] | None = None  #: living threads beside the leader
        self.kept = True  #: must not be forgotten for the sake of newer ones
        self.queued = False  #: stands among those that are leaving
        self.earlier: Group | None = None  #: had the same pid
        self.later: Group | None = None
        self.elder: Group | None = None  #: has the same parent
        self.younger: Group | None = None

    @property
    def ended(self) -> bool:
        """Whether no thread lives, as far as is known."""
        return not self.leader and not self.others


def agreed(known: int, code: int) -> int:
    """The code of a whole group some of whose threads ended with `known`, and one with `code`.

    Whose code the parent is told differs between kernels, unless they are the same. But a signal ends a whole group
    (except for SIGSYS, with which seccomp may end one thread), and then the parent is told that signal.
    """
    if known == code:
        return code
    if is_fatal(known) == is_fatal(code):
        return MIXED
    return known if is_fatal(known) else code


def is_fatal(code: int | None) -> bool:
    """Whether it is the code of a signal that ends a whole group."""
    return code is not None and code != MIXED and code & 0x7F not in (0, SIGSYS)
