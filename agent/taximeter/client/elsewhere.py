"""Exceptions from elsewhere, which strike our own code: a signal handler's, Ctrl-C, Cog's that cancels.

Owns by what they are told from those that our own calls raise, and that code which tidies up behind them is within
reach of them from its first instruction on. Refuses to know what is to be tidied up.
"""

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _Function = TypeVar("_Function", bound=Callable[..., Any])


def is_foreign(error: BaseException) -> bool:
    """Whether an exception, caught where we call nobody's code, was raised by none of our calls.

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
    InternalDocs/exception_handling.md). Elsewhere than in CPython the function is left as it is.
    """
    made: Any = function
    code = made.__code__
    table = getattr(code, "co_exceptiontable", b"")
    if table:
        start, at = _number(table, 0)
        _, at = _number(table, at)
        _, end = _number(table, at)
        _, end = _number(table, end)
        first = bytes([0x80, *_digits(start)]) + table[at:end]
        made.__code__ = code.replace(co_exceptiontable=first + table)
    return function


def _number(table: bytes, at: int) -> tuple[int, int]:
    """A number of the table, six bits a byte, and where the next one is."""
    found = table[at] & 0x3F
    while table[at] & 0x40:
        at += 1
        found = found << 6 | table[at] & 0x3F
    return found, at + 1


def _digits(number: int) -> "list[int]":
    digits = [number & 0x3F]
    while number > 0x3F:
        number >>= 6
        digits.insert(0, 0x40 | number & 0x3F)
    return digits
