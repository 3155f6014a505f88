"""How many open instances one user may have in the books: whose journals are beyond that wait, and nobody else's do.

Owns who waits for whom. What waits is measured by its wrapper all the same, and read once there is room. Refuses to
know what is in a journal.
"""

from collections import Counter


class Quota:
    """The open instances of each user, by the owner of their files."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._owners: dict[str, int] = {}
        self._held: Counter[int] = Counter()
        self.waiting: dict[str, int] = {}  #: who has to wait, and whose they are

    def admit(self, name: str, owner: int, *, at_once: bool) -> bool:
        """Count an instance; False where it has to wait, which whoever is open already, or over, never does."""
        if name in self._owners:
            return True
        if self._held[owner] >= self._most and not at_once:
            self.waiting[name] = owner
            return False
        self._owners[name] = owner
        self._held[owner] += 1
        return True

    def release(self, name: str) -> None:
        """Count an instance no more."""
        owner = self._owners.pop(name, None)
        if owner is not None:
            self._held[owner] -= 1

    def take(self) -> set[str]:
        """Those that wait and have room now."""
        left: Counter[int] = Counter()
        due: set[str] = set()
        for name, owner in self.waiting.items():
            if self._held[owner] + left[owner] < self._most:
                left[owner] += 1
                due.add(name)
        for name in due:
            del self.waiting[name]
        return due
