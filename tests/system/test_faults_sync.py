"""A disk that fails to write or to sync, or takes its time: the agent goes on, nothing is lost, workers do not notice.

Injects errors and delays, by strace, into the calls of an agent that is at work, for a while.
"""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.require import require_program
from tests.system.agents import SEALED, Agent, Node, wait_until
from tests.system.faults import check_ledger, finals, strace

#: How long an answer may take while the disk is waited for: a traced process is a little slower, and a sync takes two.
ANSWER_S = 1.0


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    require_program("strace")
    return Node(taximeter_program, tmp_path / "node", "[hardware]\nnvml = false\n[journal]\npoll_s = 0.1\n" + SEALED)


@contextlib.contextmanager
def afflicted(agent: Agent, calls: str, effect: str, *paths: Path) -> Iterator[None]:
    """Have these calls of an agent (on these files) fail, or wait."""
    pid = agent.process.pid
    only = [word for path in paths for word in ("-P", str(path))]
    words = strace("-f", "-o", "/dev/null", *only, "-e", f"trace={calls}", "-e", f"inject={calls}:{effect}")
    with subprocess.Popen([*words, "-p", str(pid)]) as tracer:
        wait_until(lambda: traced_by(pid) == {tracer.pid}, "strace to hold all threads")
        try:
            yield
        finally:
            tracer.terminate()  # lets go of it
    wait_until(lambda: traced_by(pid) == {0}, "strace to let go")


def traced_by(pid: int) -> set[int]:
    tracers = set()
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            tracers |= {int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith("TracerPid:")}
    return tracers


def answers(agent: Agent) -> None:
    """It answers everybody, and soon."""
    for path, token in (("/metrics", None), ("/healthz", None), ("/readyz", None), ("/v1/status", agent.said["token"])):
        began_s = time.monotonic()
        status, body = agent.get(path, token)
        assert time.monotonic() - began_s < ANSWER_S, path
        assert body
        assert status == 200 or (status == 503 and path == "/readyz"), path  # who cannot write is not ready


def ride(node: Node, name: str) -> None:
    """A run that must not notice anything."""
    began_s = time.monotonic()
    assert node.run("--prediction", name, "--", "sh", "-c", "exit 3").returncode == 3
    assert time.monotonic() - began_s < ANSWER_S


def check_delivered(node: Node, agent: Agent, names: set[str]) -> None:
    """Everything was booked once and whole, and shipped as it was booked."""
    wait_until(lambda: finals(node).keys() == names, "their records")
    wait_until(lambda: agent.metric('taximeter_outbox_pending{sink="usage"}') == 0, "everything to be shipped")
    assert agent.stop() == 0
    check_ledger(node)
    assert {data["status"] for data in finals(node).values()} == {"failed"}
    assert sum(data["time"]["unknown_ns"] for data in finals(node).values()) == 0
    lines = [json.loads(line) for line in (node.state / "usage.ndjson").read_text().splitlines()]
    assert lines == node.records()


LEDGER, SINK = ("ledger.db", "ledger.db-wal"), ("usage.ndjson",)
REFUSED = "taximeter_ledger_commit_failures_total"
UNSHIPPED = 'taximeter_ship_failures_total{reason="file",sink="usage"}'


@pytest.mark.parametrize(
    ("calls", "error", "files", "counted"),
    [
        ("fsync,fdatasync", "EIO", (), REFUSED),
        ("pwrite64", "EIO", LEDGER, REFUSED),
        ("pwrite64", "ENOSPC", LEDGER, REFUSED),
        ("pwrite64,fdatasync,unlinkat", "EROFS", (*LEDGER, "journal"), REFUSED),
        ("write,fdatasync", "EIO", SINK, UNSHIPPED),
    ],
    ids=["no-sync", "no-write", "full", "read-only", "sink"],
)
def test_an_agent_whose_disk_fails_goes_on_and_once_it_is_well_has_lost_nothing(
    node: Node, calls: str, error: str, files: tuple[str, ...], counted: str
) -> None:
    with node.agent() as agent:
        ride(node, "before")
        wait_until(lambda: agent.metric('taximeter_outbox_pending{sink="usage"}') == 0, "it to be shipped")
        with afflicted(agent, calls, f"error={error}", *(node.state / name for name in files)):
            ride(node, "meanwhile")
            wait_until(lambda: agent.metric(counted) > 0, "what the disk refuses")
            answers(agent)
        ride(node, "after")
        check_delivered(node, agent, {"before", "meanwhile", "after"})


def test_an_agent_whose_disk_takes_two_seconds_for_a_sync_answers_meanwhile(node: Node) -> None:
    with node.agent() as agent:
        with afflicted(agent, "fsync,fdatasync", "delay_enter=2000000"):
            ride(node, "meanwhile")
            answers(agent)
            assert "meanwhile" not in finals(node)
            wait_until(lambda: "meanwhile" in finals(node), "its record")
            answers(agent)
        wait_until(lambda: not list(node.journal.glob("*.ndjson")), "a seal of it, and its journal to go")
        check_delivered(node, agent, {"meanwhile"})


def test_an_agent_that_cannot_read_its_ledger_says_so_and_has_lost_nothing(node: Node) -> None:
    with node.agent() as agent:
        ride(node, "before")
        wait_until(lambda: "before" in finals(node), "its record")
        with afflicted(agent, "pread64", "error=EIO", *(node.state / name for name in LEDGER)):
            ride(node, "meanwhile")
            status, body = agent.get("/v1/status", agent.said["token"])
            assert (status, b"ledger" in body) == (503, True)
            assert agent.get("/healthz")[0] == 200
        assert agent.get("/v1/status", agent.said["token"])[0] == 200
        check_delivered(node, agent, {"before", "meanwhile"})


def test_a_command_ends_as_ever_under_a_wrapper_whose_writes_fail(node: Node) -> None:
    said: dict[str, str] = {}
    for when in ("1+", "2+", "3+", "3"):
        for error in ("EIO", "ENOSPC"):
            name = f"{error} {when}"
            tracer = strace(
                "-o", "/dev/null", "-e", "trace=pwrite64", "-e", f"inject=pwrite64:error={error}:when={when}"
            )
            words = [*tracer, node.program, "run", "--prediction", name, "--", "sh", "-c", "exit 3"]
            # In a session of its own: whoever else began there in that second may be taken for its command.
            quiet = {"env": node.environment(), "capture_output": True, "text": True, "start_new_session": True}
            done = subprocess.run(words, check=False, timeout=20, **quiet)  # type: ignore[call-overload]
            assert (done.returncode, "Traceback" in done.stderr) == (3, False), name
            said[name] = done.stderr
    known = {name for name, text in said.items() if "NOT MEASURED" not in text}
    with node.agent() as agent:
        wait_until(lambda: known <= finals(node).keys(), "what is known of")
        assert agent.stop() == 0
    assert len(known) >= len(said) // 2
    check_ledger(node)
