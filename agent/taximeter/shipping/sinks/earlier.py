"""Which records a file sink's files have already of instances that are older than the ledger which ships them now.

A ledger that begins where another was lost books anew what still has a journal, under the same ids: other receivers
know a record by its id, and a file knows nothing. Owns the looking back: once an instance, and only for those that are
older than the ledger, which are few. Refuses to know where lines are written.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from taximeter.shipping.sinks.filled import numbered

#: A record's id, where our records have it: at the front. An instance's id, a UUIDv7, is in the order of its making.
_ID = re.compile(rb'"id":"([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})-([0-9]{8})"')
_FRONT_BYTES = 200
#: A clock that was set back meanwhile hides no file whose last line was written by another time.
_SLACK_S = 2 * 86_400


class Earlier:
    """What was looked for so far, and up to which of its records each instance was found."""

    def __init__(self) -> None:
        self._reached: dict[bytes, int] = {}

    def news(self, path: Path, bodies: Sequence[bytes], ledger_id: str) -> list[bytes]:
        """Of records of that ledger those that no file at `path` has, in their order. Raises OSError."""
        named = [(_named(body), body) for body in bodies]
        older = {name[0] for name, _ in named if name is not None and name[0] < ledger_id.encode()}
        strange = older - self._reached.keys()
        if strange:
            self._reached |= _look_back(path, strange)
        return [body for name, body in named if name is None or name[1] > self._reached.get(name[0], -1)]


def _look_back(path: Path, instances: Collection[bytes]) -> dict[bytes, int]:
    """Up to which of its records the files have each of these instances; -1 where they have none."""
    found = dict.fromkeys(instances, -1)
    oldest_s = min(int(instance.replace(b"-", b"")[:12], 16) for instance in instances) / 1_000
    for file in [path, *reversed(numbered(path))]:
        try:
            if file.stat().st_mtime < oldest_s - _SLACK_S:
                break  # nor do those before
            with file.open("rb") as lines:
                _note(lines, found)
        except FileNotFoundError:
            continue
    return found


def _note(lines: Iterable[bytes], found: dict[bytes, int]) -> None:
    for line in lines:
        name = _named(line)
        if name is not None and name[0] in found:
            found[name[0]] = max(found[name[0]], name[1])


def _named(body: bytes) -> tuple[bytes, int] | None:
    match = _ID.search(body, 0, _FRONT_BYTES)
    return None if match is None else (match[1], int(match[2]))
