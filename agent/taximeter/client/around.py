"""What is around a piece of a worker's code: the prediction that it is part of, and what an exception makes of it.

Owns the context variable, which threads, tasks and forked children have each for themselves. Refuses to know marks.
"""

import os
from _contextvars import ContextVar
from os import urandom
from time import time_ns

from taximeter import wire

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from contextvars import Token

    from taximeter.client.prediction import Prediction

_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


class Refused(Exception):
    """This node admits nothing for that account now: it has no credit, or the node needs an agent and has none."""


class Outside:
    """Around every prediction: the one from whose environment this process was started, if there is one."""

    __slots__ = ("account", "id", "root", "traceparent")

    def __init__(self) -> None:
        said = os.environ.get
        self.id: str | None = said(wire.ENV_PARENT) or None
        self.root: str | None = said(wire.ENV_ROOT) or self.id
        self.account: str | None = said(wire.ENV_ACCOUNT) or None
        self.traceparent: str | None = None


AROUND: "ContextVar[Prediction | Outside]" = ContextVar("taximeter_prediction", default=Outside())


def leave(token: "Token[Prediction | Outside]") -> None:
    """Be again where one was before; who leaves in another context than it entered is so already."""
    try:
        AROUND.reset(token)
    except ValueError:
        pass


def ending(kind: type[BaseException], error: "BaseException | None") -> str:
    """What an exception that leaves a prediction makes of it."""
    if issubclass(kind, SystemExit):
        return "failed" if getattr(error, "code", None) else "succeeded"
    return "failed" if issubclass(kind, Exception) else "canceled"


def make_id() -> str:
    """A UUIDv7: the time in milliseconds, then 74 random bits."""
    time, dice = f"{time_ns() // 1_000_000:012x}", urandom(10).hex()
    return f"{time[:8]}-{time[8:]}-7{dice[:3]}-{_VARIANT[dice[3]]}{dice[4:7]}-{dice[8:]}"
