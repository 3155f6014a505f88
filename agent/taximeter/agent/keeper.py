"""Holds living commands by pidfd, and their marks' FIFOs, so that nothing of them is lost with a wrapper.

Owns a thread that only waits and stamps: a command's end is stamped when it is shown, however busy the event loop is.
A FIFO is held from the beginning (what is in it lives as long as anybody holds it) and read only once its wrapper is
gone. Refuses to know what an end or a mark means.
"""

import contextlib
import errno
import os
import select
import threading
import time
from collections import deque
from dataclasses import dataclass

from taximeter import kernel

_READ_BYTES = 65_536
#: What is taken of one instance's marks before somebody has to ask for more: so no flood fills the memory.
_MOST_BYTES = 262_144
#: So often as much is read of what an ended command left behind: a pipe holds a MiB.
_PIPEFULS = 5
#: So much of the disk is taken for one instance; what is said beyond it is in memory only until it is booked.
_MOST_KEPT_BYTES = 8_388_608
#: So much is worth to be given back to the disk.
_WORTH_BYTES = 65_536
_BLOCK_BYTES = 512


@dataclass(frozen=True, slots=True)
class Ended:
    """A command's end was shown at `at_ns`; its wait status, where the kernel tells."""

    instance: str
    at_ns: int
    status: int | None


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
    listens: bool = False
    heard: int = -1  #: a file that what is heard goes to before anybody has it; -1: there is none
    heard_bytes: int = 0  #: where that file ends
    given_back_bytes: int = 0  #: so much at its beginning takes no room any more
    told_bytes: int = 0  #: so much of it was told
    waiting_bytes: int = 0
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
        if pidfd >= 0 and _is_readable(pidfd):
            os.close(pidfd)
            pidfd = -1
        held = _Held(instance, pidfd, fifo)
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
            held.heard = heard
            self._recall(held, taken)
            self._by_fd[held.fifo] = held
            self._epoll.register(held.fifo, select.EPOLLIN | select.EPOLLET)
            self._read(held, time.monotonic_ns())

    def drain(self, instance: str) -> list[Said]:
        """What is left in the FIFO of an instance that is listened to and has ended: at most what a pipe holds."""
        with self._lock:
            held = self._held.get(instance)
            if held is None or not held.listens:
                return []
            for _ in range(_PIPEFULS + (held.heard_bytes - held.told_bytes) // _MOST_BYTES):
                held.waiting_bytes = 0
                before = len(self._news)
                self._read(held, time.monotonic_ns())
                if len(self._news) == before:
                    break
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
        """What has happened since, in order; more of a flood is read once this was taken."""
        with self._lock:
            news, self._news = list(self._news), deque()
            for item in news:
                held = self._held.get(item.instance)
                if isinstance(item, Said) and held is not None:
                    held.waiting_bytes -= len(item.data)
                    self._read(held, time.monotonic_ns())
            if not self._news:
                _clear(self.fd)
        return news

    def read_on(self) -> None:
        """Read every FIFO that is listened to, whether it tells of news or not: what had no room may have some now."""
        with self._lock:
            for held in self._held.values():
                self._read(held, time.monotonic_ns())

    def give_back(self, instance: str, booked: int) -> None:
        """Give the disk back what is kept of an instance, if all of it is booked for good: up to `booked`.

        The file goes on where it ended, behind a hole: so a place in it is the same place, whoever is killed when.
        """
        with self._lock:
            held = self._held.get(instance)
            if held is None or held.heard < 0 or not booked == held.told_bytes == held.heard_bytes:
                return
            if held.heard_bytes - held.given_back_bytes < _WORTH_BYTES:
                return
            with contextlib.suppress(OSError):
                os.ftruncate(held.heard, 0)
                held.given_back_bytes = held.heard_bytes

    def fall_deaf(self) -> None:
        """Read no FIFO any more: what is said from now on waits there for whoever comes next."""
        with self._lock:
            for held in self._held.values():
                held.listens = False

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
            for fd in (held.pidfd, held.fifo, held.heard):
                if fd >= 0:
                    self._by_fd.pop(fd, None)
                    os.close(fd)

    # --- The thread ---

    def _watch(self) -> None:
        while True:
            ready = self._epoll.poll()
            at_ns = time.monotonic_ns()
            with self._lock:
                for fd, _ in ready:
                    if fd == self._stop:
                        return
                    held = self._by_fd.get(fd)
                    if held is None:
                        continue
                    if fd == held.fifo:
                        self._read(held, at_ns)
                    elif _is_readable(fd):
                        self._end(held, at_ns)

    def _end(self, held: _Held, at_ns: int) -> None:
        if held.end is None:
            held.end = Ended(held.instance, at_ns, kernel.exit_status(held.pidfd))
            self._tell(held.end)

    def _recall(self, held: _Held, taken: int) -> None:
        if held.heard < 0:
            return
        status = os.fstat(held.heard)
        held.heard_bytes = max(status.st_size, taken)
        held.given_back_bytes = max(0, held.heard_bytes - status.st_blocks * _BLOCK_BYTES)
        held.told_bytes = taken

    def _read(self, held: _Held, at_ns: int) -> None:
        while held.listens and held.waiting_bytes < _MOST_BYTES:
            try:
                data, end = self._take_in(held)
            except BlockingIOError:
                return
            if not data:
                return
            held.waiting_bytes += len(data)
            self._tell(Said(held.instance, at_ns, data, end))

    def _take_in(self, held: _Held) -> tuple[bytes, int | None]:
        """What comes next, and where it ends in the file: what is left in there, then what is in the FIFO."""
        if held.told_bytes < held.heard_bytes or self._keep(held):
            data = _read_at(held.heard, min(_READ_BYTES, held.heard_bytes - held.told_bytes), held.told_bytes)
            if data:
                held.told_bytes += len(data)
                return data, held.told_bytes
            held.told_bytes = held.heard_bytes  # the disk lost it
        return os.read(held.fifo, _READ_BYTES), None

    def _keep(self, held: _Held) -> bool:
        """Empty the FIFO into the file in one step: killed at any moment, it is in the one or in the other.

        False where the file takes no more of it, so that it has to be read: who says it must not wait for a disk.
        """
        if held.heard < 0 or held.heard_bytes - held.given_back_bytes >= _MOST_KEPT_BYTES:
            return False
        flags = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
        try:
            size = os.splice(held.fifo, held.heard, _READ_BYTES, offset_dst=held.heard_bytes, flags=flags)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.EINVAL:  # no file system to splice to
                os.close(held.heard)
                held.heard = -1
            return False  # or a full disk, which may have room later
        held.heard_bytes += size
        return size > 0

    def _tell(self, item: Ended | Said) -> None:
        self._news.append(item)
        os.eventfd_write(self.fd, 1)


def _is_readable(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _read_at(fd: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(fd, size, offset)
    except OSError:
        return b""


def _clear(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(fd)
