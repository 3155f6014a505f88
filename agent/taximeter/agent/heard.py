"""The file of what the agent heard of an instance: it goes there in the step that takes it out of the FIFO.

Owns how much of the disk that takes, and that a place in the file is the same place, whoever is killed when. Refuses
to know what was said, and whether it is booked.
"""

import contextlib
import errno
import os

#: So much of the disk is taken for one instance; what is said beyond it is in memory only until it is booked.
MOST_KEPT_BYTES = 8_388_608
#: So much is worth to be given back to the disk.
_WORTH_BYTES = 65_536
_BLOCK_BYTES = 512


class Heard:
    """What is kept of one instance, and how much of that was told."""

    def __init__(self, fd: int, taken: int) -> None:
        """Take over `fd` (-1: nothing is kept), and begin with what is in there beyond `taken` bytes."""
        self._fd = fd
        self._end = self._given_back = 0
        self._told = taken
        if fd >= 0:
            status = os.fstat(fd)
            self._end = max(status.st_size, taken)
            self._given_back = max(0, self._end - status.st_blocks * _BLOCK_BYTES)

    @property
    def left_bytes(self) -> int:
        """How much is in there that was not told yet."""
        return self._end - self._told if self._fd >= 0 else 0

    def take_in(self, fifo: int, size: int) -> tuple[bytes, int | None]:
        """What comes next, and where it ends in the file: what is left in there, then what is in the FIFO.

        Raises BlockingIOError where there is nothing.
        """
        if self.left_bytes > 0 or self._keep(fifo, size):
            data = _read_at(self._fd, min(size, self.left_bytes), self._told)
            if data:
                self._told += len(data)
                return data, self._told
            self._told = self._end  # the disk lost it
        return os.read(fifo, size), None

    def give_back(self, booked: int) -> None:
        """Give the disk back what is kept, if all of it is booked for good: up to `booked`.

        The file goes on where it ended, behind a hole.
        """
        if self._fd < 0 or not booked == self._told == self._end or self._end - self._given_back < _WORTH_BYTES:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            self._given_back = self._end

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _keep(self, fifo: int, size: int) -> bool:
        """Empty the FIFO into the file in one step: killed at any moment, it is in the one or in the other.

        False where the file takes no more of it, so that it has to be read: who says it must not wait for a disk.
        """
        if self._fd < 0 or self._end - self._given_back >= MOST_KEPT_BYTES:
            return False
        flags = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
        try:
            kept = os.splice(fifo, self._fd, size, offset_dst=self._end, flags=flags)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno == errno.EINVAL:  # no file system to splice to
                self.close()
            return False  # or a full disk, which may have room later
        self._end += kept
        return kept > 0


def _read_at(fd: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(fd, size, offset)
    except OSError:
        return b""
