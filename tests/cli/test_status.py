"""`taximeter status`: the node at a glance, with an agent and without."""

import json
import os
from pathlib import Path

import pytest

from tests.cli import agent
from tests.cli.node import taximeter
from tests.cli.test_receipt import agrees

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


def test_the_glance_is_also_json(state: Path) -> None:
    with agent.living({"/v1/status": READY}):
        assert json.loads(taximeter("status", "--json").out) == READY


def test_json_commands_no_terminal(state: Path) -> None:
    with agent.living({"/v1/status": {**READY, "problems": ["\x1b[2J\x9b2J\x7f\u202e", "größe"]}}):
        printed = taximeter("status", "--json").out
    assert all(char.isprintable() or char == "\n" for char in printed)
    assert json.loads(printed)["problems"] == ["\x1b[2J\x9b2J\x7f\u202e", "größe"]
    assert "größe" in printed
