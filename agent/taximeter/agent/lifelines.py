"""Holds processes beside the commands by pidfd, and stamps their ends.

Owns a thread that only waits and stamps, so that an end is stamped when it is shown, however busy the event loop is;
there is none before somebody is held. Refuses to know whose processes they are.
"""

import contextlib
import os
import select
import threading
import time
from collections import deque
from typing import NamedTuple

Key = tuple[str, int]  #: an instance, and a pid as that has it


class Shown(NamedTuple):
    """The end of a process was shown at `at_ns`."""

    key: Key
    at_ns: int


class Lifelines:
    """What is held; all methods but the thread's are called from the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fds: dict[Key, int] = {}
        self._keys: dict[int, Key] = {}
        self._news: deque[Shown] = deque()
        self._epoll = select.epoll()
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  #: readable when there is news
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._fds)

    def close(self) -> None:
        """Let go of everything."""
        if self._thread is not None:
            os.eventfd_write(self._stop, 1)
            self._thread.join()
        for key in list(self._fds):
            self.release(key)
        self._epoll.close()
        os.close(self._stop)
        os.close(self.fd)

    def hold(self, key: Key, pidfd: int) -> bool:
        """Take over `pidfd`; False where the process has ended already: nobody saw when."""
        if _is_readable(pidfd):
            os.close(pidfd)
            return False
        with self._lock:
            self._fds[key] = pidfd
            self._keys[pidfd] = key
            self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="lifelines", daemon=True)
            self._thread.start()
        return True

    def release(self, key: Key) -> None:
        """Let go of a process."""
        with self._lock:
            pidfd = self._fds.pop(key, None)
            if pidfd is not None:
                del self._keys[pidfd]
                os.close(pidfd)

    def take(self) -> list[Shown]:
        """The ends that were shown since; each once."""
        with self._lock:
            news, self._news = list(self._news), deque()
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.fd)
        return news

    def _watch(self) -> None:
        while True:
            ready = self._epoll.poll()
            at_ns = time.monotonic_ns()
            with self._lock:
                for fd, _ in ready:
                    if fd == self._stop:
                        return
                    key = self._keys.get(fd)
                    # The number may be another process's by now: that one is not shown.
                    if key is not None and _is_readable(fd):
                        self._news.append(Shown(key, at_ns))
                        os.eventfd_write(self.fd, 1)


def _is_readable(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
