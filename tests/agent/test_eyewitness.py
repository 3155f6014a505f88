"""The eyewitness: which process a fact is about, and when the kernel's word is waited for.

The kernel's side is told here; that it really says so is in tests/system/test_kernel_events.py.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from taximeter import kernel
from taximeter.agent.eyewitness import Eyewitness
from taximeter.events import Clock, Event, Exited, Heartbeat, Opened, Options, Signaled, Spawned
from taximeter.journal import open_directory
from taximeter.values import replace
from tests.journal_samples import INSTANCE, held
from tests.require import require_root

MS = 1_000_000
SECOND = 1_000_000_000
WRAPPER, COMMAND, CHILD = 70_001, 70_002, 70_003


@dataclass
class Told:
    """What the kernel is made to say."""

    start: kernel.Start | None = None
    end: kernel.End | None = None
    to_come: bool = False
    overruns: int = 0
    asked: list[int] = field(default_factory=list)  #: whose children were asked for

    def drain(self) -> None:
        pass

    def started(self, parent_pid: int, before_ns: int, at_ns: int) -> kernel.Start | None:
        self.asked.append(parent_pid)
        return self.start

    def ended(self, pid: int, since_ns: int) -> kernel.End | None:
        return self.end

    def pending(self, pid: int, since_ns: int) -> bool:
        return self.to_come

    def descends(self, pid: int, since_ns: int, ancestor: int) -> bool:
        return ancestor == COMMAND and pid == CHILD

    def follow(self, pid: int, since_ns: int) -> bool:
        return True


def clock(at_ns: int) -> Clock:
    return Clock(at_ns, at_ns, at_ns, at_ns, kernel.boot_id())


def opened(at_ns: int, wrapper: int = WRAPPER) -> Opened:
    return Opened(at_ns, INSTANCE, 0, ("true",), Options(), clock(at_ns), 0, wrapper)


def spawned(at_ns: int, pid: int = COMMAND, ticks: int | None = 5) -> Spawned:
    return Spawned(at_ns, at_ns - MS, pid, ticks)


def exited(at_ns: int) -> Exited:
    return Exited(at_ns, 0, None, False, clock(at_ns))


def begun_ns() -> int:
    """When this process began, by CLOCK_MONOTONIC, to a tick."""
    ticks = kernel.start_ticks(os.getpid())
    assert ticks is not None
    slept_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
    return ticks * (SECOND // os.sysconf("SC_CLK_TCK")) - slept_ns


def start_of(pid: int, exec_ns: int | None) -> kernel.Start:
    return kernel.Start(pid, 9 * SECOND - MS, exec_ns)


def attest(told: Told | None, events: Sequence[Event], directory: Path) -> list[Event] | None:
    directory_fd = open_directory(directory)
    try:
        return Eyewitness(directory_fd, told).attest(INSTANCE, 0, None, events)
    finally:
        os.close(directory_fd)


def run(at_ns: int, end_ns: int) -> list[Event]:
    return [opened(at_ns - 2 * MS), spawned(at_ns), exited(end_ns)]


def test_a_run_gets_the_kernels_stamps(tmp_path: Path) -> None:
    told = Told(start_of(COMMAND, 9 * SECOND), kernel.End(10 * SECOND, 0))
    _, start, end = attest(told, run(9 * SECOND, 10 * SECOND + MS), tmp_path) or ()
    assert (start.exec_ns, start.host_pid, end.kernel_ns) == (9 * SECOND, COMMAND, 10 * SECOND)


def test_without_the_kernel_a_run_stays_as_it_was_told(tmp_path: Path) -> None:
    assert attest(None, run(9 * SECOND, 10 * SECOND), tmp_path) == run(9 * SECOND, 10 * SECOND)


def test_another_child_of_a_process_with_the_wrappers_pid_is_not_the_command(tmp_path: Path) -> None:
    """The wrapper was in a pid namespace and is gone; a process here happens to have had its number."""
    told = Told(start_of(COMMAND + 1, 9 * SECOND), kernel.End(10 * SECOND, 0))
    _, start, end = attest(told, run(9 * SECOND, 10 * SECOND + MS), tmp_path) or ()
    assert (start.exec_ns, start.host_pid, end.kernel_ns) == (None, None, None)


def test_what_was_received_after_the_end_was_said_before_it(tmp_path: Path) -> None:
    told = Told(start_of(COMMAND, 9 * SECOND), kernel.End(10 * SECOND, 0))
    at_ns = 10 * SECOND + MS
    events = [*run(9 * SECOND, at_ns)[:2], Heartbeat(at_ns, clock(at_ns)), exited(at_ns)]
    assert [event.at_ns for event in attest(told, events, tmp_path) or ()][2:] == [10 * SECOND, at_ns]


def outsiders(told: Told | None, start: Spawned, sender: int | None, directory: Path) -> bool:
    """Whether a SIGTERM whose sender the wrapper did not know is taken for one from outside."""
    term = Signaled(9 * SECOND + MS, 15, by_kernel=False, outside=True, sender=sender)
    events = [opened(8 * SECOND), start, term, exited(10 * SECOND)]
    (signaled,) = [event for event in attest(told, events, directory) or () if isinstance(event, Signaled)]
    return signaled.outside


@pytest.mark.parametrize(("sender", "outside"), [(COMMAND, False), (CHILD, False), (WRAPPER, True), (None, True)])
def test_a_signal_is_whose_the_kernel_says_though_the_sender_is_gone(
    tmp_path: Path, sender: int | None, outside: bool
) -> None:
    told = Told(start_of(COMMAND, 9 * SECOND), kernel.End(10 * SECOND, 0))
    assert outsiders(told, spawned(9 * SECOND), sender, tmp_path) is outside


def test_without_the_kernel_a_sender_that_is_gone_is_an_outsider(tmp_path: Path) -> None:
    assert outsiders(None, replace(spawned(9 * SECOND), host_pid=COMMAND), CHILD, tmp_path)


def test_a_sender_in_another_pid_namespace_is_nobody_here(tmp_path: Path) -> None:
    told = Told(start_of(COMMAND, 9 * SECOND), kernel.End(10 * SECOND, 0))
    assert outsiders(told, spawned(9 * SECOND, pid=2), CHILD, tmp_path)


def test_a_fresh_start_waits_for_its_exec(tmp_path: Path) -> None:
    now_ns = time.monotonic_ns()
    assert attest(Told(start_of(COMMAND, None)), [opened(now_ns), spawned(now_ns)], tmp_path) is None


def test_a_start_does_not_wait_for_ever(tmp_path: Path) -> None:
    long_ago_ns = time.monotonic_ns() - SECOND
    assert attest(Told(), [opened(long_ago_ns), spawned(long_ago_ns)], tmp_path) is not None


def test_a_fresh_end_waits_for_its_stamp(tmp_path: Path) -> None:
    now_ns = time.monotonic_ns()
    told = Told(start_of(COMMAND, now_ns - MS), None, to_come=True)
    assert attest(told, run(now_ns - MS, now_ns), tmp_path) is None


def test_an_end_that_the_kernel_will_not_tell_is_the_wrappers(tmp_path: Path) -> None:
    now_ns = time.monotonic_ns()
    told = Told(start_of(COMMAND, now_ns - MS))
    _, _, end = attest(told, run(now_ns - MS, now_ns), tmp_path) or ()
    assert end.kernel_ns is None


def test_a_living_wrapper_is_known_by_its_lock_in_whatever_namespace_it_is(tmp_path: Path) -> None:
    journal = tmp_path / f"{INSTANCE}.0.ndjson"
    journal.touch()
    told = Told(start_of(COMMAND, 9 * SECOND))
    with held(journal) as holder:
        _, start = attest(told, [opened(9 * SECOND, wrapper=7), spawned(9 * SECOND, pid=8)], tmp_path) or ()
    assert told.asked == [holder.pid]
    assert start.host_pid == COMMAND


def test_a_command_whose_wrapper_is_gone_is_the_process_with_its_start_time(tmp_path: Path) -> None:
    (tmp_path / f"{INSTANCE}.0.ndjson").touch()
    own, at_ns = os.getpid(), begun_ns()
    ticks = kernel.start_ticks(own)
    _, start = attest(None, [opened(at_ns), spawned(at_ns, own, ticks)], tmp_path) or ()
    assert (start.host_pid, start.start_ticks) == (own, ticks)


def test_a_process_that_began_at_another_time_is_not_the_command(tmp_path: Path) -> None:
    """A journal with a start of long ago would bill a life that nobody lived."""
    (tmp_path / f"{INSTANCE}.0.ndjson").touch()
    own = os.getpid()
    _, start = attest(None, [opened(SECOND), spawned(SECOND, own, kernel.start_ticks(own))], tmp_path) or ()
    assert start.host_pid is None


def test_a_process_of_somebody_else_is_not_the_command(tmp_path: Path) -> None:
    require_root()
    journal = tmp_path / f"{INSTANCE}.0.ndjson"
    journal.touch()
    os.chown(journal, 65534, 65534)
    own, at_ns = os.getpid(), begun_ns()
    _, start = attest(None, [opened(at_ns), spawned(at_ns, own, kernel.start_ticks(own))], tmp_path) or ()
    assert start.host_pid is None


def test_a_recycled_pid_is_not_the_command(tmp_path: Path) -> None:
    own = os.getpid()
    _, start = attest(None, [opened(9 * SECOND), spawned(9 * SECOND, own, 1)], tmp_path) or ()
    assert start.host_pid is None


@pytest.mark.parametrize(("namespace", "command"), [(None, COMMAND), ("pid:[4026532177]", None)])
def test_who_has_here_the_pid_that_a_wrapper_has_in_its_namespace_is_somebody_else(
    tmp_path: Path, namespace: str | None, command: int | None
) -> None:
    directory_fd = open_directory(tmp_path)
    eyes = Eyewitness(directory_fd, Told(start_of(COMMAND, 9 * SECOND)))
    found = eyes.found(replace(opened(8 * SECOND), pid_namespace=namespace), 10 * SECOND)
    assert (found.pid if found else None) == command
    os.close(directory_fd)


def test_a_loss_is_told_once(tmp_path: Path) -> None:
    told = Told()
    directory_fd = open_directory(tmp_path)
    eyes = Eyewitness(directory_fd, told)
    told.overruns = 1
    assert [eyes.has_lost(), eyes.has_lost()] == [True, False]
    os.close(directory_fd)
