"""What is around a piece of a worker's code: the prediction that it is part of, and what an exception makes of it.

Owns the context variable, which threads, tasks and forked children have each for themselves, and the ids of those whom
nobody gave one: UUIDs of version 7, the time, 42 random bits of this process, and a count. Their time is true to the
second: to put the millisecond into each would cost a worker as much as all else that is said of it. Owns also which
exceptions come from elsewhere, and that none strikes before whoever tidies up behind it. Refuses to know marks.
"""

import os
import sys
from _contextvars import ContextVar
from itertools import count
from time import monotonic_ns, time_ns

from taximeter import wire

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextvars import Token
    from typing import Any, TypeVar

    from taximeter.client.predictions import Prediction

    #: What ids of one second have in common, which lack the count and a quote; until when; and their count.
    Second = tuple[bytes, int, Iterator[int]]
    _Function = TypeVar("_Function", bound=Callable[..., Any])

_SECOND_NS = 1_000_000_000
#: The count of ids has eight digits from its first to its last, which it does not come near within a second. They are
#: decimal ones, as those of the time: to make others takes code that nothing else of a mark needs.
_FIRST, _NEAR_THE_LAST = 10_000_000, 90_000_000
_TIME_END = len('"00000000-0000')
#: Pythons from here on were not tried: how they keep who handles an exception is theirs to change.
_UNTRIED = (3, 15)


class Refused(Exception):
    """This node admits nothing for that account now: it has no credit, or the node needs an agent and has none."""

    what = "account"  #: what is denied: an `account`, a `model` to it; or whatever there is, without the `agent`

    def __init__(self, reason: str, what: str = "account") -> None:
        super().__init__(reason)
        self.what = what


class Outside:
    """Around every prediction: the one from whose environment this process was started, if there is one."""

    __slots__ = ("account", "id", "root", "traceparent")

    def __init__(self) -> None:
        said = os.environ.get
        self.id: str | None = said(wire.ENV_PARENT) or None
        self.root: str | None = said(wire.ENV_ROOT) or self.id
        self.account: str | None = said(wire.ENV_ACCOUNT) or None
        self.traceparent: str | None = None


OUTSIDE = Outside()
AROUND: "ContextVar[Prediction | Outside]" = ContextVar("taximeter_prediction", default=OUTSIDE)
AROUND.set(OUTSIDE)  # what is there is put in place of in less time than what is not


def leave(token: "Token[Prediction | Outside]") -> None:
    """Be again where one was before; who leaves in another context than it entered, or did before, is so already."""
    try:
        AROUND.reset(token)
    except (ValueError, RuntimeError) as error:
        if is_foreign(error):
            raise


def ending(kind: type[BaseException], error: "BaseException | None") -> bytes:
    """What an exception that leaves a prediction makes of it: a status."""
    if issubclass(kind, SystemExit):
        return b"failed" if getattr(error, "code", None) else b"succeeded"
    return b"failed" if issubclass(kind, Exception) else b"canceled"


def is_foreign(error: BaseException) -> bool:
    """Whether an exception, caught where we call nobody's code, comes from elsewhere: a signal handler's, Cog's.

    What is written in C raises in the frame that calls it, and a handler in its own, for it is written in Python.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is None or trace.tb_frame.f_globals.get("__package__") != __package__


def from_its_first_instruction(function: "_Function") -> "_Function":
    """The function whose first `try` also covers what is before it, where nothing is done.

    The interpreter looks for signals as it enters a function, and there no `try` holds, wherever one is written. So the
    table by which it finds who handles an exception has one more entry, in front (it is described in Python's own
    InternalDocs/exception_handling.md). Where that was not tried, the function is left as it is.
    """
    made: Any = function
    table = getattr(made.__code__, "co_exceptiontable", b"")
    if table and sys.version_info < _UNTRIED:
        # Four numbers each, of six bits a byte, all but the last with 0x40: start (the first with 0x80), size, and who.
        ends = [at + 1 for at, byte in enumerate(table) if not byte & 0x40]
        until = bytes([table[0] & 0x7F]) + table[1 : ends[0]]
        first = b"\x80" + until + table[ends[1] : ends[3]]
        made.__code__ = made.__code__.replace(co_exceptiontable=first + table)
    return function


def begin_ids() -> "Second":
    """Ids of this process, anew in a forked child; their second is over at once.

    The random bits are taken once, for asking the kernel each time takes as long as all the rest.
    """
    dice = int.from_bytes(os.urandom(10), "big")
    bits = (dice >> 32 & 0xFFF, 0x8000 | dice >> 44 & 0x3FFF, dice >> 58 & 0xFFFF)
    return b'"00000000-0000-7%03x-%04x-%04x' % bits, 0, count(_FIRST + (dice & 0x3FF_FFFF))


def begin_second(before: bytes, counted: "Iterator[int]") -> "Second":
    """The same for the second that begins now."""
    if next(counted) > _NEAR_THE_LAST:
        before, _, counted = begin_ids()
    ms = time_ns() // 1_000_000
    return b'"%08x-%04x%b' % (ms >> 16, ms & 0xFFFF, before[_TIME_END:]), monotonic_ns() + _SECOND_NS, counted
