"""A marks FIFO of a test's own, and what the client in this process says into it."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taximeter.client.outlet import OUTLET

Marks = list[dict[str, Any]]


class Fifo:
    """The reader's end; whoever wants it full stuffs it first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, 1 << 20)  # as the wrapper makes it

    def read(self) -> bytes:
        """All that lies in it."""
        said = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                said += os.read(self.fd, 65_536)
        return said

    def lines(self) -> list[bytes]:
        return self.read().splitlines(keepends=True)

    def marks(self) -> Marks:
        return [json.loads(line) for line in self.lines() if line.startswith(b"{")]

    def stuff(self) -> None:
        """Fill it to the brim, with lines that are no marks."""
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(self.fd, b"\n" * size)


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[Fifo]:
    """As if this process ran under the meter, for as long as this lasts."""
    fifo = Fifo(directory / "i.marks")
    OUTLET.__init__(str(fifo.path))  # type: ignore[misc]
    try:
        yield fifo
    finally:
        fifo.read()
        OUTLET.flush()
        OUTLET._close()
        OUTLET.__init__(None)  # type: ignore[misc]
        os.close(fifo.fd)
