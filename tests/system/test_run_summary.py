"""`taximeter run --summary`: one line at the end, in a living agent's words, that keeps nobody waiting."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from taximeter.records import RecordType
from tests.require import require_root
from tests.system.agents import Node
from tests.system.rides import PYTHON, Rides

#: What a run with a summary may take on a busy machine: a second for the agent, and the rest.
_SOON_S = 10.0


@pytest.fixture
def rides(tmp_path: Path) -> Rides:
    return Rides(tmp_path)


@pytest.fixture(scope="module")
def node(taximeter_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(taximeter_program, tmp_path_factory.mktemp("summary") / "node")
    with node.agent():
        yield node


def pending(said: str) -> bool:
    """Whether that is the one line of a run that nobody has booked."""
    return bool(
        re.fullmatch(r"taximeter: ran \d+\.\d{3} s.* · record pending · receipt: taximeter receipt \S+\n", said)
    )


# --- With an agent ---


def test_a_summary_says_time_end_tier_cost_and_witness(node: Node) -> None:
    done = node.run("--summary", "--prediction", "p1", "--", "sh", "-c", "sleep 0.2; exit 3")
    assert done.returncode == 3
    found = re.fullmatch(
        r"taximeter: ran (0\.\d{3}) s · exit 3 · (\S+) · (≈ )?(0\.\d+) USD \(share\) · seen by the (kernel|wrapper)"
        r" · receipt: taximeter receipt p1\n",
        done.stderr,
    )
    assert found, done.stderr
    (record,) = node.records(RecordType.PREDICTION, prediction="p1")
    data = record["data"]
    assert found[2] == data["hardware"]["tier"]
    assert f"{data['time']['active_ns'] / 1e9:.3f}" == found[1]
    assert abs(Decimal(found[4]) - Decimal(data["billing"]["amount"])) <= Decimal(found[4]) / 1000


def test_a_summary_tells_boot_apart(node: Node) -> None:
    mark = """echo '{"mark":"ready"}' 1<>"$TAXIMETER_MARKS" """
    done = node.run("--summary", "--ready", "notify", "--", "sh", "-c", f"sleep 0.1; {mark}; sleep 0.1")
    assert re.match(r"taximeter: ran 0\.\d+ s \(boot 0\.\d+ s, active 0\.\d+ s\) · exit 0 · ", done.stderr), done.stderr


def test_a_summary_of_a_worker_is_of_its_instance(node: Node) -> None:
    done = node.run("--summary", "--worker", "--", "sh", "-c", "exit 0")
    instance = done.stderr.rpartition(" ")[2].strip()
    assert "· nothing billed ·" in done.stderr
    assert node.records(RecordType.INSTANCE, instance=instance)


def test_who_contradicts_what_run_was_told_hears_of_it_at_the_end_and_so_do_status_and_log(node: Node) -> None:
    begin = """echo '{"mark":"start","prediction":"p9","account":"cus_2"}' 1<>"$TAXIMETER_MARKS" """
    done = node.run("--summary", "--worker", "--account", "cus_1", "--", "sh", "-c", begin)
    instance = done.stderr.rpartition(" ")[2].strip()
    assert "· 1 mark refused (fixed_by_run) · receipt: " in done.stderr
    why = "begins no prediction, and bills none: expected --account 'cus_1', or no word of it"
    problems = json.loads(node.taximeter("status", "--json").stdout)["problems"]
    assert [problem for problem in problems if f"1 mark refused (fixed_by_run) of instance {instance}: " in problem]
    assert f"mark.refused instance={instance} reason=fixed_by_run: what contradicts its `taximeter run` {why}" in (
        node.path / "agent.log"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize("service_class", ["private", "deployment"])
def test_a_summary_names_the_receipt_that_has_the_price(node: Node, service_class: str) -> None:
    done = node.run("--summary", "--class", service_class, "--prediction", f"p-{service_class}", "--", "true")
    instance = done.stderr.rpartition(" ")[2].strip()
    (record,) = node.records(RecordType.INSTANCE, instance=instance)
    assert record["data"]["billing"]["amount"] is not None


def test_a_summary_of_what_could_not_be_started_says_so(node: Node) -> None:
    done = node.run("--summary", "--prediction", "p-absent", "--", "/nowhere/to/be/found")
    assert done.returncode == 127
    assert done.stderr.splitlines()[1].startswith("taximeter: ran 0.000 s · exit 127 (not_started), never ready · ")
    assert done.stderr.endswith(" · receipt: taximeter receipt p-absent\n")


def test_a_summary_keeps_the_signal_that_the_command_died_of(node: Node) -> None:
    done = node.run("--summary", "--", "sh", "-c", "sleep 0.1; kill -TERM $$")
    assert done.returncode == -signal.SIGTERM
    assert "· killed by SIGTERM (15) ·" in done.stderr


def test_a_summary_says_that_a_run_was_canceled(node: Node) -> None:
    with node.spawn("--summary", "--", "sh", "-c", "echo up; exec sleep 60", **pipes()) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        _, said = process.communicate(timeout=_SOON_S)
    assert process.returncode == -signal.SIGTERM
    assert "· killed by SIGTERM (15), canceled ·" in said


def pipes() -> dict[str, int]:
    return {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def test_an_odd_id_can_be_pasted_into_a_shell(node: Node) -> None:
    done = node.run("--summary", "--prediction", "it's $HOME", "--", "true")
    command = done.stderr.rpartition("receipt: taximeter receipt ")[2]
    assert subprocess.run(f"printf %s {command}", shell=True, capture_output=True).stdout == b"it's $HOME"


def test_a_receipt_in_a_line_is_there_for_everybody(node: Node) -> None:
    node.run("--prediction", "line", "--", "true")
    place = json.loads((node.path / "run" / "agent").read_text())
    curl = ["curl", "-sH", f"Authorization: Bearer {place['token']}", "-H", "Accept: text/plain"]

    def asked() -> str:
        return subprocess.run([*curl, f"{place['url']}/v1/receipts/line"], capture_output=True, text=True).stdout

    deadline_s = time.monotonic() + _SOON_S
    while not asked().startswith("ran ") and time.monotonic() < deadline_s:
        pass
    assert re.fullmatch(r"ran \S+ s · exit 0 · .*\n", asked())


# --- Without one, and with something else in its place ---


def timed(run: Callable[[], subprocess.CompletedProcess[str]]) -> str:
    """What a run that exits with 5 says at its end, which is soon."""
    began_s = time.monotonic()
    done = run()
    assert done.returncode == 5
    assert time.monotonic() - began_s < _SOON_S
    return done.stderr


def summary(rides: Rides) -> str:
    return timed(lambda: rides.run("--summary", "--", "sh", "-c", "exit 5"))


def agent_file(rides: Rides, url: str) -> Path:
    rides.run_directory.mkdir(exist_ok=True)
    path = rides.run_directory / "agent"
    path.write_text(json.dumps({"url": url, "token": "s3cret", "pid": os.getpid()}) + "\n")
    path.chmod(0o640)
    return path


def test_without_an_agent_the_record_is_pending(rides: Rides) -> None:
    assert pending(summary(rides))


def test_without_a_journal_there_is_no_record(rides: Rides) -> None:
    (rides.path / "state").write_text("in the way")
    assert summary(rides).splitlines()[1].endswith("· exit 5 · not measured: no record")


def test_what_was_left_running_is_said_without_an_agent_too(rides: Rides) -> None:
    with rides.start(
        "--summary", "--", "sh", "-c", "sleep 60 & read line", stdin=subprocess.PIPE, **pipes()
    ) as process:
        command = rides.command_of(process)
        rides.wait_for("heartbeat")
        (sleeper,) = (int(pid) for pid in Path(f"/proc/{command}/task/{command}/children").read_text().split())
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr is not None
        said = process.stderr.readline()
        os.kill(sleeper, signal.SIGKILL)
    assert "· exit 0; left running: 1 process ·" in said


def test_an_agent_that_hangs_is_waited_for_a_second(taximeter_program: str, tmp_path: Path) -> None:
    node = Node(taximeter_program, tmp_path / "node")
    with node.agent() as agent:
        agent.process.send_signal(signal.SIGSTOP)
        assert pending(timed(lambda: node.run("--summary", "--", "sh", "-c", "exit 5")))


def test_an_agent_that_was_killed_is_not_waited_for(taximeter_program: str, tmp_path: Path) -> None:
    node = Node(taximeter_program, tmp_path / "node")
    with node.agent() as agent:
        agent.process.kill()
        agent.process.wait()
        assert (node.path / "run" / "agent").exists()
        assert pending(timed(lambda: node.run("--summary", "--", "sh", "-c", "exit 5")))


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"url": 3}', b'{"url": "http://127.0.0.1:x", "token": "t"}', b"\xff" * 9000]
)
def test_a_broken_agent_file_is_none(rides: Rides, content: bytes) -> None:
    agent_file(rides, "http://127.0.0.1:9").write_bytes(content)
    assert pending(summary(rides))


def test_an_agent_file_that_never_ends_is_none(rides: Rides) -> None:
    rides.run_directory.mkdir()
    os.mkfifo(rides.run_directory / "agent")
    assert pending(summary(rides))


class Impostor:
    """Whoever took a port: keeps what it is told, and answers as it likes; None drips."""

    def __init__(self, answer: bytes | None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.heard: list[bytes] = []
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self._answer = answer
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.listener.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self.listener.accept()
                with connection:
                    self.heard.append(connection.recv(4096))
                    if self._answer is not None:
                        connection.sendall(self._answer)
                    while self._answer is None and not self._over.wait(0.01):
                        connection.sendall(b"H")


@contextlib.contextmanager
def impostor(answer: bytes | None) -> Iterator[Impostor]:
    running = Impostor(answer)
    try:
        yield running
    finally:
        running.close()


def test_an_answer_that_drips_is_not_waited_for(rides: Rides) -> None:
    with impostor(None) as other:
        agent_file(rides, other.url)
        assert pending(summary(rides))
        assert b"Bearer s3cret" in other.heard[0]  # it is of our own user


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"junk",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nno",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 9\r\n\r\nran",
        b"HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n" + b"x" * 1_000_000,
    ],
)
def test_an_answer_of_another_kind_is_none(rides: Rides, answer: bytes) -> None:
    with impostor(answer) as other:
        agent_file(rides, other.url)
        assert pending(summary(rides))


def test_what_is_answered_reaches_the_terminal_as_text_only(rides: Rides) -> None:
    body = b"ran\x1b[2J\xff\nfast"
    with impostor(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    ) as other:
        agent_file(rides, other.url)
        said = summary(rides)
    assert said.startswith("taximeter: ran?[2J\ufffd?fast · receipt: ")
    assert said.removesuffix("\n").isprintable()


def test_the_token_is_not_given_to_another_user_s_listener(rides: Rides) -> None:
    """An agent was killed, its file stayed, and somebody else took the port."""
    require_root()
    code = (
        "import os, socket\nlistener = socket.create_server(('127.0.0.1', 0))\nos.setuid(65534)\n"
        "other = socket.create_server(('127.0.0.1', 0))\nprint(other.getsockname()[1], flush=True)\n"
        "heard = other.accept()[0].recv(4096)\nprint(repr(heard), flush=True)"
    )
    with subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        agent_file(rides, f"http://127.0.0.1:{other.stdout.readline().strip()}")
        assert pending(summary(rides))
        assert other.stdout.readline() == "b''\n"


def test_the_token_of_another_user_s_file_is_not_used(rides: Rides) -> None:
    require_root()
    with impostor(b"") as other:
        os.chown(agent_file(rides, other.url), 4711, 4711)
        assert pending(summary(rides))
        assert other.heard == []


@pytest.mark.parametrize(
    "url",
    ["http://192.0.2.1:9847", "http://[2001:db8::1]:9847", "https://127.0.0.1:9847", "http://localhost.example:80"],
)
def test_no_other_machine_is_asked(rides: Rides, url: str) -> None:
    agent_file(rides, url)
    began_s = time.monotonic()
    assert pending(summary(rides))
    assert time.monotonic() - began_s < _SOON_S


def test_without_an_agent_too_what_could_not_be_started_is_told_in_a_line(rides: Rides) -> None:
    done = rides.run("--summary", "--prediction", "p", "--", "/dev/null")
    assert done.returncode == 126
    assert done.stderr.splitlines()[1:] == [
        "taximeter: did not run · exit 126 · record pending · receipt: taximeter receipt p"
    ]


def test_without_a_summary_nothing_is_said(rides: Rides) -> None:
    done = rides.run("--", "sh", "-c", "exit 3")
    assert (done.stdout, done.stderr) == ("", "")
