"""Signals reach the command as if nobody stood between, and the journal says who sent them."""

import os
import pty
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.system.rides import PYTHON, Rides, children_of, state_of, wait_until

#: Says which signals it gets, one a line, and leaves with SIGUSR2.
LISTENER = """
import os, signal, sys, time
def told(number, frame):
    os.write(1, b"%d\\n" % number)  # at once: another signal may come in the middle of a print
    if number == signal.SIGUSR2:
        sys.exit(9)
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    if signal.getsignal(number) != signal.SIG_IGN or number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, told)
os.write(1, b"up\\n")
while True:
    time.sleep(0.01)  # not pause: a signal just before it would be heard by nobody
"""
FORWARDED = sorted(
    signal.valid_signals()
    - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGUSR2}
    - {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
)


@pytest.fixture
def rides(tmp_path: Path) -> Rides:
    return Rides(tmp_path)


def listen(process: "subprocess.Popen[str]") -> str:
    """The next line of the command."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", FORWARDED)
def test_a_signal_for_the_wrapper_reaches_the_command_once(rides: Rides, number: int) -> None:
    with rides.start("--", PYTHON, "-c", LISTENER) as process:
        assert listen(process) == "up"
        process.send_signal(number)
        assert listen(process) == str(int(number))
        process.send_signal(signal.SIGUSR2)
        assert listen(process) == str(int(signal.SIGUSR2))
        assert process.wait(30) == 9


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_was_ignored_at_the_start_harms_neither(rides: Rides, number: int) -> None:
    def ignore() -> None:
        signal.signal(number, signal.SIG_IGN)

    with rides.start("--", PYTHON, "-c", LISTENER, preexec_fn=ignore) as process:
        assert listen(process) == "up"
        process.send_signal(number)
        process.send_signal(signal.SIGUSR2)
        assert listen(process) == str(int(signal.SIGUSR2))
        assert process.wait(30) == 9


def test_an_alarm_that_was_set_before_reaches_the_command(rides: Rides) -> None:
    words = [PYTHON, "-c", "import os, signal, sys; signal.alarm(1); os.execv(sys.argv[1], sys.argv[1:])"]
    done = subprocess.run([*words, *rides.words("--", "sleep", "30")], env=rides.environment(), timeout=20)
    assert done.returncode == -signal.SIGALRM


def test_a_killed_command_ends_its_wrapper(rides: Rides) -> None:
    with rides.start("--", "sleep", "60") as process:
        os.kill(rides.command_of(process), signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL


def test_a_command_that_stops_does_not_stop_a_wrapper_without_a_terminal(rides: Rides) -> None:
    with rides.start("--", PYTHON, "-c", LISTENER, start_new_session=True) as process:
        assert listen(process) == "up"
        command = rides.command_of(process)
        for stop in (signal.SIGSTOP, signal.SIGTSTP):
            os.kill(command, stop)
            if stop == signal.SIGTSTP:
                assert listen(process) == str(int(stop))  # it listens, and so does not stop
                break
            wait_until(lambda: state_of(command) == "T", "the command to stop")
            rides.wait_for("heartbeat")
            assert state_of(process.pid) in "SR"
            process.send_signal(signal.SIGCONT)
            assert listen(process) == str(int(signal.SIGCONT))
        process.send_signal(signal.SIGUSR2)
        assert listen(process) == str(int(signal.SIGUSR2))


def test_a_signal_from_outside_is_noted_with_its_sender(rides: Rides) -> None:
    with rides.start("--", "sleep", "60") as process:
        rides.command_of(process)
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM
    noted = [(fact["signal"], fact["kernel"], fact["outside"], fact["sender"]) for fact in rides.facts("signal")]
    assert noted == [(signal.SIGTERM, False, True, os.getpid())]


INSIDER = """
import os, signal, sys, time
time.sleep(0.1)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(6))
command, wrapper = os.getpid(), os.getppid()
if os.fork() == 0:
    os.kill(wrapper, signal.SIGTERM)
    while os.getppid() == command:
        time.sleep(0.01)
    os._exit(0)
while True:
    time.sleep(0.01)
"""


def test_a_signal_from_within_is_noted_as_such(rides: Rides) -> None:
    assert rides.run("--", PYTHON, "-c", INSIDER).returncode == 6
    assert [(fact["signal"], fact["outside"]) for fact in rides.facts("signal")] == [(signal.SIGTERM, False)]


def test_a_signal_of_the_command_s_own_making_is_not_noted(rides: Rides) -> None:
    with rides.start("--", PYTHON, "-c", LISTENER) as process:
        assert listen(process) == "up"
        process.send_signal(signal.SIGUSR1)
        assert listen(process) == str(int(signal.SIGUSR1))
        process.send_signal(signal.SIGUSR2)
        process.wait(30)
    assert rides.facts("signal") == []


def test_a_flood_of_marks_delays_neither_signals_nor_the_end(rides: Rides) -> None:
    flood = """
import os, signal, sys
fd = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR | os.O_NONBLOCK)
line = b'{"mark":"units","units":{"token_output":1}}\\n' * 90
def told(number, frame):
    print(number, flush=True)
    sys.exit(8)
signal.signal(signal.SIGTERM, told)
os.write(1, b"up\\n")
while True:
    try:
        os.write(fd, line)
    except BlockingIOError:
        pass
"""
    with rides.start("--", PYTHON, "-c", flood) as process:
        assert listen(process) == "up"
        rides.wait_for("mark")
        sent_s = time.monotonic()
        process.terminate()
        assert listen(process) == str(int(signal.SIGTERM))
        assert process.wait(30) == 8
        assert time.monotonic() - sent_s < 5


def test_a_flood_of_signals_delays_neither_the_heartbeat_nor_the_end(rides: Rides) -> None:
    with rides.start(
        "--", "sh", "-c", "trap : USR1; echo up; while [ ! -e stop ]; do :; done; exit 8", cwd=rides.path
    ) as process:
        assert listen(process) == "up"
        while not rides.facts("heartbeat"):
            process.send_signal(signal.SIGUSR1)
        (rides.path / "stop").touch()
        assert process.wait(30) == 8


def test_many_orphans_delay_nothing_and_leave_no_zombie(rides: Rides) -> None:
    storm = """
import os, time
time.sleep(0.1)
for _ in range(600):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
print("done", flush=True)
input()
"""
    with rides.start("--", PYTHON, "-c", storm, stdin=subprocess.PIPE) as process:
        assert listen(process) == "done"
        wait_until(lambda: len(children_of(process.pid)) == 1, "all orphans to be reaped")
        process.communicate("\n")
        assert process.returncode == 0


MOURNER = """
import os, signal, sys, time
def told(number, frame):
    open(sys.argv[1], "w")
    os._exit(3)
signal.signal(signal.SIGHUP, told)
os.write(1, b"up\\n")
while True:
    time.sleep(0.01)  # not pause: a signal just before it would be heard by nobody
"""


def test_a_hang_up_reaches_a_command_whose_wrapper_leads_the_session(rides: Rides) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        words = rides.words("--", PYTHON, "-c", MOURNER, str(rides.path / "hung up"))
        os.execve(words[0], words, rides.environment())
    assert b"up" in os.read(terminal, 100)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert (rides.path / "hung up").exists()
    assert [(fact["signal"], fact["kernel"]) for fact in rides.facts("signal")][:1] == [(signal.SIGHUP, True)]


def test_an_interrupt_key_reaches_the_command_once(rides: Rides) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        words = rides.words("--", PYTHON, "-c", LISTENER)
        os.execve(words[0], words, rides.environment())
    heard = b""
    while b"up" not in heard:
        heard += os.read(terminal, 100)
    intr = termios.tcgetattr(terminal)[6][termios.VINTR]
    os.write(terminal, intr)
    heard = b""
    while b"2" not in heard:
        heard += os.read(terminal, 100)
    os.kill(pid, signal.SIGUSR2)
    while b"12" not in heard:
        heard += os.read(terminal, 100)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert heard.replace(b"^C", b"").split() == [b"2", b"12"]
    assert os.waitstatus_to_exitcode(status) == 9
    assert [(fact["signal"], fact["kernel"]) for fact in rides.facts("signal")] == [(signal.SIGINT, True)]
