"""A real Cog server under the meter: when its boot ends, whose each prediction is, and what every end comes to."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cogs.server import PREDICTOR, CogServer, serving
from cogs.web import webhooks

from taximeter.records import RecordType
from tests.conftest import ROOT
from tests.require import require_module, require_root
from tests.system.agents import Agent, Node, wait_until
from tests.system.rides import Rides, is_shown

pytestmark = pytest.mark.system

AWAITED = ROOT / "tests" / "system" / "cog_awaited.py"
PROMPT = "Sir Walter Elliot"  # three words of the book
#: More than any test waits for: such a prediction ends because somebody ends it.
ENDLESS = 40_000


@pytest.fixture(scope="module")
def agent(taximeter_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """The agent of all servers of this module."""
    require_module("cog")
    with Node(taximeter_program, tmp_path_factory.mktemp("cog") / "node").agent() as agent:
        yield agent


@pytest.fixture(scope="module")
def node(agent: Agent) -> Node:
    return agent.node


@pytest.fixture(scope="module")
def server(node: Node) -> Iterator[CogServer]:
    """A server that none of its tests ends."""
    with cog(node, predictor=AWAITED) as server:
        yield server


def cog(node: Node, **how: Any) -> AbstractContextManager[CogServer]:
    return serving(node.program, node.environment(), "--on-term", "drain", **how)


def last(node: Node, **wanted: str) -> dict[str, Any]:
    """The data of the last record of a `prediction` or an `instance`, once it is there."""
    kind = RecordType.PREDICTION if "prediction" in wanted else RecordType.INSTANCE

    def found() -> dict[str, Any] | None:
        return next((one["data"] for one in node.records(kind, **wanted) if one["data"]["final"]), None)

    record: dict[str, Any] = wait_until(found, f"the last record of {wanted}")
    return record


def amount(record: dict[str, Any]) -> Decimal:
    return Decimal(record["billing"]["amount"])


def begun(node: Node, *predictions: str, mark: str = "start") -> None:
    """Wait until the meter has heard that they run."""

    def heard() -> bool:
        said = [json.loads(base64.b64decode(fact["raw"])) for fact in Rides(node.path).facts("mark")]
        return {one.get("prediction") for one in said if one["mark"] == mark}.issuperset(predictions)

    wait_until(heard, f"the {mark} of {predictions}")


# --- A server that lives ---


def test_boot_ends_when_the_health_check_says_that_setup_is_done(node: Node, server: CogServer) -> None:
    """Cog says so first, and only then notes when that was."""
    over_ns = int((node.path / "setup").read_text())
    done = wait_until(lambda: server.health()["setup"].get("completed_at"), "Cog's note")
    apart_s = max(time.monotonic() - time.time() for _ in range(50))  # as near to one moment as they can be read
    done_ns = round((datetime.fromisoformat(done).timestamp() + apart_s) * 1e9)
    ready = Rides(node.path).wait_for("ready")
    tolerance_ns = 5_000_000
    assert ready["by"] == "http"
    assert ready["t"] - ready["within"] - tolerance_ns <= done_ns
    assert over_ns <= ready["t"]


def test_a_prediction_has_cogs_id_its_customer_and_what_it_read_and_wrote(node: Node, server: CogServer) -> None:
    for prediction, account, words in (("own-1", "cus_1", 3), ("own-2", "cus_2", 5)):
        answer = server.predict(prediction, account, text=PROMPT, words=words)
        assert (answer["id"], answer["status"]) == (prediction, "succeeded")
        record = last(node, prediction=prediction)
        assert (record["account"], record["status"]) == (account, "succeeded")
        assert record["units"] == {"token_input": "3", "token_output": str(words)}
        assert record["time"]["active_ns"] <= answer["metrics"]["predict_time"] * 1e9


def test_of_what_overlaps_each_pays_its_share(node: Node, server: CogServer) -> None:
    names = [f"overlap-{n}" for n in range(3)]
    with ThreadPoolExecutor() as clients:
        answers = list(clients.map(lambda name: server.predict(name, "cus_1", text=PROMPT, words=40), names))
    assert [answer["status"] for answer in answers] == ["succeeded"] * 3
    records = [last(node, prediction=name) for name in names]
    began_ns = min(record["interval"]["start_ns"] for record in records)
    ended_ns = max(record["interval"]["end_ns"] for record in records)
    assert sum(record["time"]["share_ns"] for record in records) <= ended_ns - began_ns
    assert sum(answer["metrics"]["predict_time"] for answer in answers) * 1e9 > 1.5 * (ended_ns - began_ns)
    assert {record["concurrency"]["max"] for record in records} == {3}


def test_one_whose_client_hangs_up_is_canceled_and_pays_for_its_run(node: Node, server: CogServer) -> None:
    with server.asking("hung-up", "cus_1", text=PROMPT, words=ENDLESS):
        begun(node, "hung-up")
    record = last(node, prediction="hung-up")
    assert record["status"] == "canceled"
    assert amount(record) > 0
    assert 0 < int(record["units"]["token_output"]) < ENDLESS


def test_one_that_is_canceled_by_its_id_is_canceled(node: Node, server: CogServer) -> None:
    server.begin("called-off", text=PROMPT, words=ENDLESS)
    begun(node, "called-off")
    server.ask("POST", "/predictions/called-off/cancel")
    assert last(node, prediction="called-off")["status"] == "canceled"


def test_one_that_fails_in_mid_run_pays_for_its_run(node: Node, server: CogServer) -> None:
    answer = server.predict("failed", "cus_1", text="Walter " * 4090, words=ENDLESS)
    record = last(node, prediction="failed")
    assert (answer["status"], record["status"]) == ("failed", "failed")
    assert record["units"]["token_output"] == "6"
    assert amount(record) > 0


def test_what_never_reaches_the_predictor_is_no_prediction(node: Node, server: CogServer) -> None:
    assert server.predict("refused", no_such_input="")["status"] == "failed"
    server.predict("after-refused", text=PROMPT, words=1)
    last(node, prediction="after-refused")
    assert not node.records(RecordType.PREDICTION, prediction="refused")


# --- A server that ends ---


@dataclass(frozen=True)
class Stopped:
    """A server that was asked to stop while it was at `stopped`, after others that overlapped."""

    webhooks: list[str]  #: statuses that Cog told
    instance: dict[str, Any]
    predictions: list[dict[str, Any]]


@pytest.fixture(scope="module")
def stopped(node: Node) -> Stopped:
    with cog(node) as server, webhooks() as told:
        with ThreadPoolExecutor() as clients:
            for number, words in enumerate((10, 20, 5, 15)):
                clients.submit(server.predict, f"before-{number}", "cus_1", text=PROMPT, words=words)
        server.begin("stopped", "cus_1", told.url, text=PROMPT, words=100)
        begun(node, "stopped")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    instance = last(node, instance=instance_of(node, "stopped"))
    records = node.records(RecordType.PREDICTION, instance=instance["instance"])
    return Stopped([said["status"] for said in told.said], instance, [record["data"] for record in records])


def test_a_server_that_is_stopped_in_mid_run_finishes_it_and_the_meter_has_what_cog_never_tells(
    node: Node, stopped: Stopped
) -> None:
    record = last(node, prediction="stopped")
    assert stopped.webhooks == ["processing"], "Cog tells no end: that is what the meter is there for"
    assert (record["status"], record["units"]["token_output"]) == ("succeeded", "100")


def test_what_the_predictions_of_a_server_pay_for_adds_up_to_what_it_was_busy(stopped: Stopped) -> None:
    assert len({record["prediction"] for record in stopped.predictions}) == 5
    assert sum(record["time"]["share_ns"] for record in stopped.predictions) == stopped.instance["time"]["active_ns"]
    assert sum(stopped.instance["time"][part] for part in PHASES) == stopped.instance["time"]["wall_ns"]


PHASES = ("boot_ns", "idle_ns", "active_ns", "teardown_ns", "suspended_ns", "unknown_ns")


def test_a_worker_that_crashes_fails_what_it_was_at_and_that_costs_no_more_than_until_then(node: Node) -> None:
    with cog(node) as server:
        server.begin("crashed-1", "cus_1", text=PROMPT, words=ENDLESS)
        server.begin("crashed-2", "cus_2", text=PROMPT, words=ENDLESS)
        begun(node, "crashed-1", "crashed-2")
        killed_ns, gone_ns = kill(server.worker_pid())
        for record in (last(node, prediction=prediction) for prediction in ("crashed-1", "crashed-2")):
            assert record["status"] == "failed"
            assert killed_ns <= record["interval"]["end_ns"] <= gone_ns + WAKE_UP_NS
        assert server.health()["status"] == "UNHEALTHY"
        assert server.predict("after-crash", text=PROMPT, words=1)["status"] == "failed"
    assert not node.records(RecordType.PREDICTION, prediction="after-crash")


def test_a_server_that_is_killed_fails_what_was_open_and_what_its_worker_goes_on_with_costs_nobody(node: Node) -> None:
    with cog(node) as server:
        server.begin("orphaned", "cus_1", text=PROMPT, words=ENDLESS)
        begun(node, "orphaned")
        killed_ns, gone_ns = kill(server.server_pid())
        server.process.wait(20)
        record, instance = last(node, prediction="orphaned"), last(node, instance=instance_of(node, "orphaned"))
    assert record["status"] == "failed"
    assert killed_ns <= record["interval"]["end_ns"] == instance["interval"]["end_ns"] <= gone_ns + WAKE_UP_NS
    assert (instance["exit"]["signal"], instance["exit"]["left_running"]) == (9, 1)


#: Where the kernel tells nobody, the wrapper sees an end when it gets a core.
WAKE_UP_NS = 100_000_000


def kill(pid: int) -> tuple[int, int]:
    """Kill a process: when, and when it was gone."""
    pidfd = os.pidfd_open(pid)
    try:
        killed_ns = time.monotonic_ns()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert is_shown(pidfd, 20), f"waited in vain for the end of {pid}"
        return killed_ns, time.monotonic_ns()
    finally:
        os.close(pidfd)


def instance_of(node: Node, prediction: str) -> str:
    return str(last(node, prediction=prediction)["instance"])


# --- A predictor that is not asynchronous ---


def test_a_plain_predictor_has_cogs_ids_too_and_a_client_that_hangs_up_cancels_it(node: Node, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    with cog(node, predictor=tmp_path / "plain.py", slots=1) as server:
        server.predict("plain", "cus_1", rounds=3)
        wait_until(lambda: server.health()["status"] == "READY", "the one slot, which is freed after the answer")
        with server.asking("plain-hung-up", "cus_1", rounds=10**9):
            begun(node, "plain-hung-up", mark="units")  # in its block: Cog cancels it at any line, of the client's too
        whole, part = last(node, prediction="plain"), last(node, prediction="plain-hung-up")
    assert (whole["status"], whole["account"], whole["units"]) == ("succeeded", "cus_1", {"round": "3"})
    assert (part["status"], part["account"]) == ("canceled", "cus_1")


PLAIN = f"""
import sys
sys.path.insert(0, {str(PREDICTOR.parent)!r})
from cog import BaseRunner
from predict import metered

class Runner(BaseRunner):
    def run(self, rounds: int) -> int:
        with metered() as prediction:
            for n in range(rounds):
                sum(range(1000))
                prediction.add(round=1)
        return rounds
"""


def test_no_mark_of_any_of_these_servers_was_rejected(agent: Agent, stopped: Stopped) -> None:
    _, said = agent.get("/metrics")
    assert b"taximeter_rejected_marks_total{" not in said


# --- How Cog's own times compare ---


def test_the_comparison_with_cogs_own_times_prints_every_line(node: Node) -> None:
    require_root()
    argv = [sys.executable, ROOT / "benchmarks" / "cog_times.py", "--quick"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.startswith("| ")]) == 12
