"""Where a relay puts what the command wrote: the output that we were started with, written to without ever waiting.

Owns the ways to do that, since the descriptor is shared with others and must stay as it is: a pipe is opened once more,
a socket is told with each write, and a device such as /dev/null never makes anybody wait. Refuses to know what it
writes. Errors say that nobody reads any more.
"""

import _socket
import posix
import select

_KIND, _FIFO, _SOCKET = 0o170000, 0o010000, 0o140000
#: A pipe that is said to have room has it for this much.
_PAGE_BYTES = 4096
_AT_ONCE_BYTES = 1_048_576
_ONLY_NOW = posix.SPLICE_F_NONBLOCK | posix.SPLICE_F_MOVE


class Sink:
    """One output, beside the descriptor that it was made from."""

    def __init__(self, fd: int) -> None:
        """Raises OSError."""
        kind = posix.fstat(fd).st_mode & _KIND
        self.fd = -1
        self._socket: _socket.socket | None = None
        self._poll: select.poll | None = None
        self.splices = kind != _SOCKET  #: splice would wait for a socket
        if kind == _FIFO:
            try:
                self.fd = posix.open(f"/proc/self/fd/{fd}", posix.O_WRONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
            except OSError:
                self._poll = select.poll()  # somebody else's pipe, or no /proc
        if self.fd < 0:
            self.fd = posix.dup(fd)
        if self._poll is not None:
            self._poll.register(self.fd, select.POLLOUT)
        if kind == _SOCKET:
            self._socket = _socket.socket(fileno=self.fd)

    def write(self, data: bytes) -> int:
        """Write what there is room for now, and return how much that was. Raises OSError."""
        try:
            if self._socket is not None:
                return self._socket.send(data, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)
            if self._poll is not None:
                return posix.write(self.fd, data[:_PAGE_BYTES]) if self._poll.poll(0) else 0
            return posix.write(self.fd, data)
        except BlockingIOError:
            return 0

    def splice(self, source: int) -> int | None:
        """Move what a pipe holds; 0 at its end, None if it is empty or there is no room. Raises OSError."""
        try:
            return posix.splice(source, self.fd, _AT_ONCE_BYTES, flags=_ONLY_NOW)
        except BlockingIOError:
            return None

    def close(self) -> None:
        """Let go of it."""
        if self._socket is not None:
            self._socket.close()
        else:
            posix.close(self.fd)
