"""Which records a file sink's files have already of instances that are older than the ledger which ships them now.

A ledger that begins where another was lost books anew what still has a journal, under the same ids: other receivers
know a record by its id, and a file knows nothing. Owns the looking back: once an instance, and only for those that are
older than the ledger, in what others wrote before it. Refuses to know where lines are written.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from taximeter.shipping.sinks.filled import begin_of, numbered

#: A record's id, where our records have it: at the front. An instance's id, a UUIDv7, is in the order of its making.
_ID = re.compile(rb'"id":"([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})-([0-9]{8})"')
_FRONT_BYTES = 200
#: A clock that was set back meanwhile hides no file whose last line was written by another time.
_SLACK_S = 2 * 86_400
#: Of so many instances it is remembered; then all are looked for anew.
_MOST = 50_000


class Earlier:
    """What was looked for so far, and up to which of its records each instance was found."""

    def __init__(self) -> None:
        self._reached: dict[bytes, int] = {}
        self._alone: str | None = None  # a ledger before whose lines there are no others

    def news(self, path: Path, bodies: Sequence[bytes], ledger_id: str) -> Sequence[bytes]:
        """Of records of that ledger those that no other has written to a file at `path`, in order. Raises OSError."""
        if self._alone == ledger_id:
            return bodies
        named = [(_named(body), body) for body in bodies]
        older = {name[0] for name, _ in named if name is not None and name[0] < ledger_id.encode()}
        strange = older - self._reached.keys()
        if strange:
            others, self._alone = lines_of_others(path, ledger_id)
            if len(self._reached) > _MOST:
                self._reached.clear()
                strange = older
            self._reached |= _look_back(others, strange)
        return [body for name, body in named if name is None or name[1] > self._reached.get(name[0], -1)]


def lines_of_others(path: Path, ledger_id: str) -> tuple[list[tuple[Path, int]], str | None]:
    """The files that have lines of other ledgers, the newest first, with how many bytes; this one, if it has all."""
    found: list[tuple[Path, int]] = []
    for file in [*numbered(path), path]:
        try:
            begins, ends = begin_of(file, ledger_id)
        except FileNotFoundError:
            continue
        if begins:
            found.insert(0, (file, begins))
        if begins < ends:
            return found, None if found else ledger_id
    return found, None


def _look_back(files: Iterable[tuple[Path, int]], instances: Collection[bytes]) -> dict[bytes, int]:
    """Up to which of its records the files have each of these instances; -1 where they have none."""
    found = dict.fromkeys(instances, -1)
    oldest_s = min(int(instance.replace(b"-", b"")[:12], 16) for instance in instances) / 1_000
    for file, size in files:
        if file.stat().st_mtime < oldest_s - _SLACK_S:
            break  # nor do those before
        with file.open("rb") as lines:
            _note(_within(lines, size), found)
    return found


def _within(lines: Iterable[bytes], size: int) -> Iterator[bytes]:
    for line in lines:
        size -= len(line)
        if size < 0:
            return
        yield line


def _note(lines: Iterable[bytes], found: dict[bytes, int]) -> None:
    for line in lines:
        name = _named(line)
        if name is not None and name[0] in found:
            found[name[0]] = max(found[name[0]], name[1])


def _named(body: bytes) -> tuple[bytes, int] | None:
    match = _ID.search(body, 0, _FRONT_BYTES)
    return None if match is None else (match[1], int(match[2]))
