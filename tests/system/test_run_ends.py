"""How a run ends, told rightly: for want of memory, by a stop, a hang-up, as the first process of a container."""

import contextlib
import json
import os
import pty
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.require import require_program, require_root
from tests.system.agents import Node, wait_until
from tests.system.groups import Group, kills_on_this_node, memory_group
from tests.system.rides import PYTHON, Rides, children_of, stat_fields, state_of, watched

LIMIT_BYTES = 64 << 20
_PATIENCE_S = 60.0

#: Takes memory until it is killed, once it may.
GLUTTON = "x = bytearray(); input()\nwhile True: x += bytearray(1 << 20)"


@pytest.fixture
def rides(tmp_path: Path) -> Rides:
    return Rides(tmp_path)


@pytest.fixture(scope="module")
def node(taximeter_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose agent lives."""
    node = Node(taximeter_program, tmp_path_factory.mktemp("ends") / "node")
    with node.agent():
        yield node


def booked(node: Node, model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last record of the one prediction of that model, and of its instance."""

    def final() -> list[dict[str, Any]]:
        found = [record["data"] for record in node.records(model=model)]
        return [data for data in found if data["final"] and data["prediction"] is None]

    (instance,) = wait_until(final, f"the last record of {model}")
    predictions = [record["data"] for record in node.records(model=model) if record["data"]["prediction"]]
    return (predictions or [instance])[-1], instance


def journal_of(node: Node, model: str) -> bytes:
    """The whole lines so far of the journal of the one run of that model; empty while there is none."""
    for path in node.journal.glob("*.ndjson"):
        with contextlib.suppress(FileNotFoundError):  # booked, and taken away
            text = path.read_bytes()
            if f'"model":"{model}"'.encode() in text:
                return text[: text.rfind(b"\n") + 1]
    return b""


def command_of(node: Node, model: str) -> int:
    """The pid of the command of the one run of that model, once it is started."""

    def spawned() -> list[int]:
        return [json.loads(line)["pid"] for line in journal_of(node, model).split(b"\n") if b'"f":"spawn"' in line]

    pid: int = wait_until(spawned, f"the command of {model}")[0]
    return pid


def listen(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# --- For want of memory ---


def in_group(rides: Rides, group: Group, *words: str) -> dict[str, Any]:
    """The exit fact of a run in a cgroup, which reads a line and goes on once the wrapper looks after it."""
    command = group.enter(*rides.words(*words))
    with subprocess.Popen(command, env=rides.environment(), stdin=subprocess.PIPE, text=True) as process:
        rides.wait_for("heartbeat")
        process.communicate("\n" * 2, timeout=_PATIENCE_S)
    (fact,) = rides.facts("exit")
    return fact


def test_a_memory_limit_of_its_own_group_is_recognised(rides: Rides) -> None:
    with memory_group("own", LIMIT_BYTES) as group:
        fact = in_group(rides, group, "--", PYTHON, "-c", GLUTTON)
    assert (fact["signal"], fact.get("oom")) == (signal.SIGKILL, "limit")


def test_a_memory_limit_of_a_group_above_is_recognised(rides: Rides) -> None:
    with memory_group("above", LIMIT_BYTES) as above, memory_group("below", within=above) as group:
        fact = in_group(rides, group, "--", PYTHON, "-c", GLUTTON)
    assert (fact["signal"], fact.get("oom")) == (signal.SIGKILL, "limit")


def test_a_kill_by_hand_is_told_apart(rides: Rides) -> None:
    before = kills_on_this_node()
    with memory_group("by-hand") as group:
        fact = in_group(rides, group, "--", PYTHON, "-c", "import os; input(); os.kill(os.getpid(), 9)")
    nobody_else = before == kills_on_this_node()
    assert fact.get("oom") == "none" or (fact.get("oom") is None and not nobody_else)


SURVIVOR = f"""
import subprocess, sys
ended = subprocess.run([sys.executable, "-c", {GLUTTON!r}]).returncode
sys.exit(3 if ended == -9 else 4)
"""


def test_a_descendant_that_is_killed_for_want_of_memory_ends_nothing(rides: Rides) -> None:
    with memory_group("child", LIMIT_BYTES) as group:
        fact = in_group(rides, group, "--", PYTHON, "-c", SURVIVOR)
    assert (fact["code"], fact["signal"], fact.get("oom")) == (3, None, None)


def test_a_shell_that_says_137_was_not_killed(rides: Rides) -> None:
    with memory_group("shell", LIMIT_BYTES) as group:
        fact = in_group(rides, group, "--", "sh", "-c", f"{PYTHON} -c '{GLUTTON}'; exit $?")
    assert (fact["code"], fact["signal"], fact.get("oom")) == (137, None, None)


def test_a_run_that_reached_its_memory_limit_failed_and_says_why(node: Node) -> None:
    with memory_group("booked", LIMIT_BYTES) as group:
        words = group.enter(node.program, "run", "--model", "limited", "--", PYTHON, "-c", GLUTTON)
        with subprocess.Popen(words, env=node.environment(), stdin=subprocess.PIPE, text=True) as process:
            wait_until(lambda: b"heartbeat" in journal_of(node, "limited"), "the wrapper to look after it")
            process.communicate("\n", timeout=_PATIENCE_S)
    prediction, instance = booked(node, "limited")
    assert (prediction["status"], instance["exit"]["oom"], instance["exit"]["reason"]) == ("failed", True, "oom_limit")
    receipt = node.taximeter("receipt", instance["instance"]).stdout
    assert "killed by SIGKILL (9), out of memory: a limit of its own" in " ".join(receipt.split())


# --- What is left running ---

#: Leaves so many orphans behind, once its wrapper takes them in.
LEAVER = """
import os, sys
def link(fd):
    try: return os.readlink(f"/proc/{os.getppid()}/fd/{fd}")
    except OSError: return ""
while not any("signalfd" in link(fd) for fd in os.listdir(f"/proc/{os.getppid()}/fd")):
    os.sched_yield()
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            os.write(1, b"%d\\n" % os.getpid())
            os.closerange(1, 3)
            open(sys.argv[2]).read()
        os._exit(0)
    os.wait()
if len(sys.argv) > 3:
    sys.stdin.read()
"""


@contextlib.contextmanager
def gate(path: Path) -> Iterator[Path]:
    """A FIFO that holds up who reads it; at the end it lets everybody go."""
    place = path / "gate"
    os.mkfifo(place)
    held = os.open(place, os.O_RDWR)
    try:
        yield place
    finally:
        place.unlink()  # first, so that nobody who comes late waits for ever
        os.close(held)


def test_orphans_that_live_on_are_counted_and_left_alone(rides: Rides) -> None:
    with gate(rides.path) as held:
        done = rides.run("--", PYTHON, "-c", LEAVER, "3", str(held))
        pids = [int(word) for word in done.stdout.split()]
        assert rides.facts("exit")[0].get("left") == 3
        assert {state_of(pid) for pid in pids} <= {"R", "S", "D"}


def test_descendants_of_orphans_are_counted_too(rides: Rides) -> None:
    with gate(rides.path) as held:
        script = f"read line; (sh -c 'cat {held}; true' >/dev/null &) ; read line"
        with rides.start("--", "sh", "-c", script, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            command = rides.command_of(process)
            wait_until(lambda: watched(process.pid), "the wrapper to take orphans in")
            process.stdin.write("\n")
            process.stdin.flush()
            wait_until(lambda: len(grown_up(process.pid, command)) == 2, "the orphan and its child")
            process.communicate("\n")
        assert rides.facts("exit")[0].get("left") == 2


def grown_up(wrapper: int, command: int) -> list[int]:
    """Orphans below the wrapper, and their children."""
    orphans = [pid for pid in children_of(wrapper) if pid != command]
    return [*orphans, *(child for pid in orphans for child in children_of(pid))]


def run_past_a_heartbeat(rides: Rides, script: str) -> None:
    """A script for sh that ends by reading a line."""
    with rides.start("--", "sh", "-c", script, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        rides.wait_for("heartbeat")
        process.communicate("\n")
    assert process.returncode == 0


def test_orphans_of_the_first_moment_are_found_where_they_went(rides: Rides) -> None:
    """A shell forks within the first milliseconds, when nobody has taken its orphans in."""
    with gate(rides.path) as held:
        run_past_a_heartbeat(rides, f"(cat {held} & cat {held} &) ; read line")
        assert rides.facts("exit")[0].get("left") == 2


def test_a_command_that_leaves_nobody_says_so(rides: Rides) -> None:
    run_past_a_heartbeat(rides, "sleep 0.1 & wait; read line")
    assert rides.facts("exit")[0].get("left") == 0


def test_what_nobody_could_see_is_not_said(rides: Rides) -> None:
    """Over before anybody took orphans in: nothing, or certainly nobody; never a guess."""
    with gate(rides.path) as held:
        rides.run("--", "sh", "-c", f"cat {held} >/dev/null 2>&1 &", capture_output=False, stdout=subprocess.DEVNULL)
        assert rides.facts("exit")[0].get("left") in (None, 1)
    other = Rides(rides.path / "other")
    other.run("--", "true")
    assert other.facts("exit")[0].get("left") in (None, 0)


def test_a_receipt_says_what_was_left_running(node: Node) -> None:
    with gate(node.path) as held:
        node.run("--model", "leaver", "--", PYTHON, "-c", LEAVER, "2", str(held))
        _, instance = booked(node, "leaver")
    assert instance["exit"]["left_running"] == 2
    assert "left running: 2 processes" in node.taximeter("receipt", instance["instance"]).stdout


# --- Stops ---

STOPPABLE = """
import signal, sys, time
def told(number, frame):
    time.sleep(0.3)
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
print("up", flush=True)
while True:
    time.sleep(0.01)  # not pause: a signal just before it would be heard by nobody
"""

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda number, frame: print("no", flush=True))
print("up", flush=True)
while True:
    time.sleep(0.01)  # not pause: a signal just before it would be heard by nobody
"""


@pytest.mark.parametrize(
    ("on_term", "status"), [("canceled", "canceled"), ("aborted", "aborted"), ("drain", "aborted")]
)
def test_what_an_outside_sigterm_is_called_is_as_was_said(node: Node, on_term: str, status: str) -> None:
    model = f"stop-{on_term}"
    with node.spawn("--model", model, "--on-term", on_term, "--", "sleep", "60") as process:
        command_of(node, model)
        process.terminate()
        assert process.wait(_PATIENCE_S) == -signal.SIGTERM
    prediction, instance = booked(node, model)
    assert (prediction["status"], instance["exit"]["signal"]) == (status, signal.SIGTERM)


def test_the_teardown_of_a_worker_is_from_its_stop_to_its_exit(node: Node) -> None:
    with node.spawn("--model", "grace", "--worker", "--", PYTHON, "-c", STOPPABLE, stdout=subprocess.PIPE) as process:
        assert listen(process) == "up"
        process.terminate()
        assert process.wait(_PATIENCE_S) == 0
    _, instance = booked(node, "grace")
    assert instance["to_date"]["teardown_ns"] >= 300_000_000
    assert instance["exit"]["code"] == 0


def test_a_stop_that_is_ignored_ends_by_sigkill_and_keeps_its_name(node: Node) -> None:
    """SIGTERM to the wrapper, a grace, SIGKILL to the command: as a service manager does."""
    words = ["--model", "stubborn", "--worker", "--", PYTHON, "-c", STUBBORN]
    with node.spawn(*words, stdout=subprocess.PIPE) as process:
        assert listen(process) == "up"
        command = command_of(node, "stubborn")
        process.terminate()
        assert listen(process) == "no"
        os.kill(command, signal.SIGKILL)
        assert process.wait(_PATIENCE_S) == -signal.SIGKILL
    _, instance = booked(node, "stubborn")
    assert (instance["status"], instance["exit"]["signal"]) == ("canceled", signal.SIGKILL)
    assert instance["exit"]["oom"] is not True
    assert instance["to_date"]["teardown_ns"] > 0


def test_signals_to_the_command_itself_are_none_of_the_wrapper_s(rides: Rides) -> None:
    with rides.start("--", PYTHON, "-c", STUBBORN) as process:
        assert listen(process) == "up"
        command = rides.command_of(process)
        os.kill(command, signal.SIGTERM)
        assert listen(process) == "no"
        os.kill(command, signal.SIGKILL)
        assert process.wait(_PATIENCE_S) == -signal.SIGKILL
    assert rides.facts("signal") == []
    assert rides.facts("exit")[0]["signal"] == signal.SIGKILL


def test_a_time_limit_around_it_ends_the_command(rides: Rides) -> None:
    """`timeout` signals the wrapper and then the whole group, so that the command may hear it twice."""
    timeout = require_program("timeout", "coreutils")
    words = [timeout, "1", *rides.words("--", "sleep", "60")]
    assert subprocess.run(words, env=rides.environment(), timeout=_PATIENCE_S).returncode == 124
    assert rides.facts("exit")[0]["signal"] == signal.SIGTERM
    assert rides.facts("signal")[0]["outside"] is True


def test_a_time_limit_within_it_is_the_command_s_own_affair(rides: Rides) -> None:
    timeout = require_program("timeout", "coreutils")
    assert rides.run("--", timeout, "0.2", "sleep", "60").returncode == 124
    assert [fact for fact in rides.facts("signal") if fact["outside"]] == []
    assert rides.facts("exit")[0]["code"] == 124


def test_a_stopped_command_stays_in_its_phase(node: Node) -> None:
    with node.spawn("--model", "stopped", "--", "sleep", "60") as process:
        command = command_of(node, "stopped")
        began_s = time.monotonic()
        os.kill(command, signal.SIGSTOP)
        wait_until(lambda: time.monotonic() - began_s > 1.2, "more than a heartbeat to pass")
        os.kill(command, signal.SIGCONT)
        process.terminate()
        process.wait(_PATIENCE_S)
    prediction, instance = booked(node, "stopped")
    assert prediction["time"]["active_ns"] >= 1_200_000_000
    assert (prediction["time"]["unknown_ns"], instance["to_date"]["suspended_ns"]) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_core_dump_is_told_where_there_is_one(rides: Rides, number: int) -> None:
    def allow_cores() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    words = [PYTHON, "-c", f"import os; os.kill(os.getpid(), {int(number)})"]
    alone = subprocess.Popen(words, cwd=rides.path, preexec_fn=allow_cores)  # noqa: PLW1509
    _, status = os.waitpid(alone.pid, 0)
    alone.returncode = 0
    rides.run("--", *words, cwd=rides.path, preexec_fn=allow_cores)
    assert rides.facts("exit")[0]["core"] is os.WCOREDUMP(status)


# --- Hang-ups and sessions ---

LISTENER = """
import os, signal, sys, time
def told(number, frame):
    print(number, flush=True)
    if number == signal.SIGUSR2:
        os._exit(9)
for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, told)
print("up", flush=True)
while True:
    time.sleep(0.01)  # not pause: a signal just before it would be heard by nobody
"""


@pytest.mark.parametrize("inside", [False, True])
def test_nohup_keeps_both_from_a_hang_up(rides: Rides, inside: bool) -> None:
    nohup = require_program("nohup", "coreutils")
    listener = [PYTHON, "-c", LISTENER]
    words = rides.words("--", nohup, *listener) if inside else [nohup, *rides.words("--", *listener)]
    with subprocess.Popen(
        words, env=rides.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert listen(process) == "up"
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
        assert listen(process) == str(int(signal.SIGUSR1))
        process.send_signal(signal.SIGUSR2)
        assert process.wait(_PATIENCE_S) == 9
    assert len(rides.facts("signal")) == int(inside)  # who ignores it does not hear of it


def test_a_hang_up_ends_a_job_and_its_wrapper(rides: Rides) -> None:
    """A terminal that goes away: the shell tells its jobs, and nothing of them is left."""
    pid, terminal = pty.fork()
    if pid == 0:
        words = ["bash", "--norc", "--noprofile", "-i"]
        os.execvpe("bash", words, rides.environment(HISTFILE=""))
    os.write(terminal, f"{' '.join(rides.words('--', 'sleep', '60'))}\n".encode())
    spawn = wait_until(lambda: rides.facts("spawn"), "the command")[0]
    wait_until(lambda: state_of(spawn["pid"]) == "S", "the command to sleep")
    os.close(terminal)
    os.waitpid(pid, 0)
    assert rides.wait_for("exit")["signal"] == signal.SIGHUP
    assert not stat_fields(spawn["pid"])


def test_a_session_of_its_own_outlives_the_terminal(rides: Rides) -> None:
    setsid = require_program("setsid", "util-linux")
    out = rides.path / "out"
    pid, terminal = pty.fork()
    if pid == 0:
        line = f'{setsid} "$@" > {out} 2>&1 & wait'
        os.execvpe("bash", ["bash", "-c", line, "-", *rides.words("--", PYTHON, "-c", LISTENER)], rides.environment())
    wait_until(lambda: out.exists() and "up" in out.read_text(), "the command to listen")
    os.close(terminal)
    os.waitpid(pid, 0)
    spawn = rides.wait_for("spawn")
    os.kill(spawn["pid"], signal.SIGUSR2)
    assert rides.wait_for("exit")["code"] == 9
    assert rides.facts("signal") == []


def test_a_command_in_a_session_of_its_own_hears_what_is_sent_to_its_wrapper(rides: Rides) -> None:
    setsid = require_program("setsid", "util-linux")
    with rides.start("--", setsid, PYTHON, "-c", LISTENER) as process:
        assert listen(process) == "up"
        process.send_signal(signal.SIGUSR2)
        assert process.wait(_PATIENCE_S) == 9


# --- The first process of a container ---


@contextlib.contextmanager
def container(rides: Rides, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A run as the first process of a pid namespace, which is the one child of what is returned."""
    require_root()
    unshare = require_program("unshare", "util-linux")
    command = [unshare, "--pid", "--fork", "--kill-child", "--mount-proc", *rides.words(*words)]
    with subprocess.Popen(
        command, env=rides.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def test_the_first_process_of_a_container_passes_on_what_stops_it(rides: Rides) -> None:
    """The kernel keeps from it what it has no handler for; `docker stop` sends a SIGTERM all the same."""
    with container(rides, "--", PYTHON, "-c", STOPPABLE) as process:
        assert listen(process) == "up"
        wait_until(lambda: rides.facts("ready"), "the journal")
        os.kill(children_of(process.pid)[0], signal.SIGTERM)
        assert process.wait(_PATIENCE_S) == 0
    assert [(fact["signal"], fact["outside"], fact["sender"]) for fact in rides.facts("signal")] == [
        (signal.SIGTERM, True, 0)
    ]


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("kill -KILL $$", 137), ("sleep 0.1; kill -TERM $$", 143)])
def test_the_first_process_of_a_container_exits_as_its_command_does(rides: Rides, script: str, code: int) -> None:
    with container(rides, "--", "sh", "-c", script) as process:
        assert process.wait(_PATIENCE_S) == code


def test_a_stop_with_a_grace_kills_all_of_a_container(rides: Rides) -> None:
    """SIGTERM, and SIGKILL when that leads to nothing: the journal stays without an end, and its lock is free."""
    with container(rides, "--", PYTHON, "-c", STUBBORN) as process:
        assert listen(process) == "up"
        os.kill(children_of(process.pid)[0], signal.SIGTERM)
        assert listen(process) == "no"
        os.kill(children_of(process.pid)[0], signal.SIGKILL)
        assert process.wait(_PATIENCE_S) != 0
    assert rides.facts("exit") == []


STORM = """
import os, sys
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
print("done", flush=True)
while len([name for name in os.listdir("/proc") if name.isdigit()]) > 2:
    pass  # not only zombies: an orphan that waits for a core is none yet
print("clean", flush=True)
sys.stdin.read()
"""


def test_the_first_process_of_a_container_reaps_orphans_by_the_thousand(rides: Rides) -> None:
    with container(rides, "--", PYTHON, "-c", STORM, "3000") as process:
        assert listen(process) == "done"
        assert listen(process) == "clean"
        process.communicate("")
        assert process.returncode == 0
    (fact,) = rides.facts("exit")
    assert (fact["code"], fact["left"]) == (0, 0)


def test_what_the_first_process_of_a_container_leaves_goes_with_it(rides: Rides) -> None:
    with gate(rides.path) as held, container(rides, "--", PYTHON, "-c", LEAVER, "2", str(held)) as process:
        process.communicate()
        assert process.returncode == 0
    assert rides.facts("exit")[0]["left"] == 2
