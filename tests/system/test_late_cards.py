"""A card that was in force when it came: a real agent corrects what it has billed meanwhile, whatever becomes of it."""

import re
import signal
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from taximeter.records import RecordType
from tests.system.agents import Agent, Node, wait_until
from tests.system.test_prices import cards, node_of, rated, write_rates

pytestmark = pytest.mark.system

SECOND = 1_000_000_000
CONFIG = """[hardware]
nvml = false
[billing]
interim_s = 1
[charges]
thresholds = ["2.5"]
"""
#: Many short predictions of one worker, and one that goes on.
WORKER = """
mark() { echo "$1" 1<>"$TAXIMETER_MARKS"; }
mark '{"mark":"ready"}'
mark '{"mark":"start","prediction":"open","account":"cus_7"}'
for n in $(seq 40); do
    mark "{\\"mark\\":\\"start\\",\\"prediction\\":\\"p$n\\",\\"account\\":\\"cus_7\\"}"
    sleep 0.01
    mark "{\\"mark\\":\\"finish\\",\\"prediction\\":\\"p$n\\",\\"status\\":\\"succeeded\\"}"
done
exec sleep 120
"""


def write_late_rates(node: Node, cpu: str = "3") -> None:
    """Rates that have been in force for a minute: for longer than anything here runs."""
    minute = datetime.fromtimestamp(int(time.time()) - 60, UTC).isoformat()
    write_rates(node, version="2", effective=minute, cpu=cpu)


def usage(node: Node) -> list[dict[str, Any]]:
    kinds = (RecordType.PREDICTION, RecordType.INSTANCE, RecordType.CORRECTION)
    return [one["data"] for one in node.records() if one["type"] in kinds]


def billed(records: Iterable[dict[str, Any]]) -> Decimal:
    return sum((Decimal(data["billing"]["amount"] or 0) for data in records), Decimal(0))


def sold_s(records: Iterable[dict[str, Any]]) -> Decimal:
    """The seconds that these records sell: each prediction's share, or an instance's time but its teardown."""
    sold = [data["time"] for data in records if "corrects" not in data and data["billing"]["status"] != "informative"]
    parts = ("share_ns", "boot_ns", "idle_ns", "active_ns") if "boot_ns" in sold[0] else ("share_ns",)
    return Decimal(sum(time_.get(part, 0) for time_ in sold for part in parts)) / SECOND


def check(node: Node, price: int = 3) -> None:
    """All that ever ran costs what it would have cost, had the card been there before; and nothing is left."""
    told = usage(node)
    private = [data for data in told if data["class"] == "private" and data["prediction"] is None]
    public = [data for data in told if data["class"] == "public" and data["prediction"] is not None]
    for records in (one for one in (private, public) if one):
        assert billed(records) == price * sold_s(records)
    crossed = [one for one in node.records() if one["type"] == RecordType.THRESHOLD]
    assert len(crossed) <= 1
    with LedgerReader(node.state / "ledger.db") as reader:
        assert audit(reader).faults == ()


def corrected(agent: Agent) -> bool:
    return "rates.corrected version=2" in agent.log.read_text()


def interim(node: Node, name: str | None) -> list[dict[str, Any]]:
    return [data for data in usage(node) if data["prediction"] == name and not data.get("final", True)]


def test_what_was_sold_and_what_still_runs_is_corrected_as_the_card_comes(tmp_path: Path) -> None:
    node = node_of(tmp_path, CONFIG)
    with node.agent() as agent, node.spawn("--worker", "--", "sh", "-c", WORKER) as public:
        with node.spawn("--class", "private", "--account", "cus_7", "--", "sleep", "120") as private:
            assert node.run("--prediction", "over", "--account", "cus_7", "--", "sleep", "0.2").returncode == 0
            wait_until(lambda: len(interim(node, "open")) > 1 and len(interim(node, None)) > 3, "interim records")
            write_late_rates(node)
            agent.process.send_signal(signal.SIGHUP)
            wait_until(lambda: corrected(agent), "the corrections")
            told = {data["prediction"] for data in usage(node) if "corrects" in data}
            sold = {data["prediction"] for data in usage(node) if data.get("final") and billed([data])}
            assert {"over", "open", None} | sold <= told
            assert re.search(r"rates.corrected version=2 bills=\d+ amounts={'USD': '\d", agent.log.read_text())
            check(node)
            private.terminate()
            public.terminate()
        wait_until(lambda: sum("exit" in data for data in usage(node)) == 3, "the ends")
        wait_until(lambda: rated(node, "--late-cards")["left"] == {}, "nothing that is open")
        assert rated(node, "--late-cards")["corrected"] == 0
    check(node)
    assert len([one for one in node.records() if one["type"] == RecordType.THRESHOLD]) == 1


def test_an_agent_that_starts_with_such_a_card_corrects_what_another_has_billed(tmp_path: Path) -> None:
    node = node_of(tmp_path, CONFIG)
    with node.spawn("--worker", "--", "sh", "-c", WORKER) as worker:
        with node.agent():
            wait_until(lambda: len(interim(node, "open")) > 1, "interim records")
        write_late_rates(node)
        with node.agent() as agent:
            wait_until(lambda: corrected(agent), "the corrections")
            assert "rates.late version=2" in agent.log.read_text()
            check(node)
            worker.terminate()
            wait_until(lambda: any("exit" in data for data in usage(node)), "its end")
    check(node)


@pytest.mark.parametrize("after", ["in_force version=2", "late version=2", "corrected version=2"])
def test_an_agent_that_is_killed_meanwhile_goes_on_at_its_next_start(tmp_path: Path, after: str) -> None:
    node = node_of(tmp_path, CONFIG)
    with node.spawn("--worker", "--", "sh", "-c", WORKER) as worker:
        with node.agent() as agent:
            wait_until(lambda: len(interim(node, "open")) > 1, "interim records")
            write_late_rates(node)
            agent.process.send_signal(signal.SIGHUP)
            wait_until(lambda: f"rates.{after}" in agent.log.read_text(), after)
            agent.process.kill()
            agent.process.wait()
        with node.agent() as agent:
            wait_until(lambda: not pending(node), "all corrected")
            worker.terminate()
            wait_until(lambda: any("exit" in data for data in usage(node)), "its end")
            assert cards(node) == ["1", "2"]
    check(node)


def pending(node: Node) -> bool:
    facts = [one["data"] for one in node.records(RecordType.FACT)]
    return any(fact.get("late") for fact in facts) and not any(fact["fact"] == "bills_corrected" for fact in facts)
