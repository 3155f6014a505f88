"""Does what somebody wants to be done with dead letters: has them tried again, or gives them up.

Owns the order of giving up: the ledger says so, in a record that is shipped, before a letter is forgotten. Refuses to
ship.
"""

import time

from taximeter.agent.desk import Desk
from taximeter.digest import digest
from taximeter.observe.letters import Deed, LetterError, Order
from taximeter.records import fact

DROPPED = "dead_letters_dropped"
#: So many ids are named in one record.
_AT_ONCE = 100


class Letters:
    """Whoever is asked to do something with dead letters."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, order: Order) -> int:
        """Do it; gives how many there were. Raises LetterError, LedgerError."""
        if order.sink not in self._desk.cursors:
            known = ", ".join(sorted(self._desk.cursors)) or "none: no sink is configured"
            raise LetterError(f"cannot find sink {order.sink!r}: expected one of {known}")
        found = await self._desk.letters_of(order.sink, order.records)
        if order.deed is Deed.RETRY:
            await self._desk.retry_letters(order.sink, [seq for seq, _ in found])
        for at in range(0, len(found) if order.deed is Deed.DROP else 0, _AT_ONCE):
            await self._drop(order.sink, found[at : at + _AT_ONCE])
        return len(found)

    async def _drop(self, sink: str, letters: list[tuple[int, str]]) -> None:
        now_utc_ns = time.time_ns()
        content = {"sink": sink, "records": [{"seq": seq, "id": id_} for seq, id_ in letters]}
        said = (DROPPED, digest(content), content)
        await self._desk.say(lambda id_: fact(id_, now_utc_ns, said))
        await self._desk.delete_letters(sink, [seq for seq, _ in letters])
