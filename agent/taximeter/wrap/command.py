"""Starting the command: the search along PATH, the environment it gets, posix_spawn.

Owns what execvp would have done: a file without a magic number is run by /bin/sh, and the exit statuses 126 and 127.
Refuses to know journals.
"""

import posix
import _signal
import time

from taximeter import wire
from taximeter.wrap.entry import Entry

_DEFAULT_PATH = "/bin:/usr/bin"
_ENOENT, _ENOEXEC, _EACCES, _ENOTDIR = 2, 8, 13, 20
#: A candidate with one of these is passed over for the next directory of PATH, as execvp does.
_PASSED_OVER = (_ENOENT, _EACCES, _ENOTDIR, 19, 40, 110, 116)  # ENODEV, ELOOP, ETIMEDOUT, ESTALE
#: Faults of the process itself, which it must die of at once.
_SYNCHRONOUS = (_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL)


class NotStarted(Exception):
    """The command could not be started; `code` is the exit status that says so."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Spawned:
    """A started command; posix_spawn was called at `before_ns` and had returned at `at_ns`."""

    def __init__(self, pid: int, before_ns: int, at_ns: int) -> None:
        self.pid = pid
        self.before_ns = before_ns
        self.at_ns = at_ns


class Environment:
    """An environment as posix_spawn reads it; no dict, since a name may be there twice and keeps its place."""

    def __init__(self, entries: "list[bytes]", changes: "dict[str, str | None]") -> None:
        """`changes` are set at the end, or taken away where they are None."""
        changed = [name.encode() for name in changes]
        # An entry without a name cannot be expressed in Python's posix_spawn; execve takes it, getenv never finds it.
        pairs = [(entry[:1] + name, value) for entry in entries for name, _, value in [entry[1:].partition(b"=")]]
        kept = [pair for pair, entry in zip(pairs, entries) if b"=" in entry[1:] and pair[0] not in changed]
        new = [(name.encode(), posix_bytes(value)) for name, value in changes.items() if value is not None]
        self._pairs = kept + new

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, name: bytes) -> bytes:
        return dict(self._pairs)[name]

    def keys(self) -> "list[bytes]":
        """Names, in order."""
        return [name for name, _ in self._pairs]

    def values(self) -> "list[bytes]":
        """Values, in the same order."""
        return [value for _, value in self._pairs]


def posix_bytes(value: str) -> bytes:
    """The bytes that an environment value was decoded from."""
    return value.encode("utf-8", "surrogateescape")


def forwarded_signals(ignored: "frozenset[int]") -> "set[int]":
    """What we take in for the command; what is ignored stays ignored, by us and by the command."""
    return _signal.valid_signals() - ignored.union(_SYNCHRONOUS, (_signal.SIGKILL, _signal.SIGSTOP))


def spawn(entry: Entry, command: "list[str]", changes: "dict[str, str | None]", path: str | None) -> Spawned:
    """Start the command with our own signals blocked. Raises NotStarted, with the signals as they were before."""
    environment = Environment(entry.environment, changes)
    default = {_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGCHLD} - entry.ignored
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # ignored, it would take the exit status with it
    _signal.pthread_sigmask(_signal.SIG_BLOCK, forwarded_signals(entry.ignored - {_signal.SIGCHLD}))
    try:
        return _search(command, path, environment, entry.mask, default)
    except BaseException:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, entry.mask)
        raise


def _search(command: "list[str]", path: str | None, environment: Environment, mask, default) -> Spawned:  # type: ignore[no-untyped-def]
    name = command[0]
    worst = _ENOENT
    for candidate in _candidates(name, path):
        try:
            return _start(candidate, command, environment, mask, default)
        except OSError as error:
            if error.errno not in _PASSED_OVER:
                raise _not_started(name, error.errno or _ENOENT) from error
            worst = _EACCES if error.errno == _EACCES else worst if "/" not in name else error.errno
    raise _not_started(name, worst)


def _candidates(name: str, path: str | None) -> "list[str]":
    if "/" in name or not name:
        return [name]
    places = [f"{place or '.'}/{name}" for place in (_DEFAULT_PATH if path is None else path).split(":")]
    return [place for place in places if posix.access(place, posix.F_OK)]


def _start(path: str, command: "list[str]", environment: Environment, mask, default) -> Spawned:  # type: ignore[no-untyped-def]
    words = command
    for program in (path, "/bin/sh"):
        before_ns = time.monotonic_ns()
        try:
            pid = posix.posix_spawn(program, words, environment, setsigmask=mask, setsigdef=default)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno != _ENOEXEC or program != path:
                raise
            words = ["/bin/sh", path, *command[1:]]
            continue
        return Spawned(pid, before_ns, time.monotonic_ns())
    raise OSError(_ENOEXEC, path)


def _not_started(name: str, errno: int) -> NotStarted:
    reason = posix.strerror(errno)
    if errno == _ENOENT:
        return NotStarted(wire.EXIT_NOT_FOUND, f"cannot run {name!a}: expected a command, got: {reason}")
    return NotStarted(wire.EXIT_NOT_EXECUTABLE, f"cannot run {name!a}: expected an executable, got: {reason}")
