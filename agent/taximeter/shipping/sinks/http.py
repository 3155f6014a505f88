"""Posts records to a receiver as a batch of CloudEvents: one request, one answer, no opinion on retrying.

Owns the request and the reading of the answer. A 2xx is a yes; everything else becomes a SinkError whose
reason is a bounded word. The answer is untrusted: redirects are not followed, bodies are read to a bound,
nothing of it is decoded. The token is read from its file for each request (so it can be rotated) and appears
nowhere else.
"""

import gzip as compression
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path

import anyio
import anyio.to_thread
import httpx

from taximeter.errors import ConfigError, SinkError

#: Receivers compare this as it stands: no charset.
CONTENT_TYPE = "application/cloudevents-batch+json"
ANSWER_MAX_BYTES = 65_536
#: Once the receiver has said yes, its body is waited for this long, only to use the connection again.
ANSWER_GRACE_S = 0.5
TOKEN_MAX_BYTES = 8192
QUOTED_MAX_CHARS = 200


class HttpSink:
    """An `http` sink named `name`: POSTs to `url` within `timeout_s`, with the bearer token in `token_file`."""

    def __init__(
        self, name: str, url: str, token_file: Path | None = None, timeout_s: float = 10.0, gzip: bool = False
    ) -> None:
        self.name = name
        self._url = _checked(name, httpx.URL(url))
        self._token_file = token_file
        self._timeout_s = timeout_s
        self._gzip = gzip
        self._client: httpx.AsyncClient | None = None

    async def send(self, bodies: Sequence[bytes]) -> None:
        """Deliver `bodies` in one request; SinkError tells a retry what went wrong."""
        content, headers = await anyio.to_thread.run_sync(self._request, bodies)
        try:
            with anyio.fail_after(self._timeout_s):
                await self._post(content, headers)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise SinkError("timeout", self._cannot(f"no answer within {self._timeout_s:g} s")) from error
        except httpx.HTTPError as error:
            reason = "tls" if _is_tls(error) else "connect" if isinstance(error, httpx.ConnectError) else "connection"
            raise SinkError(reason, self._cannot(f"{type(error).__name__}: {_printable(str(error))}")) from error

    async def close(self) -> None:
        """Close the connection; the next send opens another."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _post(self, content: bytes, headers: dict[str, str]) -> None:
        if self._client is None:
            self._client = await anyio.to_thread.run_sync(_client, self._timeout_s)
        async with self._client.stream("POST", self._url, content=content, headers=headers) as response:
            if response.is_success:
                # Said is said: whatever becomes of the body, the batch was taken.
                with anyio.move_on_after(ANSWER_GRACE_S), suppress(httpx.HTTPError):
                    await _read_bounded(response)
                return
            said = ""
            with anyio.move_on_after(ANSWER_GRACE_S), suppress(httpx.HTTPError):
                said = _printable((await _read_bounded(response)).decode("utf-8", "replace"))
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

    def _refusal(self, response: httpx.Response, said: str) -> SinkError:
        status = response.status_code
        detail = f"answered {status}" + (f": {said}" if said else "")
        if response.has_redirect_location:
            detail += f" (to {_printable(response.headers['location'])}; redirects are not followed: set url to it)"
        after_s = retry_after_s(response.headers.get("retry-after"), time.time())
        return SinkError(reason_of(status), self._cannot(detail), after_s)

    def _cannot(self, why: str) -> str:
        # Without its query, which may hold a key.
        return f"cannot ship to {self._url.copy_with(query=None)}: {why}: expected 2xx"


def reason_of(status: int) -> str:
    """Name an HTTP status that is not a yes by a bounded word."""
    if status == 408:
        return "timeout"
    if status == 413:
        return "too_large"
    if status == 429:
        return "throttled"
    if status >= 500:
        return "server_error"
    return "redirect" if 300 <= status < 400 else "refused"


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Read a Retry-After header: seconds from `now_s` (UTC), or None if it asks for nothing readable."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) <= 15:
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_s)
    except (ValueError, OverflowError, TypeError):
        return None


def _checked(name: str, url: httpx.URL) -> httpx.URL:
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError((f"sinks.{name}: url = {str(url)!r}: expected http://… or https://… with a host",))
    if url.userinfo:
        raise ConfigError((f"sinks.{name}: url: expected no user or password in it: use token_file",))
    return url


def _client(timeout_s: float) -> httpx.AsyncClient:
    """Make a client with one connection, which no variable of the environment sends elsewhere."""
    return httpx.AsyncClient(
        verify=_trust(),
        timeout=httpx.Timeout(timeout_s),
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=30.0),
        follow_redirects=False,
        trust_env=False,
    )


def _trust() -> ssl.SSLContext:
    """Trust the public authorities and those of the system (SSL_CERT_FILE and SSL_CERT_DIR included)."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


async def _read_bounded(response: httpx.Response) -> bytes:
    """Read at most ANSWER_MAX_BYTES of the body, undecoded: neither a bomb nor an endless answer is swallowed."""
    body = bytearray()
    async for chunk in response.aiter_raw(8192):
        body += chunk
        if len(body) >= ANSWER_MAX_BYTES:
            break
    return bytes(body)


def _token(path: Path) -> str:
    expected = "a readable file with one token in it"
    try:
        with path.open("rb") as file:
            raw = file.read(TOKEN_MAX_BYTES + 1)
        token = raw.decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        # The cause is not chained: a decoding error would carry the file's bytes into a traceback.
        why = f"{type(error).__name__}: expected {expected}"
        raise SinkError("token", f"cannot read token_file {path}: {why}") from None
    if not token or len(raw) > TOKEN_MAX_BYTES or not token.isprintable() or " " in token:
        raise SinkError("token", f"cannot use token_file {path}: expected {expected}")
    return token


def _is_tls(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _printable(text: str) -> str:
    """Put what a stranger said into a short, one-line, harmless form."""
    return "".join(c if c.isprintable() else "?" for c in text[:QUOTED_MAX_CHARS])
