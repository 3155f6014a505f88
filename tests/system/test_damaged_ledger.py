"""A ledger whose disk failed: the agent starts all the same, and every run is billed once, whoever had its records."""

import contextlib
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from taximeter.records import RecordType
from tests.ledger.test_rebuild import flip, hurt_record, root_page, wipe
from tests.system.agents import Node, wait_until
from tests.system.faults import check_ledger
from tests.system.test_agent import WORKER

pytestmark = [pytest.mark.system, pytest.mark.forged]

QUIET = "[hardware]\nnvml = false\n"


def wipe_an_index(ledger: Path) -> None:
    wipe(ledger, root_page(ledger, "lookups_account"))


def wipe_what_is_open(ledger: Path) -> None:
    wipe(ledger, root_page(ledger, "lookups"))


def hurt_the_header(ledger: Path) -> None:
    flip(ledger, 3)


def hurt_the_newest(ledger: Path) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as connection:
        (newest,) = connection.execute("SELECT max(seq) FROM records").fetchone()
    hurt_record(ledger, newest)


def taken(node: Node) -> list[dict[str, Any]]:
    """What the sink has."""
    path = node.state / "usage.ndjson"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def finals_taken(node: Node) -> Counter[str]:
    return Counter(
        one["data"]["prediction"]
        for one in taken(node)
        if one["type"] == RecordType.PREDICTION and one["data"]["final"]
    )


def has_finals(node: Node, count: int) -> bool:
    return finals_taken(node).total() >= count


def wipe_the_first_page(ledger: Path) -> None:
    wipe(ledger, 0)


def wipe_how_far_sinks_are(ledger: Path) -> None:
    wipe(ledger, root_page(ledger, "sinks"))


def wipe_all(ledger: Path) -> None:
    """What a disk does that gives back zeros: nothing of it can be read, and its layout is of no use."""
    ledger.write_bytes(bytes(ledger.stat().st_size))


def lose(ledger: Path) -> None:
    """As the documentation says where an older copy was put back."""
    for path in ledger.parent.glob(f"{ledger.name}*"):
        path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        hurt_the_header,
        wipe_the_first_page,
        wipe_an_index,
        wipe_what_is_open,
        wipe_how_far_sinks_are,
        hurt_the_newest,
        wipe_all,
        lose,
    ],
)
def test_every_run_is_billed_once_through_a_damaged_ledger(
    taximeter_program: str, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    node = Node(taximeter_program, tmp_path / "node", config=QUIET)
    with node.spawn("--worker", "--", sys.executable, "-c", WORKER, stdin=subprocess.PIPE) as worker:
        assert worker.stdin is not None

        def predict(count: int) -> None:
            assert worker.stdin is not None
            worker.stdin.write("\n" * count)
            worker.stdin.flush()

        with node.agent() as agent:
            predict(5)
            node.run("--prediction", "one", "--account", "cus_1", "--", "true")
            wait_until(partial(has_finals, node, 6), "them at the sink")
            assert agent.stop() == 0
        predict(5)
        node.run("--prediction", "two", "--account", "cus_1", "--", "true")
        damage(node.state / "ledger.db")
        with node.agent() as agent:
            predict(5)
            node.run("--prediction", "three", "--account", "cus_1", "--", "true")
            worker.stdin.close()
            assert worker.wait(20) == 0
            wait_until(partial(has_finals, node, 18), "all of it at the sink")
            status = node.taximeter("status").stdout
            assert agent.metric("taximeter_ledgers_set_aside") == (damage is not lose)
        assert ("ledger.damaged" in agent.log.read_text()) == (damage is not lose)
    assert ("was damaged and is kept as ledger-damaged-" in " ".join(status.split())) == (damage is not lose)
    names = [*(f"p{number}" for number in range(15)), "one", "two", "three"]
    assert finals_taken(node) == Counter(names)
    assert len({one["id"] for one in taken(node)}) == len(taken(node))
    check_ledger(node)


def test_the_new_ledger_names_the_head_of_the_damaged_one(taximeter_program: str, tmp_path: Path) -> None:
    node = Node(taximeter_program, tmp_path / "node", config=QUIET)
    with node.agent() as agent:
        node.run("--prediction", "one", "--", "true")
        wait_until(partial(has_finals, node, 1), "it at the sink")
        assert agent.stop() == 0
    old = node.records()
    wipe_an_index(node.state / "ledger.db")
    with node.agent():
        begun = [one["data"] for one in node.records(RecordType.FACT) if one["data"]["fact"] == "ledger_begun"]
    (said,) = begun
    assert said["content"]["previous"]["ledger"] == old[0]["data"]["ledger"]["id"]
    assert said["content"]["previous"]["size"] == len(old)
    with node.agent():  # and goes on with it
        assert node.taximeter("verify").returncode == 0


def test_an_agent_starts_on_a_ledger_of_which_nothing_is_left(taximeter_program: str, tmp_path: Path) -> None:
    node = Node(taximeter_program, tmp_path / "node", config=QUIET + "[ledger]\ncheckpoint_s = 1\n")
    with node.agent() as agent:
        node.run("--prediction", "one", "--", "true")
        wait_until(lambda: node.records(RecordType.CHECKPOINT), "a seal")
        wait_until(lambda: not list(node.journal.glob("*.ndjson")), "its journal to go")
        assert agent.stop() == 0
    sealed = json.loads((node.state / "checkpoint").read_text())
    wipe_all(node.state / "ledger.db")
    with node.agent():
        node.run("--prediction", "two", "--", "true")
        wait_until(partial(has_finals, node, 2), "both at the sink")
        (said,) = [one["data"] for one in node.records(RecordType.FACT) if one["data"]["fact"] == "ledger_begun"]
    assert said["content"]["previous"] == {key: sealed[key] for key in ("ledger", "size", "head")}
    assert finals_taken(node) == Counter({"one": 1, "two": 1})
    check_ledger(node)
