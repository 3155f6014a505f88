"""Appends records to a file, a line each: the simplest receiver, and the one that needs nobody.

Owns the file's tail. A batch is on the disk (fdatasync) before it counts as delivered; a torn last line of
a crash is cut off; what the last whole line says it already holds is not written again, if that is what it holds:
a ledger that was restored from an older copy gives its numbers out anew. The file may be rotated, removed or
truncated by others at any time. Refuses to know the ledger and when to try again.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread
import orjson

from taximeter.errors import SinkError

REASON = "file"
#: The file holds other records under the numbers that it is sent: somebody has to look.
DIVERGED = "diverged"
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a FIFO must not hang the open
_BLOCK_BYTES = 65_536

#: A record's place in its ledger: the ledger's id and the number in it.
Place = tuple[str, int]


class FileSink:
    """A `file` sink named `name` that appends NDJSON to `path`, which it creates (0640) where it is missing."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._descriptor: int | None = None
        self._end_bytes = 0  # where our last whole line ends
        self._last: Place | None = None  # what that line holds

    async def send(self, bodies: Sequence[bytes]) -> None:
        """Append `bodies` durably, less those that the file has; SinkError "file" if that cannot be done."""
        await anyio.to_thread.run_sync(self._append, bodies)

    async def close(self) -> None:
        """Close the file; the next send opens it again."""
        self._close()

    def _append(self, bodies: Sequence[bytes]) -> None:
        try:
            descriptor = self._settled()
            held = [body for body in bodies if _holds(self._last, place_of(body))]
            if held:
                self._check_held(descriptor, held[-1])
            news = bodies[len(held) :]  # one ledger's, in order: what the file has comes first
            if news:
                self._write_through(descriptor, b"\n".join(news) + b"\n")
                self._last = place_of(news[-1])
        except OSError as error:
            self._close()
            expected = "a regular file that the agent may append to, on a disk with room"
            raise SinkError(REASON, f"cannot append to {self._path}: {error}: expected {expected}") from error

    def _check_held(self, descriptor: int, body: bytes) -> None:
        """See that the record which the file has under the number of `body` is `body`; SinkError "diverged"."""
        place = place_of(body)
        held = None if place is None else _find(descriptor, self._end_bytes, place)
        if place is not None and held not in (None, body):
            raise SinkError(
                DIVERGED,
                f"cannot append to {self._path}: it has another record under number {place[1]} of ledger {place[0]}: "
                "expected one history; was an older ledger restored? keep this file under another name",
            )

    def _settled(self) -> int:
        """Return the open file with its tail known: opened anew when rotated, read anew when changed."""
        if self._descriptor is not None and not _same_file(self._descriptor, self._path):
            self._close()
        if self._descriptor is None:
            self._descriptor = _open(self._path)
            self._end_bytes = -1
        if os.fstat(self._descriptor).st_size != self._end_bytes:
            self._end_bytes = _repair(self._descriptor)
            # An emptied or fresh file says nothing, and what this process wrote before is still known.
            self._last = _last_place(self._descriptor, self._end_bytes) or self._last
        return self._descriptor

    def _write_through(self, descriptor: int, data: bytes) -> None:
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fdatasync(descriptor)
        except OSError:
            # After a failed sync the pages may count as clean: take the lines back, so that a retry writes them.
            os.ftruncate(descriptor, self._end_bytes)
            raise
        self._end_bytes += len(data)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def place_of(body: bytes) -> Place | None:
    """Read where in which ledger a record stands; None if `body` does not say so."""
    try:
        ledger = orjson.loads(body)["data"]["ledger"]
        return str(ledger["id"]), int(ledger["seq"])
    except (ValueError, KeyError, TypeError):
        return None


def _holds(last: Place | None, place: Place | None) -> bool:
    return last is not None and place is not None and last[0] == place[0] and place[1] <= last[1]


def _open(path: Path) -> int:
    fresh = not path.exists()
    descriptor = os.open(path, _FLAGS, 0o640)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file")
    if fresh:
        _sync_directory(path.parent)
    return descriptor


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        named, held = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


def _repair(descriptor: int) -> int:
    """Cut a torn last line off and return the length of what remains, in bytes."""
    size = os.fstat(descriptor).st_size
    end = _line_start(descriptor, size)
    if end != size:
        os.ftruncate(descriptor, end)
    return end


def _last_place(descriptor: int, end: int) -> Place | None:
    if end == 0:
        return None
    start = _line_start(descriptor, end - 1)
    return place_of(os.pread(descriptor, end - 1 - start, start))


def _find(descriptor: int, end: int, place: Place) -> bytes | None:
    """Find the line that holds the record at `place`, halving: a ledger's lines are in the order of its numbers."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        start, behind = _line_start(descriptor, middle), _line_end(descriptor, middle, end)
        line = os.pread(descriptor, behind - 1 - start, start)
        found = place_of(line)
        if found == place:
            return line
        if found is not None and found[0] == place[0] and found[1] > place[1]:
            high = start
        else:
            low = behind
    return None


def _line_end(descriptor: int, begin: int, end: int) -> int:
    """Find the offset just after the first newline at or behind `begin`; `end` if there is none."""
    while begin < end:
        newline = os.pread(descriptor, _BLOCK_BYTES, begin).find(b"\n")
        if newline >= 0:
            return begin + newline + 1
        begin += _BLOCK_BYTES
    return end


def _line_start(descriptor: int, before: int) -> int:
    """Find the offset just after the last newline in the first `before` bytes; 0 if there is none."""
    while before > 0:
        begin = max(0, before - _BLOCK_BYTES)
        newline = os.pread(descriptor, before - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        before = begin
    return 0
