"""Looks at a stretch of records by itself, for an audit that goes on with many: what of them can be judged so.

Owns which records hang on those before the stretch: all of instances that began earlier, and whatever accounts hang on.
Where anything is odd there is no outline, so that faults are told by one audit only. Refuses to know processes.
"""

from taximeter.errors import LedgerError
from taximeter.ledger.audit import Walk, Walked
from taximeter.ledger.balance import Balance, Event
from taximeter.ledger.base import PRUNED
from taximeter.ledger.metered import Say
from taximeter.ledger.outline import Outline, Spend
from taximeter.ledger.sayings import SPENDING, spent_in
from taximeter.records import RecordType

_THRESHOLD, _FACT, _GRANT = (kind.value for kind in (RecordType.THRESHOLD, RecordType.FACT, RecordType.GRANT))
_TELLING = (SPENDING, PRUNED)


def outline_of(reader: Walked, after_seq: int, until_seq: int) -> Outline:
    """The outline of the records beyond one number, up to another."""
    natives, spends = _Natives(), _Spends()
    walk = Walk(reader, entries=(natives.enter, spends.enter))
    try:
        ends = walk.prove(after_seq, until_seq)
    except LedgerError:
        ends = None
    if ends is None:
        return Outline(after_seq, until_seq)
    return Outline(
        after_seq,
        until_seq,
        is_sound=True,
        begins=ends[0],
        hash=ends[1],
        begun=natives.begun,
        open=natives.balance.open(),
        foreign=natives.foreign,
        spends=spends.spends,
        told=spends.told,
    )


class _Natives:
    """The balance of instances whose first record is in the stretch; collects the records of all others."""

    def __init__(self) -> None:
        self.balance = Balance()
        self.begun: list[str] = []
        self.foreign: list[Event] = []
        self._others: set[str] = set()

    def enter(self, event: Event, say: Say) -> None:
        """Add a record of an instance that began here; one that is out of turn began elsewhere."""
        name = event.data.instance
        if name is None:
            return
        if not self.balance.has_any((name,)):
            if name in self._others or event.id != f"{name}-{0:08d}":
                self._others.add(name)
                self.foreign.append(event)
                return
            self.begun.append(name)
        self.balance.enter(event, say)


class _Spends:
    """What records spend and tell, to be added up by who knows what was spent before."""

    def __init__(self) -> None:
        self.spends: list[Spend] = []
        self.told: list[Event] = []

    def enter(self, event: Event, time_utc_ns: int | None, say: Say) -> None:
        """Collect a record; what cannot be read of it is said."""
        kind = event.type
        if kind in (_THRESHOLD, _GRANT) or (kind == _FACT and event.data.fact in _TELLING):
            self.told.append(event)
            return
        try:
            one = spent_in(event, time_utc_ns)
            if one is not None:
                self.spends.append(Spend(event.data.ledger.seq, event.id, *one))
        except (ArithmeticError, ValueError) as error:
            say(str(error))
