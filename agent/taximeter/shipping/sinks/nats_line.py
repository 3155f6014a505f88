"""The socket under nats-py's client.

Owns two things that the library's own leaves open: it writes nothing before it is private, where it has to be, though
a server (or whoever stands in its place) says that it needs no TLS; and it closes without a word and without waiting.
"""
# mypy: disable-error-code="explicit-override, no-untyped-call"

import asyncio
from typing import Any

import nats.errors
from nats.aio.transport import TcpTransport


class Line(TcpTransport):
    """A connection in the making; with `is_private`, of no use before TLS stands."""

    def __init__(self, *, is_private: bool) -> None:
        super().__init__()
        self._may_write = not is_private
        self._is_closed = False

    def __bool__(self) -> bool:
        return True  # else the client makes another

    async def connect_tls(self, *args: Any, **others: Any) -> None:
        """Put TLS over it: the certificate was verified then."""
        await super().connect_tls(*args, **others)
        self._may_write = True

    def write(self, payload: bytes) -> None:
        """Send soon; SecureConnWantedError where others could read it."""
        self.writelines([payload])

    def writelines(self, payload: list[bytes]) -> None:
        """Send several soon."""
        if not self._may_write:
            raise nats.errors.SecureConnWantedError
        if not self._is_closed:
            super().writelines(payload)

    async def drain(self) -> None:
        """Wait until the kernel has taken most of it."""
        if not self._is_closed:
            await super().drain()

    def close(self) -> None:
        """Hang up, whatever was not sent."""
        self._is_closed = True
        if self._io_writer is not None:
            self._io_writer.transport.abort()

    async def wait_closed(self) -> None:
        """Wait for that."""
        await asyncio.sleep(0)  # an aborted socket is closed by then
