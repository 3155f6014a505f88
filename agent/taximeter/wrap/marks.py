"""The marks FIFO: where a worker says what it does, and how its bytes become lines.

Owns the reading and the splitting. Refuses to read a mark: what was said is kept as it came, and judged by the agent.
Why a FIFO and no socket: what was written into it survives its reader, as long as anybody holds it.
"""

import binascii
import fcntl
import posix

from taximeter import wire
from taximeter.wrap.lines import sealed

_PIPE_BYTES = 1_048_576
#: What is read at a time; between two reads signals and the command's end get their turn.
READ_BYTES = 32_768
#: What is kept of a line that is longer than a mark may be: enough to see that it is.
_KEPT_BYTES = wire.MARK_MAX_BYTES + 1
_LINE = b'{"v":%d,"f":"mark","t":%d,"raw":"%s"'


def enlarge(fd: int) -> None:
    """Give the pipe room for some thousand marks, where the user's limit allows it."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        pass


def read(fd: int) -> bytes:
    """What lies in the FIFO now, at most READ_BYTES; empty if nothing does. Raises OSError."""
    try:
        return posix.read(fd, READ_BYTES)
    except BlockingIOError:
        return b""


class Splitter:
    """Bytes to lines, in bounded memory: of a line that has no end only the beginning is kept."""

    def __init__(self, kept_bytes: int = _KEPT_BYTES) -> None:
        """Of a longer line that much is kept."""
        self._kept_bytes = kept_bytes
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without newlines; empty ones are none."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: self._kept_bytes]
        return [line[: self._kept_bytes] for line in lines if line]

    def finish(self) -> list[bytes]:
        """What was begun and will not be completed any more."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def format_marks(at_ns: int, lines: list[bytes]) -> bytes:
    """Facts of marks that were received at `at_ns`."""
    encode = binascii.b2a_base64
    return b"".join([sealed(_LINE % (wire.JOURNAL_VERSION, at_ns, encode(line, newline=False))) for line in lines])


def says_ready(line: bytes) -> bool:
    """Whether this looks like a ready mark; only for our own timeout and summary, the agent reads it properly."""
    return b'"ready"' in line and b'"mark"' in line and len(line) < 512
