"""The end of a file that the command writes to, read beside it: the command notices nothing.

Owns the position. Refuses to know what the lines say, and who wrote them: whatever is added to the file counts.
"""

import fcntl
import posix

from taximeter.wrap.pattern import Lines

#: What is read at a time; between two reads signals and the command's end get their turn.
_READ_BYTES = 65_536
_ENXIO = 6


class Tail:
    """What is written from now on to the file that is an output of ours."""

    def __init__(self, fd: int) -> None:
        """Raises OSError."""
        self._file = posix.open(f"/proc/self/fd/{fd}", posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
        appends = fcntl.fcntl(fd, fcntl.F_GETFL) & posix.O_APPEND
        self._at = posix.fstat(fd).st_size if appends else posix.lseek(fd, 0, 1)
        self._lines = Lines()
        self.more = False  #: the last read left something

    def read(self) -> list[bytes]:
        """Lines that were completed since the last time, a bite of them. Raises OSError."""
        size = posix.fstat(self._file).st_size
        if size < self._at:
            self._at, self._lines = 0, Lines()  # it was cut, and is written anew
        if size > self._at:
            try:
                self._at = posix.lseek(self._file, self._at, posix.SEEK_DATA)  # what is a hole, nobody wrote
            except OSError as error:
                if error.errno == _ENXIO:
                    size = self._at
        data = posix.pread(self._file, _READ_BYTES, self._at) if size > self._at else b""
        self._at += len(data)
        self.more = len(data) == _READ_BYTES
        return self._lines.feed(data)

    def close(self) -> None:
        """Let go of it."""
        posix.close(self._file)
