"""What listening to the kernel's process events costs in a storm of forks, and whether it misses any.

Two processes fork children that end at once, as fast as they can. Meanwhile the listener's main thread either waits or
computes, as a busy event loop does, and a thread of its own reads: as the agent does (many events in a system call),
with the buffer that a process without CAP_NET_ADMIN gets by default, and one event in a call. Rounds are interleaved.

    python benchmarks/kernel_events.py [--forks 60000] [--rounds 3]
"""

import argparse
import contextlib
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from interpreter import describe

from taximeter.errors import TaximeterError
from taximeter.kernel import ProcessEvents, messages
from taximeter.kernel.connector import BUFFER_BYTES
from taximeter.kernel.groups import ThreadGroups

#: net.core.rmem_max, as Linux has it.
DEFAULT_BYTES = 212_992
FORKERS = 2
STORM = r"""
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int count, char **words)
{
    for (long left = atol(words[count - 1]); left > 0; left--) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        waitpid(pid, NULL, 0);
    }
    return 0;
}
"""


class Reader(Protocol):
    """Something that listens, and counts."""

    events: int
    overruns: int

    def start(self) -> None: ...
    def close(self) -> None: ...


class OneByOne:
    """Reads one event in a system call, and keeps the same table of processes."""

    def __init__(self) -> None:
        self.events = self.overruns = 0
        self._groups = ThreadGroups()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 11)
        self._socket.setsockopt(socket.SOL_SOCKET, 33, BUFFER_BYTES)
        self._socket.bind((0, messages.PROC))
        port = self._socket.getsockname()[0]
        self._socket.sendto(messages.listen(port, 1), (0, 0))
        self._socket.sendto(messages.listen_to(port, 1, messages.FORK | messages.EXEC | messages.EXIT), (0, 0))
        self._thread = threading.Thread(target=self._read, name="process-events")
        self._ended = False

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        self._socket.send(messages.ignore(self._socket.getsockname()[0], 1))
        self._socket.close()

    def _read(self) -> None:
        slot = bytearray(messages.SLOT_BYTES)
        room = memoryview(slot)[messages.NAME_BYTES :]
        while not self._ended:
            if not select.select([self._socket], [], [], 0.05)[0]:
                continue
            with contextlib.suppress(BlockingIOError):
                while True:
                    try:
                        length = self._socket.recv_into(room, 0, socket.MSG_DONTWAIT)
                    except BlockingIOError:
                        raise
                    except OSError:
                        self.overruns += 1
                        continue
                    for what, at_ns, first, second, third, fourth in messages.parse_slots(memoryview(slot), [length]):
                        self.events += 1
                        if what == messages.FORK:
                            self._groups.forked(at_ns, second, third, fourth)
                        elif what == messages.EXEC:
                            self._groups.execed(at_ns, second)
                        elif what == messages.EXIT:
                            self._groups.exited(at_ns, first, second, third)


READERS: dict[str, Callable[[], Reader]] = {
    "the agent's": ProcessEvents.open,
    "the agent's, small buffer": lambda: ProcessEvents.open(DEFAULT_BYTES),
    "one event a call": OneByOne,
}


@dataclass
class Round:
    """What one storm came to."""

    exits_per_s: float
    events_per_s: float
    core: float  #: what the reader took of one
    heard: float  #: of what was said
    overruns: int


def storm(program: str, forks: int, reader: Reader, busy: bool) -> Round:
    """Let it blow, and see what the reader makes of it."""
    reader.start()
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "process-events")
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        words = [program, str(forks // FORKERS)]
        forkers = [stack.enter_context(subprocess.Popen(words)) for _ in range(FORKERS)]
        while any(forker.poll() is None for forker in forkers):
            until = time.monotonic() + 0.02
            if busy:
                while time.monotonic() < until:
                    sum(range(1000))
            else:
                time.sleep(0.02)
    took = time.monotonic() - began
    time.sleep(0.3)  # it reads what is left
    spent_ns = int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0])
    said = 2 * forks
    result = Round(
        forks / took, reader.events / took, spent_ns / 1e9 / took, min(1, reader.events / said), reader.overruns
    )
    reader.close()
    return result


@contextlib.contextmanager
def compiled() -> Iterator[str]:
    """The storm, as a program."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "storm.c"), Path(folder, "storm")
        source.write_text(STORM)
        subprocess.run([shutil.which("cc") or "cc", "-O2", "-o", program, source], check=True)
        yield str(program)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--forks", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    said = parser.parse_args()
    try:
        ProcessEvents.open().close()
    except TaximeterError as error:
        print(f"skipped: {error}")
        return
    print(f"{describe()}; {said.rounds} interleaved rounds of {said.forks} forks by {FORKERS} processes; medians\n")
    cases = [(name, busy) for busy in (False, True) for name in READERS]
    rounds: dict[tuple[str, bool], list[Round]] = {case: [] for case in cases}
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with compiled() as program:
        for _ in range(said.rounds):
            for name, busy in cases:
                rounds[name, busy].append(storm(program, said.forks, READERS[name](), busy))
    print("| reader | main thread | exits/s | events/s | of a core | heard | overruns |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for (name, busy), results in rounds.items():
        exits, events, core, heard = (
            statistics.median(getattr(one, field) for one in results)
            for field in ("exits_per_s", "events_per_s", "core", "heard")
        )
        overruns = sum(one.overruns for one in results)
        doing = "computes" if busy else "waits"
        print(f"| {name} | {doing} | {exits:,.0f} | {events:,.0f} | {core:.0%} | {heard:.1%} | {overruns} |")
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    print(f"\nThe table of processes at its fullest, and all buffers of the process: {grown_mib:.0f} MiB.", flush=True)
    sys.exit(0 if all(one.overruns == 0 for busy in (False, True) for one in rounds["the agent's", busy]) else 1)


if __name__ == "__main__":
    main()
