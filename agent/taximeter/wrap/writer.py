"""The journal as it is written: one file an instance and segment, locked while its wrapper lives.

Owns the file: its lock says who writes it and whether that one lives, its reserve keeps room for the last facts on a
full disk (zeros at the end, which a reader takes for the end), and what the command says has a part of the disk and no
more. Where not even its first line has room, it is empty until there is some. Refuses to know facts, and never syncs:
that is the agent's, off the command's path.
"""

import posix

from taximeter import wire
from taximeter.wrap.places import has_spare

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable

_MODE = 0o640
_FLAGS = posix.O_RDWR | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC | posix.O_NOFOLLOW
#: Space is asked for in steps of this size beyond what is needed, so that not every line costs a call.
_STEP_BYTES = 65_536
#: A part of the disk is at least this many segments: so all but the last can be given back while it lives.
_SEGMENTS = 4
_EIO, _EFBIG, _ENOSPC, _EDQUOT = 5, 27, 28, 122
#: It may pass, and the lines before it stand.
_NO_ROOM = (_EIO, _EFBIG, _ENOSPC, _EDQUOT)


class Writer:
    """An open journal. `head(segment)` returns the line that every segment begins with."""

    def __init__(
        self, directory: str, instance: str, head: "Callable[[int], bytes]", max_bytes: int = wire.JOURNAL_MAX_BYTES
    ) -> None:
        """Create, lock and open with `head(0)`. Raises OSError, and then leaves nothing behind."""
        self._directory = directory
        self._instance = instance
        self._head = head
        self._max_bytes = max_bytes
        self._segment = self._oldest = 0
        self._segment_bytes = self._step = min(wire.SEGMENT_BYTES, max_bytes // _SEGMENTS)
        self._granted = 0  # up to here marks were found to have room
        self.fd = self._begin(0)

    def append(self, lines: bytes) -> bool:
        """Append whole lines; False if there was no room for them besides the reserve. Raises OSError."""
        if self._offset + len(lines) > self._segment_bytes:
            self._rotate()
        return self._reserved(len(lines)) and self._write(lines)

    def append_marks(self, lines: bytes) -> bool:
        """Append what the command said; False also where its part of the disk is full. Raises OSError."""
        end = self._offset + len(lines)
        if end > self._granted:
            if not self._has_part():
                return False
            self._granted = end + _STEP_BYTES
        return self.append(lines)

    def append_last(self, lines: bytes) -> bool:
        """Append facts that matter more than the reserve: what the reserve is for. Raises OSError."""
        return self._write(lines)

    def has_begun(self) -> bool:
        """Whether there was room for anything at all."""
        return not self._unbegun

    def reserve(self) -> None:
        """Keep room for the last facts; not done for a command that has ended before there was time to."""
        self._reserved(0)

    def close(self) -> None:
        """Give the reserve back, and the lock; an empty journal says that there was no room. Raises OSError."""
        if self._unbegun:
            posix.utime(self.fd, ns=(self._began_utc_ns, self._began_utc_ns))
            posix.fchmod(self.fd, wire.UNWRITTEN_MODE)  # the kernel stamps when that was
        elif self._allocated > self._offset:
            posix.ftruncate(self.fd, self._offset)
        posix.close(self.fd)

    def remove(self) -> None:
        """Take the journal away, as if it had never begun. Raises OSError."""
        posix.unlink(self._path(0))
        posix.close(self.fd)

    def _begin(self, segment: int) -> int:
        path = self._path(segment)
        fd = posix.open(path, _FLAGS, _MODE)
        try:
            posix.lockf(fd, posix.F_TLOCK, 0)
            posix.fchmod(fd, _MODE)
            head = self._head(segment)
            has_begun = _write_head(fd, head, may_wait=not segment)
        except BaseException:
            posix.unlink(path)
            posix.close(fd)
            raise
        self._unbegun = b"" if has_begun else head
        self._began_utc_ns = 0 if has_begun else posix.fstat(fd).st_mtime_ns
        self._offset = self._allocated = len(head) if has_begun else 0
        self._granted = 0
        self._torn = False
        return fd

    def _rotate(self) -> None:
        """Go on in a new segment; where none can be made, in the old one."""
        old, old_offset = self.fd, self._offset
        try:
            self.fd = self._begin(self._segment + 1)
        except OSError:
            self._segment_bytes += self._step
            return
        self._segment += 1
        self._segment_bytes = self._step
        posix.ftruncate(old, old_offset)
        posix.close(old)

    def _has_part(self) -> bool:
        """Whether what lies there of us, and on the disk of everybody, leaves room for more that the command says."""
        while self._oldest < self._segment and not posix.access(self._path(self._oldest), posix.F_OK):
            self._oldest += 1  # the agent takes the oldest away first
        if (self._segment - self._oldest) * self._step + self._offset >= self._max_bytes:
            return False
        return has_spare(posix.fstatvfs(self.fd))

    def _path(self, segment: int) -> str:
        return f"{self._directory}/{self._instance}.{segment}{wire.JOURNAL_SUFFIX}"

    def _reserved(self, size: int) -> bool:
        need = self._offset + size + wire.RESERVE_BYTES
        if need <= self._allocated:
            return True
        for goal in (need + _STEP_BYTES, need) if size else (need,):
            if _allocate(self.fd, self._allocated, goal - self._allocated):
                self._allocated = goal
                return True
        return False

    def _write(self, lines: bytes) -> bool:
        """Write at the end; after a torn line a newline comes first, so that only that line is lost."""
        if self._unbegun and not self._begin_late():
            return False
        data = b"\n" + lines if self._torn else lines
        try:
            written = posix.pwrite(self.fd, data, self._offset)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return False
        self._offset += written
        if written:
            self._torn = data[written - 1 : written] != b"\n"
        return written == len(data)

    def _begin_late(self) -> bool:
        if not _write_head(self.fd, self._unbegun, may_wait=True):
            return False
        self._offset, self._unbegun = len(self._unbegun), b""
        return True


def make_fifo(path: str) -> int:
    """Make the FIFO for marks and hold both of its ends, so that no writer ever waits or loses. Raises OSError."""
    posix.mkfifo(path, _MODE)
    fd = posix.open(path, posix.O_RDWR | posix.O_NONBLOCK | posix.O_CLOEXEC | posix.O_NOFOLLOW)
    posix.fchmod(fd, _MODE)  # mkfifo heeds the umask; the agent's group must read
    return fd


def _write_head(fd: int, head: bytes, *, may_wait: bool) -> bool:
    """Whether there was room for it, if it may wait; if not for all of it, nothing is written. Raises OSError."""
    try:
        written = posix.pwrite(fd, head, 0)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        written = 0
    if written == len(head):
        return True
    if not may_wait:
        raise OSError(_ENOSPC, posix.strerror(_ENOSPC))
    posix.ftruncate(fd, 0)
    return False


def _allocate(fd: int, offset: int, size: int) -> bool:
    """Whether there is room; a file system that cannot reserve any is given the benefit of the doubt."""
    try:
        posix.posix_fallocate(fd, offset, size)
    except OSError as error:
        return error.errno not in _NO_ROOM
    return True
