"""Looks at whether a receiver still has what it acknowledged, and sends again what it lost: a yes is no durability.

Owns that order: read back, then send what is missing, under the same ids and with the same bytes. Refuses to know how a
receiver is read: its sink does, if it can.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from taximeter.errors import SinkError
from taximeter.shipping.delivery import Sink

#: What a sink that cannot read back says.
UNREADABLE = "unreadable"


@runtime_checkable
class Readable(Protocol):
    """A sink whose receiver can be asked what it has."""

    async def missing(self, bodies: Sequence[bytes]) -> Sequence[int]:
        """Which of `bodies` the receiver does not have, by their places; SinkError where that is not known."""
        ...


@runtime_checkable
class Ordered(Protocol):
    """A sink that is read by the order of its records, so that what it lost goes elsewhere."""

    async def send_lost(self, bodies: Sequence[bytes]) -> None:
        """Deliver what it lost of what it had; SinkError otherwise."""
        ...


async def reconcile(sink: Sink, bodies: Sequence[bytes], *, dry_run: bool = False) -> int:
    """Send again what the receiver does not have of `bodies`; gives how many that were. Raises SinkError."""
    if not isinstance(sink, Readable):
        expected = "a sink that can say what it has"
        raise SinkError(UNREADABLE, f"cannot read back what sink {sink.name} has: expected {expected}")
    lost = [bodies[at] for at in await sink.missing(bodies)]
    if lost and not dry_run:
        await (sink.send_lost(lost) if isinstance(sink, Ordered) else sink.send(lost))
    return len(lost)
