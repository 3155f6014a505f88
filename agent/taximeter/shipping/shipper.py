"""Drains the outbox into one sink: batches, backs off, tries again for ever.

Owns when something is sent again. Refuses to know what a sink is made of, what a record says, and how the
outbox is kept: a record leaves it only after its sink has said yes, or, set aside and said aloud, after it has refused
that one alone. One task a sink, so a slow sink delays nobody else. Cost: nothing while the bell is silent.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import anyio

from taximeter.errors import SinkError, TaximeterError
from taximeter.shipping.delivery import ABOUT_A_RECORD, Outbox, Refused, Sink, Stored, deliver, deliver_again

__all__ = ["Bell", "Hurry", "Outbox", "ShipState", "Sink", "Stored", "cut", "pause_s", "ship"]

logger = logging.getLogger(__name__)

#: What receivers are known to take in one request.
BATCH_MAX_RECORDS = 100
BATCH_MAX_BYTES = 1 << 20
#: Full jitter (a random part of a ceiling that doubles): a fleet does not come back as one herd.
FIRST_BACK_OFF_S = 0.5
BACK_OFF_MAX_S = 60.0
#: A receiver may ask for patience, but not for ever: Retry-After 1e12 is a mistake or an attack.
RETRY_AFTER_MAX_S = 300.0
#: Answers that a second try will hardly change: tried slowly from the first, and until somebody mends it.
HOPELESS = frozenset({"refused", "redirect", "token", "diverged"}) | ABOUT_A_RECORD
#: A sink is given this long to close.
CLOSE_S = 1.0
#: Of an error's text this much is kept for people.
ERROR_MAX_CHARS = 500


class Wake(Protocol):
    """Something that says that the outbox may have grown."""

    async def wait(self) -> None:
        """Return when there may be something to ship."""
        ...


class Bell:
    """A Wake that is never missed: rung while nobody waits, it lets the next wait pass at once."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        """Wake the shipper; call it in the event loop, after a commit."""
        self._event.set()

    async def wait(self) -> None:
        """Return when the bell was rung since the last wait."""
        await self._event.wait()
        self._event = anyio.Event()


class Hurry:
    """Pauses that somebody may end: a node that is about to go has no time to be patient."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def now(self) -> None:
        """End every pause; call it in the event loop."""
        self._event.set()
        self._event = anyio.Event()

    async def nap(self, pause_s: float) -> None:
        """Pause for so long at most."""
        with anyio.move_on_after(pause_s):
            await self._event.wait()


@dataclass(slots=True)
class ShipState:
    """How a sink is doing, for the snapshot; written by its shipper only."""

    shipped: int = 0  #: records acknowledged since the agent's start
    refused: int = 0  #: records set aside since then, because the receiver takes others and not these
    failures: Counter[str] = field(default_factory=Counter)  #: failed attempts by reason
    last_error: str | None = None  #: None again once a batch has passed
    failing: int = 0  #: failed attempts since the last success
    last_reason: str | None = None  #: the bounded word for it
    retry_in_s: float = 0.0  #: the pause it is in

    def passed(self, count: int) -> None:
        """Count what was acknowledged."""
        self.shipped += count

    def set_aside(self, sink: str, refused: Sequence[Refused]) -> None:
        """Count what was refused for good, and say so: money is in it, and only a person can mend it."""
        self.refused += len(refused)
        for one in refused:
            logger.error("ship.refused sink=%s record=%d reason=%s: %s", sink, one.seq, one.reason, one.said)


async def ship(
    sink: Sink,
    outbox: Outbox,
    *,
    wake: Wake,
    state: ShipState,
    jitter: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> NoReturn:
    """Move records from `outbox` to `sink` until cancelled; `jitter` gives numbers in [0, 1)."""
    try:
        while True:
            try:
                moved = await _ship_some(sink, outbox, state)
            except Exception as error:  # noqa: BLE001 -- a faulty sink must not take the agent with it
                fault = _as_sink_error(error)
                _note_failure(state, sink, fault, pause_s(fault, state.failing, jitter()))
                await sleep(state.retry_in_s)
                continue
            if moved:
                _note_success(state, sink)
            else:
                await wake.wait()
    finally:
        with anyio.move_on_after(CLOSE_S, shield=True):
            await sink.close()


def pause_s(fault: SinkError, failed_before: int, jitter: float) -> float:
    """How long to wait after `fault`, the `failed_before`+1st in a row; `jitter` in [0, 1) spreads a fleet."""
    if fault.retry_after_s is not None:
        asked_s = min(max(fault.retry_after_s, 0.0), RETRY_AFTER_MAX_S)
        return asked_s + jitter * FIRST_BACK_OFF_S
    if fault.reason in HOPELESS:
        return BACK_OFF_MAX_S * (1 + jitter) / 2
    doublings = min(failed_before, 10)
    ceiling_s: float = min(BACK_OFF_MAX_S, FIRST_BACK_OFF_S * 2**doublings)
    return jitter * ceiling_s


def cut(batch: Sequence[Stored], max_bytes: int = BATCH_MAX_BYTES) -> Sequence[Stored]:
    """Take the head of `batch` that fits `max_bytes`, at least one record however big it is."""
    size = 0
    for count, stored in enumerate(batch):
        size += len(stored.body) + 1
        if size > max_bytes and count:
            return batch[:count]
    return batch


async def _ship_some(sink: Sink, outbox: Outbox, state: ShipState) -> bool:
    """Deliver what is next; False where nothing waits."""
    # What was refused is tried again behind what is new: it may be refused again, and holds up nobody.
    if batch := cut(await outbox.unshipped(sink.name, BATCH_MAX_RECORDS)):
        await deliver(sink, outbox, batch, state, in_vain=state.last_reason in ABOUT_A_RECORD)
        return True
    refused = await outbox.again(sink.name, BATCH_MAX_RECORDS)
    for record in refused:
        await deliver_again(sink, outbox, record, state)
    return bool(refused)


def _as_sink_error(error: Exception) -> SinkError:
    if isinstance(error, SinkError):
        return error
    reason = "outbox" if isinstance(error, TaximeterError) else "unexpected"
    return SinkError(reason, f"{type(error).__name__}: {error}")


def _note_failure(state: ShipState, sink: Sink, fault: SinkError, retry_in_s: float) -> None:
    text = str(fault)[:ERROR_MAX_CHARS]
    # Once per new trouble, and every time where somebody has to mend something: loud, but no flood.
    if fault.reason in HOPELESS or state.last_reason != fault.reason:
        logger.warning("ship.failed sink=%s reason=%s retry_in_s=%.1f: %s", sink.name, fault.reason, retry_in_s, text)
    state.failures[fault.reason] += 1
    state.last_error, state.last_reason = text, fault.reason
    state.failing += 1
    state.retry_in_s = retry_in_s


def _note_success(state: ShipState, sink: Sink) -> None:
    if state.failing:
        logger.warning("ship.recovered sink=%s after_failures=%d", sink.name, state.failing)
    state.last_error = state.last_reason = None
    state.failing, state.retry_in_s = 0, 0.0
