"""What the command says of itself: marks and notifications, taken in bites and written down as they came.

Owns how much is taken at a time, and what happens when there is no room for it. Refuses to judge what was said.
"""

from taximeter import wire
from taximeter.wrap import facts, lines, marks
from taximeter.wrap.run import Run

#: Reads of the FIFO after the command's end: as much as the pipe holds, and no more for those who still write.
_LAST_READS = 64


class Intake:
    """The marks FIFO and the notification socket of one run, either of which may be missing."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._splitter = marks.Splitter()
        self._notified = False
        self._rest: list[bytes] = []  #: marks that found no room
        self._rest_ns = 0

    def take_marks(self, now_ns: int) -> bool:
        """Take a bite of marks; False if there was no room for them: they are kept, the rest had better wait."""
        return self._write(now_ns, self._splitter.feed(marks.read(self._run.fifo)))

    def write_rest(self) -> bool:
        """Write what found no room; False if there still is none."""
        return self._write(self._rest_ns, self._rest)

    def take_notifications(self, now_ns: int) -> None:
        """Take some notifications. Raises OSError."""
        run = self._run
        for message in run.notify.receive() if run.notify is not None else ():
            said = message.split(b"\n")
            if b"READY=1" in said and not self._notified:
                self._notified = True
                run.ready_ns = run.ready_ns or now_ns
                run.write_important(facts.ready(now_ns, "notify"))
            if b"STOPPING=1" in said:
                run.write_important(lines.fact(wire.FACT_STOPPING, now_ns, ',"by":"notify"'))

    def finish(self, at_ns: int, first: bytes = b"") -> None:
        """Take what was said before the end, `first` of it read already, so that it is written before the end is."""
        self.take_notifications(at_ns)
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
        if not said or self._run.write(marks.format_marks(now_ns, said)):
            return True
        for at, line in enumerate(said):
            if not self._run.write(marks.format_marks(now_ns, [line])):
                self._rest_ns, self._rest = now_ns, said[at:]
                return False
        return True
