"""One connection to a NATS server, from its opening to its end: the door to nats-py.

Owns what that library leaves to us: each message has its own acknowledgement, whoever waits for one hears of a
connection that breaks, and an end is an end, whatever the other side does. It never connects again by itself. Refuses
to know what is published, and when to try again.
"""

import asyncio
import itertools
import math
import ssl
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import anyio
import anyio.to_thread
import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from taximeter.headers import printable, reason_of
from taximeter.shipping.sinks.nats_creds import Creds
from taximeter.shipping.sinks.nats_line import Line

_CLOSE_S = 1.0
#: JetStream's own numbers for its answers.
_WRONG_LAST_SEQUENCE = 10071
_REASONS = {10054: "too_large", 10164: "server_error"}  # 10164: another copy is about to be stored, or not
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


class NotStored(Exception):
    """A message that no stream took, over a connection that is sound; `reason` is a bounded word."""

    def __init__(self, reason: str, said: str) -> None:
        super().__init__(said)
        self.reason = reason


class _Error(msgspec.Struct):
    code: int = 500
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    stream: str = ""
    error: _Error | None = None


_read = msgspec.json.Decoder(_Answer).decode


class Link:
    """A connection to `server`; make it with `open`."""

    def __init__(self, server: Server) -> None:
        self._line = Line(is_private=server.url.startswith("tls://"))
        self._client = Client()
        self._client._transport = self._line
        self._inbox = ""
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[None]] = {}  # by the last part of where the answer goes
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

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publish all at once, and return when a stream has stored each; else NotStored, or it is of no more use."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting = {str(next(self._numbers)): loop.create_future() for _ in messages}
        try:
            for number, one in zip(waiting, messages, strict=True):
                reply = f"{self._inbox}.{number}"
                await self._client.publish(one.subject, one.body, reply=reply, headers=dict(one.headers))
            for stored in waiting.values():
                await stored
        except nats.errors.MaxPayloadError as error:
            raise NotStored("too_large", str(error)) from error
        finally:
            self._waiting = {}
            for stored in waiting.values():
                if not stored.cancel() and not stored.cancelled():
                    stored.exception()  # looked at, so that nobody complains that it was not

    async def close(self) -> None:
        """Hang up, at once."""
        self._line.close()
        with anyio.move_on_after(_CLOSE_S, shield=True):
            await self._client.close()

    async def _answered(self, message: Msg) -> None:
        stored = self._waiting.get(message.subject.rpartition(".")[2])
        if stored is not None and not stored.done():
            fault = _fault_in(message)
            stored.set_exception(fault) if fault else stored.set_result(None)

    async def _hear(self, error: Exception) -> None:
        self._said = error
        self._give_up(error)

    async def _end(self) -> None:
        self._give_up(self._client.last_error or self._said or nats.errors.ConnectionClosedError())

    def _give_up(self, error: Exception) -> None:
        for stored in self._waiting.values():
            if not stored.done():
                stored.set_exception(error)


def _fault_in(message: Msg) -> NotStored | None:
    """What is wrong with an acknowledgement; None where a stream has the message."""
    if (message.headers or {}).get("Status") == "503":
        return NotStored("no_stream", "nobody answers")
    try:
        answer = _read(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return NotStored("connection", "the answer is no acknowledgement")
    error = answer.error
    if error is None:
        return None if answer.stream else NotStored("connection", "the answer is no acknowledgement")
    if error.err_code == _WRONG_LAST_SEQUENCE:
        return None  # asked for only where each record has a subject of its own: the stream has this one
    reason = _REASONS.get(error.err_code) or reason_of(error.code)
    return NotStored(reason, f"{error.description} ({error.err_code})")


def fault_of(error: BaseException) -> tuple[str, str]:
    """Name by a bounded word, and tell in a line, why a batch did not pass."""
    said = printable(str(error)) or type(error).__name__
    return _reason(error, said.lower()), said


def _reason(error: BaseException, said: str) -> str:
    if isinstance(error, NotStored):
        return error.reason
    if isinstance(error, nats.errors.AuthorizationError) or any(words in said for words in _UNWELCOME):
        return "refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLError | nats.errors.SecureConnWantedError):
        return "tls"
    return "connect" if isinstance(error, OSError) and not isinstance(error, ConnectionResetError) else "connection"
