"""Finds the process that a start mark names: a pid as the worker has it, among an instance's processes.

A pid is a claim. It counts for a process that takes it for its own, and descends from the command or from the wrapper
(which takes orphans in), or has the instance's FIFO in its environment. Refuses to hold anybody.
"""

import os
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from taximeter import kernel, wire
from taximeter.agent.accounts import Account
from taximeter.errors import JournalFault
from taximeter.instance import Instance
from taximeter.journal import journal_name, writer_pid

#: Start times are counted in ticks, and a mark may say that it is older than who said it: by less than this.
LOOSE_NS = 100_000_000
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
#: Everybody's environment is read so seldom.
_EVERYBODY_NS = 1_000_000_000


class Found(NamedTuple):
    """A process: here, and since when."""

    pid: int
    ticks: int
    began_ns: int  #: by CLOCK_MONOTONIC, rounded down to a tick


class Seeker:
    """Looks through the processes of one journal directory's instances."""

    def __init__(self, directory_fd: int) -> None:
        self._directory_fd = directory_fd
        self._looked_ns = -_EVERYBODY_NS
        self.is_sure = True  #: whether everybody was looked at the last time
        self.anothers: set[int] = set()  #: of the pids last looked for, those that here are not the instance's process

    def find(self, name: str, account: Account, instance: Instance, pids: Iterable[int]) -> dict[int, Found]:
        """Those who take one of `pids` for their own, in an instance whose command lives; nobody is asked twice."""
        wanted, found = set(pids), dict[int, Found]()
        self.is_sure, self.anothers = True, set()
        candidates = self._candidates(name, account, instance, wanted)
        while wanted and (candidate := next(candidates, None)) is not None:
            pid = kernel.own_pid(candidate)
            if pid in wanted and (process := kernel.look_at(candidate)) is not None:
                slept_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
                found[pid] = Found(process.pid, process.ticks, process.ticks * _TICK_NS - slept_ns)
                wanted.discard(pid)
        return found

    def _candidates(self, name: str, account: Account, instance: Instance, wanted: set[int]) -> Iterator[int]:
        """Nearest first: whoever has such a pid here; all that descend; all that say so themselves."""
        roots = {pid for pid in (instance.host_pid, self._wrapper(name, account)) if pid}
        for pid in tuple(wanted):
            if any(process.pid in roots for process in kernel.ancestry(pid)):
                yield pid
        self.anothers = {pid for pid in wanted if kernel.look_at(pid) is not None}
        yield from kernel.below(roots)
        now_ns = time.monotonic_ns()
        if now_ns - self._looked_ns < _EVERYBODY_NS:
            self.is_sure = False
            return
        self._looked_ns = now_ns
        says = f"/{name}{wire.MARKS_SUFFIX}".encode()
        yield from (process.pid for process in kernel.all_that_say(wire.ENV_MARKS.encode(), says))

    def _wrapper(self, name: str, account: Account) -> int | None:
        """The wrapper that holds the journal's lock, by its pid here."""
        try:
            return writer_pid(journal_name(name, account.position.segment), self._directory_fd)
        except JournalFault:
            return None
