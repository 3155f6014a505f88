"""Reading a journal on from where it was left: whole lines only, in bounded memory, and each line once.

Owns positions and what ends a journal: a line without its newline waits until it is completed or its writer is gone, a
NUL is the reserve that the wrapper keeps, and a later segment takes over once the earlier one's lock is free. Refuses
to know what a line says, but for one thing: that it opens this very journal.
"""

import os
import sys
from dataclasses import dataclass, field
from typing import NamedTuple

from taximeter import wire
from taximeter.errors import JournalFault
from taximeter.events import Event, Exited, Opened, Unread
from taximeter.journal.facts import parse_line
from taximeter.journal.files import journal_name, open_journal, writer_pid
from taximeter.journal.mending import is_heartbeat, mended

#: The byte before the position is read too: it says whether the position lies inside a line that is being skipped.
_LEAST_BYTES = wire.LINE_MAX_BYTES + 1
_NEWER = "newer_version"


@dataclass(frozen=True, slots=True)
class Position:
    """How far an instance's journals were read; `inode` is known only to whoever read them in this process."""

    segment: int = 0
    offset: int = 0  #: bytes
    inode: int | None = field(default=None, compare=False)


class Chunk(NamedTuple):
    """What one read found."""

    events: tuple[Event, ...]
    position: Position  #: where to read on
    faults: tuple[JournalFault, ...]  #: lines that were skipped; a newer version stops here
    ended: bool  #: an exit fact was read
    more: bool = False  #: the limit was reached before the end of the file, or the next segment is there: read on now
    owner: int = -1  #: uid of the file


def read_on(
    directory_fd: int,
    instance: str,
    position: Position,
    owners: frozenset[int] | None,
    limit_bytes: int = 1 << 20,
    limit_lines: int = sys.maxsize,
) -> Chunk:
    """Read the facts that an instance's journal has beyond `position`: of `limit_bytes` (64 KiB or more), and lines.

    Raises JournalFault where the file as a whole cannot be believed (see open_journal; also shorter: than what was read
    before, replaced: by another file); then nothing was consumed, and what was read before stays true.
    """
    name = journal_name(instance, position.segment)
    fd, status = open_journal(directory_fd, name, owners)
    try:
        _check_continues(name, status, position)
        reader = _Reader(fd, instance, position, max(limit_bytes, _LEAST_BYTES), limit_lines)
        reader.read(status.st_size)
        if reader.at_end and not reader.ended:
            _look_beyond(directory_fd, reader)
        return reader.chunk(status)
    finally:
        os.close(fd)


def _check_continues(name: str, status: os.stat_result, position: Position) -> None:
    if position.inode is not None and position.inode != status.st_ino:
        raise JournalFault("replaced", f"cannot read on in journal file {name!r}: expected the same file as before")
    if status.st_size < position.offset:
        expected = f"at least {position.offset} bytes, got {status.st_size}"
        raise JournalFault("shorter", f"cannot read on in journal file {name!r}: expected {expected}")


def _look_beyond(directory_fd: int, reader: "_Reader") -> None:
    """At a segment's end, if its writer has let go of it: settle a torn tail and go over to the next segment."""
    if not (reader.torn or _has_next(directory_fd, reader)) or writer_pid(reader.fd) is not None:
        return
    # Its last bytes may have come between our reading and its letting go: so once more, and that is final.
    reader.read(os.fstat(reader.fd).st_size)
    if not reader.at_end or reader.ended:
        return
    reader.drop_tail()
    if _has_next(directory_fd, reader):
        reader.next_segment = reader.more = True


def _has_next(directory_fd: int, reader: "_Reader") -> bool:
    try:
        name = journal_name(reader.instance, reader.segment + 1)
        owner = os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_uid
    except OSError:
        return False
    return owner == os.fstat(reader.fd).st_uid  # anybody may put a file there, and stops nobody's run by it


class _Reader:
    """What was gathered so far from one open journal."""

    def __init__(self, fd: int, instance: str, position: Position, limit_bytes: int, limit_lines: int) -> None:
        self.fd = fd
        self.instance = instance
        self.segment = position.segment
        self.offset = position.offset
        self.limit_bytes = limit_bytes
        self.limit_lines = limit_lines
        self.events: list[Event] = []
        self.faults: list[JournalFault] = []
        self.torn = 0  # bytes of a line that has no newline yet
        self.at_end = self.ended = self.more = self.next_segment = False

    def chunk(self, status: os.stat_result) -> Chunk:
        here = Position(self.segment + 1) if self.next_segment else Position(self.segment, self.offset, status.st_ino)
        return Chunk(tuple(self.events), here, tuple(self.faults), self.ended, self.more, status.st_uid)

    def read(self, size: int) -> None:
        """Take in the whole lines between the position and `size`, and move the position behind them."""
        data, start = self._fetch(size)
        lines = data.split(b"\n")
        tail = lines.pop()
        if not self._take(lines, start):
            return
        end = start + len(data)
        self.torn = len(tail)
        if self.torn >= wire.LINE_MAX_BYTES:
            self._note("too_long", f"a newline within {wire.LINE_MAX_BYTES} bytes, at byte {end - self.torn}")
            self.events.append(Unread())
            self.torn = 0
        self.offset = end - self.torn
        self.more = not self.at_end

    def drop_tail(self) -> None:
        """Give up the line that will never be completed."""
        if self.torn:
            self._note("torn", f"a newline at its end, got {self.torn} bytes without one")
            self.offset += self.torn
            self.torn = 0

    def _fetch(self, size: int) -> tuple[bytes, int]:
        """The bytes from the first line that begins at or behind the position, and where that is."""
        offset = self.offset
        # One byte before the position says whether it lies inside a line that was too long and is being skipped.
        start = offset - 1 if offset else 0
        wanted = min(self.limit_bytes, size - start)
        data = os.pread(self.fd, wanted, start) if wanted > 0 else b""
        self.at_end = len(data) < wanted or start + len(data) >= size
        reserve = data.find(b"\0")
        if reserve >= 0:
            data = data[:reserve]
            self.at_end = True
        if not offset:
            return data, 0
        newline = data.find(b"\n")
        if newline < 0:
            return b"", max(offset, start + len(data))
        return data[newline + 1 :], start + newline + 1

    def _take(self, lines: list[bytes], start: int) -> bool:
        """Parse; false where the reading stops before the end: at a newer version, or at the limit."""
        taken = 0
        for number, line in enumerate(lines):
            if not line:
                continue
            if taken == self.limit_lines:
                self._stop_at(lines, number, start, more=True)
                return False
            taken += 1
            event: Event | None
            try:
                event = parse_line(line)
            except JournalFault as wrong:
                event, fault = self._made_of(line, wrong)
                self.faults.append(fault)
                if fault.reason == _NEWER:
                    self._stop_at(lines, number, start, more=False)
                    return False
            if type(event) is Exited:
                self.ended = True
            elif type(event) is Opened and not self._is_mine(event):
                event = Unread()
            if event is not None:
                self.events.append(event)
        return True

    def _made_of(self, line: bytes, wrong: JournalFault) -> tuple[Event | None, JournalFault]:
        """What a line says that cannot be read as it is, and what is wrong with it: it is mended, if that is possible.

        Else whatever it may have said is uncertain, but for a sign of life, and for what is behind the end.
        """
        whole = None if wrong.reason == _NEWER else mended(line)
        if whole is not None:
            try:
                return parse_line(whole), JournalFault("mended", f"{wrong}; one bit had turned, which is undone")
            except JournalFault as fault:
                wrong = fault
        is_no_loss = wrong.reason == _NEWER or self.ended or is_heartbeat(line)
        return None if is_no_loss else Unread(), wrong

    def _stop_at(self, lines: list[bytes], number: int, start: int, *, more: bool) -> None:
        """Read on, if at all, with that line."""
        self.offset = start + sum(map(len, lines[:number])) + number
        self.at_end, self.more = False, more

    def _is_mine(self, opened: Opened) -> bool:
        if opened.instance == self.instance and opened.segment == self.segment:
            return True
        self._note("foreign", f"facts of this journal, got those of {opened.instance}.{opened.segment}")
        return False

    def _note(self, reason: str, expected: str) -> None:
        name = journal_name(self.instance, self.segment)
        self.faults.append(JournalFault(reason, f"cannot read all of journal file {name!r}: expected {expected}"))
