"""Calls of calls, for real: runs inside runs, predictions of a worker that call runs, and what their receipts say."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.require import require_program
from tests.system.agents import Agent, Node, wait_until
from tests.system.faults import check_ledger, finals
from tests.system.test_asgi import APPS, served

pytestmark = pytest.mark.system

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
#: The root calls two, one of which calls two more, and fails after all of them; RUN is `taximeter run`.
ROOT = """
$RUN --prediction a --model acme/plan -- sh -c '
    $RUN --prediction c -- true
    $RUN --prediction d -- sh -c "exit 1" || true'
$RUN --prediction b --account cus_b -- true
exit 3
"""
#: A server: its first prediction was called by `far`, calls a run, and one by a mark that says nothing of a root.
SERVER = """
import os, subprocess, sys
from taximeter import client
client.ready()
with client.prediction("w", parent="far", root="far") as prediction:
    words = [sys.argv[1], "run", "--prediction", "v", "--", "true"]
    subprocess.run(words, env=os.environ | prediction.environment(), check=True)
    mark = '{"mark":"start","prediction":"u","parent":"w"}\\n{"mark":"finish","prediction":"u","status":"succeeded"}\\n'
    with open(os.environ["TAXIMETER_MARKS"], "r+b", buffering=0) as marks:
        for line in mark.splitlines(True):
            marks.write(line.encode())
"""

#: A prediction that calls a server over HTTP, and says who it is.
CALLER = """
import os, sys, urllib.request
headers = {"taximeter-parent": os.environ["TAXIMETER_PARENT"], "taximeter-root": os.environ["TAXIMETER_ROOT"]}
headers |= {"taximeter-prediction": "h", "taximeter-account": "cus_h"}
urllib.request.urlopen(urllib.request.Request(sys.argv[1], b"{}", headers)).read()
"""


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    return Node(taximeter_program, tmp_path / "node", config="[hardware]\nnvml = false\n")


@pytest.fixture
def agent(node: Node) -> Iterator[Agent]:
    with node.agent() as agent:
        yield agent


def called(node: Node, script: str, *words: str, **environment: str) -> int:
    """Run a shell script as the prediction `root`, in which $RUN is `taximeter run`."""
    env = node.environment(RUN=f"{node.program} run", **environment)
    command = [node.program, "run", "--prediction", "root", "--account", "cus_a", *words, "--", "sh", "-c", script]
    return subprocess.run(command, env=env, timeout=60, check=False).returncode


def booked(node: Node, *names: str) -> dict[str, dict[str, Any]]:
    """The last records of predictions, once all of them are there."""
    wait_until(lambda: set(names) <= set(finals(node)), f"the last records of {names}")
    return finals(node)


def tree(agent: Agent, asked: str) -> dict[str, Any]:
    status, body = agent.get(f"/v1/receipts/{asked}", agent.said["token"])
    assert status == 200
    told: dict[str, Any] = json.loads(body)["tree"]
    return told


def drawn(told: dict[str, Any]) -> list[str]:
    return ["  " * node["depth"] + node["prediction"] for node in told["nodes"]]


def test_runs_inside_runs_are_a_tree_and_a_failed_root_owes_for_all(node: Node, agent: Agent) -> None:
    assert called(node, ROOT, TRACEPARENT=TRACE) == 3
    records = booked(node, "root", "a", "b", "c", "d")
    told = tree(agent, "root")
    assert drawn(told) == ["root", "  a", "    c", "    d", "  b"]
    assert [one["status"] for one in told["nodes"]] == ["failed", "succeeded", "succeeded", "failed", "succeeded"]
    assert {one["root"] for one in told["nodes"]} == {"root"}
    assert {data["traceparent"] for data in records.values()} == {TRACE}
    amounts = {name: Decimal(data["billing"]["amount"]) for name, data in records.items()}
    assert all(amount > 0 for amount in amounts.values())
    assert Decimal(told["own"]["amounts"]["USD"]) == amounts["root"]
    assert Decimal(told["total"]["amounts"]["USD"]) == sum(amounts.values())
    assert {one["account"]: one["predictions"] for one in told["payers"]} == {"cus_a": 4, "cus_b": 1}
    # It waited for its calls, and accrued while it did.
    below = sum(one["active_ns"] for one in told["nodes"] if one["under"] == "root")
    assert told["own"]["active_ns"] > below
    said = " ".join(node.taximeter("receipt", "root").stdout.split())
    assert "for its run, which failed, and" in said
    assert "for 4 downstream runs" in said
    check_ledger(node)


def test_without_an_agent_the_ledger_tells_the_same_tree(node: Node) -> None:
    with node.agent() as agent:
        called(node, ROOT)
        booked(node, "root", "a", "b", "c", "d")
        told = tree(agent, "root")
        agent.stop()
    assert json.loads(node.taximeter("receipt", "root", "--json").stdout)["tree"] == told


def test_a_call_names_the_way_to_its_root(node: Node, agent: Agent) -> None:
    called(node, ROOT)
    booked(node, "root", "c")
    assert " path        root › a › this one" in node.taximeter("receipt", "c").stdout.splitlines()


def test_a_call_that_outlives_its_root_is_billed_to_its_own_end(node: Node, agent: Agent, tmp_path: Path) -> None:
    require_program("setsid")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = f"setsid $RUN --prediction late -- sh -c 'read word <{gate}' </dev/null >/dev/null 2>&1 &\n"
    waits = "until [ -s started ]; do sleep 0.01; done"
    begun = script.replace("'read", "'echo >started; read")
    assert called(node, f"cd {tmp_path}\n{begun}{waits}\nexit 3") == 3
    root = booked(node, "root")["root"]
    told = wait_until(lambda: [one for one in tree(agent, "root")["nodes"] if one["prediction"] == "late"], "late")
    assert (told[0]["status"], told[0]["pending"], told[0]["under"]) == ("processing", True, "root")
    assert "1 of 1 downstream run still runs, and accrues" in node.taximeter("receipt", "root").stdout
    gate.write_text("go\n")
    late = booked(node, "late")["late"]
    assert (late["status"], late["parent"], late["root"], late["account"]) == ("succeeded", "root", "root", "cus_a")
    assert late["interval"]["end_ns"] > root["interval"]["end_ns"]
    assert Decimal(tree(agent, "root")["downstream"]["amounts"]["USD"]) == Decimal(late["billing"]["amount"])
    check_ledger(node)


def test_a_workers_prediction_is_whose_call_it_says_and_calls_on(node: Node, agent: Agent) -> None:
    # The worker was itself started inside a prediction, of which its own predictions know nothing.
    server = [sys.executable, "-P", "-c", SERVER, node.program]
    inside = {"TAXIMETER_PARENT": "starter", "TAXIMETER_ROOT": "starter"}
    command = [node.program, "run", "--worker", "--ready", "notify", "--account", "cus_w", "--", *server]
    assert subprocess.run(command, env=node.environment(**inside), timeout=60, check=False).returncode == 0
    records = booked(node, "w", "v", "u")
    kin = {name: (data["parent"], data["root"], data["account"]) for name, data in records.items()}
    assert kin == {"w": ("far", "far", "cus_w"), "v": ("w", "far", "cus_w"), "u": ("w", "far", "cus_w")}
    told = tree(agent, "w")
    assert told["path"] == [{"prediction": "far", "link": "elsewhere"}]
    assert sorted(drawn(told)) == ["  u", "  v", "w"]
    assert told["findings_total"] == {"orphan": 1}


def test_a_call_over_http_is_a_call(node: Node, agent: Agent) -> None:
    with served(node, *APPS) as server:
        url = str(server.client.base_url.join("/tells_downstream"))
        command = [sys.executable, "-P", "-c", CALLER, url]
        assert node.run("--prediction", "root", "--account", "cus_a", "--", *command).returncode == 0
        records = booked(node, "root", "h")
        assert (records["h"]["parent"], records["h"]["root"], records["h"]["account"]) == ("root", "root", "cus_h")
        told = tree(agent, "root")
        assert drawn(told) == ["root", "  h"]
        assert {payer["account"] for payer in told["payers"]} == {"cus_a", "cus_h"}


def test_who_calls_itself_is_counted_and_billed(node: Node, agent: Agent) -> None:
    assert node.run("--prediction", "p", "--parent", "p", "--", "true").returncode == 0
    data = booked(node, "p")["p"]
    assert (data["parent"], data["root"], data["billing"]["status"]) == (None, "p", "rated")
    assert agent.metric('taximeter_call_faults_total{reason="own_parent"}') == 1


def test_runs_that_call_each_other_in_a_ring_have_receipts_and_a_sound_ledger(node: Node, agent: Agent) -> None:
    for name, parent in (("x", "z"), ("y", "x"), ("z", "y")):
        node.run("--prediction", name, "--parent", parent, "--root", "x", "--", "true")
    booked(node, "x", "y", "z")
    assert [sorted(one["prediction"] for one in tree(agent, "x")["nodes"])] == [["x", "y", "z"]]
    report = node.taximeter("verify", "--json")
    assert (report.returncode, json.loads(report.stdout)["notes_total"]) == (0, {"cycle": 1})
