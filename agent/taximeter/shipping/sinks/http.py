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
from pathlib import Path

import anyio
import anyio.to_thread

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
        self, name: str, url: str, token_file: Path | None = None, timeout_s: float = 10.0, gzip: bool = False
    ) -> None:
        self.name = name
        self._url = _checked(name, url)
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

    async def close(self) -> None:
        """Close the connection; the next send opens another."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _post(self, content: bytes, headers: dict[str, str]) -> None:
        if self._client is None:
            self._client = await anyio.to_thread.run_sync(web.open_client, self._timeout_s)
        async with self._client.stream("POST", self._url, content=content, headers=headers) as response:
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
        headers = {"content-type": CONTENT_TYPE, "accept-encoding": "identity"}
        if self._token_file is not None:
            headers["authorization"] = f"Bearer {_token(self._token_file)}"
        content = b"[" + b",".join(bodies) + b"]"
        if self._gzip:
            content = compression.compress(content, mtime=0)
            headers["content-encoding"] = "gzip"
        return content, headers

    def _refusal(self, response: web.Response, said: str) -> SinkError:
        status = response.status_code
        detail = f"answered {status}" + (f": {said}" if said else "")
        if response.has_redirect_location:
            detail += f" (to {printable(response.headers['location'])}; redirects are not followed: set url to it)"
        after_s = retry_after_s(response.headers.get("retry-after"), time.time())
        return SinkError(reason_of(status), self._cannot(detail), after_s)

    def _cannot(self, why: str) -> str:
        # Without its query, which may hold a key.
        return f"cannot ship to {web.shown(self._url)}: {why}: expected 2xx"


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
