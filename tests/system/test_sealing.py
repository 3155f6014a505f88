"""Sealing, for real: checkpoints are signed and shipped, a cut is found by them, an older ledger is refused."""

import contextlib
import json
import os
import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import jsonschema
import pytest

from taximeter.ledger.notes import parse_note
from taximeter.ledger.signing import is_signed
from taximeter.records import RecordType
from tests.conftest import ROOT
from tests.system.agents import Node, wait_until
from tests.system.rides import PROGRAM

pytestmark = [pytest.mark.system, pytest.mark.forged]  # ledgers are cut on purpose

SEALED = "[hardware]\nnvml = false\n[ledger]\ncheckpoint_records = 1000000\ncheckpoint_s = 1\n"
SCHEMA = json.loads((ROOT / "agent" / "taximeter" / "schema" / "usage-record.v1.json").read_text())


def node_of(tmp_path: Path) -> Node:
    return Node(PROGRAM, tmp_path / "node", config=SEALED)


def checkpoints(node: Node) -> list[dict[str, Any]]:
    return [record["data"] for record in node.records(RecordType.CHECKPOINT)]


def sealed(node: Node, count: int = 1) -> dict[str, Any]:
    """The newest checkpoint, once there are so many."""
    wait_until(lambda: len(checkpoints(node)) >= count, "a checkpoint")
    return checkpoints(node)[-1]


def ridden(node: Node, name: str) -> None:
    assert node.run("--prediction", name, "--", "true").returncode == 0
    wait_until(lambda: [one for one in node.predictions() if one["data"]["prediction"] == name], name)


def copied(node: Node, where: Path) -> Path:
    """The ledger as it is on the disk now."""
    where.mkdir()
    for path in node.state.glob("ledger.db*"):
        shutil.copy(path, where / path.name)
    return where


def put_back(node: Node, where: Path) -> None:
    for path in node.state.glob("ledger.db*"):
        path.unlink()
    for path in where.iterdir():
        shutil.copy(path, node.state / path.name)


def said_by_an_agent_that_will_not_start(node: Node) -> str:
    with node.agent(ready=False) as agent:
        assert agent.process.wait(20) == 1
        return agent.log.read_text().splitlines()[-1]


def test_a_ledger_is_sealed_and_the_seal_is_shipped(tmp_path: Path) -> None:
    node = node_of(tmp_path)
    with node.agent():
        ridden(node, "p1")
        seal = sealed(node)
        shipped = wait_until(
            lambda: [one for one in lines(node) if one["type"] == RecordType.CHECKPOINT], "it at the sink"
        )
        quiet = len(checkpoints(node))
        status = json.loads(node.taximeter("status", "--json").stdout)
    jsonschema.validate(shipped[0], SCHEMA)
    assert is_signed(parse_note(seal["note"]), seal["key"])
    assert status["problems"] == []
    assert quiet == 1  # nothing came since, so there is nothing to seal
    assert (node.state / "seal.key").stat().st_mode & 0o777 == 0o600
    audit = node.taximeter("verify", "--key", seal["key"])
    assert (audit.returncode, "checkpoints" in audit.stdout) == (0, True)
    assert node.taximeter("verify", "--key", "c29tZSBvdGhlciBrZXk=").returncode == 1


def lines(node: Node) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (node.state / "usage.ndjson").read_bytes().splitlines()]


def test_a_ledger_that_was_cut_is_found_by_a_checkpoint_that_was_kept(tmp_path: Path) -> None:
    node = node_of(tmp_path)
    with node.agent():
        ridden(node, "p1")
        kept = tmp_path / "kept"
        kept.write_text(sealed(node)["note"])
    shutil.copy(node.state / "checkpoint", tmp_path / "memory")
    assert node.taximeter("verify", "--checkpoint", str(kept)).returncode == 0
    connection = apsw.Connection(str(node.state / "ledger.db"))
    head = connection.execute("SELECT max(seq) FROM records").fetchall()[0][0]
    for table in ("records", "lookups"):
        connection.execute(f"DELETE FROM {table} WHERE seq > ?", (head - 4,))
    connection.close()
    for held in (kept, tmp_path / "memory"):
        audit = node.taximeter("verify", "--checkpoint", str(held))
        assert audit.returncode == 1
        assert "the ledger was cut, or an older copy put back" in " ".join(audit.stdout.split())


def test_an_older_ledger_is_refused_and_moved_away_it_makes_room_for_one_that_names_it(tmp_path: Path) -> None:
    node = node_of(tmp_path)
    with node.agent():
        ridden(node, "p1")
        sealed(node)
    older = copied(node, tmp_path / "older")
    with node.agent():
        ridden(node, "p2")
        last = sealed(node, 2)
    put_back(node, older)
    assert "were sealed: expected the ledger itself, and not an older copy" in said_by_an_agent_that_will_not_start(
        node
    )
    for path in node.state.glob("ledger.db*"):
        path.unlink()
    with node.agent():
        ridden(node, "p3")
        begun = [one["data"] for one in node.records(RecordType.FACT) if one["data"]["fact"] == "ledger_begun"]
        assert sealed(node)["note"].split("\n")[0].endswith(begun[0]["content"]["ledger"])
    assert begun[0]["content"]["previous"] == {
        "ledger": parse_note(last["note"]).checkpoint.ledger_id,
        "size": last["size"],
        "head": last["head"],
    }
    assert node.taximeter("verify").returncode == 0


def has_more_than(node: Node, count: int) -> bool:
    return len(checkpoints(node)) > count


def test_killed_at_any_moment_around_a_seal_it_never_signs_two_things_and_goes_on(tmp_path: Path) -> None:
    node, dice = node_of(tmp_path), random.Random(7)
    notes: set[str] = set()
    for number in range(4):
        with node.agent() as agent:
            ridden(node, f"p{number}")
            at = dice.random() * 1.3
            with contextlib.suppress(AssertionError):
                wait_until(partial(has_more_than, node, number), "a checkpoint", at)
            agent.process.kill()
        if (node.state / "checkpoint").exists():
            notes.add(json.loads((node.state / "checkpoint").read_text())["note"])
    with node.agent():
        ridden(node, "last")
        wait_until(lambda: checkpoints(node) and checkpoints(node)[-1]["size"] > 12, "a checkpoint of the end")
    by_size: dict[int, set[bytes]] = {}
    for note in [*notes, *(seal["note"] for seal in checkpoints(node))]:
        checkpoint = parse_note(note).checkpoint
        by_size.setdefault(checkpoint.size, set()).add(checkpoint.head)
    assert all(len(heads) == 1 for heads in by_size.values())
    for at, note in enumerate(sorted(notes)):
        (tmp_path / f"note{at}").write_text(note)
        assert node.taximeter("verify", "--checkpoint", str(tmp_path / f"note{at}")).returncode == 0
    assert os.listdir(node.state).count(".checkpoint.new") == 0
