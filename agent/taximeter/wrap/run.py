"""One run: what is known of it while it lasts, and its journal, if it has one.

Owns the state that the rooms of the wrapper share. Refuses to decide anything.
"""

from taximeter.wrap import lines
from taximeter.wrap.argv import Options
from taximeter.wrap.writer import Writer

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable

    from taximeter.wrap.notify import Notify
    from taximeter.wrap.readiness import Readiness

#: Important facts that may use the journal's reserve; far fewer than it holds, the exit fact must still fit.
_IMPORTANT = 16


class Run:
    """What is known of one run."""

    def __init__(self, options: Options, command: list[str], instance: str) -> None:
        self.options = options
        self.command = command
        self.instance = instance
        self.run_directory = ""
        self.ignored: frozenset[int] = frozenset()
        self.boot_id = ""
        self.writer: Writer | None = None  #: None: no journal can be kept
        self.fifo = -1  #: the marks' descriptor; -1: there is none
        self.fifo_path: str | None = None
        self.notify: Notify | None = None
        self.readiness: Readiness | None = None  #: what looks whether it is ready; None: nothing does
        self.utc_error: Callable[[], int | None] | None = None  #: asks how far off the calendar may be, if that may be
        self.pid = 0
        self.before_ns = 0  #: posix_spawn was called
        self.spawn_ns = 0  #: posix_spawn had returned
        self.own_bytes: int | None = None  #: our own size when we forked
        self.ready_ns: int | None = None
        self.end_ns: int | None = None
        self.status: int | None = None  #: as wait(2) gave it
        self.rss_peak_bytes: int | None = None
        self.orphans_cpu_ns = 0  #: of those that were waited for here
        self.dropped = 0  #: facts that found no room
        self.unsaid = b""  #: that the command was started, while there is no room to say it
        self.oom: str | None = None  #: a word of wire.OOM, where it is known
        self.left: int | None = None  #: processes that the command left running
        self._important_left = _IMPORTANT

    def clock(self) -> str:
        """The clocks now, as JSON."""
        return lines.clock(self.boot_id, self.utc_error)

    def write(self, lines: bytes) -> bool:
        """Write facts; False if there was no room for them. Raises OSError."""
        if self.unsaid:
            return self._write_with_start(lines)
        return self.writer is None or self.writer.append(lines)

    def write_marks(self, lines: bytes) -> bool:
        """Write what the command said; False if there was no room for that. Raises OSError."""
        if self.unsaid:
            return self._write_with_start(lines)
        return self.writer is None or self.writer.append_marks(lines)

    def write_or_drop(self, line: bytes) -> bool:
        """Write a fact that says nothing later any more; False if it was dropped, which is counted. Raises OSError."""
        wrote = self.write(line)
        self.dropped += not wrote
        return wrote

    def _write_with_start(self, lines: bytes) -> bool:
        """Write that the command was started before anything else; what lies in between is a silence, and unknown."""
        wrote = self.writer is None or self.writer.append(self.unsaid + lines)
        if wrote:
            self.unsaid = b""
        return wrote

    def write_important(self, line: bytes) -> None:
        """Write a fact that says how a run ends, on a full disk into the reserve. Raises OSError."""
        if self.write(line):
            return
        if self.writer is None or self._important_left <= 0 or not self.writer.append_last(line):
            self.dropped += 1
        self._important_left -= 1
