"""What is kept of an open instance ends with a mark, which tells whether all of it is as it was written.

The chain vouches for records only; this is what an agent goes on from, and a bit that turned in it would be billed.
Owns the mark, a CRC-32 over the row. Refuses to know what a state says.
"""

import re
import zlib

from taximeter.ledger.values import JournalState

_MARKED = re.compile(rb"(.*)#([0-9a-f]{8})", re.DOTALL)
_UNMARKED = re.compile(rb"\[.*\]|\{.*\}|null", re.DOTALL)


def marked(instance: str, segment: int, offset: int, state: bytes) -> JournalState:
    """A row, with its mark."""
    return JournalState(instance, segment, offset, b"%s#%08x" % (state, _sum(instance, segment, offset, state)))


def is_as_written(row: JournalState) -> bool:
    """Whether a row fits its mark; an older Taximeter made none."""
    state = row.state or b""
    found = _MARKED.fullmatch(state)
    if found is None:
        return _UNMARKED.fullmatch(state) is not None
    return int(found[2], 16) == _sum(row.instance, row.segment, row.offset, found[1])


def unmarked(state: bytes) -> bytes:
    """The state without its mark."""
    found = _MARKED.fullmatch(state)
    return state if found is None else found[1]


def _sum(instance: str, segment: int, offset: int, state: bytes) -> int:
    return zlib.crc32(state, zlib.crc32(f"{instance} {segment} {offset} ".encode()))
