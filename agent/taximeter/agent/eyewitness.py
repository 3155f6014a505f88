"""Puts what the kernel saw beside what a wrapper wrote: the exec, the end, and which process it is here.

Owns the matching of facts to processes. What the kernel said of a process is there before its wrapper can write of it,
but for the very last: an exec or an end that the wrapper overtook. Refuses to know what a stamp means.
"""

import os
import time
from collections.abc import Sequence
from typing import Protocol

from taximeter import kernel, wire
from taximeter.errors import JournalFault
from taximeter.events import Event, Exited, Opened, Signaled, Source, Spawned
from taximeter.instance import Instance
from taximeter.journal import journal_name, writer_pid
from taximeter.values import replace

#: On a loaded machine the kernel's word of an exec, or of an end, comes so long after the wrapper's, at the very most.
_EXEC_WITHIN_NS = 100_000_000
_END_WITHIN_NS = 1_000_000_000
#: A wrapper spawns its command so soon after it began its journal.
_SPAWNED_WITHIN_NS = 1_000_000_000
#: What start times are counted in.
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
#: The spawn is a journal's second fact.
_HEAD = 4


class Processes(Protocol):
    """What the kernel's process events tell (kernel.ProcessEvents)."""

    overruns: int

    def drain(self) -> None:
        """Take in what has been queued by now."""

    def started(self, parent_pid: int, before_ns: int, at_ns: int) -> "kernel.Start | None":
        """The process that `parent_pid` forked in between, and its first exec."""

    def ended(self, pid: int, since_ns: int) -> "kernel.End | None":
        """The last that was seen of the process that had `pid` at `since_ns`, a moment of its life."""

    def pending(self, pid: int, since_ns: int) -> bool:
        """Whether that is to come yet."""

    def descends(self, pid: int, since_ns: int, ancestor: int) -> bool:
        """Whether all forks were heard by which that process comes from `ancestor`."""

    def follow(self, pid: int, since_ns: int) -> bool:
        """Learn of a living process, which had `pid` at `since_ns` and whose beginning was not heard."""


class Eyewitness:
    """The kernel's word on the instances of one journal directory; without process events only /proc's."""

    def __init__(self, directory_fd: int, processes: Processes | None) -> None:
        self._directory_fd = directory_fd
        self._processes = processes
        self._overruns = 0
        self._heard_ns = -1  # whatever the kernel had said by then was taken in
        self._boot_id = kernel.boot_id()

    def attest(self, name: str, segment: int, instance: Instance | None, events: Sequence[Event]) -> list[Event] | None:
        """The same facts with the kernel's stamps; None where one is still to come: these are to be read again."""
        attested = list(events)
        exited = attested[-1] if isinstance(attested[-1], Exited) else None
        opened = instance.opened if instance else attested[0]
        host_pid, start_ns = (instance.host_pid, instance.start_ns) if instance else (None, 0)
        for at, event in enumerate(attested[:_HEAD]):
            if isinstance(event, Spawned) and isinstance(opened, Opened) and self._is_of_this_boot(opened):
                file = journal_name(name, segment)
                wrapper = None if exited else self._wrapper(file)
                seen = self._spawned(file, event, opened, wrapper, over=exited is not None)
                if seen.exec_ns is None and exited is None and self._is_early(event.at_ns, _EXEC_WITHIN_NS):
                    return None
                attested[at], host_pid, start_ns = seen, seen.host_pid, event.at_ns
        command = _command(instance, attested)
        if command is not None:
            attested = [self._sent(event, command) if isinstance(event, Signaled) else event for event in attested]
        if exited is None or host_pid is None or self._processes is None:
            return attested
        self._hear(self._processes, exited.at_ns + _END_WITHIN_NS)
        end = self._processes.ended(host_pid, start_ns)
        if end is not None:
            return _with_end(attested, exited, end.at_ns)
        is_to_come = self._processes.pending(host_pid, start_ns) and self._is_early(exited.at_ns, _END_WITHIN_NS)
        return None if is_to_come else attested

    def found(self, opened: Opened, until_ns: int) -> Spawned | None:
        """The command of a wrapper that was killed before it could write that it had started one.

        Where its pid is none of the machine's, the kernel's word of whoever has that pid here is of somebody else.
        """
        start = None
        if opened.pid_namespace is None:
            start = self._started(opened.wrapper_pid, opened.at_ns, until_ns)
        if start is None or start.exec_ns is None:
            return _named_by_its_marks(opened)
        ticks = kernel.start_ticks(start.pid)
        return Spawned(start.exec_ns, start.exec_ns, start.pid, ticks, start.pid, start.exec_ns)

    def follow(self, pid: int, since_ns: int) -> None:
        """Watch a living process, held by the caller, whose beginning the kernel may have told before we listened."""
        if self._processes is not None:
            self._processes.follow(pid, since_ns)

    def has_lost(self) -> bool:
        """Whether the kernel's words were lost since this was last asked: then what is held must be followed anew."""
        overruns = self._processes.overruns if self._processes is not None else 0
        before, self._overruns = self._overruns, overruns
        return overruns != before

    def end_of(self, instance: Instance) -> "kernel.End | None":
        """The end of an instance's command, which must be known to be gone: an exit event alone does not say so."""
        return None if instance.host_pid is None else self.ended(instance.host_pid, instance.start_ns)

    def is_end_to_come(self, instance: Instance, shown_ns: int) -> bool:
        """Whether the kernel is about to stamp an end that was shown just now."""
        return instance.host_pid is not None and self.is_to_come(instance.host_pid, instance.start_ns, shown_ns)

    def ended(self, pid: int, since_ns: int) -> "kernel.End | None":
        """The end of a process that is known to be gone, and had `pid` at `since_ns`."""
        if self._processes is None:
            return None
        self._processes.drain()
        return self._processes.ended(pid, since_ns)

    def is_to_come(self, pid: int, since_ns: int, shown_ns: int) -> bool:
        """Whether the kernel is about to stamp the end of such a process, which was shown just now."""
        if self._processes is None:
            return False
        self._processes.drain()
        return self._processes.pending(pid, since_ns) and self._is_early(shown_ns, _END_WITHIN_NS)

    def descendants_end(self, instance: Instance, pid: int, since_ns: int) -> "kernel.End | None":
        """The end of a process that an instance's command, or whom that had forked, has forked, and nobody held.

        Only where the pid means the same here as there.
        """
        if self._processes is None or instance.host_pid is None or instance.host_pid != instance.pid:
            return None
        self._processes.drain()
        if not self._processes.descends(pid, since_ns, instance.host_pid):
            return None
        return self._processes.ended(pid, since_ns)

    def _sent(self, event: Signaled, command: int) -> Signaled:
        """The signal with the kernel's word on its sender, which may be gone, and nobody's to be seen, by now.

        So no child of a command passes for an outsider, by ending at once or while the command keeps its wrapper
        stopped.
        """
        if self._processes is None or not event.outside or event.sender is None:
            return event
        self._processes.drain()
        is_own = event.sender == command or self._processes.descends(event.sender, event.at_ns, command)
        return replace(event, outside=False) if is_own else event

    def _spawned(self, name: str, event: Spawned, opened: Opened, wrapper: int | None, *, over: bool) -> Spawned:
        """The spawn with the kernel's stamp, and the pid and start time that the command has here.

        Which process it is has to be proven: by the fork that the kernel saw, by a wrapper that lives, or, where that
        is gone (None), by the start time. Of a command that is over only the kernel can tell.
        """
        parent = wrapper or opened.wrapper_pid
        start = self._started(parent, event.before_ns, event.at_ns)
        if start is not None and parent == opened.wrapper_pid and start.pid != event.pid:
            start = None
        host_pid: int | None = None
        if start is not None:
            host_pid = start.pid
        elif wrapper == opened.wrapper_pid:
            host_pid = event.pid
        elif wrapper and event.start_ticks is not None:
            host_pid = kernel.host_pid(wrapper, event.pid, event.start_ticks)
        elif not over and event.start_ticks is not None and kernel.start_ticks(event.pid) == event.start_ticks:
            host_pid = event.pid
        is_proven = start is not None and bool(wrapper)
        if host_pid is not None and not (over or is_proven) and not self._is_theirs(name, host_pid, event):
            host_pid = start = None
        ticks = event.start_ticks
        if host_pid is not None and not over:  # as it is here: another time namespace counts otherwise
            ticks = kernel.start_ticks(host_pid) or ticks
        return replace(event, start_ticks=ticks, host_pid=host_pid, exec_ns=start.exec_ns if start else None)

    def _started(self, parent: int, before_ns: int, at_ns: int) -> "kernel.Start | None":
        if self._processes is None:
            return None
        self._hear(self._processes, at_ns + _EXEC_WITHIN_NS)
        return self._processes.started(parent, before_ns, at_ns)

    def _hear(self, processes: Processes, until_ns: int) -> None:
        """Take in what the kernel has said, unless whatever it says of what was is in, as of journals that waited."""
        if self._heard_ns < until_ns:
            self._heard_ns = time.monotonic_ns()
            processes.drain()

    def _wrapper(self, file: str) -> int | None:
        """The pid here of the wrapper that lives; 0 where it has none here, None where it is gone."""
        try:
            return writer_pid(file, self._directory_fd)
        except JournalFault:
            return None

    def _is_theirs(self, file: str, pid: int, event: Spawned) -> bool:
        """Whether a living process can be the one that a journal means: of the journal's owner, and begun when it says.

        Anybody can write down anybody's pid. What root runs may be anybody's.
        """
        ticks = kernel.start_ticks(pid)
        try:
            owner = os.stat(file, dir_fd=self._directory_fd, follow_symlinks=False).st_uid
            is_of_owner = owner in (0, os.stat(f"/proc/{pid}").st_uid)
        except OSError:
            return False
        slept_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        began_ns = (ticks or 0) * _TICK_NS
        return is_of_owner and event.before_ns - 2 * _TICK_NS <= began_ns <= event.at_ns + slept_ns + 2 * _TICK_NS

    def _is_of_this_boot(self, opened: Opened) -> bool:
        return opened.clock.boot_id == self._boot_id

    def _is_early(self, at_ns: int, within_ns: int) -> bool:
        return self._processes is not None and 0 <= time.monotonic_ns() - at_ns < within_ns


def _command(instance: Instance | None, events: Sequence[Event]) -> int | None:
    """The command's pid, where a pid means the same here as to its wrapper."""
    said = instance if instance is not None and instance.pid is not None else None
    spawned = said or next((event for event in events[:_HEAD] if isinstance(event, Spawned)), None)
    return None if spawned is None or spawned.pid != spawned.host_pid else spawned.host_pid


def _named_by_its_marks(opened: Opened) -> Spawned | None:
    """A command that nobody saw start, by the FIFO in its environment; it began within a tick of its start time.

    What it started has that environment, too, and may have outlived it: so only who began right after the opening.
    """
    found = kernel.eldest_that_says(wire.ENV_MARKS.encode(), f"/{opened.instance}{wire.MARKS_SUFFIX}".encode())
    if found is None:
        return None
    slept_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    began_ns = max(found.ticks * _TICK_NS - slept_ns, opened.at_ns)
    if began_ns > opened.at_ns + _SPAWNED_WITHIN_NS:
        return None
    at_ns = began_ns + _TICK_NS
    return Spawned(at_ns, began_ns, found.pid, found.ticks, found.pid, None, Source.AGENT)


def _with_end(events: list[Event], exited: Exited, kernel_ns: int) -> list[Event]:
    """The facts with the kernel's stamp of the end; nothing that was received later happened later."""
    end_ns = min(kernel_ns, exited.at_ns)
    before = [
        replace(event, at_ns=end_ns) if event.at_ns is not None and event.at_ns > end_ns else event
        for event in events[:-1]
    ]
    return [*before, replace(exited, kernel_ns=kernel_ns)]
