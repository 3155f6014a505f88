"""What a living instance's older segments wait for before the disk has them back.

Owns the rule: a segment goes once it was read to its end, its instance was recorded beyond all that it says, and those
records are wherever records go. Refuses to touch files, and to know of closed instances.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from taximeter.agent.accounts import Account


@dataclass(slots=True)
class _Passed:
    """Segments before `segment` were read to their end; what they say is settled by `at_ns`."""

    segment: int
    at_ns: int
    seq: int | None = None  #: the number of the last record of theirs; None: not made yet


class Trimmer:
    """Which segments of open instances may go."""

    def __init__(self) -> None:
        self._passed: dict[str, _Passed] = {}
        self._done: dict[str, int] = {}  # before which segment nothing lies there any more

    def look(self, accounts: Mapping[str, Account]) -> list[str]:
        """Note how far open instances were read; gives those whose older segments are recorded, not yet committed."""
        for known in (self._passed, self._done):
            for name in known.keys() - accounts.keys():
                del known[name]
        due: list[str] = []
        for name, account in accounts.items():
            segment, instance = account.position.segment, account.instance
            if segment == self._done.get(name, 0) or instance is None:
                continue
            passed = self._passed.get(name)
            if passed is None:
                self._passed[name] = _Passed(segment, max(instance.since_ns, instance.sign_ns))
            elif passed.seq is None and instance.cut.at_ns >= passed.at_ns:
                due.append(name)
        return due

    def committed(self, names: Iterable[str], seq: int) -> None:
        """Note that all of what `look` gave is in the ledger, up to the record `seq`."""
        for name in names:
            self._passed[name].seq = seq

    def take(self, everywhere: int) -> list[tuple[str, int]]:
        """The instances whose segments before that one may go, since every record up to `everywhere` is safe."""
        free = [
            (name, passed.segment)
            for name, passed in self._passed.items()
            if passed.seq is not None and passed.seq <= everywhere
        ]
        for name, segment in free:
            del self._passed[name]
            self._done[name] = segment
        return free
