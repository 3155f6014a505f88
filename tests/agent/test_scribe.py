"""The scribe: what is read while the disk is waited for, and that nothing is lost or written twice for it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from taximeter.agent.desk import Desk
from taximeter.agent.scribe import Scribe
from taximeter.errors import LedgerError
from tests.agent.desks import Node, start, write
from tests.journal_samples import INSTANCE, OTHER, sample_lines

PATIENCE_S = 20


class SlowDisk:
    """A ledger's disk that answers when it is told to."""

    def __init__(self, node: Node) -> None:
        self._commit: Callable[..., Any] = node.ledger.commit
        self.answers = threading.Event()
        self.refuses = 0

    def commit(self, batch: object, written: Callable[[], object] = lambda: None) -> object:
        def left_to_the_disk() -> None:
            written()
            assert self.answers.wait(PATIENCE_S)
            if self.refuses:
                self.refuses -= 1
                raise LedgerError("cannot commit: disk full")

        return self._commit(batch, left_to_the_disk)


def two_runs(node: Node) -> None:
    write(node.journal, sample_lines())
    lines = [line.replace(INSTANCE.encode(), OTHER.encode()) for line in sample_lines()]
    write(node.path / f"{OTHER}.0.ndjson", lines)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = start(tmp_path / "node")
    two_runs(node)
    return node


@pytest.fixture
def disk(node: Node, monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    disk = SlowDisk(node)
    monkeypatch.setattr(node.ledger, "commit", disk.commit)
    return disk


@pytest.fixture
def scribe(node: Node) -> Scribe:
    return Scribe(node.books, Desk(node.ledger, node.books.tally))


@pytest.mark.anyio
async def test_more_is_read_while_the_disk_is_waited_for(node: Node, disk: SlowDisk, scribe: Scribe) -> None:
    with anyio.fail_after(PATIENCE_S):
        async with scribe.at_work():
            node.reading.read(INSTANCE)
            await scribe.begin()
            assert not node.books.closed
            node.reading.read(OTHER)
            disk.answers.set()
            await scribe.commit()
    assert [event["data"]["instance"] for event in node.usage()] == [INSTANCE, INSTANCE, OTHER, OTHER]
    assert node.books.closed.keys() == {INSTANCE, OTHER}


@pytest.mark.anyio
async def test_what_the_disk_refuses_is_written_before_what_was_read_since(
    node: Node, disk: SlowDisk, scribe: Scribe
) -> None:
    disk.refuses = 2
    disk.answers.set()
    with anyio.fail_after(PATIENCE_S):
        async with scribe.at_work():
            node.reading.read(INSTANCE)
            await scribe.begin()
            node.reading.read(OTHER)
            await scribe.begin()
            await scribe.commit()
    assert [event["data"]["instance"] for event in node.usage()] == [INSTANCE, INSTANCE, OTHER, OTHER]


@pytest.mark.anyio
async def test_a_stop_loses_neither_what_was_being_written_nor_what_was_read_since(
    node: Node, disk: SlowDisk, scribe: Scribe
) -> None:
    disk.refuses = 1
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks, scribe.at_work():
            node.reading.read(INSTANCE)
            await scribe.begin()
            node.reading.read(OTHER)
            tasks.cancel_scope.cancel()
            disk.answers.set()
        await scribe.commit()
        await scribe.commit()
    assert [event["data"]["instance"] for event in node.usage()] == [INSTANCE, INSTANCE, OTHER, OTHER]


@pytest.mark.anyio
async def test_without_somebody_at_work_a_commit_is_waited_for(node: Node, disk: SlowDisk, scribe: Scribe) -> None:
    disk.answers.set()
    node.reading.read(INSTANCE)
    await scribe.begin()
    assert len(node.usage()) == 2
