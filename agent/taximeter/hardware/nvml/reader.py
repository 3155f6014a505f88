"""The child process that talks to NVML, seen from the agent: spawn, ask, leave behind.

Owns its pipes and its pid. Nothing here waits for the process itself: one that hangs in the driver cannot be ended,
not even killed. Refuses to know what is asked, and when a new one is worth a try (door).
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio

from taximeter.errors import HardwareError

COMMAND = (sys.executable, "-I", "-m", "taximeter.hardware.nvml.child")
#: Far more than 64 devices with thousands of processes are said in.
_MOST_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 16


@dataclass(slots=True)
class Reader:
    """One child process."""

    pid: int
    questions: int  #: file descriptors of its pipes
    answers: int
    status: int | None = None  #: its wait status, once it is known to be gone

    async def ask(self, question: bytes) -> bytes:
        """Return the line that answers `question`; waits for as long as it takes. Raises HardwareError without one."""
        try:
            os.write(self.questions, question)  # far shorter than a pipe, and it has read the last one
        except (BlockingIOError, BrokenPipeError):
            raise HardwareError(self._ended()) from None
        line = bytearray()
        while not line.endswith(b"\n"):
            await anyio.wait_readable(self.answers)
            try:
                chunk = os.read(self.answers, _CHUNK_BYTES)
            except BlockingIOError:
                continue
            line += chunk
            if not chunk:
                raise HardwareError(self._ended())
            if len(line) > _MOST_BYTES:
                raise HardwareError(
                    f"the NVML reader wrote without end: expected a line of at most {_MOST_BYTES} bytes"
                )
        return bytes(line)

    def leave(self) -> None:
        """End it if it can be ended; the pipes are closed, so that it ends when it wakes up."""
        for descriptor in (self.questions, self.answers):
            os.close(descriptor)
        if not self.is_gone():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)

    def is_gone(self) -> bool:
        """Whether it has ended; asks without waiting."""
        if self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, 0
            if pid:
                self.status = status
        return self.status is not None

    def _ended(self) -> str:
        """Its end in words, as far as it is known in this moment."""
        if not self.is_gone() or self.status is None:
            return "the NVML reader closed its pipe: expected a report"
        code = os.waitstatus_to_exitcode(self.status)
        return f"the NVML reader ended {_ending(code)}: expected a report"


def spawn(command: Sequence[str]) -> Reader:
    """Start a reader; raises HardwareError where that is impossible."""
    theirs_in, questions, answers, theirs_out = _pipes()
    os.set_blocking(questions, False)
    os.set_blocking(answers, False)
    try:
        pid = os.posix_spawn(
            command[0],
            list(command),
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs_in, 0),
                (os.POSIX_SPAWN_DUP2, theirs_out, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,  # Ctrl-C is the agent's: this process ends with it
            setsigmask=(),
            setsigdef=(signal.SIGPIPE,),
        )
    except OSError as error:
        os.close(questions)
        os.close(answers)
        raise HardwareError(f"cannot start the NVML reader {command[0]}: {error.strerror}") from error
    finally:
        os.close(theirs_in)
        os.close(theirs_out)
    return Reader(pid, questions, answers)


def _pipes() -> tuple[int, int, int, int]:
    """One pipe into the reader and one out of it."""
    opened: list[int] = []
    try:
        for _ in range(2):
            opened += os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        for descriptor in opened:
            os.close(descriptor)
        raise HardwareError(f"cannot start the NVML reader: expected two pipes ({error.strerror})") from error
    theirs_in, questions, answers, theirs_out = opened
    return theirs_in, questions, answers, theirs_out


def _ending(code: int) -> str:
    if code >= 0:
        return f"with status {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
