"""Delivers one batch: in one piece, or in ever smaller ones, until what a receiver will not have stands alone.

Owns the line between a record that is at fault and a receiver that is: a record is set aside only where the receiver
takes another one in the same round, before it, behind it, or the newest of all. Whatever passes is noted at once, with
what was set aside before it. Refuses to know when to try again.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from taximeter.errors import SinkError

#: Answers that may be about one record of the batch; any other is about the receiver, the way to it, or who asks.
DUPLICATE = "duplicate"
ABOUT_A_RECORD = frozenset({"rejected", "too_large", DUPLICATE})
#: Of what was said against a record this much is kept.
SAID_MAX_CHARS = 500


class Stored(Protocol):
    """A record as the outbox gives it out."""

    @property
    def seq(self) -> int:
        """Its number in the ledger."""
        ...

    @property
    def body(self) -> bytes:
        """The stored bytes, which are the bytes that are shipped."""
        ...


class Refused(NamedTuple):
    """A record that a receiver will not have, though it takes others."""

    seq: int  #: its number in the ledger
    reason: str  #: a bounded word
    said: str  #: for people


class Outbox(Protocol):
    """What a sink has not acknowledged yet, in the ledger's order."""

    async def unshipped(self, sink: str, limit: int) -> Sequence[Stored]:
        """Give the oldest records that `sink` has not taken, at most `limit`."""
        ...

    async def newest(self, sink: str) -> Stored | None:
        """Give the newest record that `sink` has not taken."""
        ...

    async def shipped(self, sink: str, seq: int, refused: Sequence[Refused] = ()) -> None:
        """Note durably that `sink` has taken everything up to and including `seq`, but what it `refused`."""
        ...

    async def again(self, sink: str, limit: int) -> Sequence[Stored]:
        """Give what `sink` refused and somebody wants to be tried again, at most `limit`."""
        ...

    async def tried_again(self, sink: str, seq: int, refused: Refused | None) -> None:
        """Note durably how that went with one of these: taken, or `refused` anew."""
        ...


class Sink(Protocol):
    """Where records go. `send` returns once the batch is accepted, and raises SinkError otherwise."""

    name: str

    async def send(self, bodies: Sequence[bytes]) -> None:
        """Deliver all of `bodies`, in order; a repeat of what was delivered before does no harm."""
        ...

    async def close(self) -> None:
        """Let go of connections and files."""
        ...


class Told(Protocol):
    """Whoever counts what becomes of records."""

    def passed(self, count: int) -> None:
        """So many were acknowledged."""

    def set_aside(self, sink: str, refused: Sequence[Refused]) -> None:
        """These were refused for good."""


async def deliver(sink: Sink, outbox: Outbox, batch: Sequence[Stored], told: Told, *, in_vain: bool) -> None:
    """Bring all of `batch` to `sink`, or set aside what it will not have of it; SinkError where that is not known.

    `in_vain` says that the last round did not find anything that the receiver takes: then the newest record is asked
    for first, one request instead of two for every record of the batch.
    """
    parts, suspects, is_well, last = [batch], list[Refused](), False, SinkError("rejected", "")
    while parts:
        part = parts.pop()
        fault = await _tried(sink, part)
        if fault is None:
            is_well = True
            await outbox.shipped(sink.name, part[-1].seq, suspects)
            told.set_aside(sink.name, suspects)
            told.passed(len(part))
            suspects = []
        elif len(part) == 1:
            suspects.append(_refused(part[0], fault))
            last = fault
        elif in_vain and not is_well and not await _takes_the_newest(sink, outbox, part[0].seq):
            raise fault
        else:
            is_well = is_well or in_vain
            half = len(part) // 2
            parts += [part[half:], part[:half]]
    if suspects:
        if not is_well and not await _takes_the_newest(sink, outbox, batch[-1].seq):
            raise last
        await outbox.shipped(sink.name, batch[-1].seq, suspects)
        told.set_aside(sink.name, suspects)


async def deliver_again(sink: Sink, outbox: Outbox, record: Stored, told: Told) -> None:
    """Bring one record to `sink` that it refused before; SinkError where the receiver is at fault."""
    fault = await _tried(sink, [record])
    await outbox.tried_again(sink.name, record.seq, None if fault is None else _refused(record, fault))
    if fault is None:
        told.passed(1)


async def _tried(sink: Sink, part: Sequence[Stored]) -> SinkError | None:
    """What was said against these records; None where they were taken. SinkError where it is not about them."""
    try:
        await sink.send([stored.body for stored in part])
    except SinkError as fault:
        if fault.reason not in ABOUT_A_RECORD:
            raise
        # The receiver has it: that is what was wanted.
        return None if fault.reason == DUPLICATE and len(part) == 1 else fault
    return None


async def _takes_the_newest(sink: Sink, outbox: Outbox, beyond: int) -> bool:
    """Whether the receiver takes anything at all: the newest record, if that is beyond a number."""
    newest = await outbox.newest(sink.name)
    return newest is not None and newest.seq > beyond and await _tried(sink, [newest]) is None


def _refused(stored: Stored, fault: SinkError) -> Refused:
    return Refused(stored.seq, fault.reason, str(fault)[:SAID_MAX_CHARS])
