"""Posts records to a receiver as a batch of CloudEvents: one request, one answer, no opinion on retrying.

Owns the request and the reading of the answer. A 2xx is a yes; everything else becomes a SinkError whose
reason is a bounded word. The answer is untrusted: redirects are not followed, bodies are read to a bound,
nothing of it is decoded. The token is read from its file for each request (so it can be rotated) and appears
nowhere else.
"""

import gzip as compression
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from taximeter import web
from taximeter.errors import ConfigError, SinkError
from taximeter.headers import printable, reason_of, retry_after_s
from taximeter.secret import secret_of

__all__ = ["HttpSink", "reason_of", "retry_after_s"]

#: Receivers compare this as it stands: no charset.
CONTENT_TYPE = "application/cloudevents-batch+json"
ANSWER_MAX_BYTES = 65_536
#: Once the receiver has said yes, its body is waited for this long, only to use the connection again.
ANSWER_GRACE_S = 0.5


class HttpSink:
    """An `http` sink named `name`: POSTs to `url` within `timeout_s`, with the bearer token in `token_file`."""

    def __init__(
        self,
        name: str,
        url: str,
        token_file: Path | None = None,
        timeout_s: float = 10.0,
        gzip: bool = False,
        read_url: str | None = None,
    ) -> None:
        self.name = name
        self._url = _checked(name, url)
        self._read_url = None if read_url is None else _checked(name, read_url)
        self._token_file = token_file
        self._timeout_s = timeout_s
        self._gzip = gzip
        self._client: web.Client | None = None

    async def send(self, bodies: Sequence[bytes]) -> None:
        """Deliver `bodies` in one request; SinkError tells a retry what went wrong."""
        content, headers = await anyio.to_thread.run_sync(self._request, bodies)
        try:
            with anyio.fail_after(self._timeout_s):
                await self._post(content, headers)
        except (TimeoutError, web.TimedOut) as error:
            raise SinkError("timeout", self._cannot(f"no answer within {self._timeout_s:g} s")) from error
        except web.Error as error:
            said = f"{type(error).__name__}: {printable(str(error))}"
            raise SinkError(web.kind_of(error), self._cannot(said)) from error

    async def missing(self, bodies: Sequence[bytes]) -> Sequence[int]:
        """Ask `read_url` for each of `bodies`, by its id; which of them it does not list. SinkError."""
        if self._read_url is None:
            expected = "read_url beside its url, where what was sent can be read again"
            raise SinkError("unreadable", f"cannot read back what sink {self.name} has: expected {expected}")
        headers = await anyio.to_thread.run_sync(self._headers)
        lost: list[int] = []
        for at, body in enumerate(bodies):
            event = _read_event(body)
            try:
                with anyio.fail_after(self._timeout_s):
                    is_there = await self._lists(self._read_url, event, headers)
            except (TimeoutError, web.TimedOut) as error:
                raise SinkError("timeout", self._unread(f"no answer within {self._timeout_s:g} s")) from error
            except web.Error as error:
                raise SinkError(web.kind_of(error), self._unread(printable(str(error)))) from error
            if not is_there:
                lost.append(at)
        return lost

    async def _lists(self, url: web.Url, event: "_Event", headers: dict[str, str]) -> bool:
        """Whether the receiver lists an event: OpenMeter's way of asking, and of answering."""
        asked = url.copy_merge_params({"id": event.id, "from": _moment(event.time, -1), "to": _moment(event.time, 1)})
        client = await self._opened()
        async with client.stream("GET", asked, headers=headers) as response:
            answer = await web.read_bounded(response, ANSWER_MAX_BYTES)
            if not response.is_success:
                said = printable(answer.decode("utf-8", "replace"))
                raise SinkError(
                    reason_of(response.status_code), self._unread(f"answered {response.status_code}: {said}")
                )
        return any((one.id, one.source) == (event.id, event.source) for one in _listed(answer))

    async def close(self) -> None:
        """Close the connection; the next send opens another."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _opened(self) -> web.Client:
        if self._client is None:
            self._client = await anyio.to_thread.run_sync(web.open_client, self._timeout_s)
        return self._client

    async def _post(self, content: bytes, headers: dict[str, str]) -> None:
        client = await self._opened()
        async with client.stream("POST", self._url, content=content, headers=headers) as response:
            if response.is_success:
                # Said is said: whatever becomes of the body, the batch was taken.
                with anyio.move_on_after(ANSWER_GRACE_S), suppress(web.Error):
                    await web.read_bounded(response, ANSWER_MAX_BYTES)
                return
            said = ""
            with anyio.move_on_after(ANSWER_GRACE_S), suppress(web.Error):
                said = printable((await web.read_bounded(response, ANSWER_MAX_BYTES)).decode("utf-8", "replace"))
            raise self._refusal(response, said)

    def _request(self, bodies: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
        """Build the body and the headers of a request; in a thread, for it reads a file and may compress."""
        headers = {"content-type": CONTENT_TYPE, **self._headers()}
        content = b"[" + b",".join(bodies) + b"]"
        if self._gzip:
            content = compression.compress(content, mtime=0)
            headers["content-encoding"] = "gzip"
        return content, headers

    def _headers(self) -> dict[str, str]:
        """Say who asks, and that nothing is to be compressed; in a thread, for it reads a file."""
        headers = {"accept-encoding": "identity"}
        if self._token_file is not None:
            headers["authorization"] = f"Bearer {_token(self._token_file)}"
        return headers

    def _refusal(self, response: web.Response, said: str) -> SinkError:
        status = response.status_code
        detail = f"answered {status}" + (f": {said}" if said else "")
        if response.has_redirect_location:
            detail += f" (to {printable(response.headers['location'])}; redirects are not followed: set url to it)"
        after_s = retry_after_s(response.headers.get("retry-after"), time.time())
        return SinkError(reason_of(status), self._cannot(detail), after_s)

    def _unread(self, why: str) -> str:
        return f"cannot read back from {web.shown(self._read_url or self._url)}: {why}: expected 2xx"

    def _cannot(self, why: str) -> str:
        # Without its query, which may hold a key.
        return f"cannot ship to {web.shown(self._url)}: {why}: expected 2xx"


class _Event(msgspec.Struct):
    """What an event is known by."""

    id: str
    source: str = ""
    time: str = "1970-01-01T00:00:00Z"


class _Item(msgspec.Struct):
    """An event that a receiver lists, with what it says of it."""

    event: _Event | None = None
    id: str = ""
    source: str = ""


_read_event = msgspec.json.Decoder(_Event).decode
_read_items = msgspec.json.Decoder(list[_Item]).decode


def _listed(answer: bytes) -> list[_Event]:
    """The events of a list, bare or each within an object (OpenMeter); SinkError where it is none."""
    try:
        items = _read_items(answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        expected = "a JSON list of events, or of objects with an `event`"
        raise SinkError("unreadable", f"cannot read what the receiver lists: expected {expected}") from error
    return [item.event or _Event(item.id, item.source) for item in items]


def _moment(time: str, seconds: int) -> str:
    """A time as records write it, so many seconds later, to the second."""
    moment = datetime.fromisoformat(time[:19] + "+00:00") + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _checked(name: str, text: str) -> web.Url:
    try:
        return web.url_of(text)
    except ValueError as error:
        # Never with what was said where that may be a secret.
        said = f"= {text!r}" if "user" not in str(error) else ""
        raise ConfigError(
            (f"sinks.{name}: url {said}: expected {error}{'' if said else ': use token_file'}",)
        ) from None


def _token(path: Path) -> str:
    try:
        return secret_of(path, "token_file")
    except ValueError as error:
        raise SinkError("token", str(error)) from None
