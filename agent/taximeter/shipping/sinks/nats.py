"""Publishes records to a JetStream of NATS: a message each, delivered once the stream has acknowledged all.

Owns what a message is. A repeat is told by the record's id (`Nats-Msg-Id`), for as long as the stream remembers ids;
with `{id}` in the subject each record has a subject of its own, and is taken once as long as the stream holds it. The
secret is read from its file for each connection. Refuses to know when to try again, and to make streams.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import msgspec

from taximeter.errors import SinkError
from taximeter.headers import printable
from taximeter.secret import secret_of
from taximeter.shipping.sinks.jetstream import ONLY_ONE, NotStored, missing, store
from taximeter.shipping.sinks.nats_creds import creds_of
from taximeter.shipping.sinks.nats_link import Link, Message, Server, fault_of

_T = TypeVar("_T")

CONTENT_TYPE = "application/cloudevents+json"
#: Where in the subject a record's id goes.
ID = "{id}"
_EXPECTED = {
    "connect": "a NATS server there",
    "refused": "credentials that may publish this subject, and hear of their inbox: see token_file and creds_file",
    "no_stream": "a JetStream stream with this subject",
    "tls": "TLS with a certificate that the system's authorities vouch for, or SSL_CERT_FILE's",
}


class _Named(msgspec.Struct):
    id: str


_name_of = msgspec.json.Decoder(_Named).decode


class NatsSink:
    """A `nats` sink named `name`: publishes `subject` at `url`, within `timeout_s` a batch."""

    def __init__(  # noqa: PLR0913 - one parameter a key of the config
        self,
        name: str,
        url: str,
        subject: str,
        *,
        token_file: Path | None = None,
        user: str | None = None,
        creds_file: Path | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self.name = name
        self._url = url
        self._subject = subject
        self._token_file = token_file
        self._user = user
        self._creds_file = creds_file
        self._timeout_s = timeout_s
        self._link: Link | None = None

    async def send(self, bodies: Sequence[bytes]) -> None:
        """Publish `bodies` and await their acknowledgements; SinkError tells a retry what went wrong."""
        messages = [self._message(body) for body in bodies]
        await self._done(lambda link: store(link, messages))

    async def _done(self, work: Callable[[Link], Awaitable[_T]]) -> _T:
        """Have `work` done over the connection, in time; SinkError tells what went wrong."""
        try:
            with anyio.fail_after(self._timeout_s):
                return await self._over_link(work)
        except SinkError:
            raise
        except Exception as error:  # a library that is given a stranger's bytes may raise anything
            reason, said = (error.reason, printable(str(error))) if isinstance(error, NotStored) else fault_of(error)
            if reason == "timeout":
                said = f"no acknowledgement within {self._timeout_s:g} s"
            expected = _EXPECTED.get(reason, "every message acknowledged")
            raise SinkError(
                reason, f"cannot publish {self._subject} at {self._url}: {said}: expected {expected}"
            ) from error

    async def missing(self, bodies: Sequence[bytes]) -> Sequence[int]:
        """Ask the stream for each of `bodies`, by its subject; which of them it does not have. SinkError."""
        if ID not in self._subject:
            expected = f"a subject with {ID} in it: a stream finds its messages again by their subjects alone"
            raise SinkError("unreadable", f"cannot read back what sink {self.name} has: expected {expected}")
        return await self._done(lambda link: missing(link, [self._message(body) for body in bodies]))

    async def close(self) -> None:
        """Close the connection; the next send opens another."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _over_link(self, work: Callable[[Link], Awaitable[_T]]) -> _T:
        try:
            if self._link is None or not self._link.is_up:
                await self.close()
                self._link = await Link.open(await anyio.to_thread.run_sync(self._server), self._timeout_s)
            return await work(self._link)
        except NotStored:
            raise
        except BaseException:
            # What is on its way may be answered yet, and nobody waits for it any more.
            await self.close()
            raise

    def _message(self, body: bytes) -> Message:
        name = _name_of(body).id
        headers = {"Nats-Msg-Id": name, "content-type": CONTENT_TYPE}
        if ID not in self._subject:
            return Message(self._subject, body, headers)
        return Message(self._subject.replace(ID, name), body, headers | ONLY_ONE)

    def _server(self) -> Server:
        """Whom to ask, as whom; in a thread, for it reads files."""
        try:
            secret = None if self._token_file is None else secret_of(self._token_file, "token_file")
            creds = None if self._creds_file is None else creds_of(self._creds_file)
        except ValueError as error:
            raise SinkError("token", str(error)) from None
        return Server(self._url, self._user, secret, creds)
