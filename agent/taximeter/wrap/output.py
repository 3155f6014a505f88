"""`--ready log:REGEX`: the command's outputs are searched for a line, and reach whoever reads them all the same.

Owns the choice of how: a file is read beside the command, anything else but a terminal passes through us. Refuses to
judge lines by anything but the pattern.
"""

import posix
import time

from taximeter import wire
from taximeter.wrap import lines
from taximeter.wrap.argv import UsageError
from taximeter.wrap.handover import hand_over, see_out
from taximeter.wrap.pattern import Lines, Search, TooSlow
from taximeter.wrap.readiness import conclude, pause_ns
from taximeter.wrap.relay import Relay
from taximeter.wrap.tail import Tail

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    import re
    import select

    from taximeter.wrap.run import Run

#: Bites of a file that are searched after the command's end.
_LAST_READS = 64
_KIND, _FILE = 0o170000, 0o100000
_NAMES = {1: "stdout", 2: "stderr"}


class Output:
    """The outputs of the command, which are searched until the line has come."""

    def __init__(self, run: "Run", pattern: "re.Pattern[bytes]") -> None:
        """Put ourselves between the command and its outputs. Raises UsageError and OSError."""
        self._run = run
        self._search: Search | None = Search(pattern, run)
        self._relays: dict[Relay, Lines] = {}
        self._tails: list[Tail] = []
        self._no_ns = 0  # the last look at a file that found nothing began then
        self.next_ns: int | None = None
        outputs = _outputs()
        try:
            for descriptors, is_file in outputs:
                self._follow(descriptors, is_file)
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Our own descriptors are what they were."""
        for relay in self._relays:
            relay.release()
            relay.unread_ns = self._run.before_ns

    def begin(self, epoll: "select.epoll") -> None:
        """Relay, and search, from now on."""
        for relay in self._relays:
            relay.watch(epoll)
        self._no_ns = self._run.before_ns
        self.next_ns = self._no_ns if self._tails else None

    def take(self, ready: list[int], now_ns: int) -> int:
        """Move a bite of each output on; search what is new."""
        if self._run.ready_ns is not None and self._search is not None:
            self._end_search()
        for relay, splitter in self._relays.items():
            data = relay.move(ready, self._search is not None)
            if data and self._search is not None:
                self._look_at_relay(relay, splitter.feed(data), None)
        if self.next_ns is not None and now_ns >= self.next_ns:
            self._look_at_tails()
        return time.monotonic_ns()

    def finish(self, end_ns: int) -> None:
        """Take what the command has left; what it says there it said before its end."""
        for relay, splitter in self._relays.items():
            data = relay.finish()
            self._look_at_relay(relay, splitter.feed(data), end_ns)
        for tail in self._tails:
            for _ in range(_LAST_READS):
                if self._finds(tail.read()):
                    self._found(end_ns, end_ns - (self._no_ns or self._run.before_ns))
                if self._search is None:
                    return
                if not tail.more:
                    break

    def leave(self) -> None:
        """See to it that all of it comes out; whoever still writes can go on."""
        self.release()
        for relay in self._relays:
            relay.finish()
        see_out(self._open())
        hand_over(self._open())

    def abandon(self) -> None:
        """Let others relay."""
        self.release()
        hand_over(self._open())

    def _follow(self, descriptors: list[int], is_file: bool) -> None:
        if is_file:
            self._tails.append(Tail(descriptors[0]))
            return
        relay = Relay(descriptors[0])
        self._relays[relay] = Lines()
        for fd in descriptors:
            relay.stand_in(fd)

    def _open(self) -> list[Relay]:
        return [relay for relay in self._relays if relay.is_open]

    def _look_at_relay(self, relay: Relay, said: list[bytes], end_ns: int | None) -> None:
        unread_ns, relay.unread_ns = relay.unread_ns, None
        if self._finds(said):
            at_ns = time.monotonic_ns() if end_ns is None else end_ns
            self._found(at_ns, 0 if unread_ns is None else at_ns - unread_ns)

    def _look_at_tails(self) -> None:
        began_ns = time.monotonic_ns()
        more = False
        for tail in self._tails:
            if self._finds(tail.read()):
                at_ns = time.monotonic_ns()
                self._found(at_ns, at_ns - self._no_ns)
            if self._search is None:
                return
            more = more or tail.more
        if more:
            self.next_ns = began_ns
        else:
            self._no_ns = began_ns
            self.next_ns = began_ns + pause_ns(self._run, began_ns)

    def _finds(self, said: list[bytes]) -> bool:
        if self._search is None or not said:
            return False
        try:
            return self._search.among(said)
        except TooSlow:
            self._end_search()
            self._run.write_or_drop(lines.fact(wire.FACT_READY_TIMEOUT, time.monotonic_ns(), ',"reason":"pattern"'))
            return False

    def _found(self, at_ns: int, within_ns: int) -> None:
        self._end_search()
        if self._run.ready_ns is None:
            conclude(self._run, wire.BY_LOG, at_ns, within_ns)

    def _end_search(self) -> None:
        self._search = None
        self.next_ns = None
        for tail in self._tails:
            tail.close()
        self._tails = []


def _outputs() -> list[tuple[list[int], bool]]:
    """The descriptors of each output that the command has, with whether it is a file. Raises UsageError."""
    found: dict[tuple[int, int], tuple[list[int], bool]] = {}
    for fd, name in _NAMES.items():
        if not posix.get_inheritable(fd):
            continue  # a stand-in of ours: the command is to have none
        if posix.isatty(fd):
            raise UsageError(
                f"cannot search {name} for a line: expected a file or a pipe, got a terminal, which a command must have"
                " to itself; redirect stdout and stderr, as in `2>&1 | cat`"
            )
        status = posix.fstat(fd)
        is_file = status.st_mode & _KIND == _FILE
        if is_file and not posix.access(f"/proc/self/fd/{fd}", posix.R_OK):
            raise UsageError(f"cannot search {name} for a line: expected a file that can be read here, or a pipe")
        found.setdefault((status.st_dev, status.st_ino), ([], is_file))[0].append(fd)
    if not found:
        raise UsageError("cannot search for a line: expected stdout or stderr to be open")
    return list(found.values())
