"""Calls that Python 3.11 does not have: signalfd, prctl and adjtimex.

Owns the door to the C library. Imported only after the command runs: `_ctypes` alone, since the package ctypes costs
four milliseconds. Raises OSError or ImportError; callers do without.
"""

import _ctypes
import sys

_SFD_NONBLOCK, _SFD_CLOEXEC = 0o4000, 0o2000000
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_SIGSET_BYTES = 128
# struct timex, of which the first word is a number and those that follow are long; and what adjtimex(2) answers, and
# says in its status, while nothing keeps the clock in step with others.
_TIMEX_BYTES = 256
_LONG_BYTES = 8 if sys.maxsize > 1 << 32 else 4
_MAXERROR, _STATUS = 3, 5
_TIME_ERROR, _STA_UNSYNC = 5, 0x0040
_NS_PER_US = 1_000


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "B"


class _Timex(_ctypes.Array):  # type: ignore[type-arg]
    _type_ = _Byte
    _length_ = _TIMEX_BYTES


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


_library = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # the program itself, libc included


def _call(name: str, *arguments: "int | bytes | _Timex") -> int:
    result: int = _Function(_ctypes.dlsym(_library, name))(*arguments)
    if result < 0:
        raise OSError(_ctypes.get_errno(), f"cannot call {name}")
    return result


def signalfd(signals: set[int]) -> int:
    """A descriptor from which these signals, which must be blocked, are read."""
    mask = sum([1 << (number - 1) for number in signals])
    return _call("signalfd", -1, mask.to_bytes(_SIGSET_BYTES, "little"), _SFD_NONBLOCK | _SFD_CLOEXEC)


def become_subreaper() -> None:
    """Make orphans of the command our children, so that they stay visible as its own."""
    _call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def forbid_core() -> None:
    """No core dump of this process, not even where the kernel pipes them to a program."""
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def utc_error_ns() -> int | None:
    """How far off the kernel says that the calendar may be; None where it does not know, or does not say.

    It only asks, which takes no privilege, but where seccomp forbids it that may be deadly: see proc.is_unfiltered.
    """
    timex = _Timex()
    try:
        answer = _call("adjtimex", timex)
    except OSError:
        return None
    said = bytes(timex)
    if answer == _TIME_ERROR or _word(said, _STATUS) & _STA_UNSYNC:
        return None
    return _word(said, _MAXERROR) * _NS_PER_US


def _word(said: bytes, index: int) -> int:
    return int.from_bytes(said[index * _LONG_BYTES :][:4], sys.byteorder)
