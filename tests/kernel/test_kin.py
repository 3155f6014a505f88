"""Who descends from whom, and what each process used; with real processes."""

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from taximeter import kernel
from tests.system.agents import wait_until


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A shell with a child of its own; its name holds what splits /proc/PID/stat."""
    with subprocess.Popen(["sh", "-c", "sleep 100 & wait"], start_new_session=True) as process:
        yield process
        os.killpg(process.pid, 9)


def grandchild(pid: int) -> int:
    (found,) = wait_until(lambda: kernel.descendants(kernel.everybody(), {pid}, set()) - {pid}, "the grandchild")
    return int(found)


def test_a_process_is_known_with_its_parent_and_start() -> None:
    found = kernel.look_at(os.getpid())
    assert found is not None
    assert (found.pid, found.parent, found.ticks) == (os.getpid(), os.getppid(), kernel.start_ticks(os.getpid()))


def test_processor_time_grows() -> None:
    before = kernel.look_at(os.getpid())
    end_s = time.process_time() + 0.05
    while time.process_time() < end_s:
        pass
    after = kernel.look_at(os.getpid())
    assert before is not None
    assert after is not None
    assert after.cpu_ns > before.cpu_ns


def test_a_process_that_is_not_there_is_none() -> None:
    assert kernel.look_at(2**22 + 1) is None
    assert list(kernel.ancestry(2**22 + 1)) == []


def test_ancestry_goes_up_to_the_first_process(child: subprocess.Popen[bytes]) -> None:
    line = [process.pid for process in kernel.ancestry(grandchild(child.pid))]
    assert line[1:3] == [child.pid, os.getpid()]


def test_descendants_are_those_below_and_not_below_what_is_left_out(child: subprocess.Popen[bytes]) -> None:
    below = grandchild(child.pid)
    table = kernel.everybody()
    assert {child.pid, below} <= kernel.descendants(table, {os.getpid()}, set())
    assert not {child.pid, below} & kernel.descendants(table, {os.getpid()}, {child.pid})
    assert kernel.descendants(table, {2**22 + 1}, set()) == set()


def test_memory_is_known_of_who_is_there(child: subprocess.Popen[bytes]) -> None:
    one = kernel.resident_bytes({os.getpid()})
    both = kernel.resident_bytes({os.getpid(), child.pid, 2**22 + 1})
    assert one is not None
    assert both is not None
    assert 1 << 20 < one <= both
    assert kernel.resident_bytes({2**22 + 1}) is None
