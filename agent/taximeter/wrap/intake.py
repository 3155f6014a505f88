"""What the command says of itself: marks and notifications, taken in bites and written down as they came.

Owns how much is taken at a time, and when nothing is: while the disk has no room for it, and once a worker has said
more than it may (budget). Then the rest waits in the FIFO, and whoever writes finds that full. Refuses to judge what
was said.
"""

import select

from taximeter import wire
from taximeter.wrap import facts, lines, marks
from taximeter.wrap.budget import Budget
from taximeter.wrap.run import Run

#: Reads of the FIFO after the command's end: as much as the pipe holds, and no more for those who still write.
_LAST_READS = 64


class Intake:
    """The marks FIFO and the notification socket of one run, either of which may be missing."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._splitter = marks.Splitter()
        self._budget = Budget(run.spawn_ns)
        self._epoll: select.epoll | None = None
        self._ready_noted = self._stop_noted = False
        self._rest: list[bytes] = []  #: marks that found no room
        self._rest_ns = 0
        self.next_ns: int | None = None  #: when there is budget again; None: it is not that which is waited for

    def begin(self, epoll: select.epoll) -> None:
        """Be told by an epoll from now on. Raises OSError."""
        self._epoll = epoll
        if self._run.notify is not None:
            epoll.register(self._run.notify.fd, select.EPOLLIN)
        if self._run.fifo >= 0:
            marks.enlarge(self._run.fifo)
            epoll.register(self._run.fifo, select.EPOLLIN)

    def take(self, ready: list[int], now_ns: int) -> None:
        """Take a bite of what there is. Raises OSError."""
        if self._run.notify is not None and self._run.notify.fd in ready:
            self._take_notifications(now_ns)
        if self._run.fifo in ready:
            self._take_marks(now_ns)
        elif self.next_ns is not None and now_ns >= self.next_ns:
            self._go_on()

    def look_for_room(self) -> None:
        """Write what found no room, if there is some now; then go on."""
        if self._rest and self._write(self._rest_ns, self._rest):
            self._go_on()

    def finish(self, at_ns: int, first: bytes = b"") -> None:
        """Take what was said before the end, `first` of it read already, so that it is written before the end is."""
        self._take_notifications(at_ns)
        if self._run.fifo < 0:
            return
        self._write(self._rest_ns, self._rest)
        data = first or marks.read(self._run.fifo)
        for _ in range(_LAST_READS):
            if not data:
                break
            self._write_last(at_ns, self._splitter.feed(data))
            data = marks.read(self._run.fifo)
        self._write_last(at_ns, self._splitter.finish())
        self._run.dropped += len(self._rest)

    def _take_marks(self, now_ns: int) -> None:
        data = marks.read(self._run.fifo)
        wrote = self._write(now_ns, self._splitter.feed(data))
        self.next_ns = self._budget.spend(now_ns, data) if wrote else None
        if self._epoll is not None and not (wrote and self.next_ns is None):
            self._epoll.unregister(self._run.fifo)

    def _go_on(self) -> None:
        self.next_ns = None
        if self._epoll is not None:
            self._epoll.register(self._run.fifo, select.EPOLLIN)

    def _take_notifications(self, now_ns: int) -> None:
        """Take some notifications; what is said again is not noted again. Raises OSError."""
        run = self._run
        for message in run.notify.receive() if run.notify is not None else ():
            said = message.split(b"\n")
            if b"READY=1" in said and not self._ready_noted:
                self._ready_noted = True
                run.ready_ns = run.ready_ns or now_ns
                run.write_important(facts.ready(now_ns, "notify"))
            if b"STOPPING=1" in said and not self._stop_noted:
                self._stop_noted = True
                run.write_important(lines.fact(wire.FACT_STOPPING, now_ns, ',"by":"notify"'))

    def _write_last(self, at_ns: int, said: list[bytes]) -> None:
        """Write what came at the end: if something older waits in vain, it goes the same way."""
        if self._rest:
            self._run.dropped += len(said)
        else:
            self._write(at_ns, said)

    def _write(self, now_ns: int, said: list[bytes]) -> bool:
        """Write marks, as many as there is room for; the others are kept, which is bounded by one bite."""
        if self._run.ready_ns is None and any(marks.says_ready(line) for line in said):
            self._run.ready_ns = now_ns
        self._rest = []
        if not said or self._run.write_marks(marks.format_marks(now_ns, said)):
            return True
        for at, line in enumerate(said):
            if not self._run.write_marks(marks.format_marks(now_ns, [line])):
                self._rest_ns, self._rest = now_ns, said[at:]
                return False
        return True
