"""A living agent, asked over loopback, HTTP by hand.

Owns whom the token is given to: to nobody but a listener on this machine that is of the same user as the file in which
the token was found, and that only to a user whom we trust with it anyway. An agent that was killed leaves its file
behind, and whoever then takes its port gets nothing. Refuses to know what is asked for, and to wait beyond a deadline.
"""

import _socket
import _stat
import posix
import sys
import time

from taximeter import wire

_NS_PER_S = 1_000_000_000
_FILE_MAX_BYTES = 4096
_ANSWER_MAX_BYTES = 16_384
_LINE_MAX_CHARS = 1000
_CHUNK_BYTES = 8192
#: Names of this machine, and the addresses at which what listens everywhere is reached.
_OURS = {"localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- nothing is bound here
_LISTENING = b"0A"


class Agent:
    """Where an agent says that it listens."""

    def __init__(self, url: str, token: str, uid: int) -> None:
        """Raises ValueError for an address that is not of this machine, and for a token that is none."""
        place = url.removeprefix("http://")
        host, _, port = place.rpartition(":")
        host = host.strip("[]")
        self._host = _OURS.get(host, host)
        self._port = int(port)
        self._family = _socket.AF_INET6 if ":" in self._host else _socket.AF_INET
        raw = _address(self._family, self._host)
        if place == url or not (self._host == "::1" or (self._family == _socket.AF_INET and raw[0] == 127)):
            raise ValueError(f"not an address of this machine: {url}")
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ValueError("not a token")
        self._token = token
        self._uid = uid
        self._locals = {_local(raw, self._port), _local(bytes(len(raw)), self._port)}

    @classmethod
    def of(cls, run_directory: str, trusted: "set[int]") -> "Agent | None":
        """The agent of that run directory, if a trusted user says so. Raises OSError, ValueError."""
        path = f"{run_directory}/{wire.AGENT_FILE}"
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK)
        try:
            found = posix.fstat(fd)
            if not _stat.S_ISREG(found.st_mode) or found.st_uid not in trusted:
                return None
            content = posix.read(fd, _FILE_MAX_BYTES)
        finally:
            posix.close(fd)
        return cls(_member(content, b"url"), _member(content, b"token"), found.st_uid)

    def line(self, path: str, deadline_ns: int) -> str | None:
        """The one line of plain text at a path; None if it is not there yet. Raises OSError, ValueError."""
        head, _, body = self._get(path, deadline_ns).partition(b"\r\n\r\n")
        status = int(head.split(None, 2)[1])
        if status in (202, 404):
            return None
        fields = head.lower().split(b"\r\n")
        if status != 200 or not any(field.startswith(b"content-type: text/plain") for field in fields):
            raise ValueError(f"an answer of another kind: {status}")
        if b"content-length: %d" % len(body) not in fields:
            raise ValueError("an answer that was cut short")
        text = body.decode("utf-8", "replace").strip()[:_LINE_MAX_CHARS]
        return "".join([character if character.isprintable() else "?" for character in text])

    def _get(self, path: str, deadline_ns: int) -> bytes:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: localhost:{self._port}\r\nAuthorization: Bearer {self._token}\r\n"
            "Accept: text/plain\r\nConnection: close\r\n\r\n"
        )
        answer = b""
        connection = _socket.socket(self._family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            connection.settimeout(_left_s(deadline_ns))
            connection.connect((self._host, self._port))
            if not self._listens():
                raise PermissionError(f"whoever listens at port {self._port} is not the agent")
            connection.sendall(request.encode())
            while len(answer) < _ANSWER_MAX_BYTES:
                connection.settimeout(_left_s(deadline_ns))
                chunk = connection.recv(_CHUNK_BYTES)
                if not chunk:
                    break
                answer += chunk
        finally:
            connection.close()
        return answer

    def _listens(self) -> bool:
        """Whether it is the agent's user who listens there, and nobody else; listeners come first in that table."""
        owners: set[int] = set()
        fd = posix.open("/proc/net/tcp6" if self._family == _socket.AF_INET6 else "/proc/net/tcp", posix.O_RDONLY)
        try:
            rest = posix.read(fd, _CHUNK_BYTES).partition(b"\n")[2]
            while rest:
                *rows, rest = rest.split(b"\n")
                for fields in map(bytes.split, rows):
                    if fields[3] != _LISTENING:
                        return owners == {self._uid}
                    if fields[1] in self._locals:
                        owners.add(int(fields[7]))
                chunk = posix.read(fd, _CHUNK_BYTES)
                if not chunk:
                    break
                rest += chunk
        finally:
            posix.close(fd)
        return owners == {self._uid}


def _member(content: bytes, name: bytes) -> str:
    """A string in a JSON object without escapes, as the agent writes it."""
    opened, quote, rest = content.partition(b'"' + name + b'":')[2].partition(b'"')
    value, closed, _ = rest.partition(b'"')
    if opened.strip() or not quote or not closed or b"\\" in value:
        raise ValueError(f"no {name!r} in the agent's file")
    return value.decode("ascii")


def _address(family: int, host: str) -> bytes:
    return _socket.inet_pton(family, host)


def _local(address: bytes, port: int) -> bytes:
    """An address as /proc/net/tcp has it: words of this machine's order, in hexadecimal."""
    words = [address[at : at + 4] for at in range(0, len(address), 4)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return b"%s:%04X" % (b"".join(words).hex().upper().encode(), port)


def _left_s(deadline_ns: int) -> float:
    left_ns = deadline_ns - time.monotonic_ns()
    if left_ns <= 0:
        raise TimeoutError("no answer in time")
    return left_ns / _NS_PER_S
