"""What the audit keeps of a stretch of records that somebody else has found sound, so that it need not read them again.

Owns what crosses from one process to another. An outline is never taken for a verdict on more than it has seen: what
hangs on records before its stretch is handed on whole, and the audit itself judges it.
"""

from collections.abc import Iterator
from decimal import Decimal
from operator import itemgetter

import msgspec

from taximeter.billing.thresholds import Spent
from taximeter.ledger.balance import Event, Open


class Spend(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a record adds to its account's spend."""

    seq: int
    id: str
    account: str
    currency: str
    model: str | None
    time_utc_ns: int
    amount: Decimal

    @property
    def spent(self) -> Spent:
        """As sums of accounts take it."""
        return Spent(self.account, self.currency, self.model, self.time_utc_ns, self.amount)


class Outline(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Records beyond one number, up to another; of which nothing else counts where they are not sound."""

    after_seq: int
    until_seq: int
    is_sound: bool = False
    begins: bytes = b""  #: the hash that the first of them stands behind
    hash: bytes = b""  #: and that of the last of them
    begun: list[str] = []  #: instances whose first record is among them: all of theirs were judged
    open: dict[str, Open] = {}  #: those of them that are open behind the last record
    foreign: list[Event] = []  #: records of other instances, which hang on what came before
    spends: list[Spend] = []
    told: list[Event] = []  #: grants, thresholds, and facts that other records hang on

    def dues(self) -> Iterator[tuple[int, Spend | Event]]:
        """What was spent and told, each with its number, in their order."""
        spends: list[tuple[int, Spend | Event]] = [(one.seq, one) for one in self.spends]
        if not self.told:
            return iter(spends)
        told: list[tuple[int, Spend | Event]] = [(one.data.ledger.seq, one) for one in self.told]
        return iter(sorted([*spends, *told], key=itemgetter(0)))


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Outline).decode
