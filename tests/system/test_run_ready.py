"""`taximeter run --ready http://…` and `tcp:…`: the command is asked, from real servers' first moment on."""

import http.server
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.require import lacking, require_program, require_root
from tests.system.agents import Node
from tests.system.ports import held_port
from tests.system.rides import PROGRAM, PYTHON, Rides, state_of, wait_until

#: What every server here begins with. `say` reports, with the time; `requests` yields connections that were read from.
SERVER = """
import os, socket, sys, time
port = int(sys.argv[1])
def say(*words): print(time.monotonic_ns(), *words, flush=True)
def listen(host="127.0.0.1", family=socket.AF_INET):
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    say("binds")
    listener.listen()
    say("listens")
    return listener
def requests(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            request = b""
            while b"\\r\\n\\r\\n" not in request:
                data = connection.recv(4096)
                if not data: break
                request += data
            else:
                yield connection
def until_gone(connection):
    while connection.recv(4096): pass
OK = b"HTTP/1.1 200 OK\\r\\n\\r\\n"
"""


@pytest.fixture
def rides(tmp_path: Path) -> Rides:
    return Rides(tmp_path)


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as port:
        yield port


def server(port: int, code: str) -> list[str]:
    return ["--", PYTHON, "-c", SERVER + code, str(port)]


class Told:
    """What a server reported, with its times."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def hear(self, word: str) -> int:
        """When it said that, which is read on for."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            at_ns, *words = line.split()
            if words[0] == word:
                return int(at_ns)
        raise AssertionError(f"the server never said {word}")


def ready_of(rides: Rides) -> tuple[dict[str, Any], int, int]:
    """The ready fact, and the bounds within which it says that it was."""
    fact = rides.wait_for("ready")
    return fact, fact["t"] - fact["within"], fact["t"]


READY = "for connection in requests(listener): connection.sendall(OK)"


def test_a_server_is_ready_once_it_answers_200_and_when_that_was_is_known(rides: Rides, port: int) -> None:
    code = f"say('starts'); time.sleep(0.4); listener = listen()\n{READY}"
    with rides.start("--ready", f"http://127.0.0.1:{port}/up", *server(port, code)) as process:
        fact, earliest_ns, latest_ns = ready_of(rides)
        told = Told(process)
        assert earliest_ns <= told.hear("listens")
        assert fact["by"] == "http"
    assert latest_ns - earliest_ns < 3_000_000_000


def test_a_port_is_ready_once_it_takes_connections(rides: Rides, port: int) -> None:
    code = "time.sleep(0.4); listener = listen(); time.sleep(60)"
    with rides.start("--ready", f"tcp:127.0.0.1:{port}", *server(port, code)) as process:
        fact, earliest_ns, latest_ns = ready_of(rides)
        told = Told(process)
        assert told.hear("binds") <= latest_ns
        assert earliest_ns <= told.hear("listens")
        assert fact["by"] == "tcp"


def test_a_server_that_is_up_at_once_was_not_ready_before_it_was_started(rides: Rides, port: int) -> None:
    with rides.start("--ready", f"tcp:127.0.0.1:{port}", *server(port, "listener = listen(); time.sleep(60)")):
        _, earliest_ns, latest_ns = ready_of(rides)
        spawn = rides.facts("spawn")[0]
        assert spawn["before"] <= earliest_ns < latest_ns
        assert spawn["t"] <= latest_ns


def test_cog_is_ready_when_its_health_check_says_ready_and_not_while_it_answers_starting(
    rides: Rides, port: int
) -> None:
    code = """
listener = listen()
for count, connection in enumerate(requests(listener)):
    status = b"READY" if count >= 3 else b"STARTING"
    if count == 3: say("ready")
    body = b'{"status":"%b","setup":null,"version":{"coglet":"0.23.1"}}' % status
    connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n%b" % (len(body), body))
"""
    with rides.start("--ready", f"http://localhost:{port}/health-check", *server(port, code)) as process:
        _, earliest_ns, latest_ns = ready_of(rides)
        assert earliest_ns <= Told(process).hear("ready") <= latest_ns


REFUSALS = {
    "unavailable": r"connection.sendall(b'HTTP/1.1 503 Wait\r\n\r\n')",
    "redirect": r"connection.sendall(b'HTTP/1.1 302 Found\r\nLocation: /up\r\nContent-Length: 0\r\n\r\n')",
    "closing": "pass",
    "garbage": r"connection.sendall(b'SSH-2.0-x\r\n')",
    "cut off": r"connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n')",
    "reset": "connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\\1\\0\\0\\0\\0\\0\\0\\0')",
    "endless head": r"connection.sendall(b'HTTP/1.1 200 OK\r\n' + b'X: yyyy\r\n' * 20_000)",
}


@pytest.mark.parametrize("how", REFUSALS)
def test_any_other_answer_is_none(rides: Rides, port: int, how: str) -> None:
    code = f"""
for count, connection in enumerate(requests(listen())):
    if count >= 3:
        if count == 3: say("ready")
        connection.sendall(OK)
        continue
    try:
        {REFUSALS[how]}
    except OSError:
        pass
"""
    with rides.start("--ready", f"http://127.0.0.1:{port}/", *server(port, code)) as process:
        _, earliest_ns, latest_ns = ready_of(rides)
        assert earliest_ns <= Told(process).hear("ready") <= latest_ns


def test_a_body_that_never_ends_is_read_up_to_a_bound_and_counts(rides: Rides, port: int) -> None:
    code = """
for connection in requests(listen()):
    try:
        connection.sendall(OK + b'{"logs":"')
        while True: connection.sendall(b"x" * 4096)
    except OSError:
        say("gone")
"""
    with rides.start("--ready", f"http://127.0.0.1:{port}/", *server(port, code)) as process:
        rides.wait_for("ready")
        Told(process).hear("gone")


SLOW = {
    "says nothing": "until_gone(connection)",
    "drips its head": "connection.sendall(b'HTTP/1.1 200 OK'); drip(connection)",
    "drips its body": "connection.sendall(OK + b'{\"a\":'); drip(connection)",
}


@pytest.mark.parametrize("how", SLOW)
def test_a_slow_server_delays_neither_signals_nor_heartbeats_and_is_asked_again(
    rides: Rides, port: int, how: str
) -> None:
    code = f"""
import signal
signal.signal(signal.SIGUSR1, lambda *_: say("signaled"))
def drip(connection):
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)
for count, connection in enumerate(requests(listen())):
    say("asked")
    if count: connection.sendall(OK)
    else:
        try:
            {SLOW[how]}
        except OSError: pass
        say("gone")
"""
    with rides.start("--ready", f"http://127.0.0.1:{port}/", *server(port, code)) as process:
        told = Told(process)
        told.hear("asked")
        process.send_signal(signal.SIGUSR1)
        told.hear("signaled")
        assert not rides.facts("ready")
        beats = len(rides.facts("heartbeat"))
        wait_until(lambda: len(rides.facts("heartbeat")) > beats, "a heartbeat while it is slow")
        told.hear("gone")
        rides.wait_for("ready")


def test_localhost_is_either_loopback(rides: Rides) -> None:
    with socket.socket(socket.AF_INET6) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(("::1", 0))
        except OSError:
            lacking("needs the loopback of IPv6, ::1")
        port = held.getsockname()[1]
        code = f"listener = listen('::1', socket.AF_INET6)\n{READY}"
        with rides.start("--ready", f"http://localhost:{port}/", *server(port, code)):
            rides.wait_for("ready")


def test_an_address_of_ipv6_stands_in_brackets(rides: Rides) -> None:
    with socket.socket(socket.AF_INET6) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(("::1", 0))
        except OSError:
            lacking("needs the loopback of IPv6, ::1")
        port = held.getsockname()[1]
        code = "listener = listen('::1', socket.AF_INET6); time.sleep(60)"
        with rides.start("--ready", f"tcp:[::1]:{port}", *server(port, code)):
            rides.wait_for("ready")


def test_python_s_own_server_becomes_ready(rides: Rides, port: int) -> None:
    words = ["--", PYTHON, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    with rides.start("--ready", f"http://127.0.0.1:{port}/", *words, cwd=rides.path, stderr=subprocess.DEVNULL):
        rides.wait_for("ready")


class _Fine(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_somebody_else_at_the_port_does_not_count_and_whoever_follows_does(rides: Rides, port: int) -> None:
    code = f"""
while True:
    try:
        listener = listen()
        break
    except OSError:
        time.sleep(0.02)
{READY}
"""
    other = http.server.ThreadingHTTPServer(("127.0.0.1", port), _Fine)
    thread = threading.Thread(target=other.serve_forever)
    thread.start()
    options = ["--ready", f"http://127.0.0.1:{port}/", "--ready-timeout", "0.3"]
    with rides.start(*options, *server(port, code), stderr=subprocess.PIPE) as process:
        try:
            rides.wait_for("ready_timeout")
            assert not rides.facts("ready")
        finally:
            other.shutdown()
            thread.join()
            other.server_close()
        _, earliest_ns, _ = ready_of(rides)
        assert earliest_ns <= Told(process).hear("listens")
        process.terminate()
        assert f"somebody else listens at port {port}" in process.communicate()[1]


def test_an_answer_once_the_command_has_ended_is_somebody_else_s(rides: Rides, port: int) -> None:
    with rides.start("--ready", f"tcp:127.0.0.1:{port}", "--", "sleep", "60", start_new_session=True) as process:
        command = rides.command_of(process)
        rides.wait_for("heartbeat")
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: state_of(process.pid) == "T", "the wrapper to stop")
        os.kill(command, signal.SIGKILL)
        wait_until(lambda: state_of(command) == "Z", "the command to end")
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", port))
            other.listen()
            process.send_signal(signal.SIGCONT)
            process.wait()
    assert rides.facts("ready") == []
    assert rides.facts()[-1]["f"] == "exit"


def test_a_command_that_says_itself_that_it_is_ready_is_asked_no_more(rides: Rides, port: int) -> None:
    code = """
listener = listen()
fd = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR)
for count, connection in enumerate(requests(listener)):
    connection.sendall(b"HTTP/1.1 503 Wait\\r\\n\\r\\n")
    if count == 1: break
os.write(fd, b'{"mark":"ready"}\\n')
listener.settimeout(0.5)
try:
    for _ in range(3): listener.accept()
    say("again")
except TimeoutError:
    say("quiet")
"""
    with rides.start("--ready", f"http://127.0.0.1:{port}/", *server(port, code)) as process:
        Told(process).hear("quiet")
        process.wait()
    assert rides.facts("ready") == []


def test_a_readiness_later_than_its_timeout_still_counts(rides: Rides, port: int) -> None:
    code = f"time.sleep(0.4); listener = listen()\n{READY}"
    with rides.start("--ready", f"http://127.0.0.1:{port}/", "--ready-timeout", "0.2", *server(port, code)):
        ready = rides.wait_for("ready")
        (timeout,) = rides.facts("ready_timeout")
        assert timeout["t"] < ready["t"]


def test_it_is_asked_about_ten_times_a_second(rides: Rides, port: int) -> None:
    code = """
begun = time.monotonic()
for count, connection in enumerate(requests(listen())):
    connection.sendall(b"HTTP/1.1 503 Wait\\r\\n\\r\\n")
    if time.monotonic() - begun > 2: break
print(count)
"""
    done = rides.run("--ready", f"http://127.0.0.1:{port}/", *server(port, code))
    assert 2 <= int(done.stdout.splitlines()[-1]) <= 45


def test_nobody_connects_to_himself(rides: Rides) -> None:
    require_root()
    unshare, ip = require_program("unshare", "util-linux"), require_program("ip", "iproute2")
    script = f"""
{ip} link set lo up || exit 99
echo "40000 40001" > /proc/sys/net/ipv4/ip_local_port_range || exit 99
exec {PROGRAM} run --ready tcp:127.0.0.1:40000 -- sleep 1
"""
    done = subprocess.run([unshare, "-n", "sh", "-c", script], env=rides.environment(), capture_output=True, text=True)
    if done.returncode == 99:
        lacking(f"needs a network namespace with ports of its own: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert rides.facts("ready") == []


@pytest.mark.parametrize(
    "fault",
    ["socket:error=EMFILE", "bind:error=EADDRINUSE", "connect:error=ENETUNREACH", "epoll_ctl:error=ENOSPC:when=4+"],
)
def test_whatever_fails_in_asking_the_command_does_not_notice(rides: Rides, port: int, fault: str) -> None:
    strace = [require_program("strace"), "-o", "/dev/null", "-e", "trace=none", "-e", f"inject={fault}"]
    words = rides.words("--ready", f"http://127.0.0.1:{port}/", "--", "sh", "-c", "sleep 0.3; exit 4")
    assert subprocess.run([*strace, *words], env=rides.environment()).returncode == 4
    assert rides.facts("ready") == []


def test_what_is_billed_begins_at_readiness_and_says_within_what_time(
    rides: Rides, port: int, taximeter_program: str
) -> None:
    code = "time.sleep(0.2); listener = listen(); listener.accept(); listener.accept()"
    options = ["--prediction", "p1", "--ready", f"tcp:127.0.0.1:{port}"]
    node = Node(taximeter_program, rides.path)
    with rides.start(*options, *server(port, code)) as process:
        fact = rides.wait_for("ready")
        socket.create_connection(("127.0.0.1", port)).close()
        process.wait()
    rides.run("--prediction", "p2", "--ready", f"tcp:127.0.0.1:{port}", "--ready-timeout", "0.1", "--", "sleep", "0.3")
    with node.agent():
        booked = {record["data"]["prediction"]: record["data"] for record in node.predictions()}
        begun, seen = booked["p1"]["interval"]["start_ns"], booked["p1"]["timing"]["start"]
        assert (begun, seen) == (fact["t"], {"source": "wrapper", "uncertainty_ns": fact["within"]})
        assert (booked["p2"]["time"]["wall_ns"], booked["p2"]["billing"]["amount"]) == (0, "0")
        assert "never: a boot that does not become ready" in node.taximeter("receipt", "p2").stdout
        assert "never" not in node.taximeter("receipt", "p1").stdout


@pytest.mark.parametrize("said", ["https://localhost/", "http://worker:80/", "tcp:::1:80", "log:(", "soon"])
def test_what_makes_no_sense_starts_nothing(rides: Rides, said: str) -> None:
    done = rides.run("--ready", said, "--", "touch", str(rides.path / "ran"))
    assert (done.returncode, list(rides.path.iterdir())) == (2, [])
    assert "expected" in done.stderr
