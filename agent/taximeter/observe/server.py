"""Serves an ASGI application on one listener: uvicorn's HTTP protocol, without uvicorn's server around it.

Owns connections and their limits: how many, how long a header may take, how long an unread answer is held; and who asks
on a Unix socket, by the kernel's word (SO_PEERCRED), which TCP does not have. uvicorn's own server installs signal
handlers and wakes ten times a second; here nothing happens while nobody asks. Refuses to know what is asked.
"""

import asyncio
import ipaddress
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import h11
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from taximeter.errors import ConfigError
from taximeter.observe.guard import OURS

#: More connections than this are closed at once; from half of it on, whoever is silent for the longest makes room, then
#: whoever has not read its answer; only where nobody is, the answer is 503.
CONNECTIONS_MAX = 128
#: The request line and all headers; h11 answers 431 or 400 beyond.
HEADER_MAX_BYTES = 16_384
#: A header must be there in this time, an answer taken in that; a kept connection is closed after this silence.
HEADER_S = 10.0
SEND_S = 30.0
KEEP_ALIVE_S = 15
_SOCKET_MODE = 0o660
#: struct ucred: pid, uid, gid.
_UCRED = struct.Struct("iII")
#: At the end, what is being answered gets this long.
DRAIN_S = 0.5


async def serve(
    app: ASGIApp, host: str, port: int, *, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Serve `app` on `host`:`port` (0: any free one) until cancelled; `started` is told the port.

    ConfigError if it cannot listen there. Needs anyio's asyncio backend.
    """
    listener = _listen(host, port)
    await _serve(app, listener, lambda: task_status.started(listener.getsockname()[1]))


async def serve_unix(app: ASGIApp, path: Path, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
    """Serve `app` on a Unix socket at `path` until cancelled, then take that away. ConfigError as above."""
    listener = _listen_at(path)
    try:
        await _serve(app, listener, task_status.started)
    finally:
        _take_away(path)


async def _serve(app: ASGIApp, listener: socket.socket, started: Callable[[], None]) -> None:
    config = uvicorn.Config(
        app,
        http=H11Protocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=CONNECTIONS_MAX // 2,
        timeout_keep_alive=KEEP_ALIVE_S,
        h11_max_incomplete_event_size=HEADER_MAX_BYTES,
    )
    config.load()
    state = _State()
    server = await asyncio.get_running_loop().create_server(partial(_Connection, config, state, {}), sock=listener)
    try:
        started()
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await _drain(server, state)


def is_loopback(host: str) -> bool:
    """Whether listening on `host` is listening to this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    expected = "an address of this machine and a port that nobody else has"
    if not 0 <= port <= 65_535:
        raise ConfigError((f"cannot listen on {host}:{port}: expected {expected}",))
    try:
        listener = socket.create_server((host, port), family=family, backlog=CONNECTIONS_MAX)
    except OSError as error:
        raise ConfigError((f"cannot listen on {host}:{port}: {error.strerror}: expected {expected}",)) from error
    # Connections inherit it. Head and body are two writes: without it the second waits 40 ms for the first's ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


def _listen_at(path: Path) -> socket.socket:
    """A socket that our group may open, and nobody else; one that a killed agent left makes room."""
    expected = "a folder of the agent's own, and no other file there"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            path.unlink()
        os.fchmod(listener.fileno(), _SOCKET_MODE)  # before anybody can find it; the umask takes from that
        listener.bind(str(path))
        path.chmod(_SOCKET_MODE)
        listener.listen(CONNECTIONS_MAX)
    except OSError as error:
        listener.close()
        raise ConfigError((f"cannot listen on {path}: {error.strerror}: expected {expected}",)) from error
    listener.setblocking(False)
    return listener


def _take_away(path: Path) -> None:
    path.unlink(missing_ok=True)


def _is_ours(connection: socket.socket) -> bool:
    """Whether the kernel says that the peer was our own user, or root, when it connected."""
    if connection.family != socket.AF_UNIX:
        return False
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid in (0, os.geteuid())


async def _drain(server: asyncio.Server, state: "_State") -> None:
    """Stop listening, let answers go out for DRAIN_S, then cut what is left."""
    server.close()
    for connection in list(state.connections):
        connection.shutdown()
    if not state.connections:
        return
    state.empty.clear()
    with anyio.move_on_after(DRAIN_S):
        await state.empty.wait()
    for task in list(state.tasks):
        task.cancel()
    for connection in list(state.connections):
        connection.transport.abort()
    await anyio.lowlevel.checkpoint()


class _State(ServerState):
    """What the connections share, and whether there are any."""

    def __init__(self) -> None:
        super().__init__()
        self.empty = asyncio.Event()
        self.silent: dict[_Connection, None] = {}  #: that nobody asks anything on, the longest first
        self.unread: dict[_Connection, None] = {}  #: whose last answer was not taken at once, likewise


class _Connection(H11Protocol):
    """One client, with patience."""

    def __init__(self, config: uvicorn.Config, state: _State, app_state: dict[str, Any]) -> None:
        super().__init__(config, state, app_state)
        self._state = state
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override, explicit-override]
        self.app_state = {OURS: _is_ours(transport.get_extra_info("socket"))}
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS_MAX:
            transport.abort()
            return
        if len(self.connections) >= CONNECTIONS_MAX // 2:
            for longest in [*self._state.silent, *self._state.unread][:1]:
                longest.make_room()
        self._deadline = self.loop.call_later(HEADER_S, transport.abort)
        self._state.silent[self] = None

    def connection_lost(self, exc: Exception | None) -> None:  # type: ignore[explicit-override]
        self._met()
        self._is_busy()
        super().connection_lost(exc)
        if not self.connections:
            self._state.empty.set()

    def data_received(self, data: bytes) -> None:  # type: ignore[explicit-override]
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._met()
            self._is_busy()
        elif cycle is not None and self.conn.their_state is h11.SEND_BODY:
            self.transport.close()  # a body that nobody asked for, and that may never end
        elif self._deadline is None:
            # Not put off by further bytes: a header that drips in must be whole in time all the same.
            self._deadline = self.loop.call_later(HEADER_S, self.transport.abort)

    def on_response_complete(self) -> None:  # type: ignore[explicit-override]
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(SEND_S, self._give_up)
            self._state.unread[self] = None
        elif not self.transport.is_closing():
            self._state.silent[self] = None

    def make_room(self) -> None:
        """Go, since nobody says anything here, or listens, and others wait."""
        self._is_busy()
        self.connections.discard(self)  # now, and not once the loop comes to it: more may come before that
        self.transport.abort()

    def _is_busy(self) -> None:
        self._state.silent.pop(self, None)
        self._state.unread.pop(self, None)

    def _met(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
