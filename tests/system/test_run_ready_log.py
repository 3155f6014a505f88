"""`taximeter run --ready log:REGEX`: a line makes it ready, and whoever reads the output notices nothing of it."""

import base64
import contextlib
import fcntl
import hashlib
import os
import pty
import resource
import select
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.require import require_program
from tests.system.rides import PYTHON, Rides, state_of, wait_until
from tests.system.test_run_terminal import INTERRUPT, PROMPT, RUN, SUSPEND, Terminal
from tests.system.test_run_terminal import terminal as terminal  # noqa: PLC0414 -- a fixture

#: What every command here begins with: marks are seen by the test, whatever becomes of the outputs.
COMMAND = """
import os, random, signal, sys, time
marks = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR)
def mark(text): os.write(marks, text.encode() + b"\\n")
def put(data, fd=1):
    while data: data = data[os.write(fd, data):]
def wait(): sys.stdin.readline()
"""
MIB = 1 << 20


@pytest.fixture
def rides(tmp_path: Path) -> Rides:
    return Rides(tmp_path)


def python(code: str, *words: str) -> list[str]:
    return ["--", PYTHON, "-c", COMMAND + code, *words]


def read_all(fd: int) -> bytes:
    """Everything up to its end."""
    with open(fd, "rb", closefd=True) as file:
        return file.read()


def next_line(process: subprocess.Popen[Any]) -> str:
    assert process.stdout is not None
    return str(process.stdout.readline())


# --- what becomes of the bytes ---

#: Many bytes of every kind, in writes of every size, the line among them; their hash goes to the file named first.
MANY = """
import hashlib
dice, digest, where = random.Random(7), hashlib.sha256(), int(sys.argv[2])
for count in range(400):
    data = dice.randbytes(dice.choice([1, 3, 100, 4096, 65_536, 200_000])).replace(b"\\n", b"\\0")
    if dice.random() < 0.5: data += b"\\n"
    if count == where: data = b"\\nit is up\\r\\n" + data
    digest.update(data)
    put(data)
with open(sys.argv[1], "w") as file: file.write(digest.hexdigest())
"""


def pipe() -> tuple[int, int]:
    return os.pipe()


def small_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    return reading, writing


def stream() -> tuple[int, int]:
    """A pair of sockets, as a service manager gives its services."""
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def connection() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    return ours.detach(), theirs.detach()


def quickly(fd: int) -> bytes:
    return os.read(fd, MIB)


def slowly(fd: int) -> bytes:
    """Bites of odd sizes, each with a pause that lets what lies before it fill up."""
    select.select([], [], [], 0.0005)
    return os.read(fd, 7919)


@pytest.mark.parametrize("where", [0, 200, 9999], ids=["at once", "midway", "never"])
@pytest.mark.parametrize("read", [quickly, slowly])
@pytest.mark.parametrize("output", [pipe, small_pipe, stream, connection])
def test_every_byte_arrives_and_no_other(
    rides: Rides, output: Callable[[], tuple[int, int]], read: Callable[[int], bytes], where: int
) -> None:
    reading, writing = output()
    digest = hashlib.sha256()
    words = python(MANY, str(rides.path / "hash"), str(where))
    with rides.start("--ready", "log:^it is up$", *words, stdout=writing) as process:
        os.close(writing)
        while data := read(reading):
            digest.update(data)
        os.close(reading)
        assert process.wait() == 0
    assert digest.hexdigest() == (rides.path / "hash").read_text()
    assert [fact["by"] for fact in rides.facts("ready")] == ["log"] * (where < 9999)


def with_fault(rides: Rides, fault: list[str], words: list[str]) -> list[str]:
    """The run, with calls of its wrapper (and of nobody else) that fail."""
    return [require_program("strace"), "-o", "/dev/null", "-e", "trace=none", *fault, *rides.words(*words)]


@pytest.mark.parametrize("where", [200, 9999], ids=["midway", "never"])
@pytest.mark.parametrize("read", [quickly, slowly])
@pytest.mark.parametrize("output", [pipe, small_pipe])
def test_every_byte_arrives_through_a_pipe_that_is_somebody_else_s(
    rides: Rides, output: Callable[[], tuple[int, int]], read: Callable[[int], bytes], where: int
) -> None:
    reading, writing = output()
    digest = hashlib.sha256()
    not_ours = ["-P", "/proc/self/fd/1", "-e", "inject=openat:error=EACCES"]
    run = ["--ready", "log:^it is up$", *python(MANY, str(rides.path / "hash"), str(where))]
    with subprocess.Popen(with_fault(rides, not_ours, run), env=rides.environment(), stdout=writing) as process:
        os.close(writing)
        while data := read(reading):
            digest.update(data)
        os.close(reading)
        assert process.wait() == 0
    assert digest.hexdigest() == (rides.path / "hash").read_text()


@pytest.mark.parametrize(
    "fault",
    [
        "signalfd4:error=ENOSYS",
        "epoll_create1:error=EMFILE",
        "epoll_ctl:error=ENOSPC:when=4+",
        "epoll_wait:error=EBADF",
        "epoll_wait:error=EBADF:when=20",
        "splice:error=EINVAL",
        "pwrite64:error=EBADF:when=2+",
        "setitimer:error=EPERM",
        "waitid:error=EINVAL",
        "openat:error=EMFILE:when=60+",
    ],
)
def test_every_byte_arrives_when_the_meter_breaks(rides: Rides, fault: str) -> None:
    run = ["--ready", "log:^it is up$", *python(MANY, str(rides.path / "hash"), "100")]
    words = with_fault(rides, ["-e", f"inject={fault}"], run)
    done = subprocess.run(words, env=rides.environment(), capture_output=True)
    assert done.returncode == 0
    assert hashlib.sha256(done.stdout).hexdigest() == (rides.path / "hash").read_text()


def test_what_goes_to_both_outputs_keeps_its_order(rides: Rides) -> None:
    code = """
for count in range(20_000):
    put(b"%d\\n" % count, 1 + count % 2)
"""
    done = rides.run(
        "--ready", "log:^15000$", *python(code), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, capture_output=False
    )
    assert done.stdout == "".join(f"{count}\n" for count in range(20_000))
    assert len(rides.facts("ready")) == 1


def test_either_output_is_searched_and_each_stays_apart(rides: Rides) -> None:
    done = rides.run("--ready", "log:^up$", *python("put(b'out\\n'); put(b'u', 1); put(b'p\\nup\\n', 2); put(b'x\\n')"))
    assert (done.stdout, done.stderr) == ("out\nux\n", "p\nup\n")
    assert len(rides.facts("ready")) == 1


@pytest.mark.parametrize("lines", ["up", "1"], ids=["searching", "after the line"])
def test_a_reader_that_goes_ends_the_command_with_sigpipe(rides: Rides, lines: str) -> None:
    with rides.start("--ready", f"log:^{lines}$", "--", "seq", "100000000") as process:
        assert next_line(process) == "1\n"
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == -signal.SIGPIPE


def test_a_reader_that_goes_is_gone_for_a_command_that_ignores_sigpipe(rides: Rides) -> None:
    code = """
put(b"up\\n")
wait()
try:
    while True: put(b"x" * 1000)
except BrokenPipeError:
    mark("gone")
"""
    reading, writing = os.pipe()
    with rides.start("--ready", "log:^up$", *python(code), stdout=writing, stdin=subprocess.PIPE) as process:
        os.close(writing)
        assert os.read(reading, 3) == b"up\n"
        os.close(reading)
        process.communicate("\n")
    assert len(rides.facts("mark")) == 1


@pytest.mark.parametrize("line", ["up", "never"], ids=["after the line", "searching"])
def test_a_slow_reader_slows_the_command_but_neither_signals_nor_heartbeats(rides: Rides, line: str) -> None:
    code = """
signal.signal(signal.SIGUSR1, lambda *_: mark("signaled"))
put(b"up\\n")
wait()
for count in range(64):
    mark("next")
    put(b"x" * 65_535 + b"\\n")
"""
    reading, writing = os.pipe()
    with rides.start("--ready", f"log:^{line}$", *python(code), stdout=writing, stdin=subprocess.PIPE) as process:
        os.close(writing)
        assert os.read(reading, 3) == b"up\n"
        command = rides.command_of(process)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        wait_until(lambda: rides.facts("mark") and stands_still(command), "the command to wait for its reader")
        beats = len(rides.facts("heartbeat"))
        wait_until(lambda: len(rides.facts("heartbeat")) > beats + 1, "heartbeats")
        assert len(rides.facts("mark")) < 8
        assert cpu_ticks(process.pid) < 100
        process.send_signal(signal.SIGUSR1)
        wait_until(lambda: any(b"c2lnbmFsZWQ" in line for line in rides.lines()), "the signal")
        assert len(read_all(reading)) == 64 * 65_536
        assert process.wait() == 0


def stands_still(pid: int) -> bool:
    """Whether it waits for room in a pipe."""
    return "pipe" in Path(f"/proc/{pid}/wchan").read_text()


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_an_output_that_is_closed_has_ended_while_the_command_lives(rides: Rides) -> None:
    code = "put(b'up\\n'); os.close(1); wait()"
    reading, writing = os.pipe()
    with rides.start("--ready", "log:up", *python(code), stdout=writing, stdin=subprocess.PIPE) as process:
        os.close(writing)
        assert read_all(reading) == b"up\n"
        assert state_of(rides.command_of(process)) in "SR"
        process.communicate("\n")


def test_a_device_is_an_output_like_others(rides: Rides) -> None:
    done = rides.run(
        "--ready",
        "log:up",
        *python(f"put(b'x' * {4 * MIB}); put(b'\\nup\\n'); put(b'x' * {4 * MIB})"),
        stdout=subprocess.DEVNULL,
        capture_output=False,
    )
    assert done.returncode == 0
    assert len(rides.facts("ready")) == 1


# --- the end ---


def test_what_a_descendant_writes_after_the_end_still_arrives(rides: Rides) -> None:
    code = """
put(b"up\\n")
if os.fork() == 0:
    parent = os.getppid()
    while os.getppid() == parent: time.sleep(0.01)
    wait()
    put(b"late\\n" * 100_000)
    os._exit(0)
"""
    reading, writing = os.pipe()
    with rides.start("--ready", "log:up", *python(code), stdout=writing, stdin=subprocess.PIPE) as process:
        os.close(writing)
        assert process.wait() == 0
        process.communicate("\n")
        assert read_all(reading) == b"up\n" + b"late\n" * 100_000


def test_nobody_stays_behind_when_everybody_has_ended(rides: Rides) -> None:
    with rides.start("--ready", "log:up", "--", "sh", "-c", "echo up; sleep 0.1", start_new_session=True) as process:
        process.communicate()
        assert not [path for path in Path("/proc").glob("[0-9]*") if session_of(int(path.name)) == process.pid]


def session_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return 0


def test_what_was_written_before_the_end_waits_for_a_slow_reader(rides: Rides) -> None:
    reading, writing = os.pipe()
    code = f"put(b'x' * {100_000})"
    with rides.start("--ready", "log:up", *python(code), stdout=writing) as process:
        os.close(writing)
        end = rides.wait_for("exit")
        assert (end["code"], process.poll()) == (0, None)
        assert len(read_all(reading)) == 100_000
        assert process.wait() == 0


@pytest.mark.parametrize("output", [pipe, stream, lambda: (-1, os.open("/dev/null", os.O_WRONLY))])
def test_what_the_wrapper_had_no_time_for_comes_out_at_the_end(
    rides: Rides, output: Callable[[], tuple[int, int]]
) -> None:
    reading, writing = output()
    code = "put(b'up\\n'); wait(); put(b'x' * 50_000)"
    options = {"stdout": writing, "stdin": subprocess.PIPE, "start_new_session": True}
    with rides.start("--ready", "log:up", *python(code), **options) as process:
        os.close(writing)
        rides.wait_for("ready")
        command = rides.command_of(process)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: state_of(process.pid) == "T", "the wrapper to stop")
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        wait_until(lambda: state_of(command) == "Z", "the command to end")
        process.send_signal(signal.SIGCONT)
        assert process.wait() == 0
        assert reading < 0 or read_all(reading) == b"up\n" + b"x" * 50_000


def test_a_signal_ends_that_wait_and_loses_nothing(rides: Rides) -> None:
    reading, writing = os.pipe()
    with rides.start("--ready", "log:up", *python("put(b'x' * 100_000); sys.exit(3)"), stdout=writing) as process:
        os.close(writing)
        rides.wait_for("exit")
        process.terminate()
        assert process.wait() == 3
        assert len(read_all(reading)) == 100_000


def test_a_line_that_comes_with_the_end_is_noted_before_it(rides: Rides) -> None:
    rides.run("--ready", "log:up", "--", "echo", "up")
    ready, end = rides.facts("ready")[0], rides.facts("exit")[0]
    assert ready["t"] <= end["t"]
    assert rides.facts()[-1] == end


def test_a_line_without_an_end_is_none(rides: Rides) -> None:
    assert rides.run("--ready", "log:up", "--", "printf", "up").stdout == "up"
    assert rides.facts("ready") == []


def test_the_summary_comes_after_all_that_the_command_wrote(rides: Rides) -> None:
    done = rides.run("--ready", "log:up", "--summary", *python("put(b'up\\n' * 30_000, 2)"))
    assert done.stderr.startswith("up\n" * 30_000 + "taximeter: ran ")


def test_a_command_that_cannot_be_started_leaves_the_outputs_as_they_were(rides: Rides) -> None:
    done = rides.run("--ready", "log:up", "--", "no-such-command")
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr.startswith("taximeter: cannot run 'no-such-command'")


def test_a_run_that_is_not_metered_is_not_relayed(rides: Rides) -> None:
    (rides.path / "state").touch()
    done = rides.run("--ready", "log:up", "--", "sh", "-c", "echo up; ls -l /proc/$$/fd/1 >&2")
    assert done.stdout == "up\n"
    assert "NOT MEASURED" in done.stderr


@pytest.mark.parametrize("signaled", [False, True])
def test_what_is_left_at_the_end_needs_no_more_descriptors(rides: Rides, signaled: bool) -> None:
    code = "put(b'up\\n'); wait(); put(b'x' * 100_000); sys.exit(4)"
    reading, writing = os.pipe()
    with rides.start("--ready", "log:up", *python(code), stdin=subprocess.PIPE, stdout=writing) as process:
        os.close(writing)
        assert os.read(reading, 3) == b"up\n"
        rides.wait_for("heartbeat")
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, 3))
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        rides.wait_for("exit")
        if signaled:
            process.terminate()
            process.wait()
        assert len(read_all(reading)) == 100_000
        assert process.wait() == 4


def test_a_pattern_that_runs_wild_is_given_up_and_noted(rides: Rides) -> None:
    code = "put(b'a' * 60 + b'b\\n'); wait(); put(b'a\\n')"
    with rides.start("--ready", "log:(a+)+$", *python(code), stdin=subprocess.PIPE) as process:
        assert next_line(process) == "a" * 60 + "b\n"
        assert rides.wait_for("ready_timeout")["reason"] == "pattern"
        out, _ = process.communicate("\n")
    assert (out, process.returncode, rides.facts("ready")) == ("a\n", 0, [])


def test_a_first_line_is_known_to_within_nothing_where_it_was_waited_for(rides: Rides) -> None:
    rides.run("--ready", "log:^up$", *python("time.sleep(0.3); put(b'up\\n'); time.sleep(0.1)"))
    assert rides.facts("ready")[0]["within"] == 0


# --- files ---


def ready_in_a_file(rides: Rides, code: str, mode: str = "wb", before: bytes = b"up\n", **more: Any) -> bytes:
    """What the file holds after a command whose output it was."""
    path = rides.path / "log"
    path.write_bytes(before)
    with open(path, mode) as file:
        file.seek(0, os.SEEK_END if mode == "r+b" else os.SEEK_CUR)
        rides.run("--ready", "log:^up$", *python(code), stdout=file, capture_output=False, **more)
    return path.read_bytes()


@pytest.mark.parametrize("mode", ["ab", "r+b"])
def test_a_file_is_searched_from_where_the_command_begins(rides: Rides, mode: str) -> None:
    assert ready_in_a_file(rides, "put(b'not yet\\n'); time.sleep(0.3)", mode) == b"up\nnot yet\n"
    assert rides.facts("ready") == []


@pytest.mark.parametrize("mode", ["wb", "ab", "r+b"])
def test_a_line_in_a_file_is_found_and_when_that_was_is_known(rides: Rides, mode: str) -> None:
    code = """
put(b"u")
time.sleep(0.3)
before_ns = time.monotonic_ns()
put(b"p\\n")
mark(f"{before_ns} {time.monotonic_ns()}")
time.sleep(0.3)
"""
    ready_in_a_file(rides, code, mode, b"x\n")
    (ready,), (marked,) = rides.facts("ready"), rides.facts("mark")
    before_ns, after_ns = map(int, base64.b64decode(marked["raw"]).split())
    assert ready["t"] - ready["within"] <= after_ns
    assert before_ns <= ready["t"]
    assert 0 < ready["within"] < 1_000_000_000


def test_a_line_at_the_end_of_a_file_is_found(rides: Rides) -> None:
    ready_in_a_file(rides, "time.sleep(0.1); put(b'x' * 1_000_000 + b'\\nup\\n')")
    assert len(rides.facts("ready")) == 1


def test_a_file_that_was_cut_is_read_anew(rides: Rides) -> None:
    code = """
put(b"x" * 100_000)
time.sleep(0.3)
os.truncate("/proc/self/fd/1", 0)
time.sleep(0.3)
put(b"up\\n")
time.sleep(0.3)
"""
    ready_in_a_file(rides, code, "ab")
    assert len(rides.facts("ready")) == 1


def test_a_hole_in_a_file_is_not_read(rides: Rides) -> None:
    code = "os.lseek(1, 1 << 40, 0); put(b'\\nup\\n'); time.sleep(0.5); os.ftruncate(1, 0)"
    ready_in_a_file(rides, code)
    assert len(rides.facts("ready")) == 1


def test_both_outputs_may_be_one_file(rides: Rides) -> None:
    code = "put(b'x\\n'); put(b'up\\n', 2); time.sleep(0.3)"
    assert ready_in_a_file(rides, code, stderr=subprocess.STDOUT) == b"x\nup\n"
    assert len(rides.facts("ready")) == 1


def test_the_command_has_its_file_to_itself(rides: Rides) -> None:
    ready_in_a_file(
        rides,
        "put(b'up\\n'); time.sleep(0.2); os.lseek(1, 0, 0); os.ftruncate(1, 1); mark(os.readlink('/proc/self/fd/1'))",
    )
    assert len(rides.facts("mark")) == 1
    assert (rides.path / "log").read_bytes() == b"u"


# --- terminals ---


def test_a_terminal_is_refused_with_what_to_do(rides: Rides) -> None:
    ours, theirs = pty.openpty()
    done = rides.run(
        "--ready", "log:up", "--", "echo", "up", stdout=theirs, stderr=subprocess.PIPE, capture_output=False
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    assert "got a terminal" in done.stderr
    assert "| cat" in done.stderr
    assert not list(rides.journal.glob("*"))


def test_without_outputs_there_is_nothing_to_search(rides: Rides) -> None:
    words = ["sh", "-c", 'exec "$@" >&- 2>&-', "-", *rides.words("--ready", "log:up", "--", "true")]
    assert subprocess.run(words, env=rides.environment()).returncode == 2


def test_a_job_in_a_pipeline_can_be_suspended_and_continued(terminal: Terminal) -> None:
    (terminal.rides.path / "loop.py").write_text(
        """
import os, time
print("one", flush=True)
while not os.path.exists("go"): time.sleep(0.02)
print("two", flush=True)
time.sleep(60)
"""
    )
    terminal.enter(f"{RUN} --ready log:^two$ -- {PYTHON} loop.py 2>&1 | cat")
    terminal.expect("one\n")
    terminal.started()
    terminal.type(SUSPEND)
    terminal.expect(PROMPT)
    terminal.enter("fg")
    (terminal.rides.path / "go").touch()
    terminal.expect("two\n")
    terminal.rides.wait_for("ready")
    terminal.type(INTERRUPT)
    terminal.expect(PROMPT)


def test_a_pager_that_is_left_early_ends_the_command(terminal: Terminal) -> None:
    terminal.enter(f"{RUN} --ready log:^3$ -- seq 100000000 2>&1 | less")
    terminal.expect(":")
    terminal.type("q")
    terminal.expect(PROMPT)
    assert terminal.ask("echo ${PIPESTATUS[@]}; echo ok").endswith("ok")
