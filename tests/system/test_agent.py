"""The agent as a process: what it books, ships and serves, how it begins and how it ends."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from tests.journal_samples import INSTANCE, sample_lines
from tests.require import require_root
from tests.shipping.receiver import Receiver, say
from tests.shipping.threads import receiving
from tests.system.agents import SEALED, Node, wait_until


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    return Node(taximeter_program, tmp_path / "node")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def is_sound(node: Node) -> bool:
    with LedgerReader(node.state / "ledger.db") as reader:
        return not audit(reader).faults


# --- Booking ---


def test_a_run_is_booked_while_the_agent_lives(node: Node) -> None:
    with node.agent():
        node.run("--account", "cus_1", "--", "true")
        (record,) = wait_until(node.predictions, "the record")
    assert (record["subject"], record["data"]["status"]) == ("cus_1", "succeeded")


def test_an_agent_that_starts_later_bills_the_run_all_the_same(node: Node) -> None:
    node.run("--", "true")
    node.run("--", "sh", "-c", "exit 3")
    with node.agent():
        records = node.predictions()
    assert sorted(record["data"]["status"] for record in records) == ["failed", "succeeded"]


def test_a_run_that_outlives_its_agent_is_billed_once_and_whole(node: Node) -> None:
    began_ns = time.monotonic_ns()
    with node.spawn("--", sys.executable, "-c", LIVES, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        with node.agent() as agent:
            wait_until(lambda: agent.metric('taximeter_instances{phase="active"}') == 1, "the instance")
            agent.process.kill()
        lived, _ = run.communicate("\n", timeout=20)
        around_ns = time.monotonic_ns() - began_ns
    with node.agent():
        (record,) = node.predictions()
    unseen_ns = record["data"]["timing"]["start"]["uncertainty_ns"]
    assert int(lived) - unseen_ns <= record["data"]["time"]["active_ns"] <= around_ns
    assert is_sound(node)


LIVES = "import time; began_ns = time.monotonic_ns(); input(); print(time.monotonic_ns() - began_ns)"


def test_the_bill_does_not_depend_on_how_often_the_agent_was_killed(node: Node) -> None:
    with node.spawn("--worker", "--", sys.executable, "-c", WORKER, stdin=subprocess.PIPE) as run:
        assert run.stdin is not None
        for _ in range(6):
            with node.agent() as agent:
                booked = len(node.predictions())
                run.stdin.write("\n" * 10)
                run.stdin.flush()
                wait_until(partial(_has_more_than, node, booked), "a further record")
                agent.process.kill()
        run.stdin.close()
        assert run.wait(20) == 0
    with node.agent():
        finals = [record for record in node.predictions() if record["data"]["final"]]
    assert sorted(int(record["data"]["prediction"][1:]) for record in finals) == list(range(60))
    assert is_sound(node)


def _has_more_than(node: Node, booked: int) -> bool:
    return len(node.predictions()) > booked


#: Does one prediction for each line that it is given.
WORKER = """
import json, os, sys
marks = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR | os.O_NONBLOCK)
def mark(**said):
    os.write(marks, json.dumps(said).encode() + b"\\n")
for n, _ in enumerate(sys.stdin):
    mark(mark="start", prediction=f"p{n}", account="cus_1")
    mark(mark="finish", prediction=f"p{n}", status="succeeded")
"""


def test_journals_are_removed_once_every_sink_has_their_records(node: Node) -> None:
    node.config += SEALED
    with node.agent():
        node.run("--", "true")
        wait_until(node.predictions, "the record")
        wait_until(lambda: not list(node.journal.iterdir()), "the journal to go")


def test_a_journal_that_reappears_is_not_booked_again(node: Node) -> None:
    node.config += SEALED
    node.run("--", "true")
    (journal,) = node.journal.glob("*.ndjson")
    content = journal.read_bytes()
    with node.agent() as agent:
        wait_until(lambda: not list(node.journal.iterdir()), "the journal to go")
        journal.write_bytes(content)
        node.run("--", "true")
        wait_until(lambda: len(node.predictions()) == 2, "the other run")
        assert agent.stop() == 0
    with node.agent():
        assert len(node.predictions()) == 2
    assert is_sound(node)


def test_bad_journals_are_counted_and_hurt_nobody(node: Node) -> None:
    node.journal.mkdir(parents=True)
    names = [f"{INSTANCE[:-2]}{n:02d}" for n in range(4)]
    (node.journal / f"{names[0]}.0.ndjson").symlink_to("/etc/passwd")
    os.mkfifo(node.journal / f"{names[1]}.0.ndjson")
    lines = [line.replace(INSTANCE.encode(), names[2].encode()) for line in sample_lines()]
    (node.journal / f"{names[2]}.0.ndjson").write_bytes(b"\n".join([*lines[:4], b"\xff{", *lines[4:], b""]))
    (node.journal / f"{names[3]}.0.ndjson").write_bytes(lines[0][:40])
    (node.journal / "something else").write_text("mine")
    with node.agent() as agent:
        node.run("--", "true")
        wait_until(lambda: len(node.predictions()) == 2, "both good journals")
        for reason in ("symlink", "not_regular", "not_json"):
            assert agent.metric(f'taximeter_journal_faults_total{{reason="{reason}"}}') == 1
    assert (node.journal / "something else").read_text() == "mine"


def test_a_journal_of_a_foreign_owner_is_kept_and_not_booked(node: Node) -> None:
    require_root()
    node.run("--", "true")
    (journal,) = node.journal.glob("*.ndjson")
    os.chown(journal, 65534, 65534)
    with node.agent() as agent:
        assert agent.metric('taximeter_journal_faults_total{reason="foreign_owner"}') == 1
        assert not node.predictions()
    assert journal.exists()


def test_a_tier_without_a_price_is_unrated_counted_and_not_free(node: Node, tmp_path: Path) -> None:
    rates = tmp_path / "rates.toml"
    rates.write_text('version = "x"\neffective = 2026-01-01T00:00:00Z\ncurrency = "USD"\n[tiers]\ngpu-t4 = "0.1"\n')
    node.head = f'rates = "{rates}"'
    node.run("--", "true")
    with node.agent() as agent:
        (record,) = node.predictions()
        assert agent.metric('taximeter_unrated_records_total{tier="cpu"}') == 1
    assert (record["data"]["billing"]["status"], record["data"]["billing"]["amount"]) == ("unrated", None)


# --- Shipping ---


def test_records_are_shipped_to_a_file_as_they_are_stored(node: Node) -> None:
    node.run("--", "true")
    with node.agent() as agent:
        wait_until(lambda: agent.metric('taximeter_outbox_pending{sink="usage"}') == 0, "the file")
        assert agent.stop() == 0
    lines = [json.loads(line) for line in (node.state / "usage.ndjson").read_text().splitlines()]
    assert lines == node.records()


def test_a_receiver_that_answers_500_gets_everything_once_it_can(node: Node, receiver: Receiver) -> None:
    receiver.script = [say(500), say(503)]
    node.config = f'[[sinks]]\nname = "billing"\ntype = "http"\nurl = "{receiver.url}"\n'
    node.run("--", "true")
    with node.agent() as agent:
        wait_until(lambda: len(receiver.held) == len(node.records()) > 5, "all records at the receiver")
        assert agent.metric('taximeter_ship_failures_total{reason="server_error",sink="billing"}') >= 1
    assert {key[1] for key in receiver.held} == {record["id"] for record in node.records()}
    assert receiver.requests[0].headers["content-type"] == "application/cloudevents-batch+json"


@pytest.mark.timing
def test_a_receiver_that_never_answers_keeps_nobody_waiting(node: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        node.config = f'[[sinks]]\nname = "billing"\ntype = "http"\nurl = "{url}"\n'
        with node.agent() as agent:
            node.run("--", "true")
            wait_until(node.predictions, "the record")
            began_s = time.monotonic()
            assert agent.stop() == 0
            assert time.monotonic() - began_s < 5
    assert list(node.journal.glob("*.ndjson"))


# --- Beginning and ending ---


@pytest.mark.timing
def test_sigterm_ends_it_in_order_and_what_ran_is_resumed(node: Node) -> None:
    with node.spawn("--", "cat", stdin=subprocess.PIPE) as run:
        with node.agent() as agent:
            wait_until(lambda: agent.metric('taximeter_instances{phase="active"}') == 1, "the instance")
            began_s = time.monotonic()
            assert agent.stop() == 0
            assert time.monotonic() - began_s < 5
        run.communicate(timeout=20)
    assert not (node.path / "run" / "agent").exists()
    with node.agent():
        assert len(node.predictions()) == 1
    assert is_sound(node)


def test_a_second_agent_on_the_same_state_directory_refuses(node: Node) -> None:
    with node.agent() as first:
        second = node.taximeter("agent", "--config", str(node.path / "agent.toml"))
        assert second.returncode == 1
        assert f"agent with pid {first.process.pid} does" in second.stderr
        assert first.process.poll() is None


def test_a_port_that_is_taken_is_said_and_nothing_is_started(node: Node) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        node.path.mkdir()
        config = node.path / "own.toml"
        config.write_text(f'[listen]\naddress = "127.0.0.1:{taken.getsockname()[1]}"\n')
        ended = node.taximeter("agent", "--config", str(config))
    assert ended.returncode == 1
    assert "cannot listen on 127.0.0.1:" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_wrong_config_names_every_fault_and_starts_nothing(node: Node) -> None:
    node.path.mkdir()
    config = node.path / "own.toml"
    config.write_text('[listne]\n[billing]\ninterim_s = "soon"\n')
    ended = node.taximeter("agent", "--config", str(config))
    assert ended.returncode == 1
    assert "listne" in ended.stderr
    assert "billing.interim_s = 'soon'" in ended.stderr
    assert not (node.state / "ledger.db").exists()


def test_systemd_is_told_ready_alive_and_stopping(node: Node, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(20)
        with node.agent(NOTIFY_SOCKET=address, WATCHDOG_USEC="200000") as agent:
            told = [manager.recv(4096).decode() for _ in range(3)]
            agent.stop()
            manager.settimeout(1)
            while "STOPPING=1" not in told:
                told.append(manager.recv(4096).decode())
    assert told[0].startswith("READY=1\n")
    assert told[1:3] == ["WATCHDOG=1", "WATCHDOG=1"]


def test_health_and_readiness_are_open_and_the_rest_asks_for_the_token(node: Node) -> None:
    with node.agent() as agent:
        assert agent.get("/healthz")[0] == 200
        assert agent.get("/readyz")[0] == 200
        assert agent.get("/v1/status")[0] == 401
        assert agent.get("/v1/status", agent.said["token"])[0] == 200


def test_the_token_is_kept_over_a_restart_and_nobody_else_can_read_it(node: Node) -> None:
    with node.agent() as agent:
        first = agent.said["token"]
        agent.stop()
    with node.agent() as agent:
        assert agent.said["token"] == first
        assert stat.S_IMODE((node.path / "run" / "agent").stat().st_mode) == 0o640
    assert stat.S_IMODE((node.state / "token").stat().st_mode) == 0o600


def test_what_is_in_force_is_written_once_and_again_only_when_it_changes(node: Node) -> None:
    for interim_s in (60, 60, 30):
        node.config = f"[billing]\ninterim_s = {interim_s}\n"
        with node.agent() as agent:
            agent.stop()
    facts = [record["data"]["fact"] for record in node.records()]
    assert facts == ["ledger_begun", "config", "rules", "tiers", "rate_card", "config", "rules"]


def test_a_full_disk_stops_the_books_and_not_the_agent(node: Node) -> None:
    require_root()
    node.path.mkdir()
    node.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(node.state)], check=True)
    try:
        node.journal.mkdir()
        with node.agent() as agent:
            filler = node.state / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"\1" * 4096)
            node.run("--", "true")
            filler.unlink()
            for _ in range(3):
                node.run("--", "true")
            wait_until(lambda: len(node.predictions()) >= 3, "what the disk had room for")
            assert agent.get("/healthz")[0] == 200
    finally:
        subprocess.run(["umount", "-l", str(node.state)], check=True)


def test_what_a_stopped_wrapper_did_not_see_is_not_billed(node: Node) -> None:
    """The command ends while its wrapper sleeps: whatever the wrapper says on waking, that silence is unknown.

    But for the kernel, which saw it: see tests/core/test_witness.py.
    """
    node.config = "[witness]\nkernel = false\n"
    words = ("--", "sh", "-c", "echo $PPID; read line")
    with node.agent(), node.spawn(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdin is not None
        wrapper = int(run.stdout.readline())
        wait_until(lambda: b'"f":"spawn"' in b"".join(map(Path.read_bytes, node.journal.glob("*.ndjson"))), "its start")
        os.kill(wrapper, signal.SIGSTOP)
        stopped_ns = time.monotonic_ns()
        run.stdin.close()
        wait_until(lambda: time.monotonic_ns() > stopped_ns + 3_000_000_000, "a silence")
        os.kill(wrapper, signal.SIGCONT)
        run.wait()
        (record,) = wait_until(node.predictions, "the record")
    times = record["data"]["time"]
    assert times["unknown_ns"] > 1_500_000_000
    assert record["data"]["interval"]["start_ns"] + times["active_ns"] < stopped_ns + 100_000_000
