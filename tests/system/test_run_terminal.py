"""At a terminal nobody notices `taximeter run`: interrupt and suspend keys, fg, bg, resizing, pagers, shells within."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.require import require_program
from tests.system.rides import PROGRAM, Rides, stat_fields, state_of, wait_until, watched

PROMPT = "outer> "
INNER = "inner> "
INTERRUPT, SUSPEND, END = "\x03", "\x1a", "\x04"
RUN = f"{PROGRAM} run"
_PATIENCE_S = 30.0


class Terminal:
    """A terminal with an interactive bash at it."""

    def __init__(self, rides: Rides) -> None:
        self.rides = rides
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            environment = rides.environment(PS1=PROMPT, TERM="vt100", LC_ALL="C", PAGER="", LESS="", HISTFILE="")
            os.chdir(rides.path)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], environment)
        self.expect(PROMPT)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.fd, text.encode())

    def enter(self, line: str) -> None:
        """Type a line, and read over its echo."""
        self.type(line + "\n")
        self.expect("\n")

    def expect(self, text: str) -> str:
        """Read on until `text` has come; returns what came before it."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0, deadline_s - time.monotonic()))
            assert ready, f"waited {_PATIENCE_S:g} s in vain for {text!r}, after {self.seen!r}"
            self.seen += os.read(self.fd, 65_536).decode(errors="replace").replace("\r", "")
        before, _, self.seen = self.seen.partition(text)
        return before

    def ask(self, line: str) -> str:
        """What the shell answers to a line."""
        self.enter(line)
        return self.expect(PROMPT).strip()

    def started(self, count: int = 1) -> int:
        """The pid of the command that was started last, once `count` have been."""
        spawned = wait_until(lambda: self.rides.facts("spawn")[count - 1 :], "the command to be started")
        pid: int = spawned[-1]["pid"]
        wait_until(lambda: watched(wrapper_of(pid)), "the wrapper to watch it")
        return pid


def wrapper_of(pid: int) -> int:
    return int(stat_fields(pid)[1])


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(Rides(tmp_path))
    try:
        yield opened
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(opened.pid, signal.SIGKILL)
        os.waitpid(opened.pid, 0)
        os.close(opened.fd)


def test_the_interrupt_key_ends_the_command_and_the_shell_sees_130(terminal: Terminal) -> None:
    terminal.enter(f"{RUN} -- sleep 60")
    terminal.started()
    terminal.type(INTERRUPT)
    terminal.expect(PROMPT)
    assert terminal.ask("echo $?") == "130"


def test_the_interrupt_key_ends_a_loop_around_it(terminal: Terminal) -> None:
    terminal.enter(f"for i in 1 2 3; do {RUN} -- sleep 60; echo again; done")
    terminal.started()
    terminal.type(INTERRUPT)
    assert "again" not in terminal.expect(PROMPT)


def test_a_command_that_catches_the_interrupt_key_goes_on(terminal: Terminal) -> None:
    terminal.enter(
        f"{RUN} -- bash -c 'trap \"echo caught\" INT; echo up; while [ ! -e stop ]; do sleep 0.02; done; exit 5'"
    )
    terminal.started()
    terminal.expect("up\n")
    terminal.type(INTERRUPT)
    terminal.expect("caught\n")
    (terminal.rides.path / "stop").touch()
    assert "caught" not in terminal.expect(PROMPT)
    assert terminal.ask("echo $?") == "5"


def test_the_suspend_key_stops_the_job_and_fg_continues_it(terminal: Terminal) -> None:
    terminal.enter(f"{RUN} -- sleep 60")
    command = terminal.started()
    wrapper = wrapper_of(command)
    for _ in range(3):
        terminal.type(SUSPEND)
        assert "Stopped" in terminal.expect(PROMPT)
        assert (state_of(command), state_of(wrapper)) == ("T", "T")
        assert "Stopped" in terminal.ask("jobs")
        terminal.enter("fg")
        terminal.expect("\n")
        wait_until(lambda: (state_of(command), state_of(wrapper)) == ("S", "S"), "both to go on")
    terminal.type(INTERRUPT)
    terminal.expect(PROMPT)
    assert terminal.ask("echo $?") == "130"


def test_bg_continues_it_in_the_background_where_a_signal_ends_it(terminal: Terminal) -> None:
    terminal.enter(f"{RUN} -- sleep 60")
    command = terminal.started()
    terminal.type(SUSPEND)
    terminal.expect(PROMPT)
    terminal.ask("bg")
    wait_until(lambda: state_of(command) == "S", "the command to go on")
    terminal.ask("kill %1")
    assert terminal.ask("wait %1; echo status=$?").endswith("status=143")


def test_a_background_reader_of_the_terminal_is_stopped_and_fg_lets_it_read(terminal: Terminal) -> None:
    terminal.ask("cat &")
    wait_until(lambda: "Stopped" in terminal.ask("jobs"), "a bare cat to be stopped")
    bare = terminal.ask("jobs").removesuffix("cat").strip().removeprefix("[1]+").strip()
    terminal.ask("kill -9 %1; wait %1")
    terminal.ask(f"{RUN} -- cat &")
    command = terminal.started()
    wrapper = wrapper_of(command)
    wait_until(lambda: (state_of(command), state_of(wrapper)) == ("T", "T"), "both to be stopped")
    assert bare in terminal.ask("jobs")
    terminal.enter("fg")
    terminal.expect("\n")
    terminal.enter("hello")
    terminal.expect("hello\n")
    terminal.type(END)
    terminal.expect(PROMPT)
    assert terminal.ask("echo $?") == "0"


def test_a_shell_within_has_its_own_job_control(terminal: Terminal) -> None:
    terminal.enter(f"PS1='{INNER}' {RUN} -- bash --norc --noprofile --noediting -i")
    terminal.expect(INNER)
    terminal.enter("sleep 60")
    wait_until(lambda: sleeper(terminal), "the sleep to run")
    terminal.type(SUSPEND)
    assert "Stopped" in terminal.expect(INNER)
    terminal.enter("fg")
    terminal.expect("\n")
    wait_until(lambda: state_of(sleeper(terminal)) == "S", "the sleep to go on")
    terminal.type(INTERRUPT)
    terminal.expect(INNER)
    terminal.enter("echo $?")
    assert terminal.expect(INNER).strip() == "130"
    terminal.enter("exit 7")
    terminal.expect(PROMPT)
    assert terminal.ask("echo $?") == "7"


def test_a_shell_within_can_be_suspended_and_continued(terminal: Terminal) -> None:
    terminal.enter(f"PS1='{INNER}' {RUN} -- bash --norc --noprofile --noediting -i")
    terminal.expect(INNER)
    terminal.started()
    for _ in range(2):
        terminal.enter("suspend")
        assert "Stopped" in terminal.expect(PROMPT)
        terminal.enter("fg")
        terminal.expect("\n")
        terminal.enter("echo back")
        terminal.expect("back\n")
        terminal.expect(INNER)
    terminal.enter("exit 0")
    terminal.expect(PROMPT)


def sleeper(terminal: Terminal) -> int:
    """The pid of the sleep that runs at this terminal, 0 if none is there yet."""
    tty = str(os.fstat(terminal.fd) and stat_fields(terminal.pid)[4])
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and stat_fields(int(entry.name))[4:5] == [tty]:
            with contextlib.suppress(OSError):
                if (entry / "comm").read_text() == "sleep\n":
                    return int(entry.name)
    return 0


def test_resizing_is_told_once_and_with_the_new_size(terminal: Terminal) -> None:
    said = 'trap "stty size" WINCH; echo up; while [ ! -e stop ]; do sleep 0.02; done'
    terminal.enter(f"{RUN} -- bash -c '{said}'")
    terminal.started()
    terminal.expect("up\n")
    fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    terminal.expect("33 77\n")
    (terminal.rides.path / "stop").touch()
    assert "33 77" not in terminal.expect(PROMPT)


def test_the_terminal_is_the_command_s_own(terminal: Terminal) -> None:
    for look in ("tty", "stty -a", "ps -o pgid=,sid=,tpgid= -p $PPID | wc -w", "test -t 0 -a -t 1 -a -t 2; echo $?"):
        bare = terminal.ask(f"sh -c '{look}'")
        assert terminal.ask(f"{RUN} -- sh -c '{look}'") == bare


def test_a_pipe_that_is_closed_early_ends_the_command(terminal: Terminal) -> None:
    assert terminal.ask(f"{RUN} -- seq 10000000 | head -n 1") == "1"
    assert terminal.ask(f"{RUN} -- seq 10000000 | head -n 1; echo ${{PIPESTATUS[@]}}").endswith("141 0")


@pytest.mark.parametrize(
    "line", [f"{RUN} -- seq 500 | less", f"seq 500 | {RUN} -- less", f"{RUN} -- sh -c 'seq 500 | less'"]
)
def test_a_pager_on_either_side_has_the_keyboard(terminal: Terminal, line: str) -> None:
    require_program("less")
    terminal.enter(line)
    terminal.expect(":")
    terminal.type(" ")
    terminal.expect(":")
    terminal.type("q")
    terminal.expect(PROMPT)
    assert terminal.ask("echo ${PIPESTATUS[@]}; echo ok").endswith("ok")


def test_a_full_screen_program_can_be_suspended_and_continued(terminal: Terminal) -> None:
    require_program("less")
    (terminal.rides.path / "text").write_text("".join(f"line {n}\n" for n in range(500)))
    terminal.enter(f"{RUN} -- less text")
    terminal.started()
    terminal.expect("text")
    terminal.type(SUSPEND)
    assert "Stopped" in terminal.expect(PROMPT)
    terminal.enter("fg")
    terminal.expect("line 2")
    terminal.type("q")
    terminal.expect(PROMPT)
    assert terminal.ask("echo $?") == "0"


def test_killing_the_job_s_group_leaves_neither(terminal: Terminal) -> None:
    terminal.ask(f"{RUN} -- sleep 60 &")
    command = terminal.started()
    wrapper = wrapper_of(command)
    terminal.ask("kill -9 -- -$!")
    wait_until(lambda: state_of(command) in ("", "Z") and state_of(wrapper) in ("", "Z"), "both to be gone")


def test_a_signal_to_the_stopped_job_ends_it_once_it_goes_on(terminal: Terminal) -> None:
    terminal.enter(f"{RUN} -- sleep 60")
    terminal.started()
    terminal.type(SUSPEND)
    terminal.expect(PROMPT)
    terminal.ask("kill %1")
    assert "143" in terminal.ask("fg; echo $?") or "143" in terminal.ask("echo $?")
