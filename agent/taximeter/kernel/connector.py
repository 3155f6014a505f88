"""The kernel's process events (netlink's proc connector): who forked, ran a program and ended, stamped by the kernel.

Owns the socket and the thread that empties it, and notices what was lost. Refuses to know instances: what a stamp means
for one is for those who ask. The thread is there so that a busy event loop loses nothing; who asks empties the socket
first (`drain`), since what the kernel said of a process it said before its wrapper could write of it, but for the very
last event, which may come a moment after the parent has learned of the end.
"""

import contextlib
import errno
import os
import select
import socket
import threading
import time
from pathlib import Path

from taximeter.kernel import messages
from taximeter.kernel.clocks import time_offsets
from taximeter.kernel.group import End, Start
from taximeter.kernel.groups import NEVER_NS, ThreadGroups
from taximeter.kernel.receiving import Slots
from taximeter.kernel.subscribing import subscribe

#: The exec stamp is taken in execve, after the point of no return, and before the first instruction of the program;
#: the exit stamp right after the exit notification, which is what a pidfd shows and a parent is told. Measured against
#: the kernel's tracepoints, 99 % of the durations between the two lie within 0.07 ms, also with every core loaded.
STAMP_WITHIN_NS = 100_000

BUFFER_BYTES = 32 * 1024 * 1024
_SLOTS = 512
#: What an event takes of a socket's buffer, by the kernel's own count.
_EVENT_BYTES = 832
#: More than a machine says that does nothing but fork; the reader rests for as long as fills a quarter of the buffer.
_EVENTS_PER_S = 100_000
_LONGEST_PAUSE_S = 0.05


class ProcessEvents:
    """The machine's processes as the kernel tells of them since `open`; every method may be called from any thread."""

    def __init__(self, listening: socket.socket, groups: ThreadGroups) -> None:
        self._socket = listening
        self._groups = groups
        self._slots = Slots(_SLOTS)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._ahead_ns = time_offsets().monotonic  # the kernel stamps by the machine's clock, even if we have another
        self._empty_ns = time.monotonic_ns()  # when nothing was waiting, last
        self._losing = False
        self.events = 0  #: forks, execs and exits heard of
        self.overruns = 0  #: times that the kernel found the buffer full, and dropped events
        self.buffer_bytes = listening.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.trouble: str | None = None  #: why it hears nothing any more

    @classmethod
    def open(cls, buffer_bytes: int = BUFFER_BYTES, groups: ThreadGroups | None = None) -> "ProcessEvents":
        """Begin to listen; raises TaximeterError where the kernel does not let us, or stays silent."""
        return cls(subscribe(buffer_bytes), groups or ThreadGroups())

    def start(self) -> None:
        """Let a thread of its own empty the buffer from now on."""
        self._thread = threading.Thread(target=self._read_on, name="process-events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more; what is known stays known. Once is enough, twice does no harm."""
        if self._thread is not None:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._thread = None
        with self._lock:
            if self._socket.fileno() >= 0:
                with contextlib.suppress(OSError):
                    self._socket.send(messages.ignore(self._socket.getsockname()[0], 0))
                self._socket.close()
                os.close(self._wake)

    def drain(self) -> None:
        """Take in what the kernel has said by now, without waiting for more."""
        with self._lock:
            self._take(time.monotonic_ns())

    def started(self, parent_pid: int, before_ns: int, at_ns: int) -> Start | None:
        """The process that `parent_pid` forked between these moments, in the pids of the agent; its first exec, if any.

        None where there is none, or several that ran a program, or where a loss may hide one. A start without exec may
        have it a moment later: a spawn returns before the kernel has said it.
        """
        with self._lock:
            return self._groups.started(parent_pid, before_ns, at_ns)

    def ended(self, pid: int, since_ns: int) -> End | None:
        """The last exit event of the process that had `pid` at `since_ns`, between its fork and its parent's wait.

        None while one of its threads lives (see `pending`), where it is too long ago, where a loss may hide something,
        and where the process began before we listened and nobody let us `follow` it.
        """
        with self._lock:
            return self._groups.ended(pid, since_ns)

    def descends(self, pid: int, since_ns: int, ancestor: int) -> bool:
        """Whether all forks were heard by which the process that had `pid` at `since_ns` comes from `ancestor`."""
        with self._lock:
            return self._groups.descends(pid, since_ns, ancestor)

    def pending(self, pid: int, since_ns: int) -> bool:
        """Whether `ended` has no answer as yet, but will have: the exit event comes after the exit notification."""
        with self._lock:
            return self._groups.pending(pid, since_ns)

    def follow(self, pid: int, since_ns: int) -> bool:
        """Learn the threads of a living process whose beginning nobody heard, or heard before a loss; whether it lives.

        The caller holds a pidfd of it, and knows that it had this pid at `since_ns`, which `ended` is to be asked with.
        """
        with self._lock:
            self._take(NEVER_NS)
            if self._groups.pending(pid, since_ns):
                return True  # all of it was heard
            at_ns = time.monotonic_ns()
            threads = _living_threads(pid)
            if threads:
                self._groups.follow(at_ns, pid, since_ns, threads)
            return bool(threads)

    # --- Reading ---

    def _read_on(self) -> None:
        events, wake = select.poll(), select.poll()
        events.register(self._socket, select.POLLIN)
        events.register(self._wake, select.POLLIN)
        wake.register(self._wake, select.POLLIN)
        pause_ms = 1000 * min(_LONGEST_PAUSE_S, self.buffer_bytes / _EVENT_BYTES / _EVENTS_PER_S / 4)
        while self.trouble is None:
            events.poll()
            self.drain()
            if wake.poll(pause_ms):
                return

    def _take(self, until_ns: int) -> None:
        """Read until nothing waits, or what waits was said after `until_ns`."""
        while self._socket.fileno() >= 0 and self.trouble is None:
            now_ns = time.monotonic_ns()
            try:
                count = self._slots.receive(self._socket.fileno())
            except BlockingIOError:
                self._found_empty(now_ns)
                return
            except OSError as error:
                self._lost(error)
                continue
            if self._note(count) > until_ns:
                return

    def _note(self, count: int) -> int:
        """Pass on what was received; returns the last stamp."""
        groups = self._groups
        at_ns = events = 0
        for what, stamp_ns, first, second, third, fourth in messages.parse_slots(
            self._slots.slots(count), self._slots.lengths(count)
        ):
            at_ns = stamp_ns + self._ahead_ns
            if what == messages.FORK:
                groups.forked(at_ns, second, third, fourth)
            elif what == messages.EXEC:
                groups.execed(at_ns, second)
            elif what == messages.EXIT:
                groups.exited(at_ns, first, second, third)
            else:
                continue
            events += 1
        self.events += events
        return at_ns

    def _found_empty(self, now_ns: int) -> None:
        if self._losing:
            # Once there is no room, the kernel says so once, and not again before the buffer is empty.
            self._groups.lost(self._empty_ns, time.monotonic_ns())
            self._losing = False
        self._empty_ns = now_ns

    def _lost(self, error: OSError) -> None:
        self._losing = True
        self._groups.lost(self._empty_ns, NEVER_NS)
        if error.errno == errno.ENOBUFS:
            self.overruns += 1
        else:
            self.trouble = f"cannot hear the kernel's process events any more: {error.strerror}"


def _living_threads(pid: int) -> list[int]:
    """The threads of a process that have not ended; none where it is gone."""
    living: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                stat = (thread / "stat").read_bytes()
                if stat[stat.rindex(b")") + 2 :][:1] not in b"ZX":
                    living.append(int(thread.name))
    return living
