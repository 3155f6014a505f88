"""Faults, injected for real: what was acknowledged is there, what failed is there whole or not at all."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from taximeter.errors import LedgerError
from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.ledger.store import Batch, Ledger
from tests.ledger.samples import instance_id, opened, run_batch
from tests.require import lacking, require_program, require_root

pytestmark = pytest.mark.forged

COMMITTER = [sys.executable, str(Path(__file__).with_name("committer.py"))]
FOREVER = "1000000"


def booked(path: Path) -> int:
    """How many one-shots an audited ledger holds."""
    with LedgerReader(path) as reader:
        report = audit(reader)
    assert report.faults == ()
    assert report.records % 2 == 0
    return report.records // 2


def traced(strace: str, call: str, effect: str) -> list[str]:
    """What to put before a command so that its system calls `call` have an effect."""
    return [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{effect}"]


@pytest.mark.system
def test_whatever_was_acknowledged_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    path, chance = tmp_path / "ledger.db", random.Random(7)
    committed = 0
    for _ in range(8):
        command = [*COMMITTER, str(path), str(committed), FOREVER]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 60)):
                process.stdout.readline()
            process.kill()
            acknowledged = committed + process.stdout.read().count("\n")
        before, committed = committed, booked(path)
        assert committed >= acknowledged
        assert committed > before or acknowledged == before


@pytest.mark.system
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_kill_at_any_write_or_sync_of_a_commit_leaves_it_whole_or_absent(tmp_path: Path, call: str) -> None:
    strace = require_program("strace")
    path = tmp_path / "ledger.db"
    committed = 0
    for when in range(1, 31, 2):
        inject = traced(strace, call, f"signal=KILL:when={when}")
        command = [*inject, *COMMITTER, str(path), str(committed), "20"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        acknowledged = committed + sum(word.isdigit() for word in said)
        if path.stat().st_size == 0 and not path.with_name("ledger.db-wal").exists():
            continue  # killed before the file became a ledger
        opened(tmp_path).close()
        committed = booked(path)
        assert acknowledged <= committed <= acknowledged + 1


@pytest.mark.system
@pytest.mark.parametrize(("call", "error"), [("fdatasync", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "EIO")])
def test_a_commit_that_fails_is_stored_once_when_it_is_tried_again(tmp_path: Path, call: str, error: str) -> None:
    strace = require_program("strace")
    path = tmp_path / "ledger.db"
    opened(tmp_path).close()
    inject = traced(strace, call, f"error={error}:when=9+61")
    done = subprocess.run([*inject, *COMMITTER, str(path), "0", "20"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "failed cannot commit to ledger" in done.stdout
    assert booked(path) == 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    require_root()
    mount, umount = require_program("mount"), require_program("umount")
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False)
    if done.returncode:
        lacking(f"needs leave to mount a tmpfs: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run([umount, "-l", str(disk)], check=True)


@pytest.mark.system
def test_a_full_disk_stops_commits_and_loses_nothing_and_room_heals_it(small_disk: Path) -> None:
    path = small_disk / "ledger.db"
    ledger = opened(small_disk)
    number = fill(ledger)
    head = ledger.head
    with pytest.raises(LedgerError, match=r"cannot (commit to|open) ledger .*(full|I/O)"):
        ledger.commit(run_batch(number))
    assert ledger.head == head
    assert booked(path) == number
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert ledger.commit(run_batch(number)).seq == head.seq + 2
    ledger.close()
    assert booked(path) == number + 1


def fill(ledger: Ledger) -> int:
    """Commit until the disk is full; the number of the first one-shot that did not fit."""
    for number in range(5_000):
        try:
            ledger.commit(run_batch(number))
        except LedgerError:
            return number
    raise AssertionError("the disk never filled up")


def test_a_commit_that_landed_although_it_was_reported_as_failed_is_not_stored_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(tmp_path)
    write = Ledger._write

    def lying(self: Ledger, *given: object) -> None:
        write(self, *given)  # type: ignore[arg-type]
        raise apsw.IOError("the disk lied")

    monkeypatch.setattr(Ledger, "_write", lying)
    with pytest.raises(LedgerError, match="the disk lied"):
        ledger.commit(run_batch(1))
    monkeypatch.undo()
    assert ledger.commit(run_batch(1)).seq == 2
    assert ledger.commit(run_batch(2)).seq == 4
    ledger.close()
    assert booked(tmp_path / "ledger.db") == 2


def test_what_is_committed_between_a_failure_and_its_retry_does_not_hide_that_it_landed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(tmp_path)
    write = Ledger._write

    def lying(self: Ledger, *given: object) -> None:
        write(self, *given)  # type: ignore[arg-type]
        raise apsw.IOError("the disk lied")

    monkeypatch.setattr(Ledger, "_write", lying)
    for batch in (run_batch(1), Batch((), ())):
        with pytest.raises(LedgerError, match="the disk lied"):
            ledger.commit(batch)
    monkeypatch.undo()
    ledger.commit(Batch((), ()))
    ledger.commit(run_batch(2))
    assert ledger.commit(run_batch(1)).seq == 4
    ledger.close()
    assert booked(tmp_path / "ledger.db") == 2


def test_readers_see_whole_commits_only_while_the_ledger_is_written(tmp_path: Path) -> None:
    ledger, path = opened(tmp_path), tmp_path / "ledger.db"
    counts: list[int] = []
    written = threading.Event()

    def read() -> None:
        while not written.is_set():
            counts.append(booked(path))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        ledger.commit(run_batch(2 * number, 2 * number + 1))
    written.set()
    reader.join()
    ledger.close()
    assert counts == sorted(counts)
    assert all(count % 2 == 0 for count in counts)
    assert booked(path) == 120


def test_a_reader_that_pauses_between_two_records_does_not_hold_up_the_writer(tmp_path: Path) -> None:
    ledger, path = opened(tmp_path), tmp_path / "ledger.db"
    ledger.commit(run_batch(*range(600)))
    with LedgerReader(path) as reader:
        bodies = reader.records(RecordFilter())
        next(bodies)
        other = apsw.Connection(str(path))
        assert other.pragma("journal_mode") == "wal"
        left_in_log, _ = other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        other.close()
        ledger.commit(run_batch(600))
        assert left_in_log == 0
        assert sum(1 for _ in bodies) == 1_201
    ledger.close()


def test_a_journal_that_was_closed_in_a_failed_commit_is_still_open(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.commit(run_batch(1))
    with pytest.raises(LedgerError):
        ledger.commit(run_batch(2, 1))
    assert ledger.closed_at([instance_id(2)]) == {}
    ledger.close()
