"""A port for a server that has to be told one. Whoever asks the kernel for any, closes it and names it to a server may
find it given to another process meanwhile: it is held until the end."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A port that nobody else is given meanwhile, and at which a server may listen all the same (SO_REUSEADDR)."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
