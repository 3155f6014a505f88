"""While the command runs: its end, signals for it, what it says, a heartbeat each second.

Owns the loop around epoll. Order is the rule in it: signals first, then the end, then a bounded bite of marks and of
what shows readiness, so that no flood of either delays a signal or the end. Refuses to judge what it writes down.
"""

import gc
import posix
import select
import time

from taximeter import wire
from taximeter.wrap import facts, libc, lines, proc
from taximeter.wrap.children import Children
from taximeter.wrap.ends import Ends
from taximeter.wrap.intake import Intake
from taximeter.wrap.run import Run
from taximeter.wrap.signals import Signals

_NS_PER_S = 1_000_000_000
#: The calendar moves against CLOCK_MONOTONIC when it is set, and when the machine has slept, and not otherwise.
_MOVED_NS = 1_000_000
#: ... which is noted at once, but not again and again.
_AGAIN_NS = 100_000_000
#: After so long a command is none of the shortest: what only others need is begun then.
_SETTLED_NS = 4_000_000


class Watch:
    """What is watched of one running command."""

    def __init__(self, run: Run) -> None:
        """Take hold of everything. Raises OSError, which costs the meter but not the command."""
        gc.enable()
        libc.become_subreaper()
        self._run = run
        self._children = Children(run)
        self.ends = Ends(run, self._children)
        self._signals = Signals(run, self._children)
        self._pidfd = posix.pidfd_open(run.pid)
        self._epoll = select.epoll()
        for fd in (self._signals.fd, self._pidfd):
            self._epoll.register(fd, select.EPOLLIN)
        self.intake = Intake(run)
        self.intake.begin(self._epoll)
        self._readiness = run.readiness
        if self._readiness is not None:
            self._readiness.begin(self._epoll)
        if run.writer is not None:
            run.writer.reserve()
        self._next_beat_ns = run.spawn_ns + wire.HEARTBEAT_NS
        self._calendar_ns = time.time_ns() - time.monotonic_ns()
        self._noted_ns = 0
        if proc.is_unfiltered():
            run.utc_error = libc.utc_error_ns
        timeout_ns = run.options.ready_timeout_ns
        self._deadline_ns = None if timeout_ns is None else run.spawn_ns + timeout_ns
        self._settles_ns: int | None = run.spawn_ns + _SETTLED_NS
        self._children.look()  # it may have been stopped before anybody looked

    def wait(self) -> int:
        """Return once the command has ended, with the time of that (CLOCK_MONOTONIC, ns)."""
        while True:
            ready = [fd for fd, _ in self._epoll.poll(self._timeout_s())]
            now_ns = time.monotonic_ns()
            self._look_at_calendar(now_ns)
            if self._signals.fd in ready:
                self._signals.take(now_ns)
            if self._pidfd in ready:
                self.ends.ask_who_killed_it()
                return now_ns
            self.intake.take(ready, now_ns)
            if self._readiness is not None:
                now_ns = self._readiness.take(ready, now_ns)
            self._keep_time(now_ns)

    def _look_at_calendar(self, now_ns: int) -> None:
        """Note a step or a sleep before what is said after it: it is of those predictions that were open then."""
        calendar_ns = time.time_ns() - now_ns
        if abs(calendar_ns - self._calendar_ns) <= _MOVED_NS:
            return
        if now_ns > self._noted_ns + _AGAIN_NS:
            self._calendar_ns, self._noted_ns = calendar_ns, now_ns
            self._beat(now_ns)

    def _timeout_s(self) -> float:
        if self._children.more:
            return 0
        next_ns = self._next_beat_ns
        if self._deadline_ns is not None and self._deadline_ns < next_ns:
            next_ns = self._deadline_ns
        if self.intake.next_ns is not None and self.intake.next_ns < next_ns:
            next_ns = self.intake.next_ns
        if self._readiness is not None and self._readiness.next_ns is not None:
            next_ns = min(next_ns, self._readiness.next_ns)
        if self._settles_ns is not None and self._settles_ns < next_ns:
            next_ns = self._settles_ns
        return max(0, next_ns - time.monotonic_ns()) / _NS_PER_S

    def _keep_time(self, now_ns: int) -> None:
        if self._children.more:
            self._children.reap()
        if self._run.ready_ns is not None:
            self._deadline_ns = None
        elif self._deadline_ns is not None and now_ns >= self._deadline_ns:
            self._deadline_ns = None
            self._run.write_or_drop(lines.fact(wire.FACT_READY_TIMEOUT, now_ns))
        if self._settles_ns is not None and now_ns >= self._settles_ns:
            self._settles_ns = None
            self.ends.settle()
        if now_ns >= self._next_beat_ns:
            self._beat(now_ns)

    def _beat(self, now_ns: int) -> None:
        """Note a sign of life, if there is one; beats that were missed are not made up for.

        Who was stopped and wakes late finds the time for a beat come, and the command perhaps long gone.
        """
        if proc.has_ended(self._run.pid):
            return
        next_ns = max(self._next_beat_ns + wire.HEARTBEAT_NS, now_ns + wire.HEARTBEAT_NS // 2)
        self._next_beat_ns = min(next_ns, now_ns + wire.HEARTBEAT_NS)
        run = self._run
        cpu_ns = proc.cpu_ns(run.pid)
        run.rss_peak_bytes = proc.rss_peak_bytes(run.pid) or run.rss_peak_bytes
        if cpu_ns is not None:
            cpu_ns += run.orphans_cpu_ns
        used = facts.usage(cpu_ns, run.rss_peak_bytes)
        wrote = run.write_or_drop(facts.heartbeat(now_ns, run.clock(), used))
        self.ends.look(now_ns)
        if wrote:
            self.intake.look_for_room()
