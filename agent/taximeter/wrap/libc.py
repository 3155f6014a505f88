"""Two calls that Python 3.11 does not have: signalfd and prctl.

Owns the door to the C library. Imported only after the command runs: `_ctypes` alone, since the package ctypes costs
four milliseconds. Raises OSError or ImportError; callers do without.
"""

import _ctypes

_SFD_NONBLOCK, _SFD_CLOEXEC = 0o4000, 0o2000000
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_SIGSET_BYTES = 128


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Int


_library = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # the program itself, libc included


def _call(name: str, *arguments: "int | bytes") -> int:
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
