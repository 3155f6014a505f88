"""The machine's clocks, set, slept through and seen from a time namespace, under a real wrapper and a real agent."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from taximeter.kernel import boot_id
from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from tests.journal_samples import NAME, fact, open_line, options
from tests.require import require_program, require_root
from tests.system.agents import Node, wait_until
from tests.system.clocks import Calendar, make_calendar
from tests.system.rides import children_of

SECOND = 1_000_000_000
HOUR_S, DAY_S = 3_600, 86_400


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    return Node(taximeter_program, tmp_path / "node")


@pytest.fixture
def calendar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Calendar:
    """A calendar for the wrapper, its command and the agent."""
    calendar = make_calendar(tmp_path / "calendar")
    for name, value in calendar.environment.items():
        monkeypatch.setenv(name, value)
    return calendar


def facts(node: Node, name: str) -> list[dict[str, Any]]:
    lines = [
        line
        for path in node.journal.glob("*.ndjson")
        for line in path.read_bytes().partition(b"\0")[0].splitlines(True)
        if line.endswith(b"\n")
    ]
    return [found for found in map(json.loads, lines) if found["f"] == name]


def prediction(node: Node, name: str = "p1") -> Any:
    """What the ledger says of a prediction that has ended."""
    found = wait_until(
        lambda: [r["data"] for r in node.predictions() if r["data"]["prediction"] == name], f"a record of {name}"
    )
    (record,) = found
    assert record["final"]
    return record


def say(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


def label_ns(label: str) -> int:
    whole, fraction = label.removesuffix("Z").split(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * SECOND + int(fraction)


def is_sound(node: Node) -> bool:
    with LedgerReader(node.state / "ledger.db") as reader:
        return not audit(reader).faults


# --- The calendar is set ---


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S, DAY_S, -DAY_S])
def test_a_clock_that_is_set_in_mid_run_bills_what_ran_and_marks_the_record(
    node: Node, calendar: Calendar, by_s: int
) -> None:
    with node.agent() as agent:
        before_ns = time.monotonic_ns()
        with node.spawn("--prediction", "p1", "--", "cat", stdin=subprocess.PIPE) as wrapper:
            wait_until(lambda: facts(node, "spawn"), "the command")
            running_ns = time.monotonic_ns()
            calendar.set(by_s)
            wait_until(lambda: facts(node, "heartbeat"), "a heartbeat")
            ran_ns = time.monotonic_ns() - running_ns
            wrapper.communicate()
        at_most_ns = time.monotonic_ns() - before_ns
        record = prediction(node)
        assert agent.metric('taximeter_clock_faults_total{kind="stepped"}') == 1
    assert ran_ns <= record["time"]["active_ns"] <= at_most_ns
    assert record["time"]["active_ns"] == record["interval"]["end_ns"] - record["interval"]["start_ns"]
    assert record["billing"]["status"] == "rated"
    assert record["timing"]["clock"] == "stepped"
    assert is_sound(node)


def test_the_labels_of_a_record_are_those_of_one_calendar_whatever_is_set_meanwhile(
    node: Node, calendar: Calendar
) -> None:
    with node.agent():
        with node.spawn("--prediction", "p1", "--", "cat", stdin=subprocess.PIPE) as wrapper:
            wait_until(lambda: facts(node, "spawn"), "the command")
            calendar.set(DAY_S)
            wrapper.communicate()
        record = prediction(node)
    interval = record["interval"]
    assert label_ns(interval["end_utc"]) - label_ns(interval["start_utc"]) == record["time"]["wall_ns"]


def test_a_step_is_of_those_predictions_that_were_open_then(node: Node, calendar: Calendar) -> None:
    """It is noted before what is said after it, and not only with the heartbeat that is due."""
    said = 'while read -r line; do echo "$line" 1<>"$TAXIMETER_MARKS"; done'
    with node.agent():
        with node.spawn("--worker", "--", "sh", "-c", said, stdin=subprocess.PIPE) as worker:
            say(worker, '{"mark":"start","prediction":"before"}\n')
            wait_until(lambda: facts(node, "mark"), "the mark")
            wait_until(lambda: facts(node, "heartbeat"), "a heartbeat")
            calendar.set(HOUR_S)
            say(worker, '{"mark":"finish","prediction":"before","status":"succeeded"}\n')
            say(worker, '{"mark":"start","prediction":"after"}\n')
            say(worker, '{"mark":"finish","prediction":"after","status":"succeeded"}\n')
            wait_until(lambda: len(facts(node, "mark")) == 4, "all marks")
            worker.communicate()
        assert prediction(node, "before")["timing"]["clock"] == "stepped"
        assert prediction(node, "after")["timing"]["clock"] == "ok"


def test_a_clock_that_is_right_marks_nothing(node: Node, calendar: Calendar) -> None:
    with node.agent() as agent:
        with node.spawn("--prediction", "p1", "--", "cat", stdin=subprocess.PIPE) as wrapper:
            wait_until(lambda: len(facts(node, "heartbeat")) > 1, "two heartbeats")
            wrapper.communicate()
        assert prediction(node)["timing"]["clock"] == "ok"
        assert b"taximeter_clock_faults_total{" not in agent.get("/metrics")[1]


def test_a_receipt_says_in_words_what_the_clocks_did(node: Node, calendar: Calendar) -> None:
    with node.agent():
        with node.spawn("--prediction", "p1", "--", "cat", stdin=subprocess.PIPE) as wrapper:
            wait_until(lambda: facts(node, "spawn"), "the command")
            calendar.set(-HOUR_S)
            wrapper.communicate()
        prediction(node)
    assert "clocks      the calendar was set" in node.taximeter("receipt", "p1").stdout


# --- Time namespaces ---


@contextlib.contextmanager
def namespaced(node: Node, offsets: tuple[str, ...], *words: str, **kwargs: Any) -> Iterator[subprocess.Popen[str]]:
    """`taximeter run WORDS` in a time namespace of its own."""
    require_root()
    command = [require_program("unshare", "util-linux"), "--time", "--fork", *offsets, node.program, "run", *words]
    with subprocess.Popen(command, env=node.environment(), text=True, **kwargs) as process:
        try:
            yield process
        finally:
            for pid in [*(command for wrapper in children_of(process.pid) for command in children_of(wrapper))]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)


AHEAD = ("--monotonic", "500000", "--boottime", "1000000")
BEHIND = ("--monotonic", "-5", "--boottime", "-5")


@pytest.mark.parametrize("offsets", [AHEAD, BEHIND], ids=["ahead", "behind"])
def test_a_run_in_a_time_namespace_is_timed_by_the_clocks_of_the_machine(node: Node, offsets: tuple[str, ...]) -> None:
    with node.agent() as agent:
        before_ns, before_utc_ns = time.monotonic_ns(), time.time_ns()
        with namespaced(node, offsets, "--prediction", "p1", "--", "cat", stdin=subprocess.PIPE) as process:
            wait_until(lambda: facts(node, "heartbeat"), "a heartbeat")
            process.communicate()
        after_ns, after_utc_ns = time.monotonic_ns(), time.time_ns()
        record = prediction(node)
        assert agent.metric('taximeter_clock_faults_total{kind="time_namespace"}') == 1
        assert b"taximeter_journal_faults_total{" not in agent.get("/metrics")[1]
    interval = record["interval"]
    assert before_ns < interval["start_ns"] < interval["end_ns"] < after_ns
    assert before_utc_ns < label_ns(interval["start_utc"]) < label_ns(interval["end_utc"]) < after_utc_ns
    assert record["time"]["active_ns"] == interval["end_ns"] - interval["start_ns"]
    assert (record["timing"]["clock"], record["time"]["suspended_ns"]) == ("time_namespace", 0)


def test_a_command_in_a_time_namespace_is_watched_on_once_its_wrapper_is_killed(node: Node) -> None:
    with node.agent() as agent:
        before_ns = time.monotonic_ns()
        words = ("--prediction", "p1", "--", "cat")
        with namespaced(node, AHEAD, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            wait_until(lambda: facts(node, "heartbeat"), "a heartbeat")
            wait_until(lambda: agent.metric('taximeter_instances{phase="active"}') == 1, "the agent to know it")
            (wrapper,) = children_of(process.pid)
            os.kill(wrapper, 9)
            wait_until(lambda: "instance.adopted" in agent.log.read_text(), "the agent to take it over")
            lived_ns = time.monotonic_ns()
            process.communicate()
        record = prediction(node)
    after_ns = time.monotonic_ns()
    assert before_ns < record["interval"]["start_ns"] < lived_ns < record["interval"]["end_ns"] < after_ns
    assert record["time"]["unknown_ns"] == 0
    assert record["timing"]["end"]["source"] in ("kernel", "agent")


def test_a_mark_says_when_by_the_clock_of_its_time_namespace(node: Node) -> None:
    says = (
        "import os, sys, time\n"
        "def say(mark): os.write(fifo, mark.encode() + b'\\n')\n"
        "fifo = os.open(os.environ['TAXIMETER_MARKS'], os.O_WRONLY)\n"
        "at = time.monotonic_ns()\n"
        'say(\'{"mark":"start","prediction":"p1","at":%d}\' % at)\n'
        'say(\'{"mark":"finish","prediction":"p1","status":"succeeded","at":%d}\' % (at + 1000))\n'
    )
    python = require_program("python3")
    with node.agent():
        with namespaced(node, AHEAD, "--worker", "--", python, "-c", says) as process:
            process.wait(20)
        record = prediction(node)
    assert record["time"]["active_ns"] <= 1_000
    assert record["timing"]["start"]["source"] == "mark"


def test_an_agent_in_a_time_namespace_tells_the_machines_times_by_its_own(node: Node, tmp_path: Path) -> None:
    require_root()
    unshare = require_program("unshare", "util-linux")
    inside = tmp_path / "taximeter"
    inside.write_text(f'#!/bin/sh\nexec {unshare} --time --monotonic 500000 --boottime 1000000 {node.program} "$@"\n')
    inside.chmod(0o755)
    node.run("--prediction", "p1", "--", "true")
    with Node(str(inside), node.path).agent():
        record = prediction(node)
    assert record["interval"]["start_ns"] > 500_000 * SECOND
    assert record["timing"]["clock"] == "ok"


# --- How far off the calendar is ---

#: Kills, in a way that leaves no doubt, whoever makes this system call: a unit with SystemCallFilter=@system-service.
SANDBOX = """
import ctypes, os, platform, struct, sys
# adjtimex, and clock_adjtime, by which C libraries do it today
asked = {"x86_64": (159, 305), "aarch64": (171, 266)}[platform.machine()]
code = [(0x20, 0, 0, 0), (0x15, 1, 0, asked[0]), (0x15, 0, 1, asked[1])]
code += [(0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7FFF0000)]  # kill the process; allow
filter = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(filter)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_a_wrapper_asks_the_kernel_how_far_off_its_calendar_may_be(node: Node) -> None:
    with node.spawn("--", "cat", stdin=subprocess.PIPE) as wrapper:
        wait_until(lambda: facts(node, "heartbeat"), "a heartbeat")
        wrapper.communicate()
    filtered = "Seccomp:\t0" not in Path("/proc/self/status").read_text()
    for fact_ in (*facts(node, "heartbeat"), *facts(node, "exit")):
        assert ("utc_error" in fact_["clock"]) is not filtered


def test_a_sandbox_that_kills_who_asks_is_not_asked(node: Node) -> None:
    sandboxed = [sys.executable, "-c", SANDBOX]
    asks = "import ctypes; ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(300))"
    assert subprocess.run([*sandboxed, sys.executable, "-c", asks]).returncode == -signal.SIGSYS
    agents = "from taximeter import kernel; print(kernel.utc_error_ns())"
    assert subprocess.run([*sandboxed, sys.executable, "-Pc", agents], capture_output=True).stdout == b"None\n"
    command = [*sandboxed, node.program, "run", "--", "cat"]
    with subprocess.Popen(command, env=node.environment(), stdin=subprocess.PIPE) as wrapper:
        wait_until(lambda: facts(node, "heartbeat"), "a heartbeat")
        wrapper.communicate()
    assert wrapper.returncode == 0
    assert "utc_error" not in facts(node, "exit")[0]["clock"]


# --- Sleep and slews, which no test may do to the machine that it runs on ---


def clocks(at_ns: int, slept_ns: int = 0, drifted_ns: int = 0) -> dict[str, Any]:
    return {
        "monotonic": at_ns,
        "boottime": at_ns + slept_ns,
        "raw": at_ns - drifted_ns,
        "realtime": 1_795_341_600 * SECOND + at_ns + slept_ns,
        "took": 1_000,
        "boot_id": boot_id(),
    }


def written(node: Node, **awry: int) -> None:
    """The journal of a run of two seconds on this boot; in its second one the clocks were as `awry` says."""
    begin = time.monotonic_ns() - 4 * SECOND
    usage = {"cpu_ns": 812, "rss_peak_bytes": 4096}
    end, at_last = begin + 2 * SECOND, clocks(begin + 2 * SECOND, **awry)
    lines = [
        open_line(clock=clocks(begin), options=options(prediction="p1")),
        fact("spawn", begin, before=begin - 5, pid=4712, start=987),
        fact("ready", begin, by="exec"),
        fact("heartbeat", begin + SECOND, clock=clocks(begin + SECOND), usage=usage),
        fact("exit", end, code=0, signal=None, core=False, clock=at_last, usage=usage, error=None),
    ]
    node.journal.mkdir(parents=True)
    journal = node.journal / NAME
    journal.write_bytes(b"".join(line + b"\n" for line in lines))
    journal.chmod(0o640)


def test_a_machine_that_slept_for_an_hour_is_told_to_have_slept_and_nobody_pays(node: Node) -> None:
    written(node, slept_ns=HOUR_S * SECOND)
    with node.agent() as agent:
        record = prediction(node)
        assert agent.metric('taximeter_clock_faults_total{kind="suspended"}') == 1
    time_ = record["time"]
    assert (time_["active_ns"], time_["suspended_ns"]) == (2 * SECOND, HOUR_S * SECOND)
    assert time_["wall_ns"] == (2 + HOUR_S) * SECOND
    assert [line["quantity"] for line in record["billing"]["lines"]] == ["2"]
    assert record["timing"]["clock"] == "suspended"
    assert is_sound(node)


def test_a_clock_that_was_slewed_as_chrony_may_is_billed_as_it_ran_and_marked(node: Node) -> None:
    written(node, drifted_ns=83_333_000)
    with node.agent() as agent:
        record = prediction(node)
        assert agent.metric('taximeter_clock_faults_total{kind="slewed"}') == 1
    assert record["time"]["active_ns"] == 2 * SECOND
    assert record["timing"]["clock"] == "slewed"
    assert is_sound(node)
