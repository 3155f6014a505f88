"""Who takes connections at the command's address before the command runs, and whether it is they who still do.

Owns the sight of that: a socket that listened before is known by its inode in /proc/net/tcp. Refuses to know whose a
socket is.
"""

import _socket
import posix
import select

from taximeter.wrap.probe import connect

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from taximeter.wrap.targets import Address

_READ_BYTES = 65_536
#: Listening sockets come first; so many bytes hold some thousand.
_MAX_BYTES = 524_288
_LISTENS = b"0A"
_LOCAL, _STATE, _INODE = 1, 3, 9


class Strangers:
    """Sockets of others, at those of our addresses that are taken."""

    def __init__(self, addresses: "list[Address]") -> None:
        self._sockets = {address: listening(address[1][1]) for address in addresses if _answers(address)}

    def __bool__(self) -> bool:
        return bool(self._sockets)

    def hold(self, address: "Address") -> bool:
        """Whether the address was one of theirs when somebody last looked."""
        return address in self._sockets

    def have_left(self, address: "Address") -> None:
        """Nobody takes connections there now."""
        self._sockets.pop(address, None)

    def answer_at(self, address: "Address") -> bool:
        """Whether it may have been one of them who took a connection there just now."""
        before = self._sockets.get(address)
        if before and not before & listening(address[1][1]):
            self.have_left(address)  # by now, so the next one is not theirs
        return before is not None


def listening(port: int) -> set[bytes]:
    """The sockets that listen at a port of this machine; none where that cannot be seen."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in _head(f"/proc/net/{name}").splitlines()[1:]:
            fields = line.split()
            if len(fields) <= _INODE or fields[_STATE] != _LISTENS:
                break
            if int(fields[_LOCAL].rpartition(b":")[2], 16) == port:
                found.add(fields[_INODE])
    return found


def _head(path: str) -> bytes:
    content = b""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return content
    while len(content) < _MAX_BYTES and (data := posix.read(fd, _READ_BYTES)):
        content += data
    posix.close(fd)
    return content


def _answers(address: "Address") -> bool:
    """Whether somebody takes connections there, as far as that is clear at once: on this machine it is."""
    connecting = connect(address)
    if connecting is None:
        return False
    poll = select.poll()
    poll.register(connecting.fileno(), select.POLLOUT)
    answers = bool(poll.poll(0)) and not connecting.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
    connecting.close()
    return answers
