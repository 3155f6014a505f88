"""Which files of a directory changed (inotify).

Owns the system calls that Python lacks. Refuses to wait: the descriptor is given to the event loop, which says when it
is readable. Refuses to know journals and instances.
"""

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from taximeter.errors import TaximeterError

_IN_MODIFY = 0x0002
_IN_CLOSE_WRITE = 0x0008
_IN_MOVED_TO = 0x0080
_IN_CREATE = 0x0100
_IN_DELETE_SELF = 0x0400
_IN_MOVE_SELF = 0x0800
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x0100_0000
_WATCHED = _IN_MODIFY | _IN_CLOSE_WRITE | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
_LOSSES = _IN_Q_OVERFLOW | _IN_IGNORED | _IN_DELETE_SELF | _IN_MOVE_SELF

#: struct inotify_event: wd, mask, cookie, length of the name that follows.
_HEADER = struct.Struct("iIII")
_READ_BYTES = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a watch saw since it was last read."""

    names: frozenset[str]  #: files that were created or written to, without their directory
    lost: bool  #: the kernel dropped notes, or the directory itself is gone: look at everything
    closed: frozenset[str] = frozenset()  #: those of `names` that somebody who could write to them closed, or died with


class DirectoryWatch:
    """Notes of writes to the files of one directory; `fd` becomes readable when there are some."""

    def __init__(self, directory: Path) -> None:
        """Begin to watch; raises TaximeterError where the kernel refuses (then polling must do)."""
        self.fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), f"watch {directory}")
        try:
            _checked(_libc.inotify_add_watch(self.fd, os.fsencode(directory), _WATCHED), f"watch {directory}")
        except TaximeterError:
            self.close()
            raise

    def read(self) -> Changes:
        """Take what is there, without waiting."""
        names: set[str] = set()
        closed: set[str] = set()
        lost = False
        while data := self._read_some():
            for mask, name in parse_notes(data):
                lost = lost or bool(mask & _LOSSES)
                if name:
                    names.add(name)
                    if mask & _IN_CLOSE_WRITE:
                        closed.add(name)
        return Changes(frozenset(names), lost, frozenset(closed))

    def close(self) -> None:
        """Stop watching; once is enough, twice does no harm."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> "DirectoryWatch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_some(self) -> bytes:
        try:
            return os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return b""


def parse_notes(data: bytes) -> list[tuple[int, str]]:
    """Mask and file name of each note in what was read from an inotify descriptor."""
    notes: list[tuple[int, str]] = []
    offset = 0
    while offset < len(data):
        _, mask, _, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        name = data[offset : offset + length].split(b"\0", 1)[0]
        offset += length
        notes.append((mask, os.fsdecode(name)))
    return notes


def _checked(result: int, doing: str) -> int:
    if result >= 0:
        return result
    code = ctypes.get_errno()
    remedy = "; raise fs.inotify.max_user_instances" if code in (errno.EMFILE, errno.ENOSPC) else ""
    raise TaximeterError(f"cannot {doing}: expected the kernel's notes of it, got: {os.strerror(code)}{remedy}")
