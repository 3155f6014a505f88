"""Another version of the agent takes over a node with a full queue and a run under way; or refuses and touches nothing.

What an older one kept has no checksums, and what a younger one wrote has a higher schema version: both are made of what
this one wrote.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from taximeter.ledger.marked import unmarked
from taximeter.ledger.migration import SCHEMA_VERSION
from tests.ledger.test_migration import _FIRST as SCHEMA_1
from tests.shipping.receiver import Receiver, say
from tests.shipping.threads import receiving
from tests.system.agents import Node, wait_until
from tests.system.faults import check_bill, check_ledger, finals, gate

BUSY = 'taximeter_outbox_pending{sink="billing"}'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path, receiver: Receiver) -> Node:
    sink = f'[[sinks]]\nname = "billing"\ntype = "http"\nurl = "{receiver.url}"\n'
    return Node(taximeter_program, tmp_path / "node", f"[hardware]\nnvml = false\n{sink}")


def changed(node: Node, sql: str, rows: list[tuple[object, ...]]) -> None:
    with contextlib.closing(sqlite3.connect(node.state / "ledger.db")) as connection, connection:
        connection.executemany(sql, rows)


def as_an_older_one_kept_it(node: Node) -> None:
    with contextlib.closing(sqlite3.connect(node.state / "ledger.db")) as connection:
        rows = connection.execute("SELECT state, instance FROM journals").fetchall()
    assert rows
    changed(node, "UPDATE journals SET state = ? WHERE instance = ?", [(unmarked(state), name) for state, name in rows])


def set_version(node: Node, version: int) -> None:
    with contextlib.closing(sqlite3.connect(node.state / "ledger.db")) as connection:
        connection.execute(f"PRAGMA user_version = {version}")


def check_received(node: Node, receiver: Receiver) -> None:
    """The receiver has what the ledger has, each record once."""
    wait_until(lambda: len(receiver.held) == len(node.records()), "all records at the receiver")
    assert {key[1] for key in receiver.held} == {record["id"] for record in node.records()}
    check_ledger(node)


def test_a_full_queue_and_a_run_under_way_outlive_an_upgrade_and_a_downgrade_that_is_refused(
    node: Node, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.script = [say(503)] * 100
    with gate(tmp_path / "gate") as opened, node.spawn("--prediction", "long", "--", *opened.command("long")) as run:
        with node.agent() as agent:
            opened.hold("long")
            for name in ("a", "b", "c"):
                node.run("--prediction", name, "--", "true")
            wait_until(lambda: len(finals(node)) == 3, "three runs")
            wait_until(lambda: agent.metric('taximeter_instances{phase="active"}') == 1, "the one that lives")
            assert agent.metric(BUSY) == len(node.records())
            agent.process.kill()
        as_an_older_one_kept_it(node)
        set_version(node, SCHEMA_VERSION + 1)
        before = (node.state / "ledger.db").read_bytes()
        with node.agent(ready=False) as refused:
            assert refused.process.wait(20) == 1
            assert f"got {SCHEMA_VERSION + 1}; use the Taximeter that wrote it" in refused.log.read_text()
        assert (node.state / "ledger.db").read_bytes() == before
        set_version(node, SCHEMA_VERSION)
        receiver.script = []
        with node.agent() as agent:
            truth = opened.open()["long"]
            assert run.wait(20) == 7
            wait_until(lambda: len(finals(node)) == 4, "the one that lived")
            check_received(node, receiver)
            assert "damaged" not in agent.log.read_text()
            assert agent.stop() == 0
    check_bill(finals(node)["long"], truth, 0)
    assert receiver.accepted == len(receiver.held)


def test_the_queue_of_a_ledger_of_the_first_schema_is_shipped(node: Node, receiver: Receiver) -> None:
    node.state.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(node.state / "ledger.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.executescript(SCHEMA_1)
    had = node.records()
    with node.agent() as agent:
        node.run("--prediction", "next", "--", "true")
        wait_until(lambda: "next" in finals(node), "a run after it")
        wait_until(lambda: agent.metric(BUSY) == 0, "everything to be shipped")
        assert agent.stop() == 0
    assert node.records()[: len(had)] == had
    assert {key[1] for key in receiver.held} == {record["id"] for record in node.records()[4:]}  # it had four
    check_ledger(node)
