"""Asks for the price list: one GET with the key in `x-api-key`, one answer, no opinion on asking again.

The answer is untrusted: redirects are not followed, the body is read to a bound and within a deadline, and has to be
UTF-8. Refuses to know what a list says.
"""

import time
from pathlib import Path

import anyio
import anyio.to_thread

from taximeter import headers as header
from taximeter import web
from taximeter.prices.answer import Answer, Refusal
from taximeter.secret import secret_of

#: A thousand models with their schemas are a few MiB.
LIST_MAX_BYTES = 16 << 20
_NOT_MODIFIED = 304


class Fetcher:
    """Whoever asks `url`, within `timeout_s`, with the key in `key_file`."""

    def __init__(self, url: str, key_file: Path | None, timeout_s: float) -> None:
        self._url = web.url_of(url)
        self._key_file = key_file
        self._timeout_s = timeout_s

    @property
    def source(self) -> str:
        """Whom it asks, for people."""
        return web.shown(self._url)

    async def fetch(self, etag: str | None) -> Answer | None:
        """The list; None: it is still the one of that `etag`. Raises Refusal."""
        headers = await anyio.to_thread.run_sync(self._headers, etag)
        try:
            with anyio.fail_after(self._timeout_s):
                async with await anyio.to_thread.run_sync(web.open_client, self._timeout_s) as client:
                    return await self._get(client, headers)
        except (TimeoutError, web.TimedOut) as error:
            raise Refusal("timeout", self._cannot(f"no answer within {self._timeout_s:g} s")) from error
        except web.Error as error:
            said = f"{type(error).__name__}: {header.printable(str(error))}"
            raise Refusal(web.kind_of(error), self._cannot(said)) from error

    async def _get(self, client: web.Client, headers: dict[str, str]) -> Answer | None:
        async with client.stream("GET", self._url, headers=headers) as response:
            if response.status_code == _NOT_MODIFIED:
                return None
            if not response.is_success:
                after_s = header.retry_after_s(response.headers.get("retry-after"), time.time())
                raise Refusal(header.reason_of(response.status_code), self._cannot(f"{response.status_code}"), after_s)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise Refusal("encoded", self._cannot("a body that is encoded, which was not asked for"))
            raw = await web.read_bounded(response, LIST_MAX_BYTES + 1)
            if len(raw) > LIST_MAX_BYTES:
                raise Refusal("too_large", self._cannot(f"a body beyond {LIST_MAX_BYTES} bytes"))
            return Answer(self._decoded(raw), response.headers.get("etag"), response.headers.get("last-modified"))

    def _decoded(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refusal("bad_list", self._cannot(f"byte {error.start} is not UTF-8")) from error

    def _headers(self, etag: str | None) -> dict[str, str]:
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        if etag is not None:
            headers["if-none-match"] = etag
        if self._key_file is not None:
            try:
                headers["x-api-key"] = secret_of(self._key_file, "key_file")
            except ValueError as error:
                raise Refusal("key", str(error)) from None
        return headers

    def _cannot(self, why: str) -> str:
        return f"cannot fetch the price list of {self.source}: {why}: expected 200 with a list of models"
