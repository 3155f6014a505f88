"""The journal of a run: what is in it and when, who holds it, and that the agent's reader takes every line of it."""

import fcntl
import itertools
import json
import os
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from taximeter import events, wire
from taximeter.journal import parse_line
from tests.require import require_program, require_root
from tests.system.rides import PYTHON, Rides, state_of, wait_until


@pytest.fixture
def rides(tmp_path: Path) -> Rides:
    return Rides(tmp_path)


def locker(path: Path) -> int:
    """The pid that holds the journal's lock, 0 if nobody does."""
    with path.open("rb") as file:
        lock = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    kind, _, _, _, pid = struct.unpack("hhqqi4x", lock)
    return 0 if kind == fcntl.F_UNLCK else pid


def journal_of(rides: Rides) -> Path:
    (path,) = wait_until(lambda: list(rides.journal.glob("*.ndjson")), "the journal")
    return Path(path)


def test_every_line_of_a_busy_run_is_an_event_to_the_agent(rides: Rides) -> None:
    code = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: None)
os.write(os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR), b'{"mark":"ready"}\\nnonsense\\n')
os.kill(os.getppid(), signal.SIGTERM)
time.sleep(1.2)
"""
    rides.run(
        "--ready",
        "notify",
        "--ready-timeout",
        "0.2",
        "--label",
        "k=v",
        "--",
        PYTHON,
        "-c",
        f"import time; time.sleep(0.7)\n{code}",
    )
    kinds = [type(parse_line(line[:-1])) for line in rides.lines()]
    assert kinds == [
        events.Opened,
        events.Spawned,
        events.ReadyTimedOut,
        *kinds[3:-1],
        events.Exited,
    ]
    assert {*kinds[3:-1]} == {events.Marked, events.BadMark, events.Signaled, events.Heartbeat}


def test_facts_are_stamped_in_order(rides: Rides) -> None:
    rides.run("--", "sleep", "2.5")
    facts = rides.facts()
    assert [fact["f"] for fact in facts] == ["open", "spawn", "ready", "heartbeat", "heartbeat", "exit"]
    assert [fact["t"] for fact in facts] == sorted(fact["t"] for fact in facts)
    assert facts[0]["t"] <= facts[1]["before"] <= facts[1]["t"]


def test_a_heartbeat_comes_each_second(rides: Rides) -> None:
    rides.run("--", "sleep", "3.5")
    stamps = [fact["t"] for fact in rides.facts() if fact["f"] in ("spawn", "heartbeat")]
    assert [round((later - sooner) / 1e9) for sooner, later in itertools.pairwise(stamps)] == [1, 1, 1]


def test_the_clocks_are_those_of_this_boot(rides: Rides) -> None:
    rides.run("--", "sleep", "1.5")
    for fact in rides.facts("open") + rides.facts("heartbeat") + rides.facts("exit"):
        clock = fact["clock"]
        assert clock["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert 0 <= clock["monotonic"] - fact["t"] < 1_000_000_000
        assert abs(clock["boottime"] - clock["monotonic"]) < abs(clock["realtime"] - clock["monotonic"])


def test_the_command_s_pid_and_start_make_it_unique(rides: Rides) -> None:
    with rides.start("--", "sleep", "30") as process:
        pid = rides.command_of(process)
        start = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        assert rides.facts("spawn")[0]["start"] == int(start)


def test_the_times_lie_around_what_the_command_saw(rides: Rides) -> None:
    out = rides.run(
        "--", PYTHON, "-c", "import time; print(time.monotonic_ns()); time.sleep(0.2); print(time.monotonic_ns())"
    ).stdout
    first, last = map(int, out.split())
    assert rides.facts("spawn")[0]["before"] < first
    assert last < rides.facts("exit")[0]["t"] < last + 2_000_000_000


def test_what_a_command_used_is_what_it_used(rides: Rides) -> None:
    work = "import time\nx = bytearray(80_000_000)\nwhile time.process_time() < 1.3: pass"
    rides.run("--", PYTHON, "-c", work)
    for fact in (rides.facts("heartbeat")[-1], rides.facts("exit")[0]):  # the first may come before its work
        assert fact["usage"]["cpu_ns"] >= 100_000_000
        assert fact["usage"]["rss_peak_bytes"] >= 80_000_000
    assert rides.facts("exit")[0]["usage"]["cpu_ns"] >= 1_300_000_000


def test_the_size_of_the_wrapper_is_never_taken_for_that_of_a_small_command(rides: Rides) -> None:
    rides.run("--", "sh", "-c", "sleep 1.5")
    assert rides.facts("heartbeat")[0]["usage"]["rss_peak_bytes"] < 4_000_000
    assert rides.facts("exit")[0]["usage"]["rss_peak_bytes"] < 4_000_000


def test_what_is_not_known_of_a_short_command_s_size_is_null(rides: Rides) -> None:
    rides.run("--", "true")
    assert rides.facts("exit")[0]["usage"]["rss_peak_bytes"] is None


def test_what_orphans_used_belongs_to_the_command(rides: Rides) -> None:
    code = """
import os, time
wrapper = f"/proc/{os.getppid()}"
def link(fd):
    try: return os.readlink(f"{wrapper}/fd/{fd}")
    except OSError: return ""
while not any("signalfd" in link(fd) for fd in os.listdir(f"{wrapper}/fd")): time.sleep(0.01)
if os.fork() == 0:
    if os.fork() == 0:
        while time.process_time() < 0.5: pass
    os._exit(0)
os.wait()
while len(open(f"{wrapper}/task/{os.getppid()}/children").read().split()) > 1: time.sleep(0.01)
"""
    rides.run("--", PYTHON, "-c", code)
    assert rides.facts("exit")[0]["usage"]["cpu_ns"] >= 500_000_000


def test_while_it_runs_the_wrapper_holds_the_journal_and_afterwards_nobody(rides: Rides) -> None:
    with rides.start("--", "sh", "-c", "read wait", stdin=subprocess.PIPE) as process:
        rides.command_of(process)
        journal = journal_of(rides)
        assert locker(journal) == process.pid == rides.facts("open")[0]["pid"]
        process.communicate("\n")
    assert locker(journal) == 0


def test_a_killed_wrapper_leaves_its_command_running_and_its_journal_free(rides: Rides) -> None:
    with rides.start("--", "sleep", "60") as process:
        command = rides.command_of(process)
        process.kill()
        process.wait()
        assert locker(journal_of(rides)) == 0
        assert state_of(command) in "SR"
        assert rides.facts()[-1]["f"] != "exit"
        os.kill(command, signal.SIGKILL)


def test_a_journal_has_the_mode_that_its_reader_needs(rides: Rides) -> None:
    rides.run("--", "true", umask=0o077)
    assert journal_of(rides).stat().st_mode & 0o777 == 0o640
    assert rides.journal.stat().st_mode & 0o777 == 0o700


def test_the_reserve_is_there_while_it_runs_and_given_back_at_the_end(rides: Rides) -> None:
    with rides.start("--", "sh", "-c", "read wait", stdin=subprocess.PIPE) as process:
        rides.command_of(process)
        journal = journal_of(rides)
        wait_until(lambda: len(journal.read_bytes().partition(b"\0")[2]) >= wire.RESERVE_BYTES - 1, "the reserve")
        process.communicate("\n")
    assert b"\0" not in journal.read_bytes()


def test_a_disk_that_is_full_to_the_last_byte_still_takes_the_end(rides: Rides) -> None:
    require_root()
    mount = require_program("mount")
    (rides.path / "state").mkdir()
    disk = f"{mount} -t tmpfs -o size=64k none {rides.path}/state"
    fill = f"sleep 0.1; cat /dev/zero >{rides.path}/state/fill; sleep 1.2; exit 4"
    keep = f"cp -r {rides.path}/state/journal {rides.path}/kept"
    line = f'{disk} && "$@"; echo $?; {keep}'
    words = ["unshare", "--mount", "sh", "-c", line, "-", *rides.words("--", "sh", "-c", fill)]
    done = subprocess.run(words, env=rides.environment(), capture_output=True, text=True, timeout=30)
    assert done.stdout == "4\n"
    (journal,) = (rides.path / "kept").glob("*.ndjson")
    facts = [json.loads(said) for said in journal.read_bytes().partition(b"\0")[0].splitlines()]
    assert [fact["f"] for fact in facts if fact["f"] != "heartbeat"] == ["open", "spawn", "ready", "exit"]


def test_a_journal_that_is_long_goes_on_in_a_segment_that_says_it_all_again(rides: Rides) -> None:
    code = """
import os
fd = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR)
for n in range(4_000): os.write(fd, b"x" * 4000 + b"\\n")
"""
    assert rides.run("--model", "m", "--", PYTHON, "-c", code).returncode == 0
    first, second = sorted(rides.journal.glob("*.ndjson"))
    assert first.stat().st_size <= wire.SEGMENT_BYTES
    opened = [json.loads(path.read_bytes().split(b"\n")[0]) for path in (first, second)]
    assert [fact.pop("segment") for fact in opened] == [0, 1]
    assert all(fact.pop("c") for fact in opened)
    assert opened[0] == opened[1]
    assert len(rides.facts("mark")) == 4_000
    assert json.loads(second.read_bytes().splitlines()[-1])["f"] == "exit"


def options(rides: Rides) -> dict[str, Any]:
    found: dict[str, Any] = rides.facts("open")[0]["options"]
    return found


def test_a_one_shot_has_an_id_and_a_worker_has_none(rides: Rides, tmp_path: Path) -> None:
    rides.run("--", "true")
    assert options(rides)["prediction"]
    worker = Rides(tmp_path / "worker")
    worker.run("--worker", "--", "true")
    assert (options(worker)["prediction"], options(worker)["worker"]) == (None, True)


def test_what_was_said_is_noted(rides: Rides) -> None:
    said = ["--model=acme/sdxl", "--version", "3f2a", "--account", "cus 7", "--class", "private", "--pool=sdxl"]
    more = ["--label", "team=é", "--unit", "image=2", "--on-term", "drain", "--ready-timeout", "2.5", "--prediction=p1"]
    rides.run(*said, *more, "--", "echo", "a\nb")
    assert options(rides) == {
        "worker": False,
        "model": "acme/sdxl",
        "version": "3f2a",
        "account": "cus 7",
        "class": "private",
        "pool": "sdxl",
        "prediction": "p1",
        "parent": None,
        "root": None,
        "labels": {"team": "é"},
        "units": {"image": "2"},
        "on_term": "drain",
        "ready": "exec",
        "ready_timeout_ns": 2_500_000_000,
    }
    assert rides.facts("open")[0]["argv"] == ["echo", "a\nb"]


def test_the_devices_that_it_may_use_and_its_trace_are_noted(rides: Rides) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    rides.run("--", "true", env=rides.environment(CUDA_VISIBLE_DEVICES="0,GPU-1", TRACEPARENT=trace, OTHER="x"))
    opened = rides.facts("open")[0]
    assert (opened["env"], opened["traceparent"]) == ({"CUDA_VISIBLE_DEVICES": "0,GPU-1"}, trace)


def test_a_relative_state_directory_is_meant_from_where_it_was_started(rides: Rides) -> None:
    environment = rides.environment(TAXIMETER_STATE_DIR="state")
    out = rides.run("--", "sh", "-c", 'cd /; echo "$TAXIMETER_MARKS"', env=environment, cwd=rides.path).stdout
    assert out.startswith(f"{rides.journal}/")
    assert [fact["f"] for fact in rides.facts()] == ["open", "spawn", "ready", "exit"]


@pytest.mark.parametrize("where", ["a link to nowhere", "/proc"])
def test_a_state_directory_that_cannot_be_made_keeps_no_command_from_running(rides: Rides, where: str) -> None:
    state = rides.path / "dangling"
    if where == "/proc":
        state = Path("/proc/taximeter-cannot-be-here")
    else:
        state.symlink_to("/nonexistent/disk")
    done = rides.run("--", "echo", "it ran", env=rides.environment(TAXIMETER_STATE_DIR=str(state)))
    assert (done.returncode, done.stdout) == (0, "it ran\n")
    assert "THIS RUN IS NOT MEASURED" in done.stderr


def test_a_wrapper_that_was_stopped_vouches_for_nothing_in_between(rides: Rides) -> None:
    with rides.start("--", "sh", "-c", "read line", stdin=subprocess.PIPE) as process:
        command = rides.command_of(process)
        os.kill(process.pid, signal.SIGSTOP)
        wait_until(lambda: state_of(process.pid) == "T", "the wrapper to stop")
        beats = len(rides.facts("heartbeat"))
        assert process.stdin is not None
        process.stdin.close()
        wait_until(lambda: state_of(command) == "Z", "the command to end")
        (spawned,) = rides.facts("spawn")
        wait_until(lambda: time.monotonic_ns() > spawned["t"] + 2_500_000_000, "the time for a beat or two")
        os.kill(process.pid, signal.SIGCONT)
        process.wait()
    assert len(rides.facts("heartbeat")) == beats
