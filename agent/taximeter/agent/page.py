"""What was booked since the last commit: it goes into the ledger as one batch, or not at all.

Owns that a batch holds, for every instance that it says something of, the position and the folded state behind its
records: the state is taken when the batch is, however often it changed until then. Refuses to know what led to it.
"""

from collections.abc import Iterable, Mapping

from taximeter.agent.accounts import Account, kept_state
from taximeter.ledger.values import Batch, JournalState
from taximeter.observe.experience import Experience
from taximeter.observe.pools import Pools
from taximeter.records import UsageRecord


class Page:
    """What is to be committed next."""

    def __init__(self) -> None:
        self.records: list[UsageRecord] = []
        self.facts: list[tuple[str, bytes]] = []  #: instance and what the agent itself saw of it
        self._open: dict[str, None] = {}  # instances whose state is to be kept, in the order of their mention
        self._closed: dict[str, JournalState] = {}
        self._returned: Batch | None = None
        self._pools = Pools()
        self._experience = Experience()

    @property
    def size(self) -> int:
        """How large the next batch will be: its records, or the instances that it says something of."""
        return max(len(self.records), len(self._open) + len(self._closed))

    def keep(self, name: str) -> None:
        """Have the state of an open instance in the batch, as it will be then."""
        self._open[name] = None

    def close(self, name: str, account: Account) -> None:
        """Have it in the batch that an instance is closed."""
        self._open.pop(name, None)
        self._closed[name] = JournalState(name, account.position.segment, account.position.offset, None)

    def take(self, accounts: Mapping[str, Account]) -> Batch | None:
        """What is to be committed now, if anything."""
        if self._returned is not None:
            returned, self._returned = self._returned, None
            return returned
        if not (self.records or self._open or self._closed):
            return None
        kept = [kept_state(name, accounts[name]) for name in self._open]
        # What the agent saw is a fact to keep while an instance is open; of a closed one its records say it.
        facts = tuple(fact for fact in self.facts if fact[0] in self._open)
        pools, (runs, calls) = self._pools.of(self.records), self._experience.of(self.records)
        batch = Batch(tuple(self.records), (*self._closed.values(), *kept), facts, pools, runs, calls)
        self.records, self.facts, self._open, self._closed = [], [], {}, {}
        return batch

    def put_back(self, batch: Batch) -> None:
        """Give the next committer the batch that could not be committed: the same one, before anything newer."""
        self._returned = batch

    def note(self, name: str, facts: Iterable[bytes]) -> None:
        """Keep what the agent itself saw of an instance."""
        self.facts.extend((name, fact) for fact in facts)
