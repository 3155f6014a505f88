"""Files of a journal directory that belong to nothing: what is beside no journal, and journals without a byte in them.

Owns how to tell. A wrapper that was killed while it began leaves a FIFO, a socket or an empty journal; so does one
whose journal was removed by hand. Refuses to touch a file that holds facts, one whose name is not ours, and one that
somebody still holds or has just written to.
"""

import errno
import os
import stat
from collections.abc import Collection

from taximeter import wire
from taximeter.errors import JournalFault
from taximeter.journal.files import HEARD_SUFFIX, parse_name, writer_pid

_BESIDE = {wire.MARKS_SUFFIX: stat.S_ISFIFO, wire.NOTIFY_SUFFIX: stat.S_ISSOCK, HEARD_SUFFIX: stat.S_ISREG}
_UUID_CHARS = 36


def remove_orphans(directory_fd: int, known: Collection[str], before_s: float) -> int:
    """Unlink what belongs to nothing and was last changed before `before_s` (UTC); how many files that were.

    `known` are the instances that the agent has in its books. Raises OSError where the directory cannot be listed.
    """
    names = os.listdir(directory_fd)
    journals = [(name, parsed[0]) for name in names if (parsed := parse_name(name)) is not None]
    owned = {instance for _, instance in journals} | set(known)
    gone = 0
    for name in names:
        instance, suffix = name[:_UUID_CHARS], name[_UUID_CHARS:]
        if suffix in _BESIDE and parse_name(f"{instance}.0{wire.JOURNAL_SUFFIX}") and instance not in owned:
            gone += _remove(directory_fd, name, before_s)
    for name, instance in journals:
        if instance not in known:
            gone += _remove(directory_fd, name, before_s)
    return gone


def _remove(directory_fd: int, name: str, before_s: float) -> bool:
    try:
        status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
        if max(status.st_mtime, status.st_ctime) >= before_s or not _is_orphan(directory_fd, name, status):
            return False
        os.unlink(name, dir_fd=directory_fd)
    except (OSError, JournalFault):
        return False  # somebody else's, or gone
    return True


def _is_orphan(directory_fd: int, name: str, status: os.stat_result) -> bool:
    if parse_name(name) is not None:
        is_empty = stat.S_ISREG(status.st_mode) and status.st_size == 0
        return is_empty and writer_pid(name, directory_fd) is None
    suffix = name[_UUID_CHARS:]
    return _BESIDE[suffix](status.st_mode) and (suffix != wire.MARKS_SUFFIX or not _is_held(directory_fd, name))


def _is_held(directory_fd: int, name: str) -> bool:
    """Whether anybody would read what is written to a FIFO: its wrapper does as long as it lives."""
    try:
        fd = os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    os.close(fd)
    return True
