"""A node that is about to go: `taximeter drain` has all shipped at once, or says what is not acknowledged."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.system.agents import Node, wait_until
from tests.system.rides import PROGRAM

pytestmark = pytest.mark.system


def test_a_node_is_drained_once_its_sink_takes_everything(tmp_path: Path) -> None:
    taken: list[str] = []
    is_open = threading.Event()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if is_open.is_set():
                taken.extend(event["id"] for event in json.loads(body))
            self.send_response(204 if is_open.is_set() else 503)
            self.end_headers()

        def log_message(self, *args: object) -> None:  # type: ignore[override]
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    sink = f'[[sinks]]\nname = "billing"\ntype = "http"\nurl = "http://127.0.0.1:{server.server_port}/"\n'
    node = Node(PROGRAM, tmp_path / "node", config=f"[hardware]\nnvml = false\n{sink}")
    try:
        with node.agent() as agent:
            assert node.run("--prediction", "p1", "--", "true").returncode == 0
            wait_until(node.predictions, "its record")
            failing = 'taximeter_sink_failing{sink="billing"}'
            wait_until(lambda: agent.metric(failing), "the sink to be tried")
            shut = node.taximeter("drain", "--timeout", "0.3")
            is_open.set()
            opened = node.taximeter("drain", "--timeout", "15")
            ids = [record["id"] for record in node.records()]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert shut.returncode == 1
    assert "not acknowledged: cannot ship" in shut.stderr
    assert (opened.returncode, opened.stdout) == (0, f"drained: {len(ids)} records, all acknowledged; nothing runs\n")
    assert sorted(set(taken)) == sorted(ids)


def test_what_still_runs_keeps_a_node_from_going(tmp_path: Path) -> None:
    node = Node(PROGRAM, tmp_path / "node", config="[hardware]\nnvml = false\n")
    with node.agent(), node.spawn("--", "sleep", "60"):
        wait_until(lambda: json.loads(node.taximeter("status", "--json").stdout)["instances"], "the run")
        done = node.taximeter("drain", "--timeout", "0")
    assert done.returncode == 1
    assert "1 instance still open" in done.stderr
