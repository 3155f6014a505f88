"""`taximeter verify` of a ledger that is worth several processes: what it says, and what becomes of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.node import taximeter
from tests.ledger.samples import opened, run_batch

pytestmark = pytest.mark.forged


@pytest.fixture
def many(state: Path) -> None:
    """A ledger of 24,200 records."""
    state.mkdir(exist_ok=True)
    with contextlib.closing(opened(state)) as ledger:
        for begin in range(0, 12_100, 1_100):
            ledger.commit(run_batch(*range(begin, begin + 1_100)))


def begun(parent: int) -> list[int]:
    """Its children that are programs of their own: one that is stopped before stops who waits for it to become one."""
    pids = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
    return [pid for pid in pids if b"taximeter.ledger.crew" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@contextlib.contextmanager
def verifying() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """An audit whose processes were stopped as they began, and their pids."""
    words = [sys.executable, "-m", "taximeter.cli", "verify", "--jobs", "2"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        pids: list[int] = []
        while len(pids) < 2:
            pids += [pid for pid in begun(process.pid) if pid not in pids]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield process, pids
        finally:
            process.kill()


def wait_until_gone(pids: list[int]) -> None:
    """Let them go on, if they were not ended as they are."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    deadline_s = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.mark.parametrize("jobs", [[], ["--jobs", "1"], ["--jobs", "2"]], ids=" ".join)
def test_a_sound_ledger_is_sound_by_however_many_processes(many: None, jobs: list[str]) -> None:
    answer = taximeter("verify", "--json", *jobs)
    assert (answer.code, answer.err) == (0, "")
    report = json.loads(answer.out)
    assert (report["ok"], report["records"]) == (True, 24_200)


def test_a_process_that_is_killed_is_an_error_and_no_pass(many: None) -> None:
    with verifying() as (process, pids):
        os.kill(pids[1], signal.SIGKILL)
        os.kill(pids[0], signal.SIGCONT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert f"expected process {pids[1]} to go on, it ended with status -9; try --jobs 1" in err


def test_an_interrupt_ends_all_of_them(many: None) -> None:
    with verifying() as (process, pids):
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode != 0, out) == (True, "")
    wait_until_gone(pids)  # one that was just being started is not known yet: it ends as nobody reads it


def test_none_of_them_goes_on_where_the_audit_itself_was_killed(many: None) -> None:
    with verifying() as (process, pids):
        process.kill()
        process.wait(60)
    wait_until_gone(pids)


def test_no_processes_are_no_number_of_them(state: Path) -> None:
    assert taximeter("verify", "--jobs", "0").code == 2
