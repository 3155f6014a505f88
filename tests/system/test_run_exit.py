"""`taximeter run` ends as its command does, whatever becomes of the meter."""

import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from tests.require import require_program, require_root
from tests.system.rides import PYTHON, Rides


@pytest.fixture
def rides(tmp_path: Path) -> Rides:
    return Rides(tmp_path)


def script(path: Path, content: str, mode: int = 0o755) -> str:
    path.write_text(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("code", [0, 1, 3, 77, 125, 126, 127, 128, 143, 255])
def test_it_exits_with_the_command_s_status(rides: Rides, code: int) -> None:
    assert rides.run("--", "sh", "-c", f"exit {code}").returncode == code
    assert [(fact["code"], fact["signal"]) for fact in rides.facts("exit")] == [(code, None)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGPIPE, signal.SIGRTMIN + 3])
def test_it_dies_of_the_command_s_signal(rides: Rides, number: int) -> None:
    assert rides.run("--", "sh", "-c", f"kill -{int(number)} $$").returncode == -number
    assert [(fact["code"], fact["signal"]) for fact in rides.facts("exit")] == [(None, number)]


def test_it_dies_of_a_signal_that_comes_late_too(rides: Rides) -> None:
    assert rides.run("--", "sh", "-c", "sleep 0.2; kill -USR1 $$").returncode == -signal.SIGUSR1


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT])
def test_it_leaves_no_core_of_its_own(rides: Rides, number: int) -> None:
    def allow_cores() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    words = rides.words("--", PYTHON, "-c", f"import os; os.kill(os.getpid(), {int(number)})")
    process = subprocess.Popen(words, env=rides.environment(), cwd=rides.path, preexec_fn=allow_cores)  # noqa: PLW1509
    _, status = os.waitpid(process.pid, 0)
    process.returncode = 0
    assert (os.WTERMSIG(status), os.WCOREDUMP(status)) == (number, False)


def test_a_shell_shows_128_and_the_signal(rides: Rides) -> None:
    words = ["bash", "-c", '"$@"; echo $?', "-", *rides.words("--", "sh", "-c", "kill -TERM $$")]
    assert subprocess.run(words, env=rides.environment(), capture_output=True, text=True).stdout == "143\n"


def test_the_first_process_of_a_container_exits_with_128_and_the_signal(rides: Rides) -> None:
    require_root()
    unshare = require_program("unshare", "util-linux")
    words = [unshare, "--pid", "--fork", "--mount-proc", *rides.words("--", "sh", "-c", "kill -TERM $$; sleep 9")]
    assert subprocess.run(words, env=rides.environment(), timeout=30).returncode == 143


def test_a_command_that_is_not_there_is_127(rides: Rides) -> None:
    done = rides.run("--", "no-such-command")
    assert done.returncode == 127
    assert "no-such-command" in done.stderr
    assert "no-such-command" in rides.facts("exit")[0]["error"]
    assert not rides.facts("spawn")


@pytest.mark.parametrize("words", [["/"], ["./plain"], ["plain"]])
def test_a_command_that_cannot_be_executed_is_126(rides: Rides, words: list[str]) -> None:
    script(rides.path / "plain", "echo no\n", 0o644)
    done = rides.run("--", *words, cwd=rides.path, env=rides.environment(PATH=f"{rides.path}:{os.environ['PATH']}"))
    assert (done.returncode, rides.facts("exit")[0]["code"]) == (126, 126)


def test_an_empty_command_name_is_127(rides: Rides) -> None:
    assert rides.run("--", "").returncode == 127


def test_a_file_without_a_magic_number_is_run_by_sh(rides: Rides) -> None:
    path = script(rides.path / "bare", 'echo "$0 $1"; exit 5\n')
    done = rides.run("--", path, "one")
    assert (done.returncode, done.stdout) == (5, f"{path} one\n")


def test_a_file_on_the_path_that_cannot_be_executed_is_passed_over(rides: Rides) -> None:
    for name, mode in (("a", 0o644), ("b", 0o755)):
        (rides.path / name).mkdir()
        script(rides.path / name / "tool", f"#!/bin/sh\necho {name}\n", mode)
    path = f"{rides.path}/missing:{rides.path}/a:{rides.path}/b:{os.environ['PATH']}"
    assert rides.run("--", "tool", env=rides.environment(PATH=path)).stdout == "b\n"


def test_an_empty_place_on_the_path_is_the_working_directory(rides: Rides) -> None:
    script(rides.path / "tool", "#!/bin/sh\necho here\n")
    environment = rides.environment(PATH=f"{os.environ['PATH']}:")
    assert rides.run("--", "tool", cwd=rides.path, env=environment).stdout == "here\n"


def test_without_a_path_the_usual_places_are_searched(rides: Rides) -> None:
    environment = rides.environment()
    del environment["PATH"]
    assert rides.run("--", "echo", "found", env=environment).stdout == "found\n"


def test_a_command_line_that_makes_no_sense_is_2_and_starts_nothing(rides: Rides) -> None:
    done = rides.run("--modle=x", "--", "touch", str(rides.path / "started"))
    assert done.returncode == 2
    assert "did you mean --model?" in done.stderr
    assert not (rides.path / "started").exists()


def test_help_is_printed_without_a_command(rides: Rides) -> None:
    done = rides.run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: taximeter run")


def test_a_run_without_a_journal_runs_and_says_so(rides: Rides) -> None:
    (rides.path / "state").write_text("in the way")
    done = rides.run("--", "sh", "-c", "echo out; exit 4")
    assert (done.returncode, done.stdout) == (4, "out\n")
    assert "NOT MEASURED" in done.stderr
    assert str(rides.path / "state") in done.stderr


def test_a_run_that_must_be_metered_is_refused_without_a_journal(rides: Rides) -> None:
    (rides.path / "state").write_text("in the way")
    done = rides.run("--require-meter", "--", "touch", str(rides.path / "started"))
    assert done.returncode == 125
    assert "--require-meter" in done.stderr
    assert not (rides.path / "started").exists()


def test_a_run_that_must_be_metered_runs_with_a_journal(rides: Rides) -> None:
    assert rides.run("--require-meter", "--", "true").returncode == 0


def test_a_disk_without_room_for_the_first_line_leaves_a_journal_without_one(rides: Rides) -> None:
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = rides.run("--", "sh", "-c", "exit 4", preexec_fn=no_room)
    assert done.returncode == 4
    assert "NOT MEASURED" in done.stderr
    assert [path.stat().st_size for path in rides.journal.iterdir()] == [0]


def test_a_disk_that_fills_up_harms_neither_the_command_nor_the_lines_before(rides: Rides) -> None:
    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))

    mark = 'echo "{\\"mark\\":\\"x\\",\\"n\\":$i}" 1<>"$TAXIMETER_MARKS"'
    flood = f"i=0; while [ $i -lt 200 ]; do {mark}; i=$((i+1)); done; sleep 0.3; exit 4"
    assert rides.run("--", "sh", "-c", flood, preexec_fn=little_room).returncode == 4
    names = [fact["f"] for fact in rides.facts()]
    assert names[:3] == ["open", "spawn", "ready"]
    assert names[-1] == "exit"
    assert names.count("mark") > 50
    assert names.count("mark") + rides.facts("exit")[0]["dropped"] == 200


def test_a_journal_directory_that_vanishes_harms_nothing(rides: Rides) -> None:
    assert rides.run("--", "sh", "-c", f"rm -r {rides.path}/state; sleep 0.1; exit 4").returncode == 4


@pytest.mark.parametrize(
    "fault",
    [
        "signalfd4:error=ENOSYS",
        "epoll_create1:error=EMFILE",
        "pidfd_open:error=ENOSYS",
        "prctl:error=EPERM",
        "epoll_wait:error=EBADF",
        "pwrite64:error=EIO:when=2+",
        "pwrite64:error=ENOSPC:when=2+",
        "pwrite64:error=EBADF:when=2+",
        "read:error=EIO:when=40+",
        "ftruncate:error=EIO",
        "unlink:error=EACCES",
        "waitid:error=EINVAL",
        "wait4:error=EINVAL:when=2",
        "openat:error=EMFILE:when=45+",
    ],
)
@pytest.mark.parametrize("command", ["exit 4", "sleep 0.1; exit 4", "sleep 0.1; kill -TERM $$"])
def test_a_meter_that_breaks_after_the_start_harms_nothing(rides: Rides, fault: str, command: str) -> None:
    strace = require_program("strace")
    words = [
        strace,
        "-o",
        "/dev/null",
        "-e",
        "trace=none",
        "-e",
        f"inject={fault}",
        *rides.words("--", "sh", "-c", command),
    ]
    done = subprocess.run(words, env=rides.environment(), timeout=60, capture_output=True, text=True)
    assert done.returncode == (-15 if "kill" in command else 4), done.stderr


@pytest.mark.parametrize("fault", ["signalfd4:error=ENOSYS", "epoll_wait:error=EBADF", "pwrite64:error=EBADF:when=2+"])
def test_a_broken_meter_still_forwards_signals(rides: Rides, fault: str) -> None:
    strace = require_program("strace")
    trap = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.02; done"
    words = [
        strace,
        "-o",
        "/dev/null",
        "-e",
        "trace=none",
        "-e",
        f"inject={fault}",
        *rides.words("--", "sh", "-c", trap),
    ]
    with subprocess.Popen(words, env=rides.environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        wrapper = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        os.kill(wrapper, signal.SIGUSR1)
        assert process.wait(30) == 9


def test_a_denied_account_is_refused_with_77(rides: Rides) -> None:
    (rides.run_directory / "denied").mkdir(parents=True)
    (rides.run_directory / "denied" / "cus%207").touch()
    done = rides.run("--account", "cus 7", "--", "touch", str(rides.path / "started"))
    assert done.returncode == 77
    assert "cus 7" in done.stderr
    assert not (rides.path / "started").exists()
    assert rides.run("--account", "cus_8", "--", "true").returncode == 0


def test_an_account_of_the_environment_is_refused_as_well(rides: Rides) -> None:
    (rides.run_directory / "denied").mkdir(parents=True)
    (rides.run_directory / "denied" / "cus_7").touch()
    assert rides.run("--", "true", env=rides.environment(TAXIMETER_ACCOUNT="cus_7")).returncode == 77


def test_a_node_that_wants_its_agent_refuses_without_it(rides: Rides) -> None:
    rides.run_directory.mkdir()
    (rides.run_directory / "refuse-without-agent").touch()
    assert rides.run("--", "true").returncode == 77
    (rides.run_directory / "agent").write_text(f'{{"url":"http://127.0.0.1:9","token":"t","pid":{os.getpid()}}}')
    assert rides.run("--", "true").returncode == 0
