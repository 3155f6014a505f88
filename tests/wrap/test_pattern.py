"""Lines are cut alike however they arrive, and a search has its bounds."""

import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.wrap.pattern import Lines, Search, TooSlow, compile_pattern


@pytest.fixture(autouse=True)
def _blocked() -> Any:
    """The wrapper runs with its signals blocked."""
    before, handler = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGVTALRM}), signal.getsignal(signal.SIGVTALRM)
    yield
    signal.signal(signal.SIGVTALRM, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def search(pattern: str) -> Search:
    run: Any = SimpleNamespace(pid=os.getpid())
    return Search(compile_pattern(pattern), run)


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), st.integers(1, 30))
def test_lines_end_with_a_newline_with_or_without_a_return_before_it(said: list[bytes], size: int) -> None:
    data, lines, found = b"".join(line + b"\n" for line in said), Lines(), []
    for at in range(0, len(data), size):
        found += lines.feed(data[at : at + size])
    assert [line for line in found if line] == [bare for line in said if (bare := line.removesuffix(b"\r"))]


def test_what_is_not_a_whole_line_is_not_searched_yet() -> None:
    lines = Lines()
    assert (lines.feed(b"loaded 1"), lines.feed(b"0\n")) == ([], [b"loaded 10"])


def test_of_a_long_line_the_beginning_is_searched() -> None:
    assert [len(line) for line in Lines().feed(b"x" * 100_000 + b"\n")] == [4096]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("^up$", True), ("^p", False), ("u.$", True), ("UP", False), ("(?i)UP", True), ("up\\n", False), ("^$", False)],
)
def test_a_pattern_sees_one_line_at_a_time(pattern: str, found: bool) -> None:
    assert search(pattern).among([b"warming", b"up", b"x"]) is found


def test_a_pattern_that_backtracks_without_end_is_given_up() -> None:
    with pytest.raises(TooSlow):
        search("(a+)+$").among([b"a" * 60 + b"b"])


def test_a_signal_like_the_timer_s_goes_on_to_the_command() -> None:
    with os.fdopen(os.pidfd_open(os.getpid())), pytest.MonkeyPatch.context() as patch:
        sent: list[tuple[int, int]] = []
        patch.setattr("taximeter.wrap.pattern.posix.kill", lambda pid, number: sent.append((pid, number)))
        # To this thread alone, as the wrapper has no other: of one that went to another thread all would die.
        signal.pthread_kill(threading.get_ident(), signal.SIGVTALRM)
        assert search("up").among([b"up"])
    assert sent == [(os.getpid(), signal.SIGVTALRM)]


def test_a_pattern_that_may_one_day_mean_something_else_is_silent(recwarn: pytest.WarningsRecorder) -> None:
    assert compile_pattern("[[]up").search(b"[up")
    assert not recwarn.list
