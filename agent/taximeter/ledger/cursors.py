"""How far a sink is, kept a second time with a checksum: a bit that turned in its number would skip records for ever.

Owns the mark, in `meta`, and what is believed where both differ: the lower number, for what is shipped again is known
by its id. Refuses to know what is shipped.
"""

import logging
import re
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import apsw

logger = logging.getLogger(__name__)

_KEY = "cursor "
_MARK = re.compile(r"([0-9]{1,15})#([0-9a-f]{8})")
_KEPT = "SELECT value FROM meta WHERE key = ?"
_WHY = "it goes on behind the lower one, so what it has already may come again, under the same ids"
_KEEP = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2"


def keep(connection: "apsw.Connection", sink: str, seq: int) -> None:
    """Keep how far a sink is; within the transaction that moves it."""
    connection.execute(_KEEP, (_KEY + sink, f"{seq}#{_sum(sink, seq)}"))


def forget(connection: "apsw.Connection", sink: str) -> None:
    """Keep nothing of a sink any more."""
    connection.execute("DELETE FROM meta WHERE key = ?", (_KEY + sink,))


def settled(connection: "apsw.Connection", sink: str, seq: int) -> int:
    """How far a sink is that is said to be at `seq`: there, unless its mark says that it was not as far."""
    row = connection.execute(_KEPT, (_KEY + sink,)).fetchone()
    marked = None if row is None else _read(sink, row[0])
    if marked is None or marked == seq:
        return seq
    logger.error(
        "ledger.cursor: sink %s is said to be at record %s, and at %d by its mark: %s", sink, seq, marked, _WHY
    )
    return min(seq, marked) if type(seq) is int else marked


def marked_in(meta: dict[str, str]) -> dict[str, int]:
    """How far each sink is, by the sound marks among what a ledger's `meta` says."""
    names = [key.removeprefix(_KEY) for key in meta if key.startswith(_KEY)]
    found = {name: _read(name, meta[_KEY + name]) for name in names}
    return {name: seq for name, seq in found.items() if seq is not None}


def _read(sink: str, value: object) -> int | None:
    """The number that a mark is of; None where that is damaged."""
    found = _MARK.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[2] != _sum(sink, int(found[1])):
        return None
    return int(found[1])


def _sum(sink: str, seq: int) -> str:
    return f"{zlib.crc32(f'{sink} {seq}'.encode()):08x}"
