"""`taximeter status`: the node at a glance, with an agent and without."""

import json
import os
import re
from pathlib import Path

import pytest

from taximeter.cli.status import MOST_POOLS, POOL_PHASES
from tests.cli import agent
from tests.cli.node import taximeter
from tests.cli.test_receipt import agrees


def pool(name: str, *, wall: float, sold: float, ratio: float, **parts: float) -> dict[str, object]:
    """How a pool's time was used, in seconds."""
    lengths = {part: int(parts.get(part, 0) * 1e9) for part in (*POOL_PHASES, "load")}
    return {
        "pool": name,
        "since_utc": "2026-11-21T11:00:00.000000000Z",
        "wall_ns": int(wall * 1e9),
        **{f"{part}_ns": length_ns for part, length_ns in lengths.items()},
        "sold_ns": int(sold * 1e9),
        "sold_ratio": ratio,
    }


READY = {
    "agent": {"version": "0.1.0", "started_utc": "2026-11-22T10:00:00.000000000Z", "config": f"sha256:{'c0' * 32}"},
    "ready": True,
    "node": {"id": "gpu-node-7", "region": "eu-west", "tier": "gpu-h100-8x"},
    "ledger": {"id": "L", "seq": 12345, "hash": f"sha256:{'ab' * 32}"},
    "witness": {"kernel": True, "trouble": None, "events": 12, "overruns": 0},
    "sinks": [
        {"name": "usage", "kind": "file", "pending": 0, "shipped": 12345, "last_error": None, "failures": {}},
        {
            "name": "billing",
            "kind": "http",
            "pending": 1234,
            "shipped": 11111,
            "last_error": "cannot post to https://billing.example/usage: expected 2xx, got 503\x1b[2J",
            "failures": {"status_503": 3},
        },
    ],
    "instances": {"boot": 1, "active": 2},
    "pools": [
        pool("sdxl", wall=24_660, boot=180, idle=9360, active=15_120, load=720, sold=15_100, ratio=0.6123),
        pool("\x1b[2Jllama", wall=90, boot=30, idle=59.75, teardown=0.25, sold=0, ratio=0.0),
    ],
    "reader_lag_s": 0.0,
    "problems": ["the disk of /var/lib/taximeter is 97 % full: expected room for a day of records"],
}


@pytest.fixture
def short(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same state directory under a name as short as a node's, however long that of the tests is: nothing wraps."""
    monkeypatch.chdir(state.parent)
    monkeypatch.setenv("TAXIMETER_STATE_DIR", state.name)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_living_node_reads_as_it_was_drawn(short: None, columns: int) -> None:
    with agent.living({"/v1/status": READY}):
        answer = taximeter("status", columns=columns)
    assert (answer.code, answer.err) == (0, "")
    assert agrees(answer.out, f"status-ready-{columns}.txt")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_node_without_an_agent_reads_as_it_was_drawn(booked: Path, short: None, columns: int) -> None:
    answer = taximeter("status", columns=columns)
    assert (answer.code, answer.err) == (1, "")
    assert agrees(answer.out, f"status-no-agent-{columns}.txt")


def test_an_agent_that_lives_and_does_not_answer_is_not_said_to_be_absent(booked: Path) -> None:
    with agent.living({"/v1/status": (500, b"{}")}):
        answer = taximeter("status")
    assert (answer.code, answer.lines[0].endswith("no answer")) == (1, True)
    assert f" agent       does not answer (pid {os.getpid()}): see below" in answer.lines
    assert "start one" not in answer.out
    assert f"kill -CONT {os.getpid()}" in " ".join(answer.out.split())


def test_programs_are_told_of_an_agent_that_does_not_answer_too(booked: Path) -> None:
    with agent.living({"/v1/status": (500, b"{}")}):
        answer = json.loads(taximeter("status", "--json").out)
    assert (answer["agent"], answer["silent_pid"]) == (None, os.getpid())
    assert answer["problems"][0].startswith(f"the agent (pid {os.getpid()}) does not answer: ")


def test_an_agent_that_is_not_ready_makes_the_exit_status_1(state: Path) -> None:
    with agent.living({"/v1/status": {**READY, "ready": False}}):
        answer = taximeter("status")
    assert answer.code == 1
    assert answer.lines[0].endswith("not ready")


def test_of_many_pools_the_largest_are_shown(state: Path) -> None:
    many = [pool(f"pool-{at}", wall=90 - at, idle=90 - at, sold=0, ratio=0) for at in range(MOST_POOLS + 3)]
    with agent.living({"/v1/status": {**READY, "pools": many}}):
        out = taximeter("status").out
    assert re.findall(r"pool-\d+(?=: )", out) == [f"pool-{at}" for at in range(MOST_POOLS)]
    assert "and 3 more: see --json" in out


def test_an_agent_that_tells_of_no_pools_is_shown_all_the_same(state: Path) -> None:
    older = {key: value for key, value in READY.items() if key != "pools"}
    with agent.living({"/v1/status": older}):
        answer = taximeter("status")
    assert (answer.code, "pools" in answer.out) == (0, False)


def test_the_glance_is_also_json(state: Path) -> None:
    with agent.living({"/v1/status": READY}):
        assert json.loads(taximeter("status", "--json").out) == READY


def test_json_commands_no_terminal(state: Path) -> None:
    with agent.living({"/v1/status": {**READY, "problems": ["\x1b[2J\x9b2J\x7f\u202e", "größe"]}}):
        printed = taximeter("status", "--json").out
    assert all(char.isprintable() or char == "\n" for char in printed)
    assert json.loads(printed)["problems"] == ["\x1b[2J\x9b2J\x7f\u202e", "größe"]
    assert "größe" in printed
