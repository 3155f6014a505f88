"""What this kernel says of processes, against what they say themselves, each of them stamped by the same clock."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from taximeter import kernel
from taximeter.kernel import End, ProcessEvents, Start
from tests.require import require_process_events, require_program, require_root
from tests.system.rides import is_shown

WITHIN_S = 20


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program that has all these lives."""
    require_process_events()
    program = tmp_path_factory.mktemp("lives") / "lives"
    source = Path(__file__).parent / "lives.c"
    subprocess.run([require_program("cc", "gcc"), "-O1", "-Wall", "-pthread", "-o", program, source], check=True)
    return str(program)


@pytest.fixture
def events() -> Iterator[ProcessEvents]:
    require_process_events()
    listening = ProcessEvents.open()
    listening.start()
    yield listening
    assert listening.trouble is None
    listening.close()


@dataclass
class Life:
    """What is known of a process from outside, and what it said: each word with its numbers, in order."""

    pid: int
    before_ns: int
    at_ns: int
    status: int
    said: dict[str, list[int]]


def live(*words: str) -> Life:
    """Run a program as the wrapper does, to its end."""
    reading, writing = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writing, 1)]
    before_ns = time.monotonic_ns()
    pid = os.posix_spawn(words[0], words, os.environ, file_actions=actions)
    at_ns = time.monotonic_ns()
    os.close(writing)
    with open(reading, encoding="ascii") as pipe:
        lines = pipe.read().split("\n")
    _, status = os.waitpid(pid, 0)
    said: dict[str, list[int]] = {}
    for word, number in (line.split() for line in lines if line):
        said.setdefault(word, []).append(int(number))
    return Life(pid, before_ns, at_ns, status, said)


def start_of(events: ProcessEvents, parent: int, before_ns: int, at_ns: int) -> Start:
    """The start of a process that has surely begun: its exec may be told a moment later."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        events.drain()
        start = events.started(parent, before_ns, at_ns)
        if start is not None and start.exec_ns is not None:
            return start
        time.sleep(0.001)
    pytest.fail(f"no start of a child of {parent} within {WITHIN_S} s")


def end_of(events: ProcessEvents, pid: int, since_ns: int) -> End:
    """The end of a process that is surely gone: its last event may come a moment later."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        events.drain()
        end = events.ended(pid, since_ns)
        if end is not None:
            return end
        assert events.pending(pid, since_ns)
        time.sleep(0.001)
    pytest.fail(f"no end of {pid} within {WITHIN_S} s")


def check(events: ProcessEvents, life: Life) -> End:
    """The kernel's start and end lie where the process says that they must."""
    start = start_of(events, os.getpid(), life.before_ns, life.at_ns)
    end = end_of(events, life.pid, life.at_ns)
    heard_ns = time.monotonic_ns()
    assert start.pid == life.pid
    assert start.exec_ns is not None
    assert life.before_ns <= start.fork_ns <= start.exec_ns <= life.said["first"][0]
    assert life.said["last"][-1] <= end.at_ns <= heard_ns
    return end


def test_a_process_starts_before_its_first_instruction_and_ends_after_its_last(
    events: ProcessEvents, lives: str
) -> None:
    for number in range(50):
        life = live(lives, "plain", str(number % 3), str(number))
        assert check(events, life).status == life.status == number << 8


def test_a_program_that_runs_another_one_started_when_the_first_did(events: ProcessEvents, lives: str) -> None:
    life = live(lives, "twice")
    assert len(life.said["first"]) == 2
    check(events, life)


def test_a_thread_that_runs_a_program_is_neither_start_nor_end(events: ProcessEvents, lives: str) -> None:
    life = live(lives, "thread-execs")
    assert len(life.said["first"]) == 2
    assert check(events, life).status == life.status == 5 << 8


def test_a_leader_that_ends_first_is_not_the_end(events: ProcessEvents, lives: str) -> None:
    """Its threads ended differently, so that the status is left to those who know it."""
    life = live(lives, "leader-first")
    assert life.status == 7 << 8
    assert check(events, life).status is None


def test_a_last_thread_that_ends_as_the_leader_did_leaves_no_doubt(events: ProcessEvents, lives: str) -> None:
    life = live(lives, "threads-alone")
    assert check(events, life).status == life.status == 0


def test_threads_that_ended_before_do_not_hide_the_status(events: ProcessEvents, lives: str) -> None:
    life = live(lives, "threads-before")
    assert check(events, life).status == life.status == 3 << 8


def test_a_process_that_is_killed_has_its_status(events: ProcessEvents, lives: str) -> None:
    before_ns = time.monotonic_ns()
    with subprocess.Popen([lives, "plain", "60000", "0"], stdout=subprocess.PIPE) as process:
        at_ns = time.monotonic_ns()
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert end_of(events, process.pid, at_ns).status == signal.SIGKILL
    assert start_of(events, os.getpid(), before_ns, at_ns).pid == process.pid


def test_a_vforked_child_is_its_parents(events: ProcessEvents, lives: str) -> None:
    life = live(lives, "vfork")
    (before_ns,), (after_ns,), (pid,) = life.said["before"], life.said["after"], life.said["pid"]
    start = start_of(events, life.pid, before_ns, after_ns)
    assert start.pid == pid
    assert start.exec_ns is not None
    assert start.fork_ns <= start.exec_ns <= life.said["first"][1]
    assert end_of(events, pid, after_ns).status == 4 << 8


def test_a_child_that_runs_no_program_has_no_start_of_its_own_but_an_end(events: ProcessEvents, lives: str) -> None:
    life = live(lives, "fork")
    (before_ns,), (after_ns,), (pid,) = life.said["before"], life.said["after"], life.said["pid"]
    end = end_of(events, pid, after_ns)
    start = events.started(life.pid, before_ns, after_ns)
    assert start is not None
    assert (start.pid, start.exec_ns) == (pid, None)
    assert end.status == life.said["status"][0] == 6 << 8


def test_a_pid_that_is_used_again_is_another_process(events: ProcessEvents, lives: str) -> None:
    require_root()
    life = live(lives, "same-pid")
    assert life.status == 0, "the pid always went to somebody else"
    pid = life.said["pid"][-1]
    first_ns, second_ns = life.said["after"][-2:]
    first, second = end_of(events, pid, first_ns), end_of(events, pid, second_ns)
    assert (first.status, second.status) == (1 << 8, 2 << 8)
    assert first.at_ns < life.said["before"][-1] < second.at_ns


# --- Namespaces ---


def in_namespaces(*options: str) -> list[str]:
    require_root()
    return [require_program("unshare", "util-linux"), *options]


def test_a_pid_that_is_used_again_in_a_pid_namespace_is_another_process(events: ProcessEvents, lives: str) -> None:
    """They have one pid in there and two here, which the events of the forks say."""
    life = live(*in_namespaces("--pid", "--fork", "--mount-proc", "--kill-child"), lives, "same-pid")
    assert life.status == 0
    outside = start_of(events, os.getpid(), life.before_ns, life.at_ns)  # who had its pid before is another parent
    init = start_of(events, life.pid, outside.fork_ns, life.said["first"][0]).pid
    ends: list[End] = []
    pids: list[int] = []
    for before_ns, after_ns in list(zip(life.said["before"], life.said["after"], strict=True))[-2:]:
        start = events.started(init, before_ns, after_ns)
        assert start is not None
        pids.append(start.pid)
        ends.append(end_of(events, start.pid, after_ns))
    assert len({*pids, *life.said["pid"]}) == 3
    assert [end.status for end in ends] == [1 << 8, 2 << 8]


def test_a_worker_in_a_pid_namespace_is_found_from_its_parent(lives: str) -> None:
    """For one that was forked before the agent listened."""
    words = [*in_namespaces("--pid", "--fork", "--mount-proc", "--kill-child"), "sh", "-c"]
    line = "sleep 60 & pid=$!; set -- $(cat /proc/$pid/stat); shift 21; echo $1; echo $pid; wait"
    with subprocess.Popen([*words, line], stdout=subprocess.PIPE, text=True) as outside:
        assert outside.stdout is not None
        ticks, inside = int(outside.stdout.readline()), int(outside.stdout.readline())
        (shell,) = (
            int(child) for child in Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()
        )
        here = kernel.host_pid(shell, inside, ticks)
        assert here is not None
        assert here != inside
        assert kernel.host_pid(shell, inside + 1, ticks) is None
        assert kernel.host_pid(shell, inside, ticks + 1) is None
        pidfd = os.pidfd_open(here)
        outside.kill()
        assert is_shown(pidfd, WITHIN_S)
        os.close(pidfd)
    assert kernel.host_pid(shell, inside, ticks) is None


LISTEN = """
import os, sys
from taximeter.errors import TaximeterError
from taximeter.kernel import ProcessEvents
def listen():
    try:
        ProcessEvents.open().close()
        return "listens"
    except TaximeterError as error:
        return error
said = listen()
if uid := int(sys.argv[1]):
    os.setresuid(uid, uid, uid)  # all that is imported, is by now: this user may not be able to read it
    said = listen()
print(said)
"""


def listen(*before: str, uid: int = 0) -> str:
    words = [*before, sys.executable, "-P", "-c", LISTEN, str(uid)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_a_private_network_is_a_clear_refusal() -> None:
    require_process_events()
    assert "own network namespace (no PrivateNetwork=)" in listen(*in_namespaces("--net"))


@pytest.mark.parametrize("options", [("--pid", "--fork"), ("--user", "--map-root-user")])
def test_where_the_kernel_stays_silent_nobody_is_believed(options: tuple[str, ...]) -> None:
    require_process_events()
    assert "own pid and user namespaces" in listen(*in_namespaces(*options))


def test_a_user_without_capabilities_listens_or_learns_why_not() -> None:
    require_process_events()
    require_root()
    said = listen(uid=65534)
    assert said == "listens\n" or "before Linux 6.6 that takes CAP_NET_ADMIN" in said


# --- Loss ---


@pytest.mark.timing  # its storm of forks would hide lives from every agent beside it
def test_what_an_overrun_may_hide_is_not_known_and_what_comes_after_is(lives: str) -> None:
    listening = ProcessEvents.open(buffer_bytes=64 * 1024)
    try:
        life, storm = live(lives, "plain", "1", "0"), live(lives, "storm", "1000")
        listening.drain()
        assert listening.overruns >= 1
        for hidden in (life, storm):
            assert listening.started(os.getpid(), hidden.before_ns, hidden.at_ns) is None
            assert listening.ended(hidden.pid, hidden.at_ns) is None
            assert not listening.pending(hidden.pid, hidden.at_ns)
        listening.start()
        _await_quiet(listening)
        check(listening, live(lives, "plain", "1", "0"))
    finally:
        listening.close()


@pytest.mark.timing  # its storm of forks would hide lives from every agent beside it
def test_whatever_a_storm_hides_an_answer_is_the_truth(lives: str) -> None:
    """Nobody empties the small buffer but who asks, now and then: some lives are told whole, some not at all."""
    listening = ProcessEvents.open(buffer_bytes=32 * 1024)
    deadline = time.monotonic() + WITHIN_S
    past: list[Life] = []
    try:
        with subprocess.Popen([lives, "storm", "100000000"], stdout=subprocess.DEVNULL) as storm:
            try:
                while len(past) < 60 or listening.overruns < 2:
                    assert time.monotonic() < deadline
                    past.append(live(lives, "plain", str(len(past) % 4), str(len(past) % 256)))
                    if len(past) % 3 == 0:
                        listening.drain()
            finally:
                storm.kill()
        listening.drain()
        for life in past:
            _check_if_known(listening, life)
    finally:
        listening.close()


def _check_if_known(listening: ProcessEvents, life: Life) -> None:
    start = listening.started(os.getpid(), life.before_ns, life.at_ns)
    end = listening.ended(life.pid, life.at_ns)
    if start is not None:
        assert start.pid == life.pid
        assert life.before_ns <= start.fork_ns <= (start.exec_ns or start.fork_ns) <= life.said["first"][0]
    if end is not None:
        assert life.said["last"][0] <= end.at_ns <= time.monotonic_ns()
        assert end.status == life.status


def test_a_socket_that_fails_is_said_once_and_hides_all_that_comes(lives: str) -> None:
    require_process_events()
    listening = ProcessEvents.open()
    before = live(lives, "plain", "0", "3")
    check(listening, before)
    with open("/dev/null", "rb") as other:
        os.dup2(other.fileno(), listening._socket.fileno())
    listening.start()
    after = live(lives, "plain", "0", "3")
    listening.drain()
    assert listening.trouble == "cannot hear the kernel's process events any more: Socket operation on non-socket"
    assert listening.ended(after.pid, after.at_ns) is None
    listening.close()


def _await_quiet(listening: ProcessEvents) -> None:
    """What was lost is long ago, or, should all the machine be forking, we give up."""
    deadline = time.monotonic() + WITHIN_S
    before = -1
    while before != listening.overruns and time.monotonic() < deadline:
        before = listening.overruns
        time.sleep(0.2)


@pytest.mark.timing  # its storm of forks would hide lives from every agent beside it
def test_a_thread_empties_the_buffer_while_nobody_asks(events: ProcessEvents, lives: str) -> None:
    before = events.events
    storm = live(lives, "storm", "300")
    deadline = time.monotonic() + WITHIN_S
    while events.events < before + 602:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert events.overruns == 0
    check(events, storm)


# --- Who lived before ---


def test_a_process_that_lived_before_is_followed_to_its_end(lives: str) -> None:
    require_process_events()
    words = [lives, "leader-first-told"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        at_ns = time.monotonic_ns()
        assert process.stdout is not None
        process.stdout.readline()
        listening = ProcessEvents.open()
        try:
            assert listening.follow(process.pid, at_ns)
            said, _ = process.communicate(b".", WITHIN_S)
            assert process.returncode == 7
            assert end_of(listening, process.pid, at_ns).at_ns >= int(said.split()[1])
        finally:
            listening.close()


def test_a_process_that_was_heard_from_its_beginning_need_not_be_followed_but_may(
    events: ProcessEvents, lives: str
) -> None:
    with subprocess.Popen([lives, "leader-first-told"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        at_ns = time.monotonic_ns()
        assert process.stdout is not None
        process.stdout.readline()
        assert events.follow(process.pid, at_ns)
        said, _ = process.communicate(b".", WITHIN_S)
    assert end_of(events, process.pid, at_ns).at_ns >= int(said.split()[1])


def test_a_process_that_is_gone_cannot_be_followed(events: ProcessEvents, lives: str) -> None:
    life = live(lives, "plain", "0", "0")
    assert not events.follow(life.pid, life.at_ns)


def test_what_is_known_stays_known_when_nobody_listens_any_more(lives: str) -> None:
    require_process_events()
    listening = ProcessEvents.open()
    listening.start()
    life = live(lives, "plain", "0", "3")
    end_of(listening, life.pid, life.at_ns)
    listening.close()
    listening.close()
    check(listening, life)


# --- Ends of others' children ---


def test_a_process_that_is_not_ours_has_a_status_once_its_parent_knows() -> None:
    """Here a grandchild, whose parent waits for it on our word."""
    line = "(read go <&3; exit 3) & echo $!; read go; wait"
    going, go = os.pipe()
    with subprocess.Popen(
        ["bash", "-c", f"exec 3<&{going}; {line}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[going], text=True,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        pidfd = os.pidfd_open(int(parent.stdout.readline()))
        assert kernel.exit_status(pidfd) is None
        os.write(go, b"go\n")
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(WITHIN_S * 1000)
        parent.communicate("go\n")
        assert poll.poll(0)[0][1] & select.POLLHUP or _kernel() < (6, 15)
        assert kernel.exit_status(pidfd) == (3 << 8 if _kernel() >= (6, 15) else None)
        for fd in (pidfd, going, go):
            os.close(fd)


def _kernel() -> tuple[int, ...]:
    return tuple(int(number) for number in os.uname().release.split(".")[:2])


def test_the_status_of_what_is_no_pidfd_is_not_known(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        assert kernel.exit_status(file.fileno()) is None
