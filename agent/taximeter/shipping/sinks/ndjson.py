"""What a file of records says: a line each, in the order of their numbers in a ledger.

Owns how such a file is read from its end and searched, without reading all of it. Refuses to know who writes it.
"""

import os

import orjson

_BLOCK_BYTES = 65_536

#: A record's place in its ledger: the ledger's id and the number in it.
Place = tuple[str, int]


def place_of(body: bytes) -> Place | None:
    """Read where in which ledger a record stands; None if `body` does not say so."""
    try:
        ledger = orjson.loads(body)["data"]["ledger"]
        return str(ledger["id"]), int(ledger["seq"])
    except (ValueError, KeyError, TypeError):
        return None


def holds(last: Place | None, place: Place | None) -> bool:
    """Whether a file whose last line is at `last` has what is at `place`, too."""
    return last is not None and place is not None and last[0] == place[0] and place[1] <= last[1]


def whole_bytes(descriptor: int) -> int:
    """How far the file's lines are whole: a crash tears the last one."""
    return _line_start(descriptor, os.fstat(descriptor).st_size)


def last_place(descriptor: int, end: int) -> Place | None:
    """Read what the line that ends at `end` says."""
    if end == 0:
        return None
    start = _line_start(descriptor, end - 1)
    return place_of(os.pread(descriptor, end - 1 - start, start))


def first_place(descriptor: int, end: int, ledger_id: str) -> Place | None:
    """Read what the first line says that holds a record of a ledger."""
    _, line = first_behind(descriptor, end, (ledger_id, 0))
    return None if line is None else place_of(line)


def find(descriptor: int, end: int, place: Place) -> bytes | None:
    """Find the line that holds the record at `place`."""
    _, line = first_behind(descriptor, end, place)
    return line if line is not None and place_of(line) == place else None


def first_behind(descriptor: int, end: int, place: Place) -> tuple[int, bytes | None]:
    """Find the first line at `place` or behind it, and where it begins; `end` where there is none.

    It halves: a ledger's lines are in the order of its numbers.
    """
    low, high = 0, end
    best: bytes | None = None
    while low < high:
        middle = (low + high) // 2
        start, behind = _line_start(descriptor, middle), _line_end(descriptor, middle, end)
        line = os.pread(descriptor, behind - 1 - start, start)
        if holds(place_of(line), place):
            high, best = start, line
        else:
            low = behind
    return low, best


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
