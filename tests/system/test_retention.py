"""Old records go, by a real agent: once they were kept long enough, and every sink has them and a seal of them."""

import json
from functools import partial
from pathlib import Path

import pytest

from taximeter.records import RecordType
from tests.system.agents import Node, wait_until
from tests.system.faults import check_ledger

pytestmark = [pytest.mark.system, pytest.mark.forged]  # what was pruned cannot be recomputed

SOON = "[hardware]\nnvml = false\n[ledger]\ncheckpoint_s = 1\nkeep_days = 0.00001\n"


def is_there(node: Node, name: str) -> bool:
    return bool(node.records(RecordType.PREDICTION, prediction=name))


def test_old_records_go_and_the_ledger_stays_sound(taximeter_program: str, tmp_path: Path) -> None:
    node = Node(taximeter_program, tmp_path / "node", config=SOON)
    with node.agent():
        assert node.run("--prediction", "old", "--", "true").returncode == 0
        wait_until(partial(is_there, node, "old"), "its record")
        wait_until(lambda: not is_there(node, "old"), "it to go")
        assert node.taximeter("verify").returncode == 0
    with node.agent() as agent:
        assert node.run("--prediction", "new", "--", "true").returncode == 0
        shipped = node.state / "usage.ndjson"
        wait_until(lambda: b'"prediction":"new"' in shipped.read_bytes(), "the new one at the sink")
        assert agent.stop() == 0
    check_ledger(node)
    held = [json.loads(line) for line in shipped.read_bytes().splitlines()]
    assert [one["data"]["ledger"]["seq"] for one in held] == list(range(1, len(held) + 1))


def test_what_a_sink_has_not_had_is_kept(taximeter_program: str, tmp_path: Path) -> None:
    away = '[[sinks]]\nname = "billing"\ntype = "http"\nurl = "http://127.0.0.1:9/"\n'
    node = Node(taximeter_program, tmp_path / "node", config=SOON + away)
    with node.agent():
        node.run("--prediction", "old", "--", "true")
        wait_until(lambda: len(node.records(RecordType.CHECKPOINT)) >= 1, "a seal")
        node.run("--prediction", "next", "--", "true")
        wait_until(lambda: len(node.records(RecordType.CHECKPOINT)) >= 2, "another")
        assert is_there(node, "old")
    check_ledger(node)
