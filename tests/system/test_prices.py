"""Prices that change while a real agent runs: the platform's list over HTTP, and its own files at SIGHUP."""

import contextlib
import http.server
import json
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from taximeter.recall import realtime_ns
from taximeter.records import RecordType
from tests.prices.lists import body_of
from tests.system.agents import Agent, Node, wait_until
from tests.system.rides import PROGRAM

pytestmark = pytest.mark.system

SECOND = 1_000_000_000
RATES = 'version = "{version}"\neffective = {effective}\ncurrency = "USD"\n[tiers]\ncpu = "{cpu}"\n'
LIST = '[hardware]\nnvml = false\n[price_list]\nurl = "{url}"\nkey_file = "key"\npoll_s = 1\n'


@dataclass
class Platform:
    """Serves a list, or nothing (None: 500)."""

    body: bytes | None
    url: str = ""
    keys: list[str | None] = field(default_factory=list)


@contextlib.contextmanager
def serving(body: bytes | None) -> Iterator[Platform]:
    platform = Platform(body)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            platform.keys.append(self.headers.get("x-api-key"))
            body = platform.body or b""
            self.send_response(200 if platform.body is not None else 500)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:  # type: ignore[override]
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    platform.url = f"http://127.0.0.1:{server.server_port}/v1/models"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield platform
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def node_of(tmp_path: Path, config: str = "[hardware]\nnvml = false\n") -> Node:
    node = Node(PROGRAM, tmp_path / "node", config=config, head='rates = "rates.toml"')
    node.path.mkdir()
    (node.path / "key").touch(mode=0o600)
    (node.path / "key").write_text("k3y\n")
    write_rates(node)
    return node


def write_rates(node: Node, version: str = "1", effective: str = "2026-01-01T00:00:00Z", cpu: str = "1") -> None:
    rates = RATES.format(version=version, effective=effective, cpu=cpu)
    (node.path / "rates.toml").write_text(rates)


def ridden(node: Node, name: str, *words: str) -> dict[str, Any]:
    """Run an image's prediction, and give its booked data."""
    said = ("--model", "acme/image", "--unit", "image=1", "--prediction", name, *words)
    assert node.run(*said, "--", "true").returncode == 0
    found = wait_until(lambda: [one for one in node.predictions() if one["data"]["prediction"] == name], name)
    data: dict[str, Any] = found[0]["data"]
    return data


def cards(node: Node) -> list[str]:
    facts = [one["data"] for one in node.records(RecordType.FACT)]
    return [fact["content"]["version"] for fact in facts if fact["fact"] == "rate_card"]


def price_in_force(agent: Agent) -> str | None:
    _, body = agent.get("/v1/models")
    listed = [model for model in json.loads(body) if model["name"] == "acme/image"]
    return str(listed[0]["pricing"]["amount"]) if listed and listed[0]["pricing"] else None


def test_a_run_costs_what_the_list_said_when_it_began(tmp_path: Path) -> None:
    with serving(body_of(("acme/image", "0.1"))) as platform:
        node = node_of(tmp_path, LIST.format(url=platform.url))
        with node.agent() as agent:
            before = ridden(node, "before")
            platform.body = body_of(("acme/image", "0.2"))
            wait_until(lambda: price_in_force(agent) == "0.2", "the new price")
            after = ridden(node, "after")
            shown = node.taximeter("status").stdout
    amounts = [Decimal(one["billing"]["amount"]) for one in (before, after)]
    assert amounts == [Decimal("0.1"), Decimal("0.2")]
    assert before["billing"]["rate_card"] != after["billing"]["rate_card"]
    assert len(cards(node)) == 2
    assert set(platform.keys) == {"k3y"}
    assert "in USD, 1 model, since" in shown
    assert f"{platform.url}: seen" in shown
    with LedgerReader(node.state / "ledger.db") as reader:
        assert audit(reader).faults == ()


def test_an_agent_that_is_killed_and_comes_back_without_network_goes_on_with_the_list(tmp_path: Path) -> None:
    with serving(body_of(("acme/image", "0.1"))) as platform:
        node = node_of(tmp_path, LIST.format(url=platform.url))
        with node.agent():
            first = ridden(node, "first")
    with node.agent() as agent:
        second = ridden(node, "second")
        failed = "taximeter_price_list_failures_total"
        wait_until(lambda: agent.metric(f'{failed}{{reason="connect"}}'), "a failure that is counted")
    assert second["billing"]["amount"] == first["billing"]["amount"] == "0.1"
    assert second["billing"]["rate_card"] == first["billing"]["rate_card"]
    assert len(cards(node)) == 1


def test_where_there_never_was_a_list_what_runs_is_recorded_without_a_price(tmp_path: Path) -> None:
    with serving(None) as platform:
        node = node_of(tmp_path, LIST.format(url=platform.url))
        with node.agent():
            unpriced = ridden(node, "unpriced")
            status = json.loads(node.taximeter("status", "--json").stdout)
            platform.body = body_of(("acme/image", "0.1"))
            wait_until(lambda: cards(node), "a card")
            priced = ridden(node, "priced")
    assert (unpriced["billing"]["status"], unpriced["billing"]["amount"]) == ("unrated", None)
    assert priced["billing"]["amount"] == "0.1"
    assert status["rates"]["version"] is None
    assert "no rate card is in force" in status["problems"][0]


def test_sighup_reads_the_rates_anew_and_faults_change_nothing(tmp_path: Path) -> None:
    node = node_of(tmp_path)
    with node.agent() as agent:
        write_rates(node, version="2", effective="2026-02-01T00:00:00Z", cpu="2")
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: cards(node) == ["1", "2"], "the second card")
        (node.path / "rates.toml").write_text('version = "3"\n')
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "rates.toml: tiers: expected" in agent.log.read_text(), "the fault")
        write_rates(node, version="1a", effective="2026-01-15T00:00:00Z", cpu="9")
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "cannot go back to rate card 1a" in agent.log.read_text(), "the refusal")
        assert json.loads(node.taximeter("status", "--json").stdout)["rates"]["version"] == "2"
        assert agent.stop() == 0
    assert cards(node) == ["1", "2"]


def test_an_older_card_is_refused_at_the_start_as_well(tmp_path: Path) -> None:
    node = node_of(tmp_path)
    write_rates(node, version="2", effective="2026-02-01T00:00:00Z", cpu="2")
    with node.agent():
        pass
    write_rates(node)
    with node.agent():
        data = ridden(node, "priced")
        problems = json.loads(node.taximeter("status", "--json").stdout)["problems"]
    assert data["billing"]["lines"][0]["rate"] == "2"
    assert any("cannot go back to rate card 1" in problem for problem in problems)


def rated(node: Node, *words: str) -> dict[str, Any]:
    done = node.taximeter("rerate", *words, "--json")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_rerate_bills_what_ran_before_there_was_a_card_and_what_counted_nothing_once(tmp_path: Path) -> None:
    with serving(None) as platform:
        node = node_of(tmp_path, LIST.format(url=platform.url))
        with node.agent():
            ridden(node, "before")
            ridden(node, "own", "--class", "private", "--account", "cus_7")
            wait_until(lambda: len(node.records(RecordType.INSTANCE)) == 2, "the instance's record")
            assert rated(node)["left"] == {"no_rate_card": 2}
            platform.body = body_of(("acme/image", "0.1"))
            wait_until(lambda: cards(node), "a card")
            assert node.run("--model", "acme/image", "--prediction", "bare", "--", "true").returncode == 0
            wait_until(lambda: len(node.predictions()) == 3, "its record")
            assert rated(node, "--dry-run") == rated(node) | {"dry_run": True}
            assert rated(node) == {"corrected": 0, "left": {"no_units": 1}, "amounts": {}, "dry_run": False}
            shown = node.taximeter("rerate", "--prediction", "bare", "--unit", "image=3")
            bare = json.loads(node.taximeter("receipt", "bare", "--json").stdout)
    with node.agent():
        assert rated(node)["corrected"] == 0
    assert (shown.returncode, shown.stdout) == (0, "1 bill rated: 0.3 USD\n")
    assert bare["total"]["amount"] == "0.3"
    corrections = [one["data"] for one in node.records(RecordType.CORRECTION)]
    (own,) = (one for one in corrections if one["prediction"] is None)
    assert (own["account"], own["reason"], Decimal(own["billing"]["amount"]) > 0) == ("cus_7", "rerated", True)
    assert [(one["prediction"], one["reason"], one["billing"]["amount"]) for one in corrections if one is not own] == [
        ("before", "rerated", "0.1"),
        ("bare", "rerated", "0.3"),
    ]
    with LedgerReader(node.state / "ledger.db") as reader:
        assert audit(reader).faults == ()


def test_where_late_cards_are_only_warned_of_what_was_sold_is_cut_once_somebody_asks_for_that(tmp_path: Path) -> None:
    node = node_of(tmp_path, '[hardware]\nnvml = false\n[billing]\nlate_cards = "warn"\n')
    write_rates(node, cpu="1")
    with node.agent() as agent:
        node.run("--class", "private", "--account", "cus_7", "--", "sleep", "2.5")
        wait_until(lambda: node.records(RecordType.INSTANCE), "the instance's record")
        (own,) = (one["data"] for one in node.records(RecordType.INSTANCE))
        second = realtime_ns(own["interval"]["start_utc"]) // SECOND + 1
        write_rates(node, version="2", effective=datetime.fromtimestamp(second, UTC).isoformat(), cpu="3")
        agent.process.send_signal(signal.SIGHUP)
        wait_until(lambda: cards(node) == ["1", "2"], "the second card")
        wait_until(lambda: "rates.late version=2" in agent.log.read_text(), "a word of it")
        assert rated(node)["corrected"] == 0
        assert rated(node, "--late-cards", "--dry-run")["corrected"] == 1
        assert rated(node, "--late-cards")["corrected"] == 1
        assert rated(node, "--late-cards")["corrected"] == 0
    (correction,) = (one["data"] for one in node.records(RecordType.CORRECTION))
    after_ns = realtime_ns(own["interval"]["end_utc"]) - second * SECOND
    assert Decimal(correction["billing"]["amount"]) == 2 * Decimal(after_ns) / SECOND
    with LedgerReader(node.state / "ledger.db") as reader:
        assert audit(reader).faults == ()
