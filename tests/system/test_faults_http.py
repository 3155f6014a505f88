"""A real agent's HTTP door, stormed: it books as ever, answers those who ask, and keeps nothing of the storm.

Injects scrapes from all sides, connections on which nobody says anything, bytes that are no HTTP, a header of a MiB,
two lengths for one body, foreign hosts, guessed tokens and paths, all at once.
"""

import contextlib
import http.client
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from taximeter.observe.server import CONNECTIONS_MAX
from tests.system.agents import Agent, Node, wait_until
from tests.system.faults import check_ledger, finals

#: While it is stormed, a well-behaved client is answered within this.
ANSWER_S = 2.0
SCRAPERS, SILENT, STORM_S = 2, 100, 0.7
GROWTH_MAX_BYTES = 24 << 20
#: What a run brings: its class, tier, status; nothing that a client has said.
NEW_SERIES_MAX = 16
WORST = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * (1 << 20),
    b"POST /v1/grants HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
    b"GET /v1/status HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer guessed\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /metrics HTT",
)
REFUSALS = {b"400", b"401", b"404", b"405", b"414", b"421", b"431", b"501", b"503"}


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    return Node(taximeter_program, tmp_path / "node", "[hardware]\nnvml = false\n")


def address_of(agent: Agent) -> tuple[str, int]:
    host, _, port = agent.said["url"].removeprefix("http://").partition(":")
    return host, int(port)


def descriptors(agent: Agent) -> int:
    return len(os.listdir(f"/proc/{agent.process.pid}/fd"))


def resident_bytes(agent: Agent) -> int:
    return int(Path(f"/proc/{agent.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def series(agent: Agent) -> set[bytes]:
    _, body = agent.get("/metrics")
    return {line.rpartition(b" ")[0] for line in body.splitlines() if not line.startswith(b"#")}


class Storm:
    """Clients who mean no good, and what they were answered."""

    def __init__(self, agent: Agent) -> None:
        self.answers: Counter[bytes] = Counter()
        self._address = address_of(agent)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._scrape) for _ in range(SCRAPERS)]
        self._threads.append(threading.Thread(target=self._insult))

    @contextlib.contextmanager
    def raging(self) -> Iterator[None]:
        silent = [socket.create_connection(self._address) for _ in range(SILENT)]
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()
            for connection in silent:
                connection.close()

    def _scrape(self) -> None:
        while not self._over.is_set():
            connection = http.client.HTTPConnection(*self._address, timeout=20)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
                while not self._over.is_set():
                    connection.request("GET", "/metrics")
                    response = connection.getresponse()
                    response.read()
                    self.answers[b"scrape %d" % response.status] += 1

    def _insult(self) -> None:
        while not self._over.is_set():
            for text in WORST:
                with contextlib.suppress(OSError), socket.create_connection(self._address, timeout=0.1) as connection:
                    connection.sendall(text)
                    status = connection.recv(4096).split(b" ")[1:2]
                    self.answers[status[0] if status else b"closed"] += 1


def test_an_agent_that_is_stormed_books_as_ever_and_keeps_nothing_of_it(node: Node) -> None:
    with node.agent() as agent:
        agent.get("/metrics")
        before, had_bytes, storm = descriptors(agent), resident_bytes(agent), Storm(agent)
        had_series, most = series(agent), 0
        with storm.raging():
            until_s, number = time.monotonic() + STORM_S, 0
            while time.monotonic() < until_s:
                began_s = time.monotonic()
                status, _ = agent.get("/v1/status", agent.said["token"])
                assert (status, time.monotonic() - began_s < ANSWER_S) == (200, True)
                assert node.run("--prediction", f"p{number}", "--", "true").returncode == 0
                number += 1
                most = max(most, descriptors(agent))
            wait_until(lambda: len(finals(node)) == number, "all that ran meanwhile")
        wait_until(lambda: descriptors(agent) <= before + 1, "its descriptors back")
        assert most <= before + CONNECTIONS_MAX
        assert resident_bytes(agent) - had_bytes < GROWTH_MAX_BYTES
        assert len(series(agent) - had_series) <= NEW_SERIES_MAX
        assert storm.answers[b"scrape 200"] > SCRAPERS
        assert {answer for answer in storm.answers if not answer.startswith(b"scrape")} <= REFUSALS | {b"closed"}
        assert agent.stop() == 0
        assert "Traceback" not in agent.log.read_text()
    check_ledger(node)
