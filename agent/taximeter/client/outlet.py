"""The way out: the marks' FIFO of the instance, and a bounded queue for what it has no room for now.

Owns the descriptor, the queue, and what becomes of both after a fork and at exit. Refuses to know what a mark says, to
wait, and to raise anything. Takes no lock that anybody waits for, so that a signal handler may send a mark in the midst
of another one: who finds the queue being emptied leaves its mark there, and the one who empties it looks again.
"""

import os
import sys
from _thread import allocate_lock, start_new_thread
from os import write
from time import monotonic_ns

from taximeter import wire
from taximeter.client.around import is_foreign

#: So many marks wait at most before those that may be left out are; a finish may not.
MOST_WAITING = 1024
_PIPE_BYTES = 1_048_576
#: So much is written whole, or not at all. What waits is written in such pieces, and not line by line: with each write
#: other threads run, who may put more behind it than a line.
_WHOLE_BYTES = 4096
#: Ours is at least this one: whoever closes all descriptors that are not his and opens others does not get its number.
_HIGH_FD = 200
_LAST_TRY_NS = 100_000_000
_POLL_MS = 1000


class Outlet:
    """Where the marks of this process go; `off` where there is no meter."""

    __slots__ = ("_at_exit", "_lock", "_waiter", "dropped", "fd", "off", "path", "pid", "waiting")

    def __init__(self, path: "str | None") -> None:
        """`path` is the FIFO's; without one nothing is ever sent."""
        self.off = not path
        self.dropped = 0  #: what was not told, counted
        self.path = path or ""
        self.pid = os.getpid()
        self.fd = -1
        self._at_exit = self._waiter = False
        self._lock = allocate_lock()
        self.waiting: list[bytes] = []
        os.register_at_fork(after_in_child=self._forked)

    def tell(self, line: bytes, needed: bool = False) -> bool:
        """Send one mark, now or later; False if it was dropped, which one that is `needed` never is."""
        if not self.waiting:
            try:
                write(self.fd, line)
            except OSError as error:  # it is full, or not open
                if is_foreign(error):
                    raise
            else:
                return True
        if len(self.waiting) >= MOST_WAITING and not needed:
            self.drain()
            if len(self.waiting) >= MOST_WAITING:
                self.dropped += 1
                return False
        self.waiting.append(line)
        self.drain()
        return True

    def flush(self) -> None:
        """Send what waits, for a tenth of a second at most: at exit."""
        deadline_ns = monotonic_ns() + _LAST_TRY_NS
        self.drain()
        while self.waiting and (left_ns := deadline_ns - monotonic_ns()) > 0:
            if not self._poll(left_ns // 1_000_000 + 1):
                return
            self.drain()

    def drain(self) -> None:
        """Write what waits, in order, as far as there is room; a thread of our own sees to the rest."""
        while self.waiting:
            # Taken by no call of ours, behind which a signal's exception might come, and nobody would let go of it.
            (is_ours,) = map(self._lock.acquire, (False,))
            if not is_ours:
                return
            try:
                done = self._write_all()
                if not done:
                    self._see_to_it()
            finally:
                self._lock.release()
            if not done:
                return

    def _write_all(self) -> bool:
        """Whether the queue is empty now. Whoever calls has the lock."""
        waiting = self.waiting
        try:
            if self.fd < 0:
                self._open()
            while waiting:
                lines = size = 0
                for line in waiting:
                    size += len(line)
                    if lines and size > _WHOLE_BYTES:
                        break
                    lines += 1
                said = b"".join(waiting[:lines])
                try:
                    (_,) = map(write, (self.fd,), (said,))  # by no call, either, so that nothing is sent twice
                except OSError as error:
                    if error.errno != 9 or is_foreign(error):  # EBADF: somebody closed it
                        raise
                    self._open()
                    continue
                del waiting[:lines]
        except OSError as error:  # no room, or no FIFO any more
            if is_foreign(error):
                raise
            return False
        return True

    def _open(self) -> None:
        """Open the FIFO. Raises OSError."""
        self.fd = -1
        from fcntl import F_DUPFD_CLOEXEC, F_GETPIPE_SZ, F_SETPIPE_SZ, fcntl
        from stat import S_ISFIFO

        # For reading, too, and reading nothing: so it opens without a reader, and no reader's death is a SIGPIPE.
        fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        if not S_ISFIFO(os.fstat(fd).st_mode):
            self.off = True  # whatever that is, nobody wants marks in it
            self.waiting.clear()
            os.close(fd)
            raise FileNotFoundError(2, "expected a FIFO")
        try:
            self.fd = fcntl(fd, F_DUPFD_CLOEXEC, _HIGH_FD)
            os.close(fd)
        except OSError as error:  # no descriptor may have such a number
            self.fd = fd
            if is_foreign(error):
                raise
        try:
            if fcntl(self.fd, F_GETPIPE_SZ) < _PIPE_BYTES:
                fcntl(self.fd, F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError as error:  # the user's limit
            if is_foreign(error):
                raise

    def _forked(self) -> None:
        """In a child: what waits is the parent's to send, and so is its thread; the descriptor is opened anew.

        Who makes itself a daemon closes what it inherited, and another file may get the number.
        """
        self.pid = os.getpid()
        self._close()
        self._lock = allocate_lock()
        self._waiter = self._at_exit = False
        self.waiting.clear()
        self.dropped = 0

    def _close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError:
                pass

    def _see_to_it(self) -> None:
        """That what waits is tried again without a further call, and once more at exit."""
        if not self._at_exit:
            self._at_exit = True
            import atexit

            atexit.register(self.flush)
            pools = sys.modules.get("multiprocessing.util")  # whose children end without atexit
            if pools is not None:
                pools.Finalize(None, self.flush, exitpriority=0)
        if not self._waiter and self.fd >= 0:
            self._waiter = True
            try:
                start_new_thread(self._wait, ())
            except RuntimeError as error:  # no thread can be had: each further mark tries again
                if is_foreign(error):
                    raise
                self._waiter = False

    def _wait(self) -> None:
        """Wait for room, send, until nothing waits; a thread."""
        while self.waiting and self._poll(_POLL_MS):
            self.drain()
        self._waiter = False
        self.drain()

    def _poll(self, wait_ms: int) -> bool:
        """Wait for room in the FIFO; False if it is not open."""
        from select import POLLOUT, poll

        fd = self.fd
        if fd < 0:
            return False
        poller = poll()
        poller.register(fd, POLLOUT)
        poller.poll(wait_ms)
        return True


#: Of this process.
OUTLET = Outlet(os.environ.get(wire.ENV_MARKS))
