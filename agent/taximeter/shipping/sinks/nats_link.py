"""One connection to a NATS server, from its opening to its end: the door to nats-py.

Owns what that library leaves to us: whoever waits for acknowledgements hears of a connection that breaks, and an end is
an end, whatever the other side does. It never connects again by itself. Refuses to know what is published, and when to
try again.
"""

import asyncio
import math
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import anyio
import nats.errors
import nats.js.errors
from nats.aio.client import Client

from taximeter.headers import printable, reason_of
from taximeter.shipping.sinks.nats_line import Line

_CLOSE_S = 1.0
#: JetStream's own numbers for its answers.
_WRONG_LAST_SEQUENCE = 10071
_MESSAGE_TOO_LARGE = 10054
#: Of what a server says before it hangs up: who asks, or for what, has to be mended.
_UNWELCOME = ("authorization violation", "permissions violation", "authentication expired", "authentication revoked")


class Message(NamedTuple):
    """What is published: `body` under `subject`."""

    subject: str
    body: bytes
    headers: Mapping[str, str]


class Server(NamedTuple):
    """Whom to connect to, and as whom: a token, or the password of `user`."""

    url: str  #: nats://… takes TLS where the server asks for it, tls://… insists on it
    user: str | None
    secret: str | None


class Link:
    """A connection to `server`; make it with `open`."""

    def __init__(self, server: Server) -> None:
        self._line = Line(is_private=server.url.startswith("tls://"))
        self._client = Client()
        self._client._transport = self._line
        self._stream = self._client.jetstream()
        self._waiting: list[asyncio.Future[Any]] = []
        self._said: Exception | None = None  # the last that the library told of

    @classmethod
    async def open(cls, server: Server, timeout_s: float) -> "Link":
        """Connect; whatever is raised, nothing is left open."""
        # Reads the system's authorities, SSL_CERT_FILE and SSL_CERT_DIR included.
        trust = await anyio.to_thread.run_sync(ssl.create_default_context)
        link = cls(server)
        has_user = server.user is not None
        try:
            await link._client.connect(
                server.url,
                name="taximeter",
                tls=trust,
                allow_reconnect=False,
                connect_timeout=math.ceil(timeout_s),
                max_reconnect_attempts=1,  # 0 would be for ever
                reconnect_time_wait=0,
                error_cb=link._hear,
                closed_cb=link._end,
                user=server.user,
                password=server.secret if has_user else None,
                token=None if has_user else server.secret,
            )
        except BaseException as error:
            await link.close()
            if isinstance(error, nats.errors.NoServersError) and link._said is not None:
                raise link._said from error
            raise
        return link

    @property
    def is_up(self) -> bool:
        """Whether the server was there when last heard of."""
        return self._client.is_connected

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish all at once, and return when a stream has acknowledged each."""
        self._waiting = waiting = []
        try:
            for one in messages:
                future = await self._stream.publish_async(one.subject, one.body, headers=dict(one.headers))
                waiting.append(future)  # seen by whoever hears of an end
            for acknowledged in waiting:
                await _stored(acknowledged)
        finally:
            self._waiting = []
            for future in waiting:
                if not future.cancel() and not future.cancelled():
                    future.exception()  # looked at, so that nobody complains that it was not

    async def close(self) -> None:
        """Hang up, at once."""
        self._line.close()
        with anyio.move_on_after(_CLOSE_S, shield=True):
            await self._client.close()

    async def _hear(self, error: Exception) -> None:
        self._said = error
        self._give_up(error)

    async def _end(self) -> None:
        self._give_up(self._client.last_error or self._said or nats.errors.ConnectionClosedError())

    def _give_up(self, error: Exception) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)


def fault_of(error: BaseException) -> tuple[str, str]:
    """Name by a bounded word, and tell in a line, why a batch did not pass."""
    said = printable(str(error)) or type(error).__name__
    return _reason(error, said.lower()), said


def _reason(error: BaseException, said: str) -> str:
    if isinstance(error, nats.js.errors.NoStreamResponseError):
        return "no_stream"
    if isinstance(error, nats.js.errors.APIError):
        return "too_large" if error.err_code == _MESSAGE_TOO_LARGE else reason_of(error.code or 500)
    if isinstance(error, nats.errors.MaxPayloadError):
        return "too_large"
    if isinstance(error, nats.errors.AuthorizationError) or any(words in said for words in _UNWELCOME):
        return "refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLError | nats.errors.SecureConnWantedError):
        return "tls"
    return "connect" if isinstance(error, OSError) and not isinstance(error, ConnectionResetError) else "connection"


async def _stored(acknowledged: "asyncio.Future[Any]") -> None:
    try:
        await acknowledged
    except nats.js.errors.APIError as error:
        # Asked for only where each record has a subject of its own: the stream has this one.
        if error.err_code != _WRONG_LAST_SEQUENCE:
            raise
