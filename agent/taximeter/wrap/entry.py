"""How this process was started: environment, ignored signals, signal mask, descriptors, as the command must get them.

Owns the exactness of what is handed on. Neither Python nor sh leaves these as they were (Python ignores SIGPIPE and
SIGXFSZ and sets LC_CTYPE; sh sets PWD, drops names that it cannot pronounce, and sorts), so the launcher leaves behind
a copy of itself, the witness, whose environment and dispositions are those that we were started with. Refuses to know
what any variable means.
"""

import _signal  # type: ignore[import-not-found]  # the module `signal` costs two milliseconds of enum
import posix

_CHUNK_BYTES = 8192
#: What the launcher gives Python, and the command only if its witness cannot be read: a locale without files.
_LAUNCHERS_OWN = b"LC_ALL=POSIX"
#: What Python ignores on its own account when it starts.
_PYTHON_IGNORES = (_signal.SIGPIPE, _signal.SIGXFSZ)


class Entry:
    """What this process was started with."""

    def __init__(self, environment: list[bytes], ignored: frozenset[int], witness: int = 0) -> None:
        self.environment = environment  #: NAME=VALUE, in order, duplicates and all
        self.ignored = ignored  #: signal numbers
        self.mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        self.descriptors = _descriptors()
        self._witness = witness  #: its pid until it was waited for, else 0

    def values(self) -> dict[str, str]:
        """The environment as getenv sees it: the first of each name."""
        entries = b"\0".join(self.environment).decode("utf-8", "surrogateescape").split("\0")
        entries.reverse()
        return dict([entry.partition("=")[::2] for entry in entries])

    def take_witness_away(self) -> None:
        """Wait for the witness, which has nothing left to wait for itself: while the command runs, or after it."""
        pid, self._witness = self._witness, 0
        try:
            if pid and posix.waitpid(pid, posix.WNOHANG)[0] == 0:  # only ever a child of ours
                posix.kill(pid, _signal.SIGKILL)  # it may have been stopped with all of the group
                posix.waitpid(pid, 0)
        except OSError:
            pass


def read_entry(witness: str) -> Entry:
    """Read how we were started from the launcher's `witness` (PID:DESCRIPTOR, or a dash for none), and let it go.

    It ends beside us, once the descriptor is closed; whoever starts the command waits for it later.
    """
    pid, _, gate = witness.partition(":")
    environment, ignored = None, _ignored_here()
    try:
        if gate:
            environment = _split(read_file(f"/proc/{pid}/environ"))
            mask = int(read_file(f"/proc/{pid}/status").partition(b"SigIgn:")[2].split(None, 1)[0], 16)
            ignored.update(number for number in _PYTHON_IGNORES if mask >> (number - 1) & 1)
    except (OSError, IndexError):
        environment = None
    if environment is None:
        environment = [entry for entry in _own_environment() if not gate or entry != _LAUNCHERS_OWN]
    if gate:
        posix.close(int(gate))
    return Entry(environment, frozenset(ignored), int(pid) if gate else 0)


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
    ignored = {number for number in range(1, _signal.NSIG) if _signal.getsignal(number) == _signal.SIG_IGN}
    return ignored.difference(_PYTHON_IGNORES)


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
