"""What the books keep of each instance, and as which bytes the ledger keeps it for them.

Refuses to know when anything is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from taximeter.errors import LedgerError
from taximeter.events import Clock, Event
from taximeter.hardware.inventory import Hardware
from taximeter.instance import Instance
from taximeter.journal import Position
from taximeter.ledger.marked import is_as_written, marked, unmarked
from taximeter.ledger.values import JournalState
from taximeter.lifecycle import Stage
from taximeter.meter import Step
from taximeter.records import UsageRecord
from taximeter.values import Value, replace

_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Instance | None] = msgspec.json.Decoder(Instance | None).decode


@dataclass(slots=True)
class Under:
    """An instance goes under a rate card that came late."""

    card: str
    records: tuple[UsageRecord, ...] | None = None  #: what that led to; None until it is there


class Half(Value):
    """News of an instance that may be half folded: nothing of it is kept until it is whole."""

    step: Step
    now: Clock  #: as it was when that began
    position: Position  #: where the account goes on to then
    seen: tuple[Event, ...]  #: what of it the agent saw itself, and is to keep
    has_more: bool  #: whether there is more in the journal
    is_told: bool = False  #: the agent saw some of it: then the state is kept with whatever it leads to
    heard_bytes: int | None = None  #: how far that was in the file of what it heard
    under: Under | None = None  #: where it goes under a card first: what was told meanwhile comes behind that

    def followed_by(self, events: Sequence[Event], seen: Sequence[Event], heard_bytes: int | None) -> "Half":
        """The same, with what the agent told meanwhile behind it."""
        pause = self.step.pause
        if pause is None:
            raise ValueError("cannot put anything behind what is whole: expected something that is half folded")
        step = replace(self.step, pause=replace(pause, rest=(*pause.rest, *events)))
        heard = self.heard_bytes if heard_bytes is None else heard_bytes
        return replace(self, step=step, seen=(*self.seen, *seen), is_told=True, heard_bytes=heard)


@dataclass(slots=True)
class Account:
    """One instance in the books: how far its journal was read, and what that led to."""

    position: Position
    instance: Instance | None = None  #: None until its opening was read
    stuck: str | None = None  #: why nothing more of it is read
    seen_ns: int = 0  #: when something new was last read, by the agent's CLOCK_MONOTONIC
    is_behind: bool = False  #: whether more of its journal lies there than was read
    half: Half | None = None  #: what was read beyond that, and makes more records than others should wait for

    @property
    def pid_is_open(self) -> bool:
        """Whether its command was not started yet, as far as was read."""
        return self.instance is None or self.instance.stage is Stage.PENDING

    @property
    def open_predictions(self) -> int:
        """How many predictions are open: so much more a fact costs."""
        return 0 if self.instance is None else len(self.instance.predictions)


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed instance whose journal waits for its records to reach every sink."""

    segment: int  #: its last
    seq: int  #: the number of its last record, or of a later one


@lru_cache(maxsize=256)
def placed(hardware: Hardware) -> bytes:
    """The fact that an instance was placed on `hardware`."""
    return _encode({"fact": "placed", "hardware": hardware})


def own(event: Event) -> bytes:
    """What the agent itself saw of an instance, as a fact."""
    return _encode({"fact": type(event).__name__.lower(), "event": event})


def kept(instance: Instance | None) -> bytes:
    """An open instance, to be kept."""
    return _encode(instance)


def kept_state(name: str, account: Account) -> JournalState:
    """How far an open instance was read, and what that led to."""
    return marked(name, account.position.segment, account.position.offset, kept(account.instance))


def state_of(journal: JournalState) -> Instance | None:
    """An open instance, as it was kept. Raises LedgerError where it is damaged."""
    try:
        if journal.state is not None and is_as_written(journal):
            return _decode(unmarked(journal.state))
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    raise LedgerError(
        f"cannot go on with instance {journal.instance}: what the ledger keeps of it is damaged: expected what was "
        "written; move ledger.db and what is beside it (-wal, -shm) away: then a new ledger begins"
    )
