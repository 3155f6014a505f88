"""A worker that treats its marks' FIFO badly: the wrapper lives, stays small, and ends as the command does."""

import base64
import os
import signal
import subprocess
from pathlib import Path

import pytest

from taximeter.wrap.budget import BURST_BYTES, MARK_BYTES, PER_S_BYTES
from tests.system.rides import PYTHON, Rides, wait_until

pytestmark = pytest.mark.system

#: A bare wrapper takes 10 to 11 MB; bites of marks come and go.
MOST_KB = 18_000
#: Every worker waits until it is watched, does its worst, says one mark more, tells what became of the wrapper, and
#: ends in a way that is no accident.
WORKER = """
import ctypes, fcntl, os, signal, socket, sys, time
marks, wrapper = os.environ["TAXIMETER_MARKS"], os.getppid()
fd = os.open(marks, os.O_RDWR | os.O_NONBLOCK)
def say(data):
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
def patiently(data):
    while not say(data):
        time.sleep(0.001)
time.sleep(0.05)
{worst}
patiently(b"\\nlast\\n")
status = open(f"/proc/{{wrapper}}/status").read()
print(status.partition("VmHWM:")[2].split()[0], len(os.listdir(f"/proc/{{wrapper}}/fd")))
sys.stdout.flush()
os._exit(7)
"""
WORST = {
    "writes whatever bytes there are": "for _ in range(64): patiently(os.urandom(4096))",
    "writes NULs": "for _ in range(512): patiently(bytes(4096))",
    "writes one line of two megabytes": "for _ in range(512): patiently(b'x' * 4096)",
    "writes nothing but newlines": "for _ in range(20): patiently(b'\\n' * 4096)",
    "writes forty thousand marks of one byte": "for _ in range(20): patiently(b'x\\n' * 2048)",
    "writes with no regard for lines": "for n in range(2000): patiently(b'{\"mark\"' if n % 3 else b'}\\n')",
    "takes the path away": "os.unlink(marks)",
    "puts a file there": "os.unlink(marks); open(marks, 'w').write('x' * 100_000)",
    "puts a directory there": "os.unlink(marks); os.mkdir(marks)",
    "puts a link to nothing that ends there": "os.unlink(marks); os.symlink('/dev/zero', marks)",
    "puts another FIFO there": "os.unlink(marks); os.mkfifo(marks); os.write(os.open(marks, os.O_RDWR), b'lost\\n')",
    "moves it": "os.rename(marks, marks + '.mine')",
    "forbids it to everybody": "os.chmod(marks, 0)",
    "cuts it": """
for cut in (lambda: os.truncate(marks, 0), lambda: os.ftruncate(fd, 0), lambda: os.fsync(fd)):
    try:
        cut()
    except OSError:
        pass
""",
    "opens it five hundred times": "held = [os.open(marks, os.O_RDWR | os.O_NONBLOCK) for _ in range(500)]",
    "closes and opens it again and again": """
for kind in (os.O_RDWR, os.O_RDONLY, os.O_WRONLY) * 200: os.close(os.open(marks, kind | os.O_NONBLOCK))
""",
    "makes the pipe small and large again": """
for n in range(200):
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 4096 if n % 2 else 1 << 20)
    except OSError:
        pass
    say(b"x" * 3000 + b"\\n")
""",
    "splices pages into it": """
page = os.memfd_create("page"); os.write(page, b"y" * 65_536)
for _ in range(40):
    try:
        os.splice(page, fd, 65_536, offset_src=0, flags=os.SPLICE_F_NONBLOCK)
    except BlockingIOError:
        time.sleep(0.001)
""",
    "lends it memory and changes that": """
class Vector(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(b"z" * 65_536)
vector, libc = Vector(ctypes.addressof(memory), 65_536), ctypes.CDLL(None)
for n in range(40):
    libc.vmsplice(fd, ctypes.byref(vector), 1, 2)
    memory[n] = b"\\n"
    time.sleep(0.001)
""",
    "has the kernel signal the wrapper for each write": """
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(fd, fcntl.F_SETOWN, wrapper)
fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
for _ in range(2000): patiently(b"x\\n")
fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
""",
    "has the kernel queue signals for the wrapper": """
signal.signal(signal.SIGRTMIN, signal.SIG_IGN)
fcntl.fcntl(fd, fcntl.F_SETOWN, wrapper)
fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGRTMIN)
fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
for _ in range(2000): patiently(b"x\\n")
fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
""",
    "locks and leases it": """
fcntl.flock(fd, fcntl.LOCK_EX)
for lease in (fcntl.F_RDLCK, fcntl.F_WRLCK):
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, lease)
    except OSError:
        pass
""",
    "makes its own end blocking and of another kind": """
for flags in (0, os.O_DIRECT, os.O_APPEND, os.O_NONBLOCK): fcntl.fcntl(fd, fcntl.F_SETFL, flags)
""",
    "goes in and out of the wrapper's own descriptors": """
for name in os.listdir(f"/proc/{wrapper}/fd"):
    try:
        if os.readlink(f"/proc/{wrapper}/fd/{name}") == marks:
            other = os.open(f"/proc/{wrapper}/fd/{name}", os.O_RDWR)
            fcntl.fcntl(other, fcntl.F_SETFL, 0)
            os.write(other, b"x\\n")
    except OSError:
        pass
""",
    "speaks in a hundred voices": """
voices = []
for voice in range(100):
    pid = os.fork()
    if not pid:
        for _ in range(20): patiently(b"%d\\n" % voice * 20)
        os._exit(0)
    voices.append(pid)
for pid in voices: os.waitpid(pid, 0)
""",
}


@pytest.fixture
def rides(tmp_path: Path) -> Rides:
    return Rides(tmp_path)


def said(rides: Rides) -> list[bytes]:
    return [base64.b64decode(fact["raw"], validate=True) for fact in rides.facts("mark")]


@pytest.mark.parametrize("worst", WORST)
def test_a_wrapper_outlives_a_worker_that(worst: str, rides: Rides) -> None:
    done = rides.run("--worker", "--", PYTHON, "-c", WORKER.format(worst=WORST[worst]))
    assert (done.returncode, done.stderr) == (7, "")
    most_kb, descriptors = map(int, done.stdout.split())
    assert most_kb < MOST_KB
    assert descriptors < 20
    assert rides.facts("exit")[0]["code"] == 7
    assert said(rides)[-1] == b"last"


def test_marks_that_a_worker_reads_itself_are_lost_to_it_and_nothing_else_is(rides: Rides) -> None:
    steals = """
os.kill(wrapper, signal.SIGSTOP)
for n in range(100): say(b"%d\\n" % n)
stolen = os.read(fd, 100)
os.kill(wrapper, signal.SIGCONT)
"""
    done = rides.run("--worker", "--", PYTHON, "-c", WORKER.format(worst=steals), start_new_session=True)
    assert done.returncode == 7
    everything = b"".join(b"%d\n" % n for n in range(100))
    assert said(rides) == [line for line in everything[100:].split(b"\n") if line] + [b"last"]


#: What the pipe holds, and what so many newlines may be at once and in some seconds.
MOST_TAKEN_BYTES = (1 << 20) + (BURST_BYTES + 10 * PER_S_BYTES) // MARK_BYTES
FLOOD = """
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: print("heard", flush=True))
fd, wrote, full = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR | os.O_NONBLOCK), 0, 0
time.sleep(0.1)
while full < 50:
    try:
        wrote += os.write(fd, b"\\n" * 4092 + b"x\\nx\\n") // 2048
        full = 0
    except BlockingIOError:
        full += 1
        time.sleep(0.001)
print(wrote, flush=True)
sys.stdin.readline()
os._exit(7)
"""


def test_who_says_too_much_waits_and_nothing_else_does(rides: Rides) -> None:
    with rides.start("--worker", "--", PYTHON, "-c", FLOOD, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        wrote = int(process.stdout.readline())
        begun = rides.facts("heartbeat")
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "heard\n"
        wait_until(lambda: len(rides.facts("heartbeat")) >= len(begun) + 2, "heartbeats")
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        process.communicate("\n")
    assert process.returncode == 7
    assert said(rides) == [b"x"] * wrote
    assert wrote * 2048 < MOST_TAKEN_BYTES
    assert sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") < 1
