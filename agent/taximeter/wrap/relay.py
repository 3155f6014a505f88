"""One output of the command on its way through us: out of a pipe that is the command's, into what the output was.

Owns the bytes: none is lost, added or put before another. A slow reader slows the command, a reader that is gone is
gone for the command, too, and the end comes when the last one who could write has ended. Refuses to know what the bytes
say. Nothing here ever waits.
"""

import posix
import select
import time

from taximeter.wrap.sink import Sink

_READ_BYTES = 65_536
_EINVAL = 22
#: What a pipe may hold at the command's end; more comes only from those who still write.
_REST_BYTES = 1_048_576


class Relay:
    """What stands in for one output, at one or two descriptors of the command."""

    def __init__(self, fd: int) -> None:
        """Raises OSError."""
        self._sink = Sink(fd)
        self._saved: dict[int, int] = {}
        self._source, self._mouth = posix.pipe2(posix.O_CLOEXEC)
        posix.set_blocking(self._source, False)
        self._poll: select.epoll | select.poll | None = None
        self._always_room = True  # nobody is told of it
        self._stalled = False  # there is no room, so nothing is read
        self._ended = False  # there is nothing more to read
        self.is_open = True
        self.pending = b""  #: read, and not written yet
        self.unread_ns: int | None = None  #: lines may lie unread since then; None: they are read as they come

    def stand_in(self, fd: int) -> None:
        """From now on a descriptor of ours, which the command will inherit, is our pipe. Raises OSError."""
        self._saved[fd] = posix.dup(fd)
        posix.dup2(self._mouth, fd)

    def release(self) -> None:
        """The command has its descriptors, or will never need them: ours are what they were."""
        for fd, saved in self._saved.items():
            posix.dup2(saved, fd)
            posix.close(saved)
        if self._mouth >= 0:
            posix.close(self._mouth)
        self._saved, self._mouth = {}, -1

    def watch(self, poll: "select.epoll | select.poll") -> None:
        """Be told by an epoll or a poll from now on, and write what is pending. Raises OSError."""
        self._poll = poll
        try:
            poll.register(self._sink.fd, 0)
            self._always_room = False
        except PermissionError:
            self._always_room = True  # a device
        poll.register(self._source, select.EPOLLIN)
        self._stalled = False
        if not self._has_waiting():
            self.unread_ns = None
        try:
            if self.pending:
                self._flush()
        except OSError:
            self.close()

    def move(self, ready: list[int], searched: bool) -> bytes:
        """Move a bite on, if there is one; returns it where it is to be searched."""
        ours, theirs = self._source in ready, self._sink.fd in ready
        if not self.is_open or not (ours or theirs):
            return b""
        try:
            if theirs and not self._stalled:
                self.close()  # nobody reads any more
            elif self.pending:
                self._flush()
            elif searched or not self._sink.splices:
                return self._take()
            else:
                self._splice()
        except OSError:
            self.close()
        return b""

    def finish(self) -> bytes:
        """The command has ended: take what is left in its pipe, and return it."""
        rest = b""
        try:
            while self.is_open and not self._ended and len(rest) < _REST_BYTES:
                data = posix.read(self._source, _READ_BYTES)
                self._ended = not data
                rest += data
        except BlockingIOError:
            pass
        self.pending += rest
        if self._ended and not self.pending:
            self.close()
        return rest

    def close(self) -> None:
        """Let go of both sides: of the pipe, as its reader did, and of the output, as its last writer did."""
        if not self.is_open:
            return
        self.is_open = False
        self.pending = b""
        if self._poll is not None:
            for fd in (self._source, self._sink.fd):  # a descriptor that others share stays there when it is closed
                try:
                    self._poll.unregister(fd)
                except (OSError, KeyError):
                    pass
        posix.close(self._source)
        self._sink.close()

    def descriptors(self) -> tuple[int, int]:
        """What it needs to go on."""
        return self._source, self._sink.fd

    def _take(self) -> bytes:
        data = posix.read(self._source, _READ_BYTES)
        if not data:
            self.close()
        self.pending = data
        self._flush()
        return data

    def _flush(self) -> None:
        while self.pending:
            written = self._sink.write(self.pending)
            if not written:
                self._stall()
                return
            self.pending = self.pending[written:]
        if self._ended:
            self.close()
        self._resume()

    def _splice(self) -> None:
        try:
            moved = self._sink.splice(self._source)
        except OSError as error:
            if error.errno != _EINVAL:
                raise
            self._sink.splices = False
            return
        if moved == 0:
            self.close()
        elif moved is None and not self._stalled:
            self._stall()
        else:
            self._resume()

    def _stall(self) -> None:
        """Wait for room: nothing is read meanwhile, which slows the command down."""
        if self._poll is not None and not self._stalled and not self._always_room:
            self._stalled = True
            self.unread_ns = time.monotonic_ns()
            self._poll.unregister(self._source)  # else its end would wake us all the time
            self._poll.modify(self._sink.fd, select.EPOLLOUT)

    def _has_waiting(self) -> bool:
        waiting = select.poll()
        waiting.register(self._source, select.POLLIN)
        return bool(waiting.poll(0))

    def _resume(self) -> None:
        if self._poll is not None and self._stalled and self.is_open:
            self._stalled = False
            self._poll.register(self._source, select.EPOLLIN)
            self._poll.modify(self._sink.fd, 0)
