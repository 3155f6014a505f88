"""sd_notify: the socket on which a command says that it is ready, for `--ready notify`.

Owns the socket, and passes everything on to the one that we were started with, so that a service manager hears what it
would have heard. Refuses to know what a message means.
"""

import _socket
import posix
import sys

#: Datagrams taken before signals and the command's end get their turn.
_AT_ONCE = 16
_MESSAGE_BYTES = 65_536
_PATH_MAX_BYTES = 107
_DESCRIPTOR_BYTES, _MAX_DESCRIPTORS = 4, 253


class Notify:
    """An open notification socket; `address` is what the command finds in NOTIFY_SOCKET."""

    def __init__(self, path: str, outer: str | None) -> None:
        """Bind at `path`, or in the abstract namespace where that is too long. Raises OSError."""
        self._path = path if len(path.encode()) <= _PATH_MAX_BYTES else None
        self.address = self._path or "@taximeter/" + path.rpartition("/")[2]
        self._outer = _socket_address(outer) if outer and outer[0] in "/@" else None
        flags = _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_socket.AF_UNIX, flags)
        self._socket.bind(_socket_address(self.address))
        self.fd = self._socket.fileno()

    def receive(self) -> list[bytes]:
        """The messages that came, each passed on already; empty if nothing did. Raises OSError."""
        messages = []
        for _ in range(_AT_ONCE):
            try:
                data, ancillary, _, _ = self._socket.recvmsg(
                    _MESSAGE_BYTES, _socket.CMSG_SPACE(_MAX_DESCRIPTORS * _DESCRIPTOR_BYTES), _socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                break
            self._pass_on(data, ancillary)
            messages.append(data)
        return messages

    def close(self) -> None:
        """Take the socket away."""
        self._socket.close()
        if self._path is not None:
            posix.unlink(self._path)

    def _pass_on(self, data: bytes, ancillary) -> None:  # type: ignore[no-untyped-def]
        try:
            if self._outer is not None:
                self._socket.sendmsg([data], ancillary, 0, self._outer)
        except OSError:
            pass  # nobody listens there any more: the command would not have noticed either
        for _, _, descriptors in ancillary:
            for at in range(0, len(descriptors) - 3, _DESCRIPTOR_BYTES):
                posix.close(int.from_bytes(descriptors[at : at + _DESCRIPTOR_BYTES], sys.byteorder))


def _socket_address(address: str) -> bytes:
    raw = address.encode("utf-8", "surrogateescape")
    return b"\0" + raw[1:] if raw.startswith(b"@") else raw
