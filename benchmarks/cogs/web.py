"""What is around a Cog server: whoever it tells by webhook, and the place that an input is downloaded from.

Both listen on this machine only, in a thread, for as long as they are used.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Web(ThreadingHTTPServer):
    """A listener, what was posted to it, and what it hands out, how slowly."""

    def __init__(self, document: bytes, pause_s: float) -> None:
        self.document, self.pause_s = document, pause_s
        self.said: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: Web

    def do_POST(self) -> None:
        self.server.said.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self._answer(b"")

    def do_GET(self) -> None:
        time.sleep(self.server.pause_s)  # the slow download that is measured
        self._answer(self.server.document)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:  # type: ignore[explicit-override]
        """Say nothing: what came is kept."""


@contextlib.contextmanager
def webhooks(document: bytes = b"", pause_s: float = 0.0) -> Iterator[Web]:
    """A listener that keeps what is posted, and answers a GET with `document` after `pause_s`."""
    with Web(document, pause_s) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield web
        finally:
            web.shutdown()
            thread.join()
