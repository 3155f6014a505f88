"""What instances without a wrapper say: bytes to marks, and how far they reach in the file of what was heard.

Owns the line that has no end yet, in bounded memory. Refuses to know when it was said, and to book it.
"""

from taximeter import wire
from taximeter.agent.keeper import Said
from taximeter.events import BadMark, Marked
from taximeter.journal import parse_mark

#: Of a line without an end only so much is kept: enough to see that it is too long for a mark.
_KEPT_BYTES = wire.MARK_MAX_BYTES + 1


class Speech:
    """What is known of those who speak."""

    def __init__(self) -> None:
        self._rests: dict[str, bytes] = {}  # a mark that has no end yet
        self._ends: dict[str, int] = {}  # how far what was heard reaches in its file

    def begin(self, name: str, heard_bytes: int) -> None:
        """Go on behind what was booked."""
        self._ends[name] = heard_bytes

    def forget(self, name: str) -> None:
        """It says nothing any more."""
        self._rests.pop(name, None)
        self._ends.pop(name, None)

    def marks(self, said: Said, at_ns: int) -> list[Marked | BadMark]:
        """The marks that are complete now."""
        *lines, rest = (self._rests.get(said.instance, b"") + said.data).split(b"\n")
        self._rests[said.instance] = rest[:_KEPT_BYTES]
        return [parse_mark(line[:_KEPT_BYTES], at_ns) for line in lines if line]

    def last(self, name: str, at_ns: int) -> list[Marked | BadMark]:
        """What was begun and will not be completed any more."""
        rest = self._rests.pop(name, b"")
        return [parse_mark(rest, at_ns)] if rest else []

    def reach(self, said: Said, before: int) -> int:
        """How far all is taken, in the file: to the beginning of the line that has no end yet.

        A line that is longer than a mark may be is taken as far as it goes: it is no mark, whatever follows.
        """
        name = said.instance
        if said.end is not None:
            self._ends[name] = said.end
        rest = said.data[said.data.rfind(b"\n") + 1 :]
        if b"\n" in said.data:
            before = self._ends[name] - (len(rest) if said.end is not None else 0)
        return self._ends[name] if len(self._rests.get(name, b"")) in (0, _KEPT_BYTES) else before
