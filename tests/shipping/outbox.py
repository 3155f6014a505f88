"""An outbox in memory, for one sink: what the ledger's outbox promises, without a disk."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio

from taximeter.shipping.delivery import Refused


@dataclass(frozen=True)
class Stored:
    """A record with its number."""

    seq: int
    body: bytes


@dataclass
class Outbox:
    """Records 1..n; `done` is the highest that was acknowledged."""

    bodies: list[bytes] = field(default_factory=list)
    done: int = 0
    letters: dict[int, Refused] = field(default_factory=dict)
    wanted: set[int] = field(default_factory=set)  #: letters that are to be tried again

    async def unshipped(self, sink: str, limit: int) -> Sequence[Stored]:
        numbered = [Stored(seq, body) for seq, body in enumerate(self.bodies, 1)]
        return numbered[self.done : self.done + limit]

    async def newest(self, sink: str) -> Stored | None:
        return Stored(len(self.bodies), self.bodies[-1]) if self.done < len(self.bodies) else None

    async def shipped(self, sink: str, seq: int, refused: Sequence[Refused] = ()) -> None:
        assert seq > self.done, "an acknowledgement went back"
        self.done = seq
        self.letters |= {one.seq: one for one in refused}

    async def again(self, sink: str, limit: int) -> Sequence[Stored]:
        return [Stored(seq, self.bodies[seq - 1]) for seq in sorted(self.wanted)][:limit]

    async def tried_again(self, sink: str, seq: int, refused: Refused | None) -> None:
        self.wanted.remove(seq)
        del self.letters[seq]
        if refused is not None:
            self.letters[seq] = refused

    @property
    def empty(self) -> bool:
        return self.done == len(self.bodies)


async def until(condition: Callable[[], bool], deadline_s: float = 20.0) -> None:
    """Come back once `condition` holds; fail after `deadline_s`."""
    with anyio.fail_after(deadline_s):
        while not condition():  # noqa: ASYNC110 -- anything may be waited for
            await anyio.sleep(0.005)
