"""How marks leave a process: a FIFO that is full, gone or somebody else's; threads, forks and the end."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from taximeter import client
from taximeter.client.outlet import MOST_WAITING, OUTLET, Outlet
from tests.client.fifo import Fifo
from tests.system.rides import wait_until


def in_child(work: Callable[[], None]) -> int:
    """Fork, do that in the child; returns the child's pid once it ended well."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    return pid


def read_until(fifo: Fifo, prediction: str, mark: str) -> list[tuple[str, str]]:
    """What is said until that; in order."""
    said: list[tuple[str, str]] = []

    def has_come() -> bool:
        said.extend((mark["prediction"], mark["mark"]) for mark in fifo.marks())
        return (prediction, mark) in said

    wait_until(has_come, f"the {mark} of {prediction}")
    return said


def test_the_fifo_is_not_inherited_by_other_programs(fifo: Fifo) -> None:
    client.ready()
    assert not os.get_inheritable(OUTLET.fd)
    assert os.get_blocking(OUTLET.fd) is False
    assert OUTLET.fd >= 200


def test_what_finds_no_room_is_sent_in_order_once_there_is_some_without_a_further_call(fifo: Fifo) -> None:
    fifo.stuff()
    for n in range(100):
        with client.prediction(f"p{n}"):
            pass
    assert len(OUTLET.waiting) == 200
    assert read_until(fifo, "p99", "finish") == [(f"p{n}", mark) for n in range(100) for mark in ("start", "finish")]
    wait_until(lambda: not OUTLET.waiting, "an empty queue")
    assert client.dropped() == 0


def test_what_waited_tells_when_it_was(fifo: Fifo) -> None:
    fifo.stuff()
    before_ns = time.monotonic_ns()
    client.ready()
    after_ns = time.monotonic_ns()
    assert before_ns <= int(OUTLET.waiting[0].partition(b'"at":')[2].strip(b"}\n")) <= after_ns


def test_beyond_the_bound_no_prediction_begins_and_each_that_began_ends(fifo: Fifo) -> None:
    fifo.stuff()
    begun = [client.prediction(f"p{n}").start() for n in range(MOST_WAITING + 10)]
    assert client.dropped() == 10
    for prediction in begun:
        prediction.add(image=1)
        prediction.finish()
    assert client.dropped() == 10
    said = read_until(fifo, f"p{MOST_WAITING - 1}", "finish")
    assert said == [(f"p{n}", mark) for mark in ("start", "finish") for n in range(MOST_WAITING)]


def test_units_that_find_no_room_go_with_the_end(fifo: Fifo) -> None:
    prediction = client.prediction("p1").start()
    fifo.read()
    fifo.stuff()
    for _ in range(MOST_WAITING):
        client.ready()
    for _ in range(1000):
        prediction.add(token_output=1, second=0.1)
    prediction.finish()
    marks: list[dict[str, object]] = []
    wait_until(lambda: marks.extend(fifo.marks()) or [m for m in marks if m["mark"] == "finish"], "the end")
    assert [mark["units"] for mark in marks if mark["mark"] != "ready"] == [{"token_output": 1000, "second": 100}]


def test_a_thread_waits_for_room_only_while_something_waits(fifo: Fifo) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = threads()
    client.ready()
    assert threads() == before
    fifo.stuff()
    client.ready()
    assert threads() == before + 1
    fifo.read()
    wait_until(lambda: threads() == before, "the end of the thread")


def test_who_counts_nothing_that_counts_is_not_held_on_to(fifo: Fifo) -> None:
    with client.prediction() as prediction:
        prediction.add(image=-1)
    gone = weakref.ref(prediction)
    del prediction
    assert gone() is None


def test_units_of_a_long_prediction_are_told_on_the_way(fifo: Fifo, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = time.monotonic_ns()
    monkeypatch.setattr("taximeter.client.counting.monotonic_ns", lambda: now_ns)
    prediction = client.prediction("p1").start()
    prediction.add(token_output=1)
    now_ns += 999_999_999
    prediction.add(token_output=1)
    assert [mark["mark"] for mark in fifo.marks()] == ["start"]
    now_ns += 1
    prediction.add(token_output=1)
    (mark,) = fifo.marks()
    assert (mark["mark"], mark["units"]) == ("units", {"token_output": 3})


def test_a_child_tells_its_own_pid(fifo: Fifo) -> None:
    client.ready()

    def work() -> None:
        with client.prediction("p1"):
            pass

    pid = in_child(work)
    assert [mark["pid"] for mark in fifo.marks() if mark["mark"] == "start"] == [pid]


def test_a_child_does_not_send_what_its_parent_has_waiting(fifo: Fifo) -> None:
    fifo.stuff()
    client.prediction("parent").start().finish()

    def work() -> None:
        assert OUTLET.waiting == []
        client.prediction("child").start()
        assert len(OUTLET.waiting) == 1

    in_child(work)
    assert read_until(fifo, "parent", "finish") == [("parent", "start"), ("parent", "finish")]


def test_a_block_is_left_by_the_process_that_entered_it(fifo: Fifo) -> None:
    with client.prediction("p1") as prediction:
        prediction.add(token_output=5)
        pid = os.fork()
        if pid == 0:
            try:
                prediction.__exit__(SystemExit, SystemExit(0), None)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert [mark["mark"] for mark in fifo.marks()] == ["start", "units"]
    assert [mark["mark"] for mark in fifo.marks()] == ["finish"]


def test_what_a_parent_began_a_child_may_end_and_nothing_is_counted_twice(fifo: Fifo) -> None:
    prediction = client.prediction("p1").start()
    prediction.add(token_output=5)

    def work() -> None:
        prediction.add(token_output=2)
        prediction.finish()

    in_child(work)
    start, parents, childs = fifo.marks()
    assert start["pid"] == os.getpid()
    assert (parents["mark"], parents["units"]) == ("units", {"token_output": 5})
    assert (childs["mark"], childs["units"]) == ("finish", {"token_output": 2})


def test_ids_made_in_a_child_are_its_own(fifo: Fifo) -> None:
    def work() -> None:
        for _ in range(100):
            client.prediction().start()

    in_child(work)
    work()
    ids = [mark["prediction"] for mark in fifo.marks()]
    assert len(set(ids)) == len(ids) == 200


def test_what_waits_is_written_in_few_pieces_each_of_which_is_whole(
    fifo: Fifo, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.ready()
    fifo.stuff()
    for number in range(200):
        client.prediction(f"p{number}").start()
    pieces: list[bytes] = []
    write = os.write

    def noting(fd: int, piece: bytes) -> int:
        written = write(fd, piece)
        pieces.append(piece)
        return written

    monkeypatch.setattr("taximeter.client.outlet.write", noting)
    marks = fifo.marks()  # the first of them may be sent meanwhile
    wait_until(lambda: not OUTLET.waiting, "an empty queue")
    marks += fifo.marks()
    assert [mark["prediction"] for mark in marks[1:]] == [f"p{number}" for number in range(200)]
    assert all(len(piece) <= 4096 and piece.endswith(b"\n") for piece in pieces)
    assert len(pieces) < 20


def test_threads_lose_nothing(fifo: Fifo) -> None:
    def work() -> None:
        for _ in range(100):
            with client.prediction(model="acme/echo"):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    marks = []
    while any(thread.is_alive() for thread in threads):
        marks += fifo.marks()
    wait_until(lambda: not OUTLET.waiting, "an empty queue")
    marks += fifo.marks()
    open_: set[str] = set()
    for mark in marks:
        (open_.add if mark["mark"] == "start" else open_.remove)(mark["prediction"])
    assert (len(marks), open_) == (1600, set())


def test_several_threads_may_count_for_one_prediction(fifo: Fifo) -> None:
    prediction = client.prediction("p1").start()

    def work() -> None:
        for _ in range(1000):
            prediction.add(token_output=1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    prediction.finish()
    assert sum(mark.get("units", {}).get("token_output", 0) for mark in fifo.marks()) == 4000


def test_a_signal_handler_may_speak_in_the_midst_of_a_mark(fifo: Fifo) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: client.stopping())
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        marks = []
        deadline_s = time.monotonic() + 0.3
        while time.monotonic() < deadline_s:
            fifo.stuff()
            with client.prediction("p1") as prediction:
                prediction.add(image=1)
            marks += fifo.marks()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    wait_until(lambda: marks.extend(fifo.marks()) or not OUTLET.waiting, "an empty queue")
    marks += fifo.marks()
    told = [mark["mark"] for mark in marks if mark["mark"] != "stopping"]
    assert told == ["start", "finish"] * (len(told) // 2)


def test_a_descriptor_that_somebody_closed_is_opened_again(fifo: Fifo) -> None:
    client.ready()
    os.close(OUTLET.fd)
    client.ready()
    assert len(fifo.marks()) == 2
    assert client.dropped() == 0


def test_a_fifo_that_is_gone_costs_the_model_nothing_and_the_queue_is_bounded(tmp_path: Path) -> None:
    outlet = Outlet(str(tmp_path / "gone.marks"))
    told = [outlet.tell(b"x\n") for _ in range(MOST_WAITING + 5)]
    assert told.count(False) == outlet.dropped == 5


def test_what_is_no_fifo_is_never_written_into(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    outlet = Outlet(str(path))
    outlet.tell(b"x\n")
    assert outlet.off
    assert path.read_text() == "precious"


SAYS_AND_ENDS = """
import os, sys
from taximeter import client
fifo = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR | os.O_NONBLOCK)
try:
    while True:
        os.write(fifo, b"\\n" * 4096)
except BlockingIOError:
    pass
with client.prediction("p1"):
    pass
print(len(client.outlet.OUTLET.waiting), flush=True)
"""


def start(code: str, fifo: Fifo, **more: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "TAXIMETER_MARKS": str(fifo.path), **more}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


def test_at_exit_what_waits_gets_one_more_try(fifo: Fifo) -> None:
    code = SAYS_AND_ENDS + "os.read(fifo, 65536)\n"
    with start(code, fifo) as process:
        assert process.communicate()[0] == "2\n"
    assert [mark["mark"] for mark in fifo.marks()] == ["start", "finish"]


def test_an_exit_waits_for_no_room_longer_than_a_moment(fifo: Fifo) -> None:
    code = SAYS_AND_ENDS + "import atexit, time\nbegan = time.monotonic()\natexit._run_exitfuncs()\n"
    with start(code + "print(time.monotonic() - began < 5)", fifo) as process:
        assert process.communicate()[0] == "2\nTrue\n"


def test_a_child_of_multiprocessing_gets_that_try_too(fifo: Fifo) -> None:
    code = f"""
import multiprocessing
def work():
    exec({SAYS_AND_ENDS + "os.read(fifo, 65536)"!r}, {{}})
if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
"""
    with start(code, fifo) as process:
        assert process.communicate()[0] == "2\n"
    assert [mark["mark"] for mark in fifo.marks()] == ["start", "finish"]


def test_the_environment_says_who_is_around_it(fifo: Fifo) -> None:
    code = "from taximeter import client\nwith client.prediction('p1') as p: print(p.parent, p.root, p.account)"
    more = {"TAXIMETER_PARENT": "p0", "TAXIMETER_ROOT": "r0", "TAXIMETER_ACCOUNT": "cus_7"}
    with start(code, fifo, **more) as process:
        assert process.communicate()[0] == "p0 r0 cus_7\n"
    mark = fifo.marks()[0]
    assert (mark["parent"], mark["root"], mark["account"]) == ("p0", "r0", "cus_7")


def test_it_imports_next_to_nothing() -> None:
    code = "import os, sys, time; before = set(sys.modules); import taximeter.client; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    others = [name for name in done.stdout.split() if not name.startswith("taximeter")]
    assert set(others) <= {"_contextvars", "itertools"}


def test_it_is_typed() -> None:
    marker = Path(client.__file__).parent.parent / "py.typed"
    assert stat.S_ISREG(marker.stat().st_mode)
