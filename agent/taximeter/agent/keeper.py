"""Holds living commands by pidfd, and their marks' FIFOs, so that nothing of them is lost with a wrapper.

Owns a thread that only waits and stamps: a command's end is stamped when it is shown, however busy the event loop is.
A FIFO is held from the beginning (what is in it lives as long as anybody holds it) and read only once its wrapper is
gone. Refuses to know what an end or a mark means.
"""

import array
import contextlib
import fcntl
import os
import select
import termios
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from taximeter import kernel
from taximeter.agent.heard import Heard

_READ_BYTES = 65_536
#: What is taken of one instance's marks before somebody has to ask for more: so no flood fills the memory.
_MOST_BYTES = 262_144
#: So often as much is read of what an ended command left behind: a pipe holds a MiB.
_PIPEFULS = 5
#: So often it is looked who lives, so that an end that was shown is known to be no older, however busy the loop is.
_LOOK_S = 0.5
#: What one look shows at most; where there is more, who was not shown may have ended all the same.
_MOST_SHOWN = 1023


@dataclass(frozen=True, slots=True)
class Ended:
    """A command's end was shown at `at_ns`; its wait status, where the kernel tells; and when it still lived."""

    instance: str
    at_ns: int
    status: int | None
    alive_ns: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """What came out of an instance's FIFO at `at_ns`."""

    instance: str
    at_ns: int
    data: bytes
    end: int | None  #: where it ends in the file of what was heard; None where it is not kept


@dataclass(slots=True)
class _Held:
    instance: str
    pidfd: int  #: -1: the command cannot be held
    fifo: int  #: -1: there is none
    since_ns: int = 0  #: since when; it lived then
    listens: bool = False
    heard: Heard = field(default_factory=lambda: Heard(-1, 0))
    waiting_bytes: int = 0  #: told, and not dealt with
    drains: int | None = None  #: so often it may still be read; None: its command lives
    end: Ended | None = None


class Keeper:
    """What is held of every open instance; all methods but the thread's are called from the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._by_fd: dict[int, _Held] = {}
        self._news: deque[Ended | Said] = deque()
        self._epoll = select.epoll()
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  #: readable when there is news
        self._looked_ns = 0  # when the thread began to look, the last time that it has seen who lives
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._thread = threading.Thread(target=self._watch, name="keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let go of everything."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        for name in list(self._held):
            self.release(name)
        self._epoll.close()
        os.close(self._stop)
        os.close(self.fd)

    def hold(self, instance: str, pidfd: int, fifo: int) -> None:
        """Take over these descriptors, either of which may be -1.

        What has ended already is not held: nobody saw when.
        """
        since_ns = time.monotonic_ns()
        if pidfd >= 0 and _is_readable(pidfd):
            os.close(pidfd)
            pidfd = -1
        held = _Held(instance, pidfd, fifo, since_ns)
        with self._lock:
            self._held[instance] = held
            if pidfd >= 0:
                self._by_fd[pidfd] = held
                self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)

    def holds(self, instance: str) -> bool:
        """Whether anything is held of it."""
        return instance in self._held

    def is_alive(self, instance: str) -> bool:
        """Whether its command is held and has not ended."""
        held = self._held.get(instance)
        return held is not None and held.pidfd >= 0 and held.end is None and not _is_readable(held.pidfd)

    def end_of(self, instance: str) -> Ended | None:
        """Its command's end, as it was shown while it was held."""
        with self._lock:
            held = self._held.get(instance)
            if held is None or held.pidfd < 0:
                return None
            if held.end is None and _is_readable(held.pidfd):
                self._end(held, time.monotonic_ns())
            return held.end

    def listen(self, instance: str, heard: int = -1, taken: int = 0) -> None:
        """Read its FIFO from now on: nobody else does any more.

        Takes over `heard`, a file that all of it goes to in one step, so that it does not die with this process, and
        begins with what an earlier agent left in there beyond `taken` bytes. -1: it is not kept.
        """
        with self._lock:
            held = self._held.get(instance)
            if held is None or held.fifo < 0 or held.listens:
                if heard >= 0:
                    os.close(heard)
                return
            held.listens = True
            held.heard = Heard(heard, taken)
            self._by_fd[held.fifo] = held
            self._epoll.register(held.fifo, select.EPOLLIN | select.EPOLLET)
            self._read(held, time.monotonic_ns())

    def drain(self, instance: str) -> list[Said]:
        """More of what is left of an instance that is listened to and has ended: at most what a pipe holds, in bites.

        Empty when there is no more; then it is to be let go of.
        """
        with self._lock:
            held = self._held.get(instance)
            if held is None or not held.listens:
                return []
            if held.drains is None:
                held.drains = _PIPEFULS + held.heard.left_bytes // _MOST_BYTES
            if held.drains:
                held.drains -= 1
                held.waiting_bytes = 0
                self._read(held, time.monotonic_ns())
            left: list[Said] = []
            others: deque[Ended | Said] = deque()
            for item in self._news:
                if isinstance(item, Said) and item.instance == instance:
                    left.append(item)
                else:
                    others.append(item)
            self._news = others
            return left

    def take(self) -> list[Ended | Said]:
        """What has happened since, in order."""
        with self._lock:
            news, self._news = list(self._news), deque()
            _clear(self.fd)
        return news

    def go_on(self, said: Said) -> None:
        """That was dealt with: read as much more of a flood, unless its command has ended and it is to be drained."""
        with self._lock:
            held = self._held.get(said.instance)
            if held is not None and held.drains is None:
                held.waiting_bytes = max(0, held.waiting_bytes - len(said.data))
                self._read(held, time.monotonic_ns())

    def read_on(self) -> None:
        """Read every FIFO that is listened to, whether it tells of news or not: what had no room may have some now."""
        with self._lock:
            for held in self._held.values():
                if held.drains is None:
                    self._read(held, time.monotonic_ns())

    def give_back(self, instance: str, booked: int) -> None:
        """Give the disk back what is kept of an instance, if all of it is booked for good: up to `booked`."""
        with self._lock:
            held = self._held.get(instance)
            if held is not None:
                held.heard.give_back(booked)

    def fall_deaf(self) -> None:
        """Read no FIFO any more: what is said from now on waits there for whoever comes next."""
        with self._lock:
            for held in self._held.values():
                held.listens = False

    def is_silent(self, instance: str) -> bool:
        """Whether nothing waits that was said: in the FIFO, or read and not taken yet; also where there is no FIFO."""
        with self._lock:
            held = self._held.get(instance)
            if held is None or held.fifo < 0:
                return True
            waits = array.array("i", [0])
            fcntl.ioctl(held.fifo, termios.FIONREAD, waits)
            return not (waits[0] or held.waiting_bytes or held.heard.left_bytes)

    def tell_again(self, end: Ended) -> None:
        """Have an end among the next news."""
        with self._lock:
            self._tell(end)

    def release(self, instance: str) -> None:
        """Let go of an instance; what it said and nobody took is gone."""
        with self._lock:
            held = self._held.pop(instance, None)
            if held is None:
                return
            held.heard.close()
            for fd in (held.pidfd, held.fifo):
                if fd >= 0:
                    self._by_fd.pop(fd, None)
                    os.close(fd)

    # --- The thread ---

    def _watch(self) -> None:
        while True:
            looked_ns = time.monotonic_ns()
            ready = self._epoll.poll(_LOOK_S, _MOST_SHOWN)
            at_ns = time.monotonic_ns()
            with self._lock:
                for fd, _ in ready:
                    if fd == self._stop:
                        return
                    held = self._by_fd.get(fd)
                    if held is None:
                        continue
                    if fd == held.fifo:
                        if held.drains is None:  # else drain() alone reads, so that it comes to an end
                            self._read(held, at_ns)
                    elif _is_readable(fd):
                        self._end(held, at_ns)
                if len(ready) < _MOST_SHOWN:
                    self._looked_ns = looked_ns

    def _end(self, held: _Held, at_ns: int) -> None:
        if held.end is None:
            alive_ns = max(held.since_ns, self._looked_ns)
            held.end = Ended(held.instance, at_ns, kernel.exit_status(held.pidfd), alive_ns)
            self._tell(held.end)

    def _read(self, held: _Held, at_ns: int) -> None:
        while held.listens and held.waiting_bytes < _MOST_BYTES:
            try:
                data, end = held.heard.take_in(held.fifo, _READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            held.waiting_bytes += len(data)
            self._tell(Said(held.instance, at_ns, data, end))

    def _tell(self, item: Ended | Said) -> None:
        self._news.append(item)
        os.eventfd_write(self.fd, 1)


def _is_readable(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _clear(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(fd)
