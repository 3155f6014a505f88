"""A receiver that says yes and loses what it took: it is found by reading back, and sent again."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.system.agents import Node, wait_until

pytestmark = pytest.mark.system


@contextmanager
def receiving(held: dict[str, dict[str, object]]) -> Iterator[str]:
    """A receiver that keeps events in `held`, and lists them as OpenMeter does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            for event in json.loads(self.rfile.read(int(self.headers["content-length"]))):
                held.setdefault(event["id"], event)
            self.answer(204, b"")

        def do_GET(self) -> None:
            asked = dict(parse_qsl(urlsplit(self.path).query))
            found = [{"event": event} for name, event in held.items() if asked["id"] in name]
            self.answer(200, json.dumps(found).encode())

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:  # type: ignore[override]
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/events"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_a_receiver_lost_is_found_and_sent_again(taximeter_program: str, tmp_path: Path) -> None:
    held: dict[str, dict[str, object]] = {}
    with receiving(held) as url:
        sink = f'[[sinks]]\nname = "billing"\ntype = "http"\nurl = "{url}"\nread_url = "{url}"\n'
        node = Node(taximeter_program, tmp_path / "node", config=f"[hardware]\nnvml = false\n{sink}")
        with node.agent():
            for name in ("one", "two", "three"):
                node.run("--prediction", name, "--", "true")
            wait_until(lambda: held and held.keys() == {record["id"] for record in node.records()}, "all of it")
            whole = dict(held)
            lost = [record["id"] for record in node.predictions()][:2]
            for name in lost:
                del held[name]
            looked_at = node.taximeter("reconcile", "billing", "--dry-run")
            assert (looked_at.returncode, held.keys()) == (1, whole.keys() - set(lost))
            done = node.taximeter("reconcile", "billing", "--json")
            assert (done.returncode, held) == (0, whole)
            assert json.loads(done.stdout) == {
                "sink": "billing",
                "looked": len(whole),
                "missing": 2,
                "dry_run": False,
            }
            assert "0 missing" in node.taximeter("reconcile", "billing").stdout


def test_what_a_file_lost_is_found_and_written_beside_it(taximeter_program: str, tmp_path: Path) -> None:
    node = Node(taximeter_program, tmp_path / "node", config="[hardware]\nnvml = false\n")
    path, beside = node.state / "usage.ndjson", node.state / "usage.ndjson.resent"

    def is_whole() -> bool:
        return len(node.predictions()) == 3 and len(path.read_bytes().splitlines()) == len(node.records())

    with node.agent():
        for name in ("one", "two", "three"):
            node.run("--prediction", name, "--", "true")
        wait_until(is_whole, "all of it")
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:2], *lines[4:]]))
        looked_at = node.taximeter("reconcile", "usage", "--dry-run")
        assert (looked_at.returncode, beside.exists()) == (1, False)
        assert "2 missing, and sent again" in node.taximeter("reconcile", "usage").stdout
        assert "0 missing" in node.taximeter("reconcile", "usage").stdout
        assert beside.read_bytes() == b"".join(lines[2:4])
        node.run("--prediction", "four", "--", "true")
        wait_until(lambda: b'"four"' in path.read_bytes(), "what comes then, where it belongs")


def test_a_receiver_that_cannot_be_read_is_said(taximeter_program: str, tmp_path: Path) -> None:
    node = Node(taximeter_program, tmp_path / "node", config="[hardware]\nnvml = false\n")
    with node.agent():
        node.run("--", "true")
        wait_until(node.predictions, "its record")
        wait_until(lambda: b"prediction" in (node.state / "usage.ndjson").read_bytes(), "it at the sink")
        (node.state / "usage.ndjson").unlink()
        of_a_file = node.taximeter("reconcile", "usage")
        of_nobody = node.taximeter("reconcile", "nobody")
    assert (of_a_file.returncode, "nobody can tell what was taken away" in of_a_file.stderr) == (1, True)
    assert (of_nobody.returncode, "cannot find sink 'nobody'" in of_nobody.stderr) == (1, True)
