"""What a file sink's files lack of what was written to them, and where that is put again: into a file of its own.

Lines are in the order of their numbers, by which they are found; what was lost comes too late for that, so it goes to
`usage.ndjson.resent`, whole lines as well. Whoever takes files away does so from the front: what is older than all that
is left was taken, and is not lost. Owns both rules. Refuses to touch the files that the shipper writes.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from taximeter.shipping.sinks.earlier import Earlier
from taximeter.shipping.sinks.filled import find_put_by, first_of
from taximeter.shipping.sinks.ndjson import Place, find, place_of, whole_bytes

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def lacking(path: Path, bodies: Sequence[bytes]) -> list[int] | None:
    """Which of `bodies`, all of one ledger, no file has; None where there is no line of that ledger. Raises OSError."""
    places = [place_of(body) for body in bodies]
    ledger = next((place[0] for place in places if place is not None), "")
    first = first_of(path, ledger)
    if first is None:
        return None
    again = {place_of(line) for line in _lines(_beside(path))}
    lost = [at for at, place in enumerate(places) if place not in again and place and place[1] >= first]
    lost = [at for at in lost if not _has(path, places[at] or ("", 0))]
    news = set(Earlier().news(path, [bodies[at] for at in lost], ledger))
    return [at for at in lost if bodies[at] in news]


def put_again(path: Path, bodies: Iterable[bytes]) -> None:
    """Append what was lost to the file for that, durably. Raises OSError."""
    descriptor = os.open(_beside(path), _FLAGS, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # several may be asked for at a time
        os.ftruncate(descriptor, whole_bytes(descriptor))
        data = b"".join(body + b"\n" for body in bodies)
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.resent")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as lines:
            yield from (line for line in lines if line.endswith(b"\n"))
    except FileNotFoundError:
        return


def _has(path: Path, place: Place) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return find_put_by(path, place) is not None
    try:
        found = find(descriptor, whole_bytes(descriptor), place)
    finally:
        os.close(descriptor)
    return found is not None or find_put_by(path, place) is not None
