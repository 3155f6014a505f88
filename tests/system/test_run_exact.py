"""What `taximeter run` hands on is exactly what it was started with, and it keeps nothing of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.rides import PROGRAM, PYTHON, Rides, children_of, state_of, wait_until, watched

#: The C library's own two signals, which every posix_spawn ignores in its child.
_LIBRARY_SIGNALS = 1 << 31 | 1 << 32
OWN = (b"TAXIMETER_MARKS=", b"TAXIMETER_PARENT=", b"TAXIMETER_ROOT=")


@pytest.fixture
def rides(tmp_path: Path) -> Rides:
    return Rides(tmp_path)


def environment_of_the_command(environment: dict[bytes, bytes]) -> list[bytes]:
    """The environment of a command under `taximeter run`, in order."""
    words = [PROGRAM.encode(), b"run", b"--", b"cat", b"/proc/self/environ"]
    out = subprocess.run(words, env=environment, capture_output=True, check=True, timeout=60).stdout
    return out.removesuffix(b"\0").split(b"\0")


def environment(rides: Rides, **more: str) -> dict[bytes, bytes]:
    said = {"TAXIMETER_STATE_DIR": str(rides.path / "state"), "PATH": os.environ["PATH"], **more}
    return {name.encode(): value.encode() for name, value in said.items()}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {b"A.B": b"1", b"BASH_FUNC_f%%": b"() {  echo f\n}", b"1X": b"2", b"a b": b"c", b"-": b"-"},
        {b"Z": b"1", b"A": b"2", b"M": b"3"},
        {b"IFS": b"x", b"OPTIND": b"7", b"PS1": b"$ ", b"PS4": b"+", b"PPID": b"1", b"MAIL": b"/x"},
        {b"PWD": b"/not/here", b"OLDPWD": b"/nor/there", b"SHLVL": b"41", b"_": b"/usr/bin/what"},
        {b"E": b"", b"U": b"\xff\xfe", b"N": b"a\nb", b"Q": b"a=b=c"},
        {b"LC_ALL": b"C"},
        {b"LANG": b"de_DE.ISO-8859-1", b"LC_CTYPE": b"POSIX"},
        {b"PYTHONHOME": b"/nonsense", b"PYTHONPATH": b"/nonsense", b"PYTHONUTF8": b"0", b"PYTHONSTARTUP": b"/x"},
        {b"ENV": b"/dev/null", b"BASH_ENV": b"/dev/null", b"POSIXLY_CORRECT": b"1"},
        {b"BIG": b"x" * 100_000, b"BIGGER": b"y" * 100_000},
    ],
    ids=lambda more: "+".join(name.decode() for name in more) or "plain",
)
def test_the_environment_is_the_same_in_the_same_order_but_for_our_own(rides: Rides, more: dict[bytes, bytes]) -> None:
    given = {**more, **environment(rides)}
    found = environment_of_the_command(given)
    assert [entry for entry in found if not entry.startswith(OWN)] == [b"=".join(pair) for pair in given.items()]
    assert len(found) == len(given) + len(OWN)


def test_a_worker_gets_its_marks_and_nothing_else(rides: Rides) -> None:
    words = rides.words("--worker", "--", "cat", "/proc/self/environ")
    said = environment(rides)
    out = subprocess.run(words, env=said, capture_output=True, check=True).stdout
    assert [entry for entry in out.split(b"\0")[:-1] if entry.split(b"=")[0] not in said] == [
        b"TAXIMETER_MARKS=" + str(rides.journal / rides.facts("open")[0]["instance"]).encode() + b".marks"
    ]


def test_a_worker_hands_on_whose_it_is(rides: Rides) -> None:
    told = ("--parent", "p0", "--account", "cus_7")
    said = rides.environment(TAXIMETER_PARENT="other", TAXIMETER_ROOT="others", TAXIMETER_ACCOUNT="cus_8")
    out = rides.run("--worker", *told, "--", "env", env=said).stdout
    kin = [line for line in out.splitlines() if line.startswith(("TAXIMETER_PARENT", "TAXIMETER_ROOT", "TAXIMETER_A"))]
    assert sorted(kin) == ["TAXIMETER_ACCOUNT=cus_7", "TAXIMETER_PARENT=p0"]


def test_a_run_without_a_journal_has_no_marks_not_even_those_of_a_run_around_it(rides: Rides) -> None:
    (rides.path / "state").touch()
    found = environment_of_the_command(environment(rides, TAXIMETER_MARKS="/somebody/elses.marks"))
    assert not [entry for entry in found if entry.startswith(b"TAXIMETER_MARKS")]


def test_a_prediction_inside_a_prediction_names_its_parent_its_root_and_its_account(rides: Rides) -> None:
    inner = " ".join(rides.words("--prediction", "inner", "--", *rides.words("--", "true")))
    assert rides.run("--prediction", "outer", "--account", "cus_7", "--", "sh", "-c", inner).returncode == 0
    said = {fact["options"]["prediction"]: fact["options"] for fact in rides.facts("open")}
    last = next(options for prediction, options in said.items() if prediction not in ("inner", "outer"))
    assert (said["outer"]["parent"], said["outer"]["root"]) == (None, None)
    assert (said["inner"]["parent"], said["inner"]["root"], said["inner"]["account"]) == ("outer", "outer", "cus_7")
    assert (last["parent"], last["root"], last["account"]) == ("inner", "outer", "cus_7")


SIGNAL_LINES = ["grep", "-E", "^Sig(Blk|Ign|Cgt|Pnd)|^ShdPnd", "/proc/self/status"]


def signals_of_the_command(rides: Rides, prepare: Callable[[], None]) -> tuple[dict[str, int], dict[str, int]]:
    """Signal masks of a command as it is started bare, and under `taximeter run`."""
    found = []
    for words in (SIGNAL_LINES, rides.words("--", *SIGNAL_LINES)):
        out = subprocess.run(
            words,
            env=rides.environment(),
            preexec_fn=prepare,
            restore_signals=False,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        masks = dict(line.split(":\t") for line in out.splitlines())
        found.append({name: int(mask, 16) & ~_LIBRARY_SIGNALS for name, mask in masks.items()})
    return found[0], found[1]


@pytest.mark.parametrize(
    "number", [0, *sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD})]
)
def test_each_ignored_signal_stays_ignored_and_no_other_is(rides: Rides, number: int) -> None:
    def ignore() -> None:
        for each in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(each, signal.SIG_DFL)
        if number:
            signal.signal(number, signal.SIG_IGN)

    bare, wrapped = signals_of_the_command(rides, ignore)
    assert wrapped == bare


@pytest.mark.parametrize(
    "blocked", [{signal.SIGUSR1}, {signal.SIGTERM, signal.SIGINT}, {signal.SIGPIPE}, {signal.SIGCHLD}]
)
def test_the_signal_mask_stays_the_same(rides: Rides, blocked: set[signal.Signals]) -> None:
    bare, wrapped = signals_of_the_command(rides, lambda: signal.pthread_sigmask(signal.SIG_BLOCK, blocked) and None)
    assert wrapped == bare


def test_a_sigchld_that_was_ignored_costs_no_exit_status(rides: Rides) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    assert rides.run("--", "sh", "-c", "exit 7", preexec_fn=ignore).returncode == 7


def test_the_command_has_the_descriptors_that_we_were_started_with(rides: Rides) -> None:
    kept, other = os.pipe()
    os.dup2(kept, 77)
    listing = [PYTHON, "-c", "import os; print(*sorted(int(n) for n in os.listdir('/proc/self/fd')))"]
    try:
        bare = subprocess.run(listing, pass_fds=(77, other), capture_output=True, text=True, check=True).stdout
        assert rides.run("--", *listing, pass_fds=(77, other)).stdout == bare
    finally:
        for fd in (kept, other, 77):
            os.close(fd)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_descriptor_stays_closed(rides: Rides, closed: str) -> None:
    look = ': >"$0"; for n in 0 1 2 3 4 5; do [ -e /proc/self/fd/$n ] && printf "$n " >>"$0"; done; exit 5'
    for name, words in (("bare", []), ("wrapped", rides.words("--"))):
        line = 'out=$1; look=$2; shift 2; "$@" sh -c "$look" "$out" ' + closed
        done = subprocess.run(["sh", "-c", line, "-", str(rides.path / name), look, *words], env=rides.environment())
        assert done.returncode == 5
    assert (rides.path / "wrapped").read_text() == (rides.path / "bare").read_text()


def test_a_closed_standard_input_leaves_the_journal_whole(rides: Rides) -> None:
    subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "-", *rides.words("--", "sh", "-c", "echo lost; exit 0")],
        env=rides.environment(),
    )
    assert [fact["f"] for fact in rides.facts()] == ["open", "spawn", "ready", "exit"]


def test_a_reader_sees_the_end_of_the_output_when_the_command_closes_it(rides: Rides) -> None:
    with rides.start("--", "sh", "-c", "echo last; exec >&- 2>&-; read wait", stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "last\n"
        assert process.poll() is None
        process.communicate("go on\n")


def test_the_wrapper_keeps_nothing_that_it_inherited(rides: Rides) -> None:
    reading, writing = os.pipe()
    with rides.start("--", "sh", "-c", "echo up; read wait", stdin=subprocess.PIPE, pass_fds=(writing,)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        rides.command_of(process)
        wait_until(lambda: pipes_of(process.pid) == set(), "the wrapper to drop its pipes")
        process.communicate("\n")
    os.close(reading)
    os.close(writing)


def pipes_of(pid: int) -> set[str]:
    """Pipes without a name that a process holds."""
    return {link for fd in Path(f"/proc/{pid}/fd").iterdir() if (link := os.readlink(fd)).startswith("pipe:")}


def test_standard_input_is_left_to_the_command_and_to_who_comes_after(rides: Rides) -> None:
    line = '{ "$@"; cat; }'
    words = ["sh", "-c", line, "-", *rides.words("--", "dd", "bs=1", "count=3", "status=none")]
    out = subprocess.run(words, env=rides.environment(), input=b"abcdef", capture_output=True, check=True).stdout
    assert out == b"abcdef"


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
def test_what_passes_through_is_what_was_put_in(rides: Rides, size: int) -> None:
    data = os.urandom(size)
    assert (
        subprocess.run(rides.words("--", "cat"), env=rides.environment(), input=data, capture_output=True).stdout
        == data
    )


@pytest.mark.parametrize(
    "look",
    [
        "import os; print(os.getcwd())",
        "import os; print(os.getpgid(0), os.getsid(0))",
        "import os; print(oct(os.umask(0)))",
        "import os; print(os.nice(0), os.sched_getaffinity(0))",
        "import resource; print([resource.getrlimit(n) for n in range(16)])",
        "print(open('/proc/self/oom_score_adj').read(), open('/proc/self/cgroup').read())",
        "import os; print(os.getuid(), os.getgid(), os.getgroups())",
    ],
)
def test_the_command_finds_itself_where_it_would_have_been(rides: Rides, look: str) -> None:
    places = {"cwd": rides.path, "umask": 0o027, "capture_output": True, "text": True, "check": True}
    bare = subprocess.run([PYTHON, "-c", look], **places).stdout  # type: ignore[call-overload]
    assert rides.run("--", PYTHON, "-c", look, cwd=rides.path, umask=0o027).stdout == bare


def test_arguments_arrive_byte_for_byte(rides: Rides) -> None:
    said = [b"", b" ", b"--", b"a\nb", b"\xff\xfe", "é🚕".encode(), b"$(x)", b"'", b"-x", b"*"]
    words = [word.encode() for word in rides.words("--", "sh", "-c", 'printf "%s\\0" "$@"', "-")]
    out = subprocess.run([*words, *said], env=rides.environment(LC_ALL="C"), capture_output=True, check=True).stdout
    assert out.split(b"\0")[:-1] == said


def test_nothing_is_left_behind_of_the_start(rides: Rides) -> None:
    with rides.start("--", "sh", "-c", "echo up; read wait", stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        spawn = rides.wait_for("spawn")
        wait_until(lambda: children_of(process.pid) == [spawn["pid"]], "the command to be the only child")
        process.communicate("\n")


#: Takes in what its child leaves behind, dead or alive, and says how many that were.
HEIR = """
import ctypes, os, subprocess, sys
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
subprocess.run(sys.argv[1:], check=True)
left = 0
try:
    while os.waitpid(-1, 0):
        left += 1
except ChildProcessError:
    print(left)
"""


@pytest.mark.parametrize("command", [["true"], ["sleep", "0.1"]], ids=["short", "long"])
def test_what_was_started_beside_the_command_is_waited_for(rides: Rides, command: list[str]) -> None:
    words = [sys.executable, "-IS", "-c", HEIR, *rides.words("--", *command)]
    assert subprocess.run(words, env=rides.environment(), capture_output=True, check=True, timeout=30).stdout == b"0\n"


ORPHAN = """
import os, sys
sys.stdin.readline()
if os.fork() == 0:
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        open(sys.argv[1]).read()
    os._exit(0)
os.wait()
sys.stdin.read()
"""


def test_orphans_of_the_command_are_taken_in_and_reaped(rides: Rides) -> None:
    gate = rides.path / "gate"
    os.mkfifo(gate)
    with rides.start("--", PYTHON, "-c", ORPHAN, str(gate), stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        wait_until(lambda: watched(process.pid), "the wrapper to take orphans in")
        process.stdin.write("\n")
        process.stdin.flush()
        pid = int(process.stdout.readline())
        wait_until(lambda: pid in children_of(process.pid), "the orphan to be the wrapper's child")
        gate.write_text("go on")
        wait_until(lambda: state_of(pid) == "", "the orphan to be reaped")
        process.communicate("")
    assert process.returncode == 0
