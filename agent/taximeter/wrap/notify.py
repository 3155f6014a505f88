"""sd_notify: the socket on which a command says that it is ready, for `--ready notify`.

Owns the socket, and passes everything on to the one that we were started with, so that a service manager hears what it
would have heard. Only the user that we run as is heard, and root: what is passed on is said in our name, and a name in
the abstract namespace is open to everybody. Refuses to know what a message means.
"""

import _socket
import posix
import sys

#: Datagrams taken before signals and the command's end get their turn.
_AT_ONCE = 16
_MESSAGE_BYTES = 65_536
_PATH_MAX_BYTES = 107
_DESCRIPTOR_BYTES, _MAX_DESCRIPTORS = 4, 253
#: struct ucred: pid, uid, gid.
_SENDER_BYTES = 12
_SPACE = _socket.CMSG_SPACE(_MAX_DESCRIPTORS * _DESCRIPTOR_BYTES) + _socket.CMSG_SPACE(_SENDER_BYTES)


class Notify:
    """An open notification socket; `address` is what the command finds in NOTIFY_SOCKET."""

    def __init__(self, path: str, outer: str | None) -> None:
        """Bind at `path`, or in the abstract namespace where that is too long. Raises OSError."""
        self._path = path if len(path.encode()) <= _PATH_MAX_BYTES else None
        self.address = self._path or "@taximeter/" + path.rpartition("/")[2]
        self._outer = _socket_address(outer) if outer and outer[0] in "/@" else None
        flags = _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_socket.AF_UNIX, flags)
        self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)  # before anybody can say anything
        self._socket.bind(_socket_address(self.address))
        self._heard = (0, posix.getuid(), posix.geteuid())
        self.fd = self._socket.fileno()

    def receive(self) -> list[bytes]:
        """The messages that came of those who are heard, each passed on already; empty if none did. Raises OSError."""
        messages = []
        for _ in range(_AT_ONCE):
            try:
                data, ancillary, _, _ = self._socket.recvmsg(_MESSAGE_BYTES, _SPACE, _socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                break
            handed = [held for _, kind, held in ancillary if kind == _socket.SCM_RIGHTS]
            if _sender(ancillary) in self._heard:
                self._pass_on(data, handed)
                messages.append(data)
            for descriptors in handed:
                for at in range(0, len(descriptors) - 3, _DESCRIPTOR_BYTES):
                    posix.close(int.from_bytes(descriptors[at : at + _DESCRIPTOR_BYTES], sys.byteorder))
        return messages

    def close(self) -> None:
        """Take the socket away."""
        self._socket.close()
        if self._path is not None:
            posix.unlink(self._path)

    def _pass_on(self, data: bytes, handed: list[bytes]) -> None:
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors) for descriptors in handed]
        try:
            if self._outer is not None:
                self._socket.sendmsg([data], rights, 0, self._outer)
        except OSError:
            pass  # nobody listens there any more: the command would not have noticed either


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """The user id of who sent it, as the kernel says."""
    for _, kind, held in ancillary:
        if kind == _socket.SCM_CREDENTIALS:
            return int.from_bytes(held[4:8], sys.byteorder)
    return None


def _socket_address(address: str) -> bytes:
    raw = address.encode("utf-8", "surrogateescape")
    return b"\0" + raw[1:] if raw.startswith(b"@") else raw
