"""The agent's door to NVML: asks the reader for a report a round, and replaces a reader that cannot answer.

Owns the deadline of a round, how soon a new reader is worth a try, and how many hung ones are left behind. Whatever
happens, an answer takes no longer than the deadline, and nothing is raised. Refuses to know what a report says.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio

from taximeter.errors import HardwareError
from taximeter.hardware.nvml.protocol import Reading, Report, parse, unknown
from taximeter.hardware.nvml.reader import COMMAND, Reader, spawn

#: From one reader to the next, in seconds: doubled at each failure, from the first to the last.
_FIRST_PAUSE_S, _LAST_PAUSE_S = 1.0, 300.0
#: Readers that hang in the driver; with so many of them another one would only hang as well.
MOST_HUNG = 4
#: Of the deadline; what is not sampled by then waits for the next round.
_BUDGET = 0.5


@dataclass(slots=True)
class Door:
    """One reader at a time, and what became of the others."""

    deadline_s: float
    command: Sequence[str] = COMMAND
    now_s: Callable[[], float] = time.monotonic
    trouble: str | None = None  #: why the last question had no answer
    spawned: int = 0  #: readers, since the door was opened
    late: int = 0  #: rounds that were given up at the deadline
    _reader: Reader | None = None
    _hung: list[Reader] = field(default_factory=list)
    _number: int = 0
    _pause_s: float = 0.0
    _not_before_s: float = 0.0

    async def ask(self) -> Report | None:
        """Return a report on the devices now; None where there is none, and `trouble` says why."""
        try:
            reader = self._current()
            if reader is None:
                return None
            report = await self._ask(reader)
        except (HardwareError, OSError) as error:
            self._fail(str(error))
            return None
        if report.replace:
            self._fail(report.reading.problems[0] if report.reading and report.reading.problems else "NVML is replaced")
        else:
            self.trouble, self._pause_s = None, 0.0
        return report

    @property
    def hung(self) -> int:
        """How many readers were left behind and have not ended yet."""
        self._hung = [reader for reader in self._hung if not reader.is_gone()]
        return len(self._hung)

    def close(self) -> None:
        """Let the reader go; waits for nothing."""
        if self._reader is not None:
            self._reader.leave()
            self._hung.append(self._reader)
            self._reader = None

    async def gone(self, patience_s: float) -> bool:
        """Wait until all readers have ended; False if some have not after `patience_s`."""
        with anyio.move_on_after(patience_s):
            while self.hung:  # noqa: ASYNC110 -- nothing tells of it but to look
                await anyio.sleep(0.005)
        return not self.hung

    def _current(self) -> Reader | None:
        if self._reader is None:
            if self.now_s() < self._not_before_s:
                return None
            if self.hung >= MOST_HUNG:
                self.trouble = f"{MOST_HUNG} NVML readers hang in the driver: no more are started until one ends"
                return None
            self._reader = spawn(self.command)
            self.spawned += 1
        return self._reader

    async def _ask(self, reader: Reader) -> Report:
        self._number += 1
        asked_ns = time.monotonic_ns()
        line = None
        try:
            with anyio.move_on_after(self.deadline_s):
                line = await reader.ask(b"%d %d\n" % (self._number, int(self.deadline_s * _BUDGET * 1000)))
        except anyio.get_cancelled_exc_class():
            self.close()  # its answer would be taken for that to another question
            raise
        if line is None:
            self.late += 1
            raise HardwareError(
                f"NVML did not answer within {self.deadline_s:g} s: expected a driver that answers; see its log"
            )
        return parse(line, self._number, asked_ns, time.monotonic_ns())

    def _fail(self, trouble: str) -> None:
        self.close()
        self.trouble = trouble
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LAST_PAUSE_S)
        self._not_before_s = self.now_s() + self._pause_s


async def read_devices(deadline_s: float) -> Reading:
    """Return what NVML says within `deadline_s` seconds; any trouble comes back as a sentence, nothing is raised."""
    door = Door(deadline_s)
    try:
        report = await door.ask()
    finally:
        door.close()
    await door.gone(1.0)
    if report is None or report.reading is None:
        return unknown(door.trouble or "NVML told nothing")
    return report.reading
