"""The watcher's rhythm: what wakes it, and that nothing depends on being woken."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from taximeter import kernel
from taximeter.agent import reading
from taximeter.agent.custody import Custody
from taximeter.agent.desk import Desk
from taximeter.agent.eyewitness import Eyewitness
from taximeter.agent.watcher import Watcher
from taximeter.config import load
from taximeter.errors import JournalFault, LedgerError, TaximeterError
from tests.agent.desks import Node, start, write
from tests.journal_samples import INSTANCE, OTHER, held, mark_line, sample_lines

PATIENCE_S = 20


async def until(happened: object, what: str) -> None:
    assert callable(happened)
    with anyio.move_on_after(PATIENCE_S):
        while not happened():  # noqa: ASYNC110 -- it is told by files and tables, not by an event
            await anyio.sleep(0.005)
        return
    pytest.fail(f"waited in vain for {what}")


@asynccontextmanager
async def watching(node: Node) -> AsyncIterator[Watcher]:
    """A watcher on `node`, polling often."""
    config_file = node.path / "agent.toml"
    config_file.write_text("[journal]\npoll_s = 0.05\n")
    desk = Desk(node.ledger, node.books.tally)
    directory_fd = node.directory_fd
    custody = Custody(directory_fd, None, node.telling, Eyewitness(directory_fd, None))
    watcher = Watcher(node.path, directory_fd, node.reading, desk, load(config_file, {}), custody)
    async with anyio.create_task_group() as tasks:
        await tasks.start(watcher.run)
        yield watcher
        tasks.cancel_scope.cancel()
    custody.close()


@pytest.mark.anyio
async def test_what_was_there_is_booked_before_it_is_ready(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    write(node.journal, sample_lines())
    async with watching(node):
        assert len(node.usage()) == 2


@pytest.mark.anyio
async def test_a_journal_that_grows_wakes_it(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    async with watching(node):
        write(node.journal, sample_lines())
        await until(lambda: len(node.usage()) == 2, "the records")


@pytest.mark.anyio
async def test_without_the_kernels_notes_it_polls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(directory: Path) -> None:
        raise TaximeterError("cannot watch: no notes left")

    monkeypatch.setattr(kernel, "DirectoryWatch", refuse)
    node = start(tmp_path / "node")
    lines = sample_lines()
    async with watching(node):
        write(node.journal, lines[:3])
        with held(node.journal):
            await until(lambda: INSTANCE in node.books.accounts, "the new journal")
            with node.journal.open("ab") as journal:
                journal.write(b"".join(line + b"\n" for line in lines[3:]))
            await until(lambda: len(node.usage()) == 2, "the records")


@pytest.mark.anyio
async def test_a_journal_that_could_not_be_opened_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    real = reading.read_on

    def first_time_fails(*told: object, **more: object) -> object:
        tried.append(str(told[1]))
        if len(tried) == 1:
            raise JournalFault("unreadable", "cannot open: too many open files")
        return real(*told, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "read_on", first_time_fails)
    node = start(tmp_path / "node")
    write(node.journal, sample_lines())
    async with watching(node):
        await until(lambda: len(node.usage()) == 2, "the second try")


@pytest.mark.anyio
async def test_an_instance_whose_wrapper_lives_is_left_open(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    write(node.journal, sample_lines()[:3])
    write(
        node.path / f"{OTHER}.0.ndjson",
        [line.replace(INSTANCE.encode(), OTHER.encode()) for line in sample_lines()[:3]],
    )
    with held(node.journal):
        async with watching(node):
            await until(lambda: OTHER not in node.books.accounts, "the end of the one without a wrapper")
            assert INSTANCE in node.books.accounts


@pytest.mark.anyio
async def test_who_has_written_much_and_let_go_of_it_keeps_nobody_waiting(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    much = [mark_line(3_000_000_000, {"mark": "units", "prediction": "x", "units": {}})] * 150_000
    other = [line.replace(INSTANCE.encode(), OTHER.encode()) for line in sample_lines()]
    async with watching(node):
        write(node.journal, [*sample_lines()[:2], *much])
        await until(lambda: INSTANCE in node.books.accounts, "the first of it")
        write(node.path / f"{OTHER}.0.ndjson", other)
        await until(lambda: len(node.usage()) == 2, "the other's records")
        assert INSTANCE in node.books.accounts
        await until(lambda: INSTANCE not in node.books.accounts, "its own end")


@pytest.mark.anyio
async def test_a_journal_goes_once_every_sink_has_its_records_and_a_seal_of_them(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    node.ledger.register_sink("billing")
    write(node.journal, sample_lines())
    async with watching(node) as watcher:
        await watcher.sweep()
        assert node.journal.exists()
        watcher._desk.cursors["billing"] = node.ledger.head.seq
        await watcher.sweep()
        assert node.journal.exists()
        watcher._desk.note_seal(node.ledger.head.seq)
        await watcher.sweep()
        assert not node.journal.exists()
        assert not node.books.closed


@pytest.mark.anyio
async def test_all_that_is_due_goes_at_once_and_what_an_earlier_agent_closed_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taximeter.agent.sweeper._SWEPT_AT_ONCE", 1)
    node = start(tmp_path / "node")
    node.ledger.register_sink("billing")
    write(node.journal, sample_lines())
    write(node.path / f"{OTHER}.0.ndjson", [line.replace(INSTANCE.encode(), OTHER.encode()) for line in sample_lines()])
    async with watching(node):
        pass
    node = node.crash()
    async with watching(node) as watcher:
        watcher._desk.cursors["billing"] = node.ledger.head.seq
        watcher._desk.note_seal(node.ledger.head.seq)
        await watcher.sweep()
        assert not list(node.path.glob("*.ndjson"))


@pytest.mark.anyio
async def test_a_file_that_cannot_be_removed_is_said_once_and_let_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise JournalFault("unremovable", "cannot remove it: read-only file system")

    monkeypatch.setattr("taximeter.agent.sweeper.remove", refuse)
    node = start(tmp_path / "node")
    write(node.journal, sample_lines())
    async with watching(node) as watcher:
        watcher._desk.note_seal(node.ledger.head.seq)
        await watcher.sweep()
        await watcher.sweep()
    assert caplog.text.count("journal.unremovable") == 1


@pytest.mark.anyio
async def test_a_commit_that_the_disk_refuses_is_tried_until_it_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start(tmp_path / "node")
    real = node.ledger.commit
    refusals = [LedgerError("cannot commit: disk full"), LedgerError("cannot commit: disk full")]

    def commit(batch: object, *written: object) -> object:
        if refusals:
            raise refusals.pop()
        return real(batch, *written)  # type: ignore[arg-type]

    monkeypatch.setattr(node.ledger, "commit", commit)
    write(node.journal, sample_lines())
    async with watching(node) as watcher:
        assert len(node.usage()) == 2
        assert watcher._desk.trouble is None
    assert node.books.tally.counters().commits.failures == 2


@pytest.mark.anyio
async def test_a_stop_while_the_disk_refuses_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = start(tmp_path / "node")
    real = node.ledger.commit
    refuse = True

    def commit(batch: object, *written: object) -> object:
        if refuse:
            raise LedgerError("cannot commit: disk full")
        return real(batch, *written)  # type: ignore[arg-type]

    monkeypatch.setattr(node.ledger, "commit", commit)
    write(node.journal, sample_lines())
    with anyio.move_on_after(0.3):
        async with watching(node):
            pytest.fail("it cannot be ready")
    refuse = False
    last = node.books.take_batch()
    assert last is not None
    node.ledger.commit(last)
    assert len(node.usage()) == 2


@pytest.mark.anyio
async def test_a_directory_that_is_replaced_is_followed(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    async with watching(node):
        node.path.rename(tmp_path / "elsewhere")
        node.path.mkdir()
        write(node.journal, sample_lines())
        await until(lambda: node.books.closed, "the journal in the new directory")


@pytest.mark.anyio
async def test_a_directory_that_is_gone_for_a_while_is_said_and_waited_for(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    async with watching(node) as watcher:
        node.path.rename(tmp_path / "elsewhere")
        await until(lambda: watcher.trouble is not None, "the trouble")
        (tmp_path / "elsewhere").rename(node.path)
        await until(lambda: watcher.trouble is None, "its end")


@pytest.mark.anyio
async def test_a_linked_journal_whose_wrapper_is_gone_is_closed(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    with held(write(node.journal, sample_lines()[:3])):
        async with watching(node):
            (tmp_path / "second name").hardlink_to(node.journal)
            assert INSTANCE in node.books.accounts
    async with watching(node):
        await until(lambda: len(node.usage()) == 2, "an honest end")


@pytest.mark.anyio
async def test_a_journal_that_begins_nothing_is_set_aside_until_it_changes(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    write(node.journal, sample_lines()[1:3])
    async with watching(node):
        await until(lambda: INSTANCE in node.books.aside, "the end of looking at it")
        assert not node.books.accounts
        node.journal.unlink()
        write(node.journal, sample_lines())
        await until(lambda: len(node.usage()) == 2, "what it became")


@pytest.mark.anyio
async def test_who_has_ended_while_more_of_it_was_to_be_read_keeps_nobody_awake(tmp_path: Path) -> None:
    node = start(tmp_path / "node")
    write(node.journal, sample_lines())
    async with watching(node) as watcher:
        await until(lambda: INSTANCE in node.books.closed, "the end")
        watcher._rest.add(INSTANCE)  # as the listing beside the reading, or whoever let go of it, may have it
        await until(lambda: not watcher._rest, "an empty list of what is to be read")
