"""How this process was started: environment, ignored signals, signal mask, descriptors, as the command must get them.

Owns the exactness of what is handed on. Neither Python nor sh leaves these as they were (Python ignores SIGPIPE and
SIGXFSZ and sets LC_CTYPE; sh sets PWD, drops names that it cannot pronounce, and sorts), so the launcher leaves behind
a stopped copy of itself, the witness, whose environment and dispositions are those that we were started with. Refuses
to know what any variable means.
"""

import _signal  # type: ignore[import-not-found]  # the module `signal` costs two milliseconds of enum
import posix

_CHUNK_BYTES = 8192
#: What Python ignores on its own account when it starts.
_PYTHON_IGNORES = (_signal.SIGPIPE, _signal.SIGXFSZ)


class Entry:
    """What this process was started with."""

    def __init__(self, environment: list[bytes], ignored: frozenset[int], witness: int) -> None:
        self.environment = environment  #: NAME=VALUE, in order, duplicates and all
        self.ignored = ignored  #: signal numbers
        self.witness = witness  #: killed already, not yet waited for; 0: there is none
        self.mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        self.descriptors = _descriptors()

    def values(self) -> dict[str, str]:
        """The environment as getenv sees it: the first of each name."""
        found: dict[str, str] = {}
        for entry in self.environment:
            name, _, value = entry.decode("utf-8", "surrogateescape").partition("=")
            found.setdefault(name, value)
        return found


def read_entry(witness: int) -> Entry:
    """Read how we were started from the launcher's `witness` (a pid; 0: there is none), and take that away."""
    try:
        if witness and posix.waitpid(witness, posix.WNOHANG)[0] == 0:  # a child of ours, and it lives
            environment = read_file(f"/proc/{witness}/environ")
            status = read_file(f"/proc/{witness}/status")
            posix.kill(witness, _signal.SIGKILL)
            mask = int(status.partition(b"SigIgn:")[2].split(None, 1)[0], 16)
            ignored = {number for number in _PYTHON_IGNORES if mask >> (number - 1) & 1}
            return Entry(_split(environment), frozenset(ignored | _ignored_here()), witness)
    except (OSError, IndexError, ValueError):
        pass
    return Entry(_own_environment(), frozenset(_ignored_here()), witness)


def reap(witness: int) -> None:
    """Wait for the witness, which was killed long ago."""
    try:
        if witness:
            posix.kill(witness, _signal.SIGKILL)
            posix.waitpid(witness, 0)
    except OSError:
        pass


def read_file(path: str) -> bytes:
    """All of a file whose size is not known beforehand. Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        content = b""
        while chunk := posix.read(fd, _CHUNK_BYTES):
            content += chunk
        return content
    finally:
        posix.close(fd)


def hold_standard_descriptors(descriptors: list[int]) -> None:
    """Let nothing that we open become the standard input or output of a command that was to have none."""
    while any(number not in descriptors for number in (0, 1, 2)):
        fd = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
        if fd > 2:
            posix.close(fd)
            return


def drop_descriptors(descriptors: list[int], keep: tuple[int, ...]) -> None:
    """Close what was inherited, so that a reader of the command's output sees its end when the command closes it."""
    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    for fd in descriptors:
        if fd in keep:
            continue
        if fd <= 2:
            posix.dup2(null, fd, inheritable=False)
        else:
            posix.close(fd)
    posix.close(null)


def _ignored_here() -> set[int]:
    ignored = {number for number in range(1, _signal.NSIG) if _is_ignored(number)}
    return ignored.difference(_PYTHON_IGNORES)


def _is_ignored(number: int) -> bool:
    try:
        return bool(_signal.getsignal(number) == _signal.SIG_IGN)
    except ValueError:
        return False


def _own_environment() -> list[bytes]:
    try:
        return _split(read_file("/proc/self/environ"))
    except OSError:
        return [name + b"=" + value for name, value in posix.environ.items()]


def _split(environment: bytes) -> list[bytes]:
    return environment[:-1].split(b"\0") if environment else []


def _descriptors() -> list[int]:
    try:
        names = posix.listdir("/proc/self/fd")
    except OSError:
        return [fd for fd in range(1024) if _is_open(fd)]
    return [fd for fd in map(int, names) if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        posix.fstat(fd)
    except OSError:
        return False
    return True
