"""One connection to a NATS server, from its opening to its end: the door to nats-py.

Owns what that library leaves to us: each message has an answer of its own, whoever waits for one hears of a connection
that breaks, and an end is an end, whatever the other side does. It never connects again by itself. Refuses to know what
is published, what an answer means, and when to try again.
"""

import asyncio
import itertools
import math
import ssl
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import anyio
import anyio.to_thread
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from taximeter.headers import printable
from taximeter.shipping.sinks.nats_creds import Creds
from taximeter.shipping.sinks.nats_line import Line

_CLOSE_S = 1.0
#: Of what a server says before it hangs up: who asks, or for what, has to be mended.
_UNWELCOME = ("authorization violation", "permissions violation", "authentication expired", "authentication revoked")


class Message(NamedTuple):
    """What is published: `body` under `subject`."""

    subject: str
    body: bytes
    headers: Mapping[str, str]


class Server(NamedTuple):
    """Whom to connect to, and as whom: a token, or the password of `user`, or what `creds` proves."""

    url: str  #: nats://… takes TLS where the server asks for it, tls://… insists on it
    user: str | None
    secret: str | None
    creds: Creds | None


class Link:
    """A connection to `server`; make it with `open`."""

    def __init__(self, server: Server) -> None:
        self._line = Line(is_private=server.url.startswith("tls://"))
        self._client = Client()
        self._client._transport = self._line
        self._inbox = ""
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}  # by the last part of where the answer goes
        self._said: Exception | None = None  # the last that the library told of

    @classmethod
    async def open(cls, server: Server, timeout_s: float) -> "Link":
        """Connect; whatever is raised, nothing is left open."""
        # Reads the system's authorities, SSL_CERT_FILE and SSL_CERT_DIR included.
        trust = await anyio.to_thread.run_sync(ssl.create_default_context)
        link = cls(server)
        has_user = server.user is not None
        jwt = server.creds.jwt if server.creds else None
        link._client._public_nkey = server.creds.user if server.creds else None
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
                signature_cb=server.creds.answer if server.creds else None,
                user_jwt_cb=jwt.encode if jwt else None,
            )
            link._inbox = link._client.new_inbox()
            await link._client.subscribe(f"{link._inbox}.*", cb=link._answered)
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

    @property
    def most_bytes(self) -> int:
        """What the server takes as one message."""
        return self._client.max_payload

    async def ask(self, messages: Sequence[Message]) -> list[Msg]:
        """Publish all at once, and give what was answered to each; where this raises, the link is of no more use."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting = {str(next(self._numbers)): loop.create_future() for _ in messages}
        try:
            for number, one in zip(waiting, messages, strict=True):
                reply = f"{self._inbox}.{number}"
                await self._client.publish(one.subject, one.body, reply=reply, headers=dict(one.headers))
            return [await answer for answer in waiting.values()]
        finally:
            self._waiting = {}
            for answer in waiting.values():
                if not answer.cancel() and not answer.cancelled():
                    answer.exception()  # looked at, so that nobody complains that it was not

    async def close(self) -> None:
        """Hang up, at once."""
        self._line.close()
        with anyio.move_on_after(_CLOSE_S, shield=True):
            await self._client.close()

    async def _answered(self, message: Msg) -> None:
        answer = self._waiting.get(message.subject.rpartition(".")[2])
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def _hear(self, error: Exception) -> None:
        self._said = error
        self._give_up(error)

    async def _end(self) -> None:
        self._give_up(self._client.last_error or self._said or nats.errors.ConnectionClosedError())

    def _give_up(self, error: Exception) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)


def fault_of(error: BaseException) -> tuple[str, str]:
    """Name by a bounded word, and tell in a line, why a batch did not pass."""
    said = printable(str(error)) or type(error).__name__
    return _reason(error, said.lower()), said


def _reason(error: BaseException, said: str) -> str:
    if isinstance(error, nats.errors.AuthorizationError) or any(words in said for words in _UNWELCOME):
        return "refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLError | nats.errors.SecureConnWantedError):
        return "tls"
    return "connect" if isinstance(error, OSError) and not isinstance(error, ConnectionResetError) else "connection"
