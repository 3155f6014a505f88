"""Who may be the command of a wrapper that was killed before it could say that it had started one.

Owns what everybody may see of a process: whose it is, when it began, in which session, by which words. That proves
nothing, so nobody is billed for it; but as long as one of them lives, the instance may, and what it may have run is
unknown. Refuses to know books.
"""

import os
import time
from collections.abc import Collection

from taximeter import kernel
from taximeter.errors import TaximeterError
from taximeter.events import Opened
from taximeter.journal import journal_name

#: A wrapper spawns its command so soon after it began its journal.
_SPAWNED_WITHIN_NS = 1_000_000_000
#: What start times are counted in.
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

_Key = tuple[int, int]  #: pid and start


class Suspects:
    """Of the instances of one journal directory whose command nobody saw start, those who may be it."""

    def __init__(self, directory_fd: int) -> None:
        self._directory_fd = directory_fd
        self._of: dict[str, list[_Key]] = {}

    def __contains__(self, name: object) -> bool:
        """Whether somebody was looked for."""
        return name in self._of

    def look_for(self, name: str, opened: Opened, segment: int, others: Collection[int]) -> None:
        """Look once who there is; `others` are commands and wrappers of other instances, by their pids here."""
        try:
            file = journal_name(name, segment)
            owner = os.stat(file, dir_fd=self._directory_fd, follow_symlinks=False).st_uid
        except OSError:
            owner = opened.uid
        slept_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        first = (opened.at_ns + slept_ns) // _TICK_NS - 1
        last = (opened.at_ns + slept_ns + _SPAWNED_WITHIN_NS) // _TICK_NS + 1
        found = {
            process.pid: process
            for process in (kernel.everybody().values() if opened.session is not None else ())
            if first <= process.ticks <= last and _may_be(process.pid, owner, opened)
        }
        # Those that descend from another may outlive it: that is no sign of its life.
        self._of[name] = [
            (process.pid, process.ticks)
            for process in found.values()
            if process.parent not in found and not any(one.pid in others for one in kernel.ancestry(process.pid))
        ]

    def live(self, name: str) -> bool:
        """Whether one of them does, for all that is known."""
        return any(_is_alive(key) for key in self._of.get(name, ()))

    def forget(self, name: str) -> None:
        """It is closed."""
        self._of.pop(name, None)


def _may_be(pid: int, owner: int, opened: Opened) -> bool:
    """Whether it is in the wrapper's session, or leads one of its own and was begun by words that end as the command's.

    A command that goes to another session leads it; and of its words the last are left where it is a script, or was run
    by another program (setsid python3 worker.py). In the middle of an exec it shows none. What the kernel begins for
    itself, at any moment, is in the session of a wrapper whose leader is outside of its pid namespace: both say 0.
    """
    if kernel.is_kernels_own(pid):
        return False
    namespace = opened.pid_namespace and kernel.pid_namespace(pid)
    if namespace and namespace != opened.pid_namespace:
        return False  # the wrapper's pids, and so its session, mean others there
    whose = kernel.whose(pid)
    if whose == (owner, opened.session):
        return True
    return whose == (owner, kernel.own_pid(pid)) and kernel.words(pid)[-1:] in ([], list(opened.argv[-1:]))


def _is_alive(key: _Key) -> bool:
    try:
        return kernel.is_alive(*key)
    except TaximeterError:  # no descriptor is left to ask with
        return True
