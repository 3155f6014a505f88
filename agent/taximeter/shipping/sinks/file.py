"""Appends records to a file, a line each: the simplest receiver, and the one that needs nobody.

Owns the file's tail. A batch is on the disk (fdatasync) before it counts as delivered; a torn last line of
a crash is cut off; what the last whole line says it already holds is not written again, if that is what it holds:
a ledger that was restored from an older copy gives its numbers out anew. Nor is a record that another ledger shipped
before this one took its place. A file that is full is put by before the next
batch, and what it holds is known on. The file may be rotated, removed or truncated by others at any time. Refuses to
know the ledger and when to try again.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread

from taximeter.errors import SinkError
from taximeter.shipping.sinks.earlier import Earlier
from taximeter.shipping.sinks.filled import find_put_by, last_put_by, put_by
from taximeter.shipping.sinks.ndjson import Place, find, holds, last_place, place_of, whole_bytes
from taximeter.shipping.sinks.resent import lacking, put_again

REASON = "file"
#: The file holds other records under the numbers that it is sent: somebody has to look.
DIVERGED = "diverged"
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: a FIFO must not hang the open


class FileSink:
    """A `file` sink named `name` that appends NDJSON to `path`, which it creates (0640) where it is missing.

    A file that would grow beyond `rotate_bytes` is put by, and another begun; of these the newest `keep` stay, or all.
    """

    def __init__(self, name: str, path: Path, rotate_bytes: int | None = None, keep: int | None = None) -> None:
        self.name = name
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._descriptor: int | None = None
        self._end_bytes = 0  # where our last whole line ends
        self._last: Place | None = None  # what that line holds
        self._earlier = Earlier()
        self._doubt: tuple[int, int] | None = None  # the inode of a file that we could not sync, and what of it is sure

    async def send(self, bodies: Sequence[bytes]) -> None:
        """Append `bodies` durably, less those that the file has; SinkError "file" if that cannot be done."""
        await anyio.to_thread.run_sync(self._append, bodies)

    async def missing(self, bodies: Sequence[bytes]) -> Sequence[int]:
        """Look for each of `bodies` in the files; which of them none has, though it was not taken away. SinkError."""
        try:
            lost = await anyio.to_thread.run_sync(lacking, self._real, bodies)
        except OSError as error:
            raise SinkError(REASON, f"cannot read back {self._path}: {error}: expected files of records") from error
        if lost is None:
            expected = "some line of this ledger: nobody can tell what was taken away, and what was lost"
            raise SinkError("unreadable", f"cannot read back {self._path}: expected {expected}")
        return lost

    async def send_lost(self, bodies: Sequence[bytes]) -> None:
        """Write `bodies` to the file for what was lost, durably: not where the shipper goes on. SinkError."""
        try:
            await anyio.to_thread.run_sync(put_again, self._real, bodies)
        except OSError as error:
            expected = "a file that the agent may append to, on a disk with room"
            raise SinkError(REASON, f"cannot write {self._path}.resent: {error}: expected {expected}") from error

    async def close(self) -> None:
        """Close the file; the next send opens it again."""
        self._close()

    def _append(self, bodies: Sequence[bytes]) -> None:
        try:
            descriptor = self._settled()
            held = [(place, body) for body in bodies if (place := place_of(body)) and holds(self._last, place)]
            if held:
                self._check_held(descriptor, *held[-1])
            news = self._news(bodies[len(held) :])  # one ledger's, in order: what the file has comes first
            if news:
                data = b"\n".join(news) + b"\n"
                self._write_through(self._with_room(descriptor, len(data)), data)
                self._last = place_of(news[-1])
        except OSError as error:
            self._close()
            expected = "a regular file that the agent may append to, on a disk with room"
            raise SinkError(REASON, f"cannot append to {self._path}: {error}: expected {expected}") from error

    def _news(self, bodies: Sequence[bytes]) -> Sequence[bytes]:
        """Those of `bodies`, which are beyond the last line, that no earlier ledger shipped."""
        place = place_of(bodies[0]) if bodies else None
        return bodies if place is None else self._earlier.news(self._real, bodies, place[0])

    def _check_held(self, descriptor: int, place: Place, body: bytes) -> None:
        """See that the record which we have at `place` is `body`; SinkError "diverged"."""
        path, line = self._path, find(descriptor, self._end_bytes, place)
        if line is None:  # in an older file, or, if others took that, nowhere
            path, line = find_put_by(self._real, place) or (path, body)
        if line != body:
            raise SinkError(
                DIVERGED,
                f"cannot append to {self._path}: {path.name} has another record under number {place[1]} of ledger "
                f"{place[0]}: expected one history; was an older ledger restored? keep what is there under other names",
            )

    def _with_room(self, descriptor: int, size_bytes: int) -> int:
        """Return the file that so much is to be written to: the open one, or the next."""
        if self._rotate_bytes is None or not self._end_bytes or self._end_bytes + size_bytes <= self._rotate_bytes:
            return descriptor
        put_by(self._real, self._keep)
        return self._settled()

    def _settled(self) -> int:
        """Return the open file with its tail known: opened anew when rotated, read anew when changed."""
        if self._descriptor is not None and not _same_file(self._descriptor, self._path):
            self._close()
        if self._descriptor is None:
            self._descriptor = _open(self._real)
            self._end_bytes = -1
        if os.fstat(self._descriptor).st_size != self._end_bytes:
            self._take_back(self._descriptor)
            self._end_bytes = _mend(self._descriptor)
            os.fdatasync(self._descriptor)  # whoever wrote the last lines may have been killed before it did
            # An emptied or fresh file says nothing: what this process wrote before is still known, else it was put by.
            said = last_place(self._descriptor, self._end_bytes) or self._last
            self._last = said if said or self._end_bytes else last_put_by(self._real)
        return self._descriptor

    @property
    def _real(self) -> Path:
        """The file behind a symbolic link: what is put by stays beside it."""
        return Path(os.path.realpath(self._path))

    def _write_through(self, descriptor: int, data: bytes) -> None:
        try:
            written = 0
            while written < len(data):
                written += os.write(descriptor, data[written:])
            os.fdatasync(descriptor)
        except OSError:
            # After a failed sync the pages may count as clean: take the lines back, so that a retry writes them.
            self._doubt = (os.fstat(descriptor).st_ino, self._end_bytes)
            self._take_back(descriptor)
            raise
        self._end_bytes += len(data)

    def _take_back(self, descriptor: int) -> None:
        """Cut off what could not be synced; if that fails, too, it is done before the file is believed again."""
        if self._doubt is not None and os.fstat(descriptor).st_ino == self._doubt[0]:
            os.ftruncate(descriptor, self._doubt[1])
        self._doubt = None

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _open(path: Path) -> int:
    fresh = not path.exists()
    descriptor = os.open(path, _FLAGS, 0o640)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")  # noqa: TRY301 - closed below
        try:
            _sync_directory(path.parent)  # also where it is there: whoever made it may have died before this
        except PermissionError:  # made by others, where we may not look
            if fresh:
                raise
    except OSError:
        os.close(descriptor)
        raise
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


def _mend(descriptor: int) -> int:
    """Cut a torn last line off and return the length of what remains, in bytes."""
    end = whole_bytes(descriptor)
    if end != os.fstat(descriptor).st_size:
        os.ftruncate(descriptor, end)
    return end
