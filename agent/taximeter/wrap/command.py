"""Starting the command: the search along PATH, the environment it gets, posix_spawn.

Owns what execvp would have done: a file without a magic number is run by /bin/sh, and the exit statuses 126 and 127.
Refuses to know journals.
"""

import _signal  # type: ignore[import-not-found]  # the module `signal` costs two milliseconds of enum
import posix
import time

from taximeter import wire
from taximeter.wrap.entry import Entry

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from taximeter.wrap.environment import Environment
    from taximeter.wrap.run import Run

    _T = TypeVar("_T")

_SHELL = "/bin/sh"
_DEFAULT_PATH = "/bin:/usr/bin"
_ENOENT, _ENOEXEC, _EACCES = 2, 8, 13
#: A candidate with one of these is passed over for the next directory of PATH, as execvp does.
_PASSED_OVER = (_ENOENT, _EACCES, 19, 20, 40, 110, 116)  # ENODEV, ENOTDIR, ELOOP, ETIMEDOUT, ESTALE
#: Faults of the process itself, which it must die of at once.
_SYNCHRONOUS = (_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL)


class Refused(Exception):
    """The command is not started; `code` is the exit status that says why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.run: Run | None = None  #: whose summary is to be told none the less


def forwarded_signals(ignored: frozenset[int]) -> set[int]:
    """What we take in for the command; what is ignored stays ignored, by us and by the command."""
    every: set[int] = _signal.valid_signals()
    return every - ignored.union(_SYNCHRONOUS, (_signal.SIGKILL, _signal.SIGSTOP))


def make_environment(entries: list[bytes], changes: dict[str, str | None]) -> "dict[bytes, bytes] | Environment":
    """The command's environment as posix_spawn reads it; `changes` are set at the end, or taken away where None."""
    made: dict[bytes, bytes] = {}
    for entry in entries:
        name, equals, value = entry.partition(b"=")
        if not name or name in made:
            from taximeter.wrap.environment import Environment

            return Environment(entries, changes)
        if equals:
            made[name] = value
    for key, text in changes.items():
        made.pop(key.encode(), None)
        if text is not None:
            made[key.encode()] = text.encode("utf-8", "surrogateescape")
    return made


def spawn(entry: Entry, words: list[str], changes: dict[str, str | None], path: str | None) -> tuple[int, int, int]:
    """Start the command with our own signals blocked.

    Returns its pid, the time before posix_spawn was called and the time when it had returned. Raises Refused, with the
    signals as they were before.
    """
    environment = make_environment(entry.environment, changes)
    default = {_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGCHLD} - entry.ignored

    def start(program: str, words: list[str]) -> tuple[int, int, int]:
        before_ns = time.monotonic_ns()
        pid = posix.posix_spawn(program, words, environment, setsigmask=entry.mask, setsigdef=default)  # type: ignore[arg-type]
        return pid, before_ns, time.monotonic_ns()

    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # ignored, it would take the exit status with it
    _signal.pthread_sigmask(_signal.SIG_BLOCK, forwarded_signals(entry.ignored - {_signal.SIGCHLD}))
    try:
        return _search(start, words, path)
    except BaseException:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, entry.mask)
        raise


def _search(start: "Callable[[str, list[str]], _T]", words: list[str], path: str | None) -> "_T":
    """Try one candidate after the other, as execvp does."""
    worst, name = _ENOENT, words[0]
    for program in _candidates(name, path):
        try:
            return _start(start, program, words)
        except OSError as error:
            if error.errno == _EACCES or error.errno not in _PASSED_OVER or "/" in name:
                worst = error.errno or _ENOENT
            if error.errno not in _PASSED_OVER:
                break
    code = wire.EXIT_NOT_FOUND if worst == _ENOENT else wire.EXIT_NOT_EXECUTABLE
    expected = "a command" if worst == _ENOENT else "an executable"
    raise Refused(code, f"cannot run {name!a}: expected {expected}, got: {posix.strerror(worst)}")


def _candidates(name: str, path: str | None) -> list[str]:
    if not name:
        return []
    if "/" in name:
        return [name]
    places = [f"{place or '.'}/{name}" for place in (_DEFAULT_PATH if path is None else path).split(":")]
    return [place for place in places if posix.access(place, posix.F_OK)]


def _start(start: "Callable[[str, list[str]], _T]", program: str, words: list[str]) -> "_T":
    try:
        return start(program, words)
    except OSError as error:
        if error.errno != _ENOEXEC:
            raise
    return start(_SHELL, [_SHELL, program, *words[1:]])
