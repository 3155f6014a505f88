"""Disks and limits that are too small, for real: for a worker that says much, for the wrapper, and for the agent."""

import contextlib
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.require import lacking, require_program, require_root
from tests.system.agents import SEALED, Agent, Node, wait_until
from tests.system.faults import check_ledger, facts_of, finals

_MIB = 1 << 20
#: Says more than a MiB of marks, 4,000 bytes each, and waits where it must.
TALKER = """
import os, sys
marks = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR)
def say(text): os.write(marks, text.encode() + b"\\n")
say('{"mark":"start","prediction":"p"}')
for n in range(300):
    mark = '{"mark":"units","prediction":"p","units":{"image":1},"pad":"'
    say(mark + "x" * (3980 - len(mark)) + '"}')
say('{"mark":"finish","prediction":"p","status":"succeeded"}')
sys.stdin.readline()
"""


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    return Node(taximeter_program, tmp_path / "node", "[billing]\ninterim_s = 1\n[journal]\npoll_s = 0.1\n")


@pytest.fixture
def small(node: Node) -> Iterator[Node]:
    """A node whose state is on a disk of 16 MiB."""
    require_root()
    node.state.mkdir(parents=True)
    mount = [require_program("mount"), "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(node.state)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        lacking(f"needs leave to mount a tmpfs: {done.stderr.decode().strip()}")
    yield node
    subprocess.run(["umount", "-l", str(node.state)], check=True)


def journal_bytes(node: Node) -> int:
    total = 0
    for path in node.journal.glob("*.ndjson"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def beats(node: Node) -> int:
    return sum(fact["f"] == "heartbeat" for path in node.journal.glob("*.ndjson") for fact in whole_lines(path))


def whole_lines(path: Path) -> list[dict[str, object]]:
    said = path.read_bytes().partition(b"\0")[0].rpartition(b"\n")[0]
    return [json.loads(line) for line in said.splitlines()]


def test_a_worker_has_a_part_of_the_disk_and_gets_it_back_while_it_lives(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.config += SEALED
    monkeypatch.setenv("TAXIMETER_JOURNAL_MIB", "1")
    with node.spawn("--worker", "--", sys.executable, "-c", TALKER, stdin=subprocess.PIPE) as process:
        wait_until(lambda: journal_bytes(node) > 0.9 * _MIB, "a part that is full")
        before = beats(node)
        wait_until(lambda: beats(node) > before, "a heartbeat all the same")
        assert journal_bytes(node) < 1.5 * _MIB
        with node.agent():
            wait_until(lambda: "p" in finals(node), "the prediction's end")
            assert journal_bytes(node) < 1.5 * _MIB
            assert process.poll() is None
            process.communicate("\n")
            wait_until(lambda: not list(node.journal.iterdir()), "an empty directory")
    assert process.returncode == 0
    units = [record["data"]["units"].get("image", "0") for record in node.predictions()]
    assert sum(map(int, units)) == 300
    check_ledger(node)


def test_an_agent_whose_disk_was_full_goes_on_and_has_lost_nothing(small: Node) -> None:
    stays = ["--prediction", "stays", "--", "sh", "-c", "read line; exit 3"]
    with small.agent() as agent, small.spawn(*stays, stdin=subprocess.PIPE) as process:
        wait_until(lambda: facts_of(small, "stays"), "its journal")
        fill = small.state / "fill"
        with fill.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(_MIB))
        process.communicate("\n")
        assert process.returncode == 3
        wait_until(lambda: is_in_trouble(agent), "a commit that the disk refuses")
        fill.unlink()
        wait_until(lambda: "stays" in finals(small), "its end")
        assert agent.is_ready()
    check_ledger(small)


def fill_up(node: Node) -> Path:
    """Leave no room on its disk."""
    fill = node.state / "fill"
    with fill.open("wb", buffering=0) as file:
        for size in (_MIB, 4_096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return fill


def test_on_a_full_disk_a_run_starts_all_the_same_and_all_of_it_is_unknown(small: Node) -> None:
    with small.agent() as agent:
        assert small.run("--prediction", "before", "--", "true").returncode == 0
        wait_until(lambda: "before" in finals(small), "its end")
        assert agent.stop() == 0  # it would give some of the disk back
    fill = fill_up(small)
    during = small.run("--prediction", "during", "--", "sh", "-c", "exit 3")
    assert (during.returncode, "THIS RUN IS NOT MEASURED" in during.stderr) == (3, True)
    assert small.run("--require-meter", "--", "true").returncode == 125
    assert small.run("--", "no such command").returncode == 127
    fill.unlink()
    assert small.run("--prediction", "after", "--", "true").returncode == 0
    with small.agent() as agent:
        wait_until(lambda: "after" in finals(small), "its end")
        wait_until(lambda: unwritten(small), "what nobody could write of")
        assert agent.metric('taximeter_journal_faults_total{reason="unwritten"}') == 1
    assert finals(small).keys() == {"before", "after"}
    (record,) = unwritten(small)
    time = record["data"]["time"]
    assert (record["subject"], time["wall_ns"]) == ("platform", time["unknown_ns"])
    check_ledger(small)


def unwritten(node: Node) -> list[dict[str, Any]]:
    """The runs of which nothing is known."""
    return [record for record in node.records() if record["data"].get("exit", {}).get("reason") == "unwritten"]


def test_a_run_that_began_on_a_full_disk_is_measured_from_when_there_is_room(small: Node) -> None:
    small.state.joinpath("journal").mkdir(exist_ok=True)
    fill = fill_up(small)
    with small.spawn("--prediction", "late", "--", "sh", "-c", "read line", stdin=subprocess.PIPE) as process:
        wait_until(lambda: list(small.journal.glob("*.ndjson")), "its empty journal")
        fill.unlink()
        wait_until(lambda: beats(small) > 2, "heartbeats")
        process.communicate("\n")
    with small.agent():
        wait_until(lambda: "late" in finals(small), "its end")
    time = finals(small)["late"]["time"]
    assert time["active_ns"] > 0
    assert time["unknown_ns"] + time["active_ns"] == time["wall_ns"]
    check_ledger(small)


def test_on_a_full_disk_no_run_starts_where_the_node_refuses_that_and_what_runs_goes_on(small: Node) -> None:
    small.config = '[hardware]\nnvml = false\n[journal]\nwhen_full = "refuse"\n'
    stays = ["--prediction", "stays", "--", "sh", "-c", "read line; exit 3"]
    with small.agent() as agent:
        with small.spawn(*stays, stdin=subprocess.PIPE) as process:
            wait_until(lambda: facts_of(small, "stays"), "its journal")
            fill = fill_up(small)
            refused = small.run("--", "touch", str(small.path / "ran"))
            assert (refused.returncode, (small.path / "ran").exists()) == (77, False)
            assert "no room to measure" in refused.stderr
            process.communicate("\n")
            assert process.returncode == 3
        agent.stop()
        assert small.run("--", "true").returncode == 77
        fill.unlink()
        assert small.run("--prediction", "after", "--", "true").returncode == 0
    with small.agent():
        wait_until(lambda: {"stays", "after"} <= finals(small).keys(), "both ends")
    check_ledger(small)


def is_in_trouble(agent: Agent) -> bool:
    return agent.metric("taximeter_ledger_commit_failures_total") > 0


def test_an_agent_whose_files_may_not_grow_goes_on_once_they_may(node: Node) -> None:
    with node.agent() as agent:
        with limited(agent.process.pid, resource.RLIMIT_FSIZE, 4096):
            assert node.run("--prediction", "before", "--", "true").returncode == 0
            wait_until(lambda: is_in_trouble(agent), "a commit that the limit refuses")
        wait_until(lambda: "before" in finals(node), "its end")
        assert agent.is_ready()
    check_ledger(node)


def test_an_agent_without_descriptors_goes_on_once_it_has_some(node: Node) -> None:
    with node.agent() as agent:
        with limited(agent.process.pid, resource.RLIMIT_NOFILE, 3):
            assert node.run("--prediction", "meanwhile", "--", "true").returncode == 0
        wait_until(lambda: "meanwhile" in finals(node), "its end")
        assert agent.is_ready()
    check_ledger(node)


@contextlib.contextmanager
def limited(pid: int, what: int, most: int) -> Iterator[None]:
    """Hold a process to a limit for a while."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


@pytest.mark.parametrize("kib", [0, 1, 4, 64])
def test_a_command_ends_as_ever_under_a_wrapper_whose_files_may_not_grow(node: Node, kib: int) -> None:
    script = f'ulimit -f {kib}; exec "$0" run --prediction p -- sh -c "sleep 0.1; exit 4"'
    done = subprocess.run(
        ["bash", "-c", script, node.program], env=node.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert facts_of(node, "p") or "NOT MEASURED" in done.stderr


@pytest.mark.parametrize("most", range(12, 20))  # a shell itself needs 12, and the program begins as one
def test_a_command_ends_as_ever_under_a_wrapper_that_may_open_little(node: Node, most: int) -> None:
    script = f'ulimit -n {most}; exec "$0" run --prediction p -- sh -c "exit 4"'
    done = subprocess.run(
        ["bash", "-c", script, node.program], env=node.environment(), capture_output=True, text=True, check=False
    )
    measured = [fact["f"] for fact in facts_of(node, "p")]
    assert done.returncode == 4, done.stderr
    assert measured[-1:] == ["exit"] or "NOT MEASURED" in done.stderr
