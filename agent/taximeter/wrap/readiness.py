"""How it is found out that the command is ready, where it neither is so from the start nor says so itself.

Owns what the ways have in common: when they look, and the fact that comes of it. Imported for runs that ask for it.
Refuses to look: asking does, over a socket, and output does, in what the command writes.
"""

from taximeter.wrap import facts

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    import select
    from typing import Protocol

    from taximeter.wrap.run import Run
    from taximeter.wrap.targets import Target

    class Readiness(Protocol):
        """A way of finding out. Every method may raise OSError."""

        next_ns: int | None  #: when it wants its turn even if none of its descriptors is ready

        def release(self) -> None:
            """The command runs, or never will: hold nothing that was only meant for it. May be called again."""

        def begin(self, epoll: select.epoll) -> None:
            """Be told by an epoll from now on."""

        def take(self, ready: list[int], now_ns: int) -> int:
            """Go on with what is ready, or due; returns the time."""

        def finish(self, end_ns: int) -> None:
            """The command has ended: look for the last time."""

        def leave(self) -> None:
            """We end, too."""

        def abandon(self) -> None:
            """The meter broke: see to it that the command does not notice."""


_MS = 1_000_000
#: Between two looks there is an eighth of the time since the start, within these bounds.
SOONEST_NS, _LATEST_NS = 10 * _MS, 100 * _MS


def prepare(run: "Run", target: "Target") -> "Readiness":
    """Get ready to look, before the command runs. Raises UsageError and OSError."""
    if target.pattern is None:
        from taximeter.wrap.asking import Asking

        return Asking(run, target)
    from taximeter.wrap.output import Output

    return Output(run, target.pattern)


def pause_ns(run: "Run", now_ns: int) -> int:
    """How long to wait until the next look."""
    return min(max((now_ns - run.spawn_ns) // 8, SOONEST_NS), _LATEST_NS)


def conclude(run: "Run", by: str, at_ns: int, within_ns: int) -> None:
    """The command is ready. Raises OSError."""
    run.ready_ns = at_ns
    run.write_important(facts.ready(at_ns, by, within_ns))
