"""Naps are found in a trace of the kernel's, each with its own end."""

import pytest
from timing.tracing import Life, TraceError, lives

START = (
    "{comm}-{pid}     [001] d..3.  {at:.6f}: sched_process_exec: filename=/tmp/x/nap.{number} pid={pid} old_pid={pid}"
)
SIGNAL = (
    "{comm}-{pid}     [000] d..2.  {at:.6f}: signal_generate: sig=17 errno=0 code={code} comm=bash pid=7 grp=1 res=0"
)


def started(number: int, pid: int, at: float, comm: str = "nap") -> str:
    return START.format(number=number, pid=pid, at=at, comm=f"{comm:>16}")


def told(pid: int, at: float, code: int = 1, comm: str = "nap") -> str:
    """A SIGCHLD that `pid` sends its parent; 1: it exited, 2: it was killed, 5: it was stopped."""
    return SIGNAL.format(pid=pid, at=at, code=code, comm=f"{comm:>16}")


def trace(*lines: str) -> str:
    return "\n".join(["# tracer: nop", "#", *lines]) + "\n"


def test_a_nap_runs_from_its_exec_to_the_sigchld_that_its_end_sends() -> None:
    assert lives(trace(started(3, 40, 1.000001), told(40, 1.250004))) == {3: Life(1_000_001_000, 1_250_004_000)}


def test_a_killed_nap_has_ended_too() -> None:
    assert lives(trace(started(3, 40, 1), told(40, 2, code=2))).keys() == {3}


def test_a_stopped_nap_has_not_ended() -> None:
    assert lives(trace(started(3, 40, 1), told(40, 2, code=5), told(40, 3)))[3].end_ns == 3_000_000_000


def test_what_other_processes_send_ends_no_nap() -> None:
    assert lives(trace(started(3, 40, 1), told(41, 2))) == {}


def test_what_a_pid_sent_before_it_was_the_naps_is_not_its_end() -> None:
    assert lives(trace(told(40, 0.5), started(3, 40, 1), told(40, 2))) == {3: Life(1_000_000_000, 2_000_000_000)}


def test_naps_that_had_the_same_pid_have_each_their_own_end() -> None:
    found = lives(trace(started(3, 40, 1), told(40, 2), started(4, 40, 3), told(40, 4)))
    assert found == {3: Life(1_000_000_000, 2_000_000_000), 4: Life(3_000_000_000, 4_000_000_000)}


def test_naps_that_run_at_once_have_each_their_own_end() -> None:
    found = lives(trace(started(3, 40, 1), started(4, 41, 2), told(40, 3), told(41, 4)))
    assert (found[3].end_ns, found[4].end_ns) == (3_000_000_000, 4_000_000_000)


def test_a_program_may_be_called_as_it_likes() -> None:
    found = lives(trace(started(3, 40, 1, comm="a-9 [0] b: c"), told(40, 2, comm="x 1.5: sched_pr")))
    assert found.keys() == {3}


@pytest.mark.parametrize("again", [(started(3, 41, 2),), (told(40, 2), started(3, 41, 3))])
def test_a_nap_that_a_tool_starts_twice_cannot_be_timed(again: tuple[str, ...]) -> None:
    with pytest.raises(TraceError, match="cannot time nap 3: expected to see it started once"):
        lives(trace(started(3, 40, 1), *again))
