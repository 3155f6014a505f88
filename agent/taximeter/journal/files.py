"""The journal directory: which files are journals, whether one may be believed, and whether its writer lives.

Owns the checks at the door. The directory is a drop-box, so any user may have put anything there: a journal is a
regular file with one name, of a permitted owner, opened without following links and without ever waiting. Refuses to
know lines.
"""

import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

from taximeter import wire
from taximeter.errors import JournalFault

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
#: Beside a journal: the marks that the agent read itself, once the wrapper was gone.
HEARD_SUFFIX = ".heard"
_NAME = re.compile(rf"({_UUID})\.(0|[1-9][0-9]{{0,8}}){re.escape(wire.JOURNAL_SUFFIX)}", re.ASCII)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
#: struct flock: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi4x")
_ANY_LOCK = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def open_directory(path: Path | str) -> int:
    """Open a journal directory, for the functions here; the caller closes it. Raises JournalFault."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        message = f"cannot open journal directory {path}: expected a readable directory, got: {error.strerror}"
        raise JournalFault("unreadable", message) from error


def is_loose(directory_fd: int) -> bool:
    """Whether users may take away or replace each other's files in a journal directory."""
    mode = os.fstat(directory_fd).st_mode
    return bool(mode & _OTHERS_WRITE) and not mode & stat.S_ISVTX


def journal_name(instance: str, segment: int) -> str:
    """The file name of an instance's segment."""
    return f"{instance}.{segment}{wire.JOURNAL_SUFFIX}"


def parse_name(name: str) -> tuple[str, int] | None:
    """Instance and segment of a journal's file name; None for everything else that lies in a drop-box."""
    match = _NAME.fullmatch(name)
    return None if match is None else (match[1], int(match[2]))


def list_instances(directory: int | str | Path) -> dict[str, list[int]]:
    """Every instance that has journals in `directory` (a path or an open descriptor), with its segments in order."""
    found: dict[str, list[int]] = {}
    for name in os.listdir(directory):
        parsed = parse_name(name)
        if parsed is not None:
            found.setdefault(parsed[0], []).append(parsed[1])
    for segments in found.values():
        segments.sort()
    return found


def open_journal(directory_fd: int, name: str, owners: frozenset[int] | None) -> tuple[int, os.stat_result]:
    """Open a journal and look at it; the caller closes it. Raises JournalFault where it may not be believed.

    `owners` are the user ids whose journals are booked; None permits all. Reasons: missing, unreadable (another try may
    help), symlink, not_regular, linked (it has a second name), loose_mode (others may write to it), foreign_owner.
    """
    fd = _open(directory_fd, name)
    try:
        status = os.fstat(fd)
        _check_regular(name, status)
        _check_mode(name, status)
        _check_owner(name, status, owners)
    except BaseException:
        os.close(fd)
        raise
    return fd, status


def open_marks(directory_fd: int, instance: str, owners: frozenset[int] | None) -> int:
    """Open an instance's FIFO, so that no mark dies with the wrapper; the caller closes it. Raises JournalFault."""
    name = f"{instance}{wire.MARKS_SUFFIX}"
    fd = _open(directory_fd, name)
    try:
        status = os.fstat(fd)
        _check_fifo(name, status)
        _check_owner(name, status, owners)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_heard(directory_fd: int, instance: str) -> int:
    """Open the file, made where it is missing, of what the agent heard of an instance without a wrapper.

    The caller closes it. Raises JournalFault where it is not the agent's own.
    """
    name = f"{instance}{HEARD_SUFFIX}"
    try:
        fd = os.open(
            name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=directory_fd
        )
    except OSError as error:
        raise _fault("unreadable", name, f"a file of the agent's own, got: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        _check_regular(name, status)
        _check_owner(name, status, frozenset({os.geteuid()}))
    except BaseException:
        os.close(fd)
        raise
    return fd


def writer_pid(journal: int | str | Path, directory_fd: int | None = None) -> int | None:
    """The pid of the wrapper that holds the lock on a journal; None when nobody does, so its writer is gone.

    `journal` is a descriptor, or a path (relative to `directory_fd`, if given). 0 is a writer that lives, but whose pid
    has no name here (a foreign pid namespace). A lock that this very process holds is invisible to it.
    """
    if isinstance(journal, int):
        return _lock_holder(journal)
    fd = _open(directory_fd, os.fspath(journal))
    try:
        return _lock_holder(fd)
    finally:
        os.close(fd)


class Unwritten(NamedTuple):
    """A run that ended before there was room to write that it ran: whose it was, from when until when (UTC, ns)."""

    owner: int
    began_ns: int
    ended_ns: int


def unwritten(directory_fd: int, name: str, owners: frozenset[int] | None) -> Unwritten | None:
    """What an empty journal says of its run; None where it is not one of those. Raises JournalFault."""
    fd, status = open_journal(directory_fd, name, owners)
    os.close(fd)
    if status.st_size or stat.S_IMODE(status.st_mode) != wire.UNWRITTEN_MODE:
        return None
    return Unwritten(status.st_uid, status.st_mtime_ns, max(status.st_ctime_ns, status.st_mtime_ns))


def sync(directory_fd: int, name: str) -> None:
    """Make a journal's content outlive a power loss. Raises JournalFault."""
    fd = _open(directory_fd, name)
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise _fault("unreadable", name, f"a disk that syncs, got: {error.strerror}") from error
    finally:
        os.close(fd)


def remove(directory_fd: int, instance: str, segments: Iterable[int], there: Container[str] | None = None) -> None:
    """Unlink an instance's journals, and what a killed wrapper left beside them. Raises JournalFault.

    `there` are all names in the directory, from whoever has listed it since the instance ended.
    """
    names = [journal_name(instance, segment) for segment in segments]
    for name in (*names, *(instance + suffix for suffix in (wire.MARKS_SUFFIX, wire.NOTIFY_SUFFIX, HEARD_SUFFIX))):
        if there is None or name in there:
            _unlink(directory_fd, name)


def remove_before(directory_fd: int, instance: str, segment: int) -> None:
    """Unlink the segments of an instance that come before `segment`, the oldest first. Raises JournalFault.

    Wherever that ends, what is left follows on without a gap.
    """
    first = segment
    while first > 0 and _is_there(directory_fd, journal_name(instance, first - 1)):
        first -= 1
    for name in (journal_name(instance, older) for older in range(first, segment)):
        _unlink(directory_fd, name)


def _is_there(directory_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _fault("unremovable", name, f"a file that can be looked at, got: {error.strerror}") from error
    return True


def _unlink(directory_fd: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory_fd)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _fault("unremovable", name, f"a file that the agent may unlink, got: {error.strerror}") from error


def _open(directory_fd: int | None, name: str) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=directory_fd)
    except OSError as error:
        reason = {errno.ENOENT: "missing", errno.ELOOP: "symlink", errno.ENXIO: "not_regular"}.get(error.errno or 0)
        raise _fault(reason or "unreadable", name, f"a readable file, got: {error.strerror}") from error


def _check_regular(name: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _fault("not_regular", name, "a regular file")
    if status.st_nlink > 1:
        raise _fault("linked", name, f"one name, got {status.st_nlink}")


def _check_mode(name: str, status: os.stat_result) -> None:
    if status.st_mode & _OTHERS_WRITE:
        expected = f"a file that only its owner may write to, got mode {stat.S_IMODE(status.st_mode):o}"
        raise _fault("loose_mode", name, expected)


def _check_fifo(name: str, status: os.stat_result) -> None:
    if not stat.S_ISFIFO(status.st_mode):
        raise _fault("not_fifo", name, "a FIFO")


def _check_owner(name: str, status: os.stat_result, owners: frozenset[int] | None) -> None:
    if owners is not None and status.st_uid not in owners:
        expected = f"an owner that journal.owners permits, got uid {status.st_uid}"
        raise _fault("foreign_owner", name, expected)


def _lock_holder(fd: int) -> int | None:
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, _ANY_LOCK))
    return None if kind == fcntl.F_UNLCK else max(pid, 0)


def _fault(reason: str, name: str, expected: str) -> JournalFault:
    return JournalFault(reason, f"cannot read journal file {name!r}: expected {expected}")
