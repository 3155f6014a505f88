"""Who may be a command that nobody saw start; with real processes, each in a session of its own."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taximeter import kernel
from taximeter.agent.suspects import Suspects
from taximeter.events import Opened, Options
from taximeter.journal import journal_name, open_directory
from taximeter.values import replace
from tests.journal_samples import INSTANCE
from tests.require import lacking
from tests.system.agents import wait_until

SECOND = 1_000_000_000
#: Beyond every pid that Linux gives out.
NOBODYS_SESSION = 1 << 22


@pytest.fixture
def suspects(tmp_path: Path) -> Iterator[Suspects]:
    (tmp_path / journal_name(INSTANCE, 0)).touch()
    directory_fd = open_directory(tmp_path)
    yield Suspects(directory_fd)
    os.close(directory_fd)


@pytest.fixture
def command() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        wait_until(lambda: kernel.words(process.pid), "the end of its exec")
        yield process
        process.kill()


def opened(
    session: int | None, ago_ns: int = 0, words: tuple[str, ...] = ("sleep",), pid_namespace: str | None = None
) -> Opened:
    clock = kernel.read_clock()
    at_ns = time.monotonic_ns() - ago_ns - SECOND // 2
    return Opened(
        at_ns, INSTANCE, 0, words, Options(), clock, os.getuid(), 1, session=session, pid_namespace=pid_namespace
    )


def test_who_began_right_after_the_opening_in_its_session_may_be_the_command(
    suspects: Suspects, command: subprocess.Popen[bytes]
) -> None:
    suspects.look_for(INSTANCE, opened(command.pid), 0, ())
    assert suspects.live(INSTANCE)
    command.kill()
    command.wait()
    assert not suspects.live(INSTANCE)
    assert INSTANCE in suspects
    suspects.forget(INSTANCE)
    assert INSTANCE not in suspects


@pytest.mark.parametrize(
    ("words", "may_be"),
    [(("sleep", "60"), True), (("setsid", "sleep", "60"), True), (("sleep", "61"), False), (("60", "sleep"), False)],
)
def test_who_went_to_a_session_of_its_own_at_once_may_if_its_words_end_as_the_commands(
    suspects: Suspects, command: subprocess.Popen[bytes], words: tuple[str, ...], may_be: bool
) -> None:
    suspects.look_for(INSTANCE, opened(NOBODYS_SESSION, words=words), 0, ())
    assert suspects.live(INSTANCE) == may_be


def test_who_shows_no_words_as_yet_may(
    suspects: Suspects, command: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "words", lambda pid: [])
    suspects.look_for(INSTANCE, opened(NOBODYS_SESSION), 0, ())
    assert suspects.live(INSTANCE)


def test_nobody_else_may(suspects: Suspects, command: subprocess.Popen[bytes]) -> None:
    cases = [
        (opened(NOBODYS_SESSION, 5 * SECOND), ()),  # another session
        (opened(None), ()),  # an older wrapper, which says none
        (opened(command.pid, 5 * SECOND), ()),  # it began too late
        (opened(command.pid), (command.pid,)),  # it is another instance's
    ]
    for said, others in cases:
        suspects.look_for(INSTANCE, said, 0, others)
        assert not suspects.live(INSTANCE)


def test_what_the_kernel_begins_for_itself_is_nobodys_command(
    suspects: Suspects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins a thread now and then, root's and in session 0; so is a wrapper whose session leads from outside."""
    thread = kernel.look_at(2)
    if thread is None or not kernel.is_kernels_own(2):
        lacking("needs to see the kernel's threads: outside of a pid namespace")
    monkeypatch.setattr(kernel, "everybody", lambda: {2: thread})
    began_ns = thread.ticks * (SECOND // os.sysconf("SC_CLK_TCK"))
    said = replace(opened(session=0), at_ns=began_ns, uid=0)
    suspects.look_for(INSTANCE, said, 7, ())  # a journal that is gone was of whom it said: of root
    assert not suspects.live(INSTANCE)


def test_of_a_wrapper_in_a_pid_namespace_only_who_is_in_it_too_may_or_hides_where_it_is(
    suspects: Suspects, command: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = os.readlink("/proc/self/ns/pid")
    for wrappers, may_be in ((own, True), ("pid:[1]", False)):
        suspects.look_for(INSTANCE, opened(command.pid, pid_namespace=wrappers), 0, ())
        assert suspects.live(INSTANCE) == may_be
    monkeypatch.setattr(kernel, "pid_namespace", lambda pid: None)
    suspects.look_for(INSTANCE, opened(command.pid, pid_namespace="pid:[1]"), 0, ())
    assert suspects.live(INSTANCE)


def test_of_another_user_it_is_not(
    suspects: Suspects, command: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "whose", lambda pid: (os.getuid() + 1, command.pid))
    suspects.look_for(INSTANCE, opened(command.pid), 0, ())
    assert not suspects.live(INSTANCE)


def test_what_it_started_does_not_stand_for_it(suspects: Suspects) -> None:
    words = ["sh", "-c", "sleep 60 & echo $!; wait"]
    with subprocess.Popen(words, start_new_session=True, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        suspects.look_for(INSTANCE, opened(shell.pid), 0, ())
        shell.kill()
        shell.wait()
        assert not suspects.live(INSTANCE)
        os.kill(child, 9)


def test_a_journal_that_is_gone_was_of_whom_it_said(suspects: Suspects, command: subprocess.Popen[bytes]) -> None:
    suspects.look_for(INSTANCE, opened(command.pid), 7, ())
    assert suspects.live(INSTANCE)
