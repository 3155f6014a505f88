"""Drains the outbox into one sink: batches, backs off, tries again for ever.

Owns when something is sent again. Refuses to know what a sink is made of, what a record says, and how the
outbox is kept: a record leaves it only after its sink has said yes, so nothing here can lose one. One task
a sink, so a slow sink delays nobody else. Cost: nothing while the bell is silent.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import anyio

from taximeter.errors import SinkError, TaximeterError

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
HOPELESS = frozenset({"refused", "redirect", "token", "diverged"})
#: The answer to which a smaller batch is the remedy.
TOO_LARGE = "too_large"
#: A sink is given this long to close.
CLOSE_S = 1.0
#: Of an error's text this much is kept for people.
ERROR_MAX_CHARS = 500


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


class Outbox(Protocol):
    """What a sink has not acknowledged yet, in the ledger's order."""

    async def unshipped(self, sink: str, limit: int) -> Sequence[Stored]:
        """Give the oldest records that `sink` has not taken, at most `limit`."""
        ...

    async def shipped(self, sink: str, seq: int) -> None:
        """Note durably that `sink` has taken everything up to and including `seq`."""
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
    failures: Counter[str] = field(default_factory=Counter)  #: failed attempts by reason
    last_error: str | None = None  #: None again once a batch has passed
    failing: int = 0  #: failed attempts since the last success
    last_reason: str | None = None  #: the bounded word for it
    retry_in_s: float = 0.0  #: the pause it is in


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
    most = BATCH_MAX_RECORDS
    try:
        while True:
            try:
                moved = await _ship_batch(sink, outbox, most)
            except Exception as error:  # noqa: BLE001 -- a faulty sink must not take the agent with it
                fault = _as_sink_error(error)
                most = max(1, most // 2) if fault.reason == TOO_LARGE else most
                _note_failure(state, sink, fault, pause_s(fault, state.failing, jitter()))
                await sleep(state.retry_in_s)
                continue
            if moved:
                most = BATCH_MAX_RECORDS
                _note_success(state, sink, moved)
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


async def _ship_batch(sink: Sink, outbox: Outbox, most: int) -> int:
    batch = cut(await outbox.unshipped(sink.name, most))
    if not batch:
        return 0
    await sink.send([stored.body for stored in batch])
    await outbox.shipped(sink.name, batch[-1].seq)
    return len(batch)


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


def _note_success(state: ShipState, sink: Sink, moved: int) -> None:
    if state.failing:
        logger.warning("ship.recovered sink=%s after_failures=%d", sink.name, state.failing)
    state.shipped += moved
    state.last_error = state.last_reason = None
    state.failing, state.retry_in_s = 0, 0.0
