"""What goes from the journal directory of a living node, and when: older segments, and files that belong to nothing."""

import os
import time
from pathlib import Path

import pytest

from taximeter.agent.accounts import Closed
from taximeter.agent.desk import Desk
from taximeter.agent.scribe import Scribe
from taximeter.agent.sweeper import Sweeper
from taximeter.journal import remove_before, remove_orphans
from tests.agent.desks import SECOND, Node, start, write
from tests.journal_samples import INSTANCE, OTHER, clock, fact, held, open_line, options

HEARTBEAT = {"cpu_ns": 1, "rss_peak_bytes": 1}


def beats(first_s: int, last_s: int) -> list[bytes]:
    return [fact("heartbeat", s * SECOND, clock=clock(s * SECOND), usage=HEARTBEAT) for s in range(first_s, last_s + 1)]


def opening(segment: int) -> bytes:
    return open_line(INSTANCE, segment=segment, options=options(worker=True, prediction=None, units={}))


class Living:
    """A worker whose journal has gone on in a second segment."""

    def __init__(self, path: Path) -> None:
        self.node: Node = start(path / "node")
        self.node.ledger.register_sink("billing")
        self.desk = Desk(self.node.ledger, self.node.books.tally)
        self.scribe = Scribe(self.node.books, self.desk)
        self.sweeper = Sweeper(self.node.directory_fd, self.node.books, self.desk, self.scribe)
        spawn = fact("spawn", SECOND, before=SECOND - 5, pid=4712, start=987)
        write(self.node.journal, [opening(0), spawn, *beats(2, 10)])
        self.second = write(self.node.path / f"{INSTANCE}.1.ndjson", [opening(1), *beats(11, 20)])
        self.node.read()

    def goes_on(self, first_s: int, last_s: int) -> None:
        with self.second.open("ab") as journal:
            journal.write(b"".join(line + b"\n" for line in beats(first_s, last_s)))
        self.node.read()

    async def sweep(self) -> bool:
        """Whether the first segment is gone then."""
        await self.sweeper.sweep()
        return not self.node.journal.exists()

    def ship(self) -> None:
        self.desk.cursors["billing"] = self.node.ledger.head.seq
        self.desk.note_seal(self.node.ledger.head.seq)


@pytest.fixture
def living(tmp_path: Path) -> Living:
    return Living(tmp_path)


@pytest.mark.anyio
async def test_an_older_segment_goes_once_it_is_recorded_and_every_sink_has_that(living: Living) -> None:
    assert not await living.sweep()
    living.goes_on(21, 130)
    assert not await living.sweep()
    living.ship()
    assert await living.sweep()
    assert living.second.exists()


@pytest.mark.anyio
async def test_journals_that_could_go_wait_while_the_agent_is_busy(living: Living) -> None:
    living.node.books.closed[OTHER] = Closed(0, 0)
    spare = write(living.node.path / f"{OTHER}.0.ndjson", [])
    await living.sweeper.sweep(is_busy=True)
    assert spare.exists()
    await living.sweeper.sweep()
    assert not spare.exists()


@pytest.mark.anyio
async def test_of_many_that_go_at_once_nothing_is_left(living: Living) -> None:
    before = {path.name for path in living.node.path.iterdir()}
    for number in range(150):
        name = f"{number:08d}-0000-7000-8000-000000000000"
        living.node.books.closed[name] = Closed(1, 0)
        for left in ("0.ndjson", "1.ndjson", "marks"):
            (living.node.path / f"{name}.{left}").touch()
    await living.sweeper.sweep()
    assert {path.name for path in living.node.path.iterdir()} == before


@pytest.mark.anyio
async def test_an_older_segment_stays_while_its_time_is_in_no_record(living: Living) -> None:
    for _ in range(3):
        await living.scribe.commit()
        living.ship()
        assert not await living.sweep()


@pytest.mark.anyio
async def test_an_agent_goes_on_behind_segments_that_are_gone(living: Living) -> None:
    await living.sweep()
    living.goes_on(21, 130)
    await living.sweep()
    living.ship()
    assert await living.sweep()
    again = living.node.crash()
    with living.second.open("ab") as journal:
        lines = [
            *beats(131, 200),
            fact(
                "exit", 201 * SECOND, code=0, signal=None, core=False, clock=clock(201 * SECOND), usage=None, error=None
            ),
        ]
        journal.write(b"".join(line + b"\n" for line in lines))
    again.read()
    again.commit()
    told = [event["data"]["interval"] for event in again.usage()]
    assert [before["end_ns"] for before in told[:-1]] == [after["start_ns"] for after in told[1:]]
    assert told[-1]["end_ns"] == 201 * SECOND


def test_segments_go_the_oldest_first_so_that_the_rest_has_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for segment in range(2, 6):
        (tmp_path / f"{INSTANCE}.{segment}.ndjson").touch()
    gone: list[str] = []
    monkeypatch.setattr(os, "unlink", lambda name, **_: gone.append(name))
    fd = os.open(tmp_path, os.O_RDONLY)
    remove_before(fd, INSTANCE, 5)
    os.close(fd)
    assert gone == [f"{INSTANCE}.{segment}.ndjson" for segment in (2, 3, 4)]


# --- Files that belong to nothing ---


def swept(path: Path, known: frozenset[str] = frozenset(), later_s: float = 1) -> set[str]:
    """What is left in `path` for somebody who comes later."""
    fd = os.open(path, os.O_RDONLY)
    remove_orphans(fd, known, time.time() + later_s)
    os.close(fd)
    return {name.name for name in path.iterdir()}


def leave(path: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        if suffix == ".marks":
            os.mkfifo(path / f"{INSTANCE}{suffix}")
        else:
            (path / f"{INSTANCE}{suffix}").touch()


def test_what_lies_beside_no_journal_goes(tmp_path: Path) -> None:
    leave(tmp_path, ".marks", ".heard", ".0.ndjson", ".1.ndjson")
    assert swept(tmp_path) == {f"{INSTANCE}.marks", f"{INSTANCE}.heard"}
    assert swept(tmp_path) == set()


def test_what_is_younger_stays(tmp_path: Path) -> None:
    leave(tmp_path, ".marks", ".heard")
    assert len(swept(tmp_path, later_s=-60)) == 2


def test_what_the_books_know_stays(tmp_path: Path) -> None:
    leave(tmp_path, ".marks", ".heard", ".0.ndjson")
    assert len(swept(tmp_path, frozenset({INSTANCE}))) == 3


def test_a_fifo_that_somebody_reads_stays(tmp_path: Path) -> None:
    leave(tmp_path, ".marks")
    fd = os.open(tmp_path / f"{INSTANCE}.marks", os.O_RDWR)
    assert swept(tmp_path) == {f"{INSTANCE}.marks"}
    os.close(fd)
    assert swept(tmp_path) == set()


def test_a_journal_with_a_writer_or_a_byte_in_it_stays(tmp_path: Path) -> None:
    leave(tmp_path, ".0.ndjson")
    (tmp_path / f"{OTHER}.0.ndjson").write_text("x")
    with held(tmp_path / f"{INSTANCE}.0.ndjson"):
        assert len(swept(tmp_path)) == 2
    assert swept(tmp_path) == {f"{OTHER}.0.ndjson"}


def test_what_has_a_name_of_another_kind_or_is_of_another_kind_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.marks").touch()
    (tmp_path / f"{INSTANCE}.marks").touch()
    (tmp_path / f"{OTHER}.heard").symlink_to("/etc/passwd")
    assert len(swept(tmp_path)) == 3
