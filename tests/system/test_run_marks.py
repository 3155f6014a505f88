"""What a command says under `taximeter run`: marks through the FIFO, sd_notify, and how it becomes ready."""

import array
import base64
import json
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.require import require_root
from tests.system.rides import PYTHON, Rides, state_of


@pytest.fixture
def rides(tmp_path: Path) -> Rides:
    return Rides(tmp_path)


def said(rides: Rides) -> list[bytes]:
    """The marks of the journal, as they came."""
    return [base64.b64decode(fact["raw"], validate=True) for fact in rides.facts("mark")]


def python(code: str) -> list[str]:
    return ["--", PYTHON, "-c", f"import os, socket, sys, time\nmarks = os.environ['TAXIMETER_MARKS']\n{code}"]


def test_a_mark_can_be_made_from_any_shell(rides: Rides) -> None:
    rides.run("--", "sh", "-c", """echo '{"mark":"ready"}' 1<>"$TAXIMETER_MARKS" """)
    assert said(rides) == [b'{"mark":"ready"}']


def test_marks_come_before_the_end_and_in_their_order(rides: Rides) -> None:
    code = "fd = os.open(marks, os.O_RDWR | os.O_NONBLOCK)\nfor n in range(500): os.write(fd, b'{\"n\":%d}\\n' % n)"
    rides.run(*python(code))
    assert said(rides) == [b'{"n":%d}' % n for n in range(500)]
    assert rides.facts()[-1]["f"] == "exit"


def test_the_fifo_lies_beside_the_journal_readable_by_its_group_whatever_the_umask(rides: Rides) -> None:
    look = "status = os.stat(marks); print(oct(status.st_mode), os.path.basename(marks))"
    mode, name = rides.run(*python(look), umask=0o077).stdout.split()
    assert int(mode, 8) == stat.S_IFIFO | 0o640
    assert name == f"{rides.facts('open')[0]['instance']}.marks"


def test_at_the_end_only_the_journal_is_left(rides: Rides) -> None:
    rides.run("--ready", "notify", "--", "sh", "-c", "sleep 0.1")
    assert [path.suffix for path in rides.journal.iterdir()] == [".ndjson"]


def test_a_command_that_never_started_leaves_only_the_journal(rides: Rides) -> None:
    rides.run("--ready", "notify", "--", "no-such-command")
    assert [path.suffix for path in rides.journal.iterdir()] == [".ndjson"]


def test_a_mark_without_a_newline_is_taken_at_the_end(rides: Rides) -> None:
    rides.run("--", "sh", "-c", """printf '{"mark":"ready"}' 1<>"$TAXIMETER_MARKS" """)
    assert said(rides) == [b'{"mark":"ready"}']


@pytest.mark.parametrize("pause_s", [0, 0.3])
def test_a_mark_just_before_the_end_is_not_lost(rides: Rides, pause_s: float) -> None:
    code = f"time.sleep({pause_s}); fd = os.open(marks, os.O_RDWR); os.write(fd, b'last\\n'); os._exit(0)"
    rides.run(*python(code))
    assert said(rides) == [b"last"]


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"{", b"\x1b[31m", '{"mark":"é🚕"}'.encode(), b" ", b'"\\ud800"'])
def test_a_bad_mark_is_kept_as_it_came(rides: Rides, raw: bytes) -> None:
    rides.run(*python(f"os.write(os.open(marks, os.O_RDWR), {raw!r} + b'\\n')"))
    assert said(rides) == [raw]


def test_of_a_mark_that_is_too_long_the_beginning_is_kept_and_the_next_one_is_whole(rides: Rides) -> None:
    code = "with open(marks, 'r+b', buffering=0) as fifo: fifo.write(b'x' * 300_000 + b'\\n' + b'next\\n')"
    rides.run(*python(code))
    assert said(rides) == [b"x" * 4097, b"next"]


def test_a_mark_without_end_grows_no_memory(rides: Rides) -> None:
    code = """
time.sleep(0.2)
with open(marks, "r+b", buffering=0) as fifo:
    for _ in range(600):
        fifo.write(b"x" * 65_536)
print("up", flush=True)
input()
"""
    with rides.start(*python(code), stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert int(status.partition("VmHWM:")[2].split()[0]) < 40_000
        process.communicate("\n")
    assert [len(raw) for raw in said(rides)] == [4097]


def test_eight_writers_of_long_marks_tear_none(rides: Rides) -> None:
    code = """
children = []
for writer in range(8):
    pid = os.fork()
    if pid == 0:
        fd = os.open(marks, os.O_RDWR)
        for n in range(100):
            os.write(fd, (b"%d" % writer) * 4000 + b"\\n")
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
"""
    rides.run(*python(code))
    assert sorted(said(rides)) == sorted((b"%d" % writer) * 4000 for writer in range(8) for _ in range(100))


def test_a_worker_that_writes_blocks_on_nobody_and_finds_room_for_thousands(rides: Rides) -> None:
    code = """
time.sleep(0.3)
os.kill(os.getppid(), 19)
fd, count = os.open(marks, os.O_RDWR | os.O_NONBLOCK), 0
for count in range(3000):
    os.write(fd, b'{"mark":"units","prediction":"p1","units":{"token_output":128}}\\n')
os.kill(os.getppid(), 18)
print(count + 1)
"""
    assert rides.run(*python(code), start_new_session=True).stdout == "3000\n"
    assert len(said(rides)) == 3000


def test_marks_outlive_a_wrapper_that_is_killed_for_whoever_holds_the_fifo(rides: Rides) -> None:
    code = """
print("up", flush=True)
input()
fd = os.open(marks, os.O_RDWR | os.O_NONBLOCK)
for n in range(1001): os.write(fd, b"%d\\n" % n)
print("said", flush=True)
input()
"""
    with rides.start(*python(code), stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "up\n"
        command = rides.command_of(process)
        (fifo,) = rides.journal.glob("*.marks")
        holder = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        process.kill()
        process.wait()
        assert state_of(command) in "SR"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "said\n"
        os.kill(command, signal.SIGKILL)
        assert os.read(holder, 1 << 20) == b"".join(b"%d\n" % n for n in range(1001))
        os.close(holder)


def test_a_command_is_ready_once_it_runs(rides: Rides) -> None:
    rides.run("--", "true")
    (ready,) = rides.facts("ready")
    assert (ready["by"], ready["t"]) == ("exec", rides.facts("spawn")[0]["t"])


NOTIFY = """
def notify(text, *descriptors):
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\\0" + address[1:] if address[0] == "@" else address)
        socket.send_fds(sender, [text.encode()], list(descriptors))
"""


def test_a_command_that_notifies_is_ready_when_it_says_so(rides: Rides) -> None:
    rides.run("--ready", "notify", *python(f"{NOTIFY}\ntime.sleep(0.2)\nnotify('STATUS=loading\\nREADY=1\\n')"))
    (ready,) = rides.facts("ready")
    assert ready["by"] == "notify"
    assert ready["t"] - rides.facts("spawn")[0]["before"] > 200_000_000


def test_only_the_first_ready_counts(rides: Rides) -> None:
    rides.run("--ready", "notify", *python(f"{NOTIFY}\nnotify('READY=1')\nnotify('READY=1')"))
    assert len(rides.facts("ready")) == 1


def test_what_merely_looks_like_ready_is_not(rides: Rides) -> None:
    rides.run("--ready", "notify", *python(f"{NOTIFY}\nnotify('READY=10')\nnotify('STATUS=READY=1')\nnotify('')"))
    assert rides.facts("ready") == []


def test_stopping_is_noted(rides: Rides) -> None:
    rides.run("--ready", "notify", *python(f"{NOTIFY}\nnotify('READY=1')\ntime.sleep(0.1)\nnotify('STOPPING=1')"))
    assert [fact["by"] for fact in rides.facts("stopping")] == ["notify"]


def test_a_state_directory_that_is_too_deep_for_a_socket_does_not_keep_a_command_from_notifying(tmp_path: Path) -> None:
    rides = Rides(tmp_path / ("d" * 120))
    assert rides.run("--ready", "notify", *python(f"{NOTIFY}\nnotify('READY=1')")).returncode == 0
    assert [fact["by"] for fact in rides.facts("ready")] == ["notify"]


def test_another_user_is_not_heard_on_a_socket_that_is_open_to_all(tmp_path: Path) -> None:
    require_root()
    outside = tmp_path / "manager"
    rides = Rides(tmp_path / ("d" * 120))
    stranger = "os.fork() or (os.setuid(65534), notify('READY=1', 2), os._exit(0)); print(os.wait()[1])"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(outside))
        manager.setblocking(False)
        code = f"{NOTIFY}\n{stranger}\ntime.sleep(0.1)\nnotify('STOPPING=1')"
        done = rides.run("--ready", "notify", *python(code), env=rides.environment(NOTIFY_SOCKET=str(outside)))
        assert (done.stdout, manager.recv(100)) == ("0\n", b"STOPPING=1")
        with pytest.raises(BlockingIOError):
            manager.recv(100)
    assert rides.facts("ready") == []


def test_a_ready_mark_ends_the_wait_of_a_command_that_was_to_notify(rides: Rides) -> None:
    code = 'os.write(os.open(marks, os.O_RDWR), b\'{"mark":"ready"}\\n\'); time.sleep(0.5)'
    done = rides.run("--ready", "notify", "--ready-timeout", "0.3", "--summary", *python(code))
    assert rides.facts("ready_timeout") == []
    assert "never ready" not in done.stderr


def test_a_wait_for_ready_that_is_too_long_is_noted_and_stops_nothing(rides: Rides) -> None:
    done = rides.run("--ready", "notify", "--ready-timeout", "0.1", "--summary", "--", "sh", "-c", "sleep 1; exit 3")
    assert done.returncode == 3
    (timeout,) = rides.facts("ready_timeout")
    assert 100_000_000 <= timeout["t"] - rides.facts("spawn")[0]["t"] < 1_000_000_000
    assert "never ready" in done.stderr


class Manager:
    """A service manager's notification socket."""

    def __init__(self, path: Path) -> None:
        self.address = str(path / "manager")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.settimeout(20)

    def __enter__(self) -> "Manager":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def hear(self) -> tuple[bytes, list[int], int]:
        """A message, the descriptors that came with it, and the pid of its sender."""
        data, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(64) * 4)
        found: dict[int, Any] = {kind: array.array("i", value[: len(value) // 4 * 4]) for _, kind, value in ancillary}
        return data, list(found.get(socket.SCM_RIGHTS, [])), found[socket.SCM_CREDENTIALS][0]


def test_a_service_manager_hears_everything_from_its_main_process(rides: Rides) -> None:
    code = f"{NOTIFY}\nnotify('READY=1\\nSTATUS=up', 1)\nnotify('WATCHDOG=1')\nnotify('STOPPING=1')"
    with Manager(rides.path) as manager:
        environment = rides.environment(NOTIFY_SOCKET=manager.address)
        with rides.start("--ready", "notify", *python(code), env=environment) as process:
            heard = [manager.hear() for _ in range(3)]
            for _, descriptors, _ in heard:
                for fd in descriptors:
                    os.close(fd)
            process.communicate()
    assert [message for message, _, _ in heard] == [b"READY=1\nSTATUS=up", b"WATCHDOG=1", b"STOPPING=1"]
    assert [len(descriptors) for _, descriptors, _ in heard] == [1, 0, 0]
    assert {sender for _, _, sender in heard} == {process.pid}


def test_a_command_that_is_ready_at_once_talks_to_its_service_manager_itself(rides: Rides) -> None:
    with Manager(rides.path) as manager:
        environment = rides.environment(NOTIFY_SOCKET=manager.address)
        out = rides.run(*python(f"{NOTIFY}\nprint(os.getpid())\nnotify('READY=1')"), env=environment).stdout
        message, _, sender = manager.hear()
    assert (message, sender) == (b"READY=1", int(out))


def test_a_service_manager_that_is_gone_harms_nobody(rides: Rides) -> None:
    environment = rides.environment(NOTIFY_SOCKET=str(rides.path / "gone"))
    done = rides.run("--ready", "notify", *python(f"{NOTIFY}\nnotify('READY=1')"), env=environment)
    assert done.returncode == 0
    assert len(rides.facts("ready")) == 1


def test_a_flood_of_notifications_ends_with_the_command(rides: Rides) -> None:
    code = f"{NOTIFY}\nfor _ in range(3000): notify('STATUS=x')\nnotify('READY=1')"
    assert rides.run("--ready", "notify", *python(code)).returncode == 0
    assert len(rides.facts("ready")) == 1


def test_a_descriptor_sent_along_with_a_notification_is_closed(rides: Rides) -> None:
    barrier = (
        "reading, writing = os.pipe()\nnotify('BARRIER=1', writing)\nos.close(writing)\nprint(os.read(reading, 1))"
    )
    assert rides.run("--ready", "notify", *python(f"{NOTIFY}\n{barrier}")).stdout == "b''\n"


def test_a_descendant_may_say_the_marks(rides: Rides) -> None:
    rides.run("--", "sh", "-c", """sh -c 'echo "{\\"mark\\":\\"ready\\"}" 1<>"$TAXIMETER_MARKS"'; exit 0""")
    assert [json.loads(raw) for raw in said(rides)] == [{"mark": "ready"}]


def test_a_full_pipe_waits_for_room_on_the_disk_and_loses_nothing(rides: Rides) -> None:
    code = """
import resource
resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
fd = os.open(marks, os.O_RDWR | os.O_NONBLOCK)
for n in range(300): os.write(fd, b'{"n":%d}\\n' % n)
time.sleep(0.5)
resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
time.sleep(1.2)
os.write(fd, b"last\\n")
"""
    # Between two beats: one that finds no room is not made up for, and counted.
    beat = "while b'heartbeat' not in open(marks.replace('.marks', '.0.ndjson'), 'rb').read(): time.sleep(0.01)"
    assert rides.run(*python(f"{beat}\n{code}")).returncode == 0
    assert said(rides) == [*(b'{"n":%d}' % n for n in range(300)), b"last"]
    assert "dropped" not in rides.facts("exit")[0]
