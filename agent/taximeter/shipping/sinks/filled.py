"""The files that a file sink has filled: `usage.ndjson.1` is the oldest, and the next has the next number.

Owns their names. One rename puts a file by, so that a crash leaves it under one name or the other; none is ever
renamed again, so that whoever follows them need not. Refuses to know when a file is full.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from taximeter.shipping.sinks.ndjson import Place, find, first_behind, first_place, holds, last_place, whole_bytes


def put_by(path: Path, keep: int | None) -> None:
    """Give the file at `path` the next number, and remove the oldest beyond `keep`; OSError. To be synced by others."""
    filled = numbered(path)
    number = _number(filled[-1]) + 1 if filled else 1
    path.rename(path.with_name(f"{path.name}.{number}"))
    if keep is not None:
        for old in filled[: max(0, len(filled) + 1 - keep)]:
            old.unlink(missing_ok=True)


def numbered(path: Path) -> list[Path]:
    """The files that were put by from `path`, the oldest first."""
    names = (entry.name for entry in os.scandir(path.parent))
    mine = (name for name in names if name.startswith(f"{path.name}."))
    return sorted((path.with_name(name) for name in mine if _number(Path(name))), key=_number)


def last_put_by(path: Path) -> Place | None:
    """What the last line of the newest of them says."""
    filled = numbered(path)
    return _last(filled[-1]) if filled else None


def first_of(path: Path, ledger_id: str) -> int | None:
    """The lowest number of a ledger that the files at `path` have, these among them; None where they have none."""
    for file in [*numbered(path), path]:
        try:
            with _reading(file) as descriptor:
                first = first_place(descriptor, whole_bytes(descriptor), ledger_id)
        except FileNotFoundError:
            continue
        if first is not None:
            return first[1]
    return None


def begin_of(path: Path, ledger_id: str) -> tuple[int, int]:
    """Where in that file the lines of a ledger begin, and where its whole lines end."""
    with _reading(path) as descriptor:
        end = whole_bytes(descriptor)
        return first_behind(descriptor, end, (ledger_id, 0))[0], end


def reached(path: Path, ledger_id: str) -> int | None:
    """Up to which number the files at `path` have the records of a ledger; None where that cannot be told."""
    path = Path(os.path.realpath(path))
    try:
        last = (_last(path) if path.exists() else None) or last_put_by(path)
    except OSError:
        return None
    return last[1] if last is not None and last[0] == ledger_id else None


def find_put_by(path: Path, place: Place) -> tuple[Path, bytes] | None:
    """Find the record at `place` among them, halving."""
    filled = numbered(path)
    index = _first_that_holds(filled, place)
    if index is None:
        return None
    with _reading(filled[index]) as descriptor:
        line = find(descriptor, whole_bytes(descriptor), place)
    return None if line is None else (filled[index], line)


def _first_that_holds(filled: Sequence[Path], place: Place) -> int | None:
    low, high = 0, len(filled)
    while low < high:
        middle = (low + high) // 2
        if holds(_last(filled[middle]), place):
            high = middle
        else:
            low = middle + 1
    return low if low < len(filled) else None


def _last(path: Path) -> Place | None:
    with _reading(path) as descriptor:
        return last_place(descriptor, whole_bytes(descriptor))


@contextmanager
def _reading(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _number(path: Path) -> int:
    """The number at the end of a name; 0 where there is none."""
    digits = path.suffix[1:]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 and digits[0] != "0" else 0
