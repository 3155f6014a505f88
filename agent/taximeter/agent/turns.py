"""Whose turn it is: what was seen and heard of many instances, dealt with in slices, one instance after the other.

Owns the order: of one instance as it came, of several in turns, so that nobody who says much keeps others waiting.
Refuses to know what becomes of it.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from taximeter.agent.keeper import Ended, Said


@dataclass(frozen=True, slots=True)
class Unseen:
    """A command is gone, and nobody saw it end."""

    instance: str


Item = Ended | Said | Unseen


class Turns:
    """What waits, by instance."""

    def __init__(self) -> None:
        self._of: dict[str, deque[Item]] = {}  # whose turn it is comes first

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, items: Iterable[Item]) -> None:
        """Behind what is there of each instance.

        An end is waited for once, however often it is told: each of two would wait for the other, for ever.
        """
        for item in items:
            waiting = self._of.setdefault(item.instance, deque())
            if isinstance(item, Said) or all(isinstance(other, Said) for other in waiting):
                waiting.append(item)

    def put_back(self, items: list[Item]) -> None:
        """Before what is there of their instance, which all of them are of."""
        for item in reversed(items):
            self._of.setdefault(item.instance, deque()).appendleft(item)

    def take(self) -> Item:
        """The next one; then it is the next instance's turn."""
        name = next(iter(self._of))
        waiting = self._of.pop(name)
        item = waiting.popleft()
        if waiting:
            self._of[name] = waiting
        return item

    def has(self, name: str) -> bool:
        """Whether there is more of an instance."""
        return name in self._of

    def drop(self, name: str) -> None:
        """Forget what is there of an instance."""
        self._of.pop(name, None)


def split(said: Said, most_lines: int) -> tuple[Said, Said | None]:
    """At most so many whole lines of it, and the rest; what has no end of a line stays as it is."""
    lines = said.data.split(b"\n", most_lines)
    rest = lines[-1] if len(lines) > most_lines else b""
    if not rest:
        return said, None
    end = None if said.end is None else said.end - len(rest)
    return replace(said, data=said.data[: len(said.data) - len(rest)], end=end), replace(said, data=rest)
