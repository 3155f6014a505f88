"""An agent of a few canned answers, for the command line to ask."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

TOKEN = "hunter2"  # of this test


class StandIn(HTTPServer):
    """Answers what `answers` has for a path; without the token, nothing."""

    def __init__(self, answers: Mapping[str, tuple[int, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.asked: list[str] = []
        self.bodies: list[bytes] = []


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        self._answer(self.path)

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self._answer(f"POST {self.path}")

    def _answer(self, asked: str) -> None:
        self.server.asked.append(self.path)
        status, body = 401, b'{"detail":"expected the token"}'
        if self.headers["Authorization"] == f"Bearer {TOKEN}":
            missing = (404, b'{"detail":"no such thing"}')
            status, body = self.server.answers.get(asked.partition("?")[0], missing)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def living(answers: Mapping[str, object]) -> Iterator[StandIn]:
    """An agent that lives as long as the block; an answer is a value for JSON, or a status and bytes."""
    raw = {
        path: answer if isinstance(answer, tuple) else (200, json.dumps(answer).encode())
        for path, answer in answers.items()
    }
    server = StandIn(raw)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        say(f"http://127.0.0.1:{server.server_port}")
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def say(url: str, pid: int | None = None, token: str = TOKEN) -> None:
    """Write what a living agent writes into the run directory of this test."""
    run = Path(os.environ["TAXIMETER_RUN_DIR"])
    run.mkdir(exist_ok=True)
    (run / "agent").write_text(json.dumps({"url": url, "token": token, "pid": os.getpid() if pid is None else pid}))
