"""A record that billing refuses holds up nothing, is seen, and is tried again or given up when somebody says so."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from taximeter.records import RecordType
from tests.system.agents import Node, wait_until
from tests.system.faults import check_ledger

pytestmark = pytest.mark.system


class Billing:
    """A receiver that refuses every batch in which an account is that it does not know."""

    def __init__(self) -> None:
        self.unknown = {"cus_new"}
        self.taken: set[str] = set()

    def take(self, events: list[dict[str, object]]) -> int:
        if self.unknown.intersection(str(event["subject"]) for event in events):
            return 422
        self.taken.update(str(event["id"]) for event in events)
        return 204


@contextmanager
def receiving(billing: Billing) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(billing.take(json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:  # type: ignore[override]
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def listed(node: Node) -> list[dict[str, object]]:
    said: list[dict[str, object]] = json.loads(node.taximeter("deadletters", "list", "--json").stdout)
    return said


def test_a_refused_record_waits_for_somebody_and_nothing_waits_for_it(taximeter_program: str, tmp_path: Path) -> None:
    billing = Billing()
    with receiving(billing) as url:
        sink = f'[[sinks]]\nname = "billing"\ntype = "http"\nurl = "{url}"\n'
        node = Node(taximeter_program, tmp_path / "node", config=f"[hardware]\nnvml = false\n{sink}")
        with node.agent() as agent:
            node.run("--prediction", "p1", "--account", "cus_new", "--", "true")
            node.run("--prediction", "p2", "--account", "cus_old", "--", "true")
            letters = 'taximeter_dead_letters{sink="billing"}'
            wait_until(lambda: agent.metric(letters) == 1, "the dead letter")
            wait_until(lambda: agent.metric('taximeter_outbox_pending{sink="billing"}') == 0, "the rest")
            (letter,) = listed(node)
            assert (letter["reason"], "422" in str(letter["said"])) == ("rejected", True)
            assert "refused 1 record" in node.taximeter("status").stdout
            drained = node.taximeter("drain", "--timeout", "0")
            assert (drained.returncode, "1 record refused" in drained.stderr) == (1, True)

            refused_again = node.taximeter("deadletters", "retry", "billing", str(letter["id"]))
            assert refused_again.returncode == 0, refused_again.stderr
            wait_until(lambda: listed(node)[0]["refused_utc"] != letter["refused_utc"], "another refusal")

            billing.unknown.clear()
            assert node.taximeter("deadletters", "retry", "billing", "--all").returncode == 0
            wait_until(lambda: not listed(node), "it to be taken")
            wait_until(lambda: billing.taken == {record["id"] for record in node.records()}, "all of it")
    check_ledger(node)


def test_what_is_given_up_is_said_in_the_ledger(taximeter_program: str, tmp_path: Path) -> None:
    billing = Billing()
    with receiving(billing) as url:
        sink = f'[[sinks]]\nname = "billing"\ntype = "http"\nurl = "{url}"\n'
        node = Node(taximeter_program, tmp_path / "node", config=f"[hardware]\nnvml = false\n{sink}")
        with node.agent():
            node.run("--prediction", "p1", "--account", "cus_new", "--", "true")
            (letter,) = wait_until(lambda: listed(node), "the dead letter")
            dropped = node.taximeter("deadletters", "drop", "billing", str(letter["id"]))
            assert (dropped.returncode, listed(node)) == (0, [])
        (said,) = [
            one["data"] for one in node.records(RecordType.FACT) if one["data"]["fact"] == "dead_letters_dropped"
        ]
        assert said["content"] == {"sink": "billing", "records": [{"seq": letter["seq"], "id": letter["id"]}]}
    check_ledger(node)


def test_a_sink_that_is_not_there_has_no_letters(taximeter_program: str, tmp_path: Path) -> None:
    node = Node(taximeter_program, tmp_path / "node", config="[hardware]\nnvml = false\n")
    with node.agent():
        done = node.taximeter("deadletters", "retry", "nowhere", "--all")
    assert (done.returncode, "cannot find sink 'nowhere'" in done.stderr) == (1, True)
