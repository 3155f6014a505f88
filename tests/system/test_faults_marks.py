"""Kill -9 of the agents that listen to an orphan: whatever it said is heard once, and nothing of it is lost.

Injects SIGKILL into one agent after the other while a worker whose wrapper was killed goes on to speak, two marks each
millisecond: what an agent took out of the FIFO and had not booked yet is booked by the next one.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taximeter.records import RecordType
from tests.require import lacking, require_program, require_root
from tests.system.agents import SEALED, Node, wait_until
from tests.system.faults import check_ledger, facts_of, finals

KILLS, EACH = 6, 300
#: Does so many predictions for each line that it is given, one after the other.
SPEAKS = """
import json, os, sys, time
marks = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR)
n = 0
for line in sys.stdin:
    for _ in range(300):
        for mark in ({"mark": "start"}, {"mark": "finish", "status": "succeeded", "units": {"image": 1}}):
            os.write(marks, json.dumps({**mark, "prediction": f"p{n}"}).encode() + b"\\n")
        n += 1
        time.sleep(0.001)
    print(n, flush=True)
"""


def test_what_an_orphan_says_survives_the_agents_that_hear_it(taximeter_program: str, tmp_path: Path) -> None:
    node = Node(taximeter_program, tmp_path / "node", config="[witness]\nkernel = false\n")
    node.config += SEALED
    words = ("--worker", "--", sys.executable, "-c", SPEAKS)
    with node.spawn(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as wrapper:
        assert wrapper.stdin is not None
        assert wrapper.stdout is not None
        wait_until(lambda: len(facts_of(node, None)) > 2, "the spawn")
        wrapper.kill()
        for _ in range(KILLS):
            with node.agent() as agent:
                booked = len(finals(node))
                wrapper.stdin.write("go\n")
                wrapper.stdin.flush()
                wait_until(lambda booked=booked: len(finals(node)) > booked, "some of what it says")
                at_s = time.monotonic() + 0.05
                wait_until(lambda at_s=at_s: time.monotonic() > at_s, "some more of it")
                agent.process.kill()
            wrapper.stdout.readline()
        with node.agent():
            wrapper.stdin.close()
            wait_until(lambda: [r for r in node.records(RecordType.INSTANCE) if "exit" in r["data"]], "its end")
            wait_until(lambda: not list(node.journal.iterdir()), "nothing to be left of it")
    check_ledger(node)
    done = finals(node)
    assert len(done) == KILLS * EACH
    assert {data["status"] for data in done.values()} == {"succeeded"}
    assert [data["units"] for data in done.values()] == [{"image": "1"}] * len(done)


#: Says for each line that it is given so many marks of 4 KB, waiting where the FIFO is full.
FLOODS = """
import json, os, sys
marks = os.open(os.environ["TAXIMETER_MARKS"], os.O_WRONLY)
for line in sys.stdin:
    for _ in range(int(line)):
        os.write(marks, json.dumps({"mark": "ready", "note": "y" * 3900}).encode() + b"\\n")
    print("said", flush=True)
"""
#: Says that many MiB without one whole line.
MUTTERS = """
import os, sys
marks = os.open(os.environ["TAXIMETER_MARKS"], os.O_WRONLY)
for line in sys.stdin:
    for _ in range(int(line) * 16):
        os.write(marks, b"x" * 65_536)
    print("said", flush=True)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    require_root()
    mount, umount = require_program("mount"), require_program("umount")
    disk = tmp_path / "disk"
    disk.mkdir()
    words = [mount, "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        lacking(f"needs leave to mount a tmpfs: {done.stderr.strip()}")
    yield disk
    subprocess.run([umount, "-l", str(disk)], check=True)


@contextlib.contextmanager
def orphan(node: Node, code: str) -> Iterator["subprocess.Popen[str]"]:
    """A worker that does what it is given by line, whose wrapper was killed and which the agent has adopted."""
    words = ("--worker", "--", sys.executable, "-c", code)
    with node.spawn(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as wrapper:
        wait_until(lambda: len(facts_of(node, None)) > 2, "the spawn")
        wrapper.kill()
        wait_until(lambda: list(node.journal.glob("*.heard")), "its adoption")
        yield wrapper
        assert wrapper.stdin is not None
        wrapper.stdin.close()
        wait_until(lambda: [r for r in node.records(RecordType.INSTANCE) if "exit" in r["data"]], "its end")


def say(wrapper: "subprocess.Popen[str]", count: int) -> None:
    assert wrapper.stdin is not None
    wrapper.stdin.write(f"{count}\n")
    wrapper.stdin.flush()


def test_an_orphan_that_met_a_full_disk_goes_on_once_there_is_room(taximeter_program: str, small_disk: Path) -> None:
    node = Node(taximeter_program, small_disk / "node", config="[witness]\nkernel = false\n")
    with node.agent(), orphan(node, FLOODS) as wrapper:
        assert wrapper.stdout is not None
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\1" * 4096)
        say(wrapper, 2_000)  # more than a pipe and the agent hold
        before_s = time.monotonic()
        wait_until(lambda: time.monotonic() > before_s + 3, "it to be stuck")
        filler.unlink()
        assert wrapper.stdout.readline() == "said\n"
    check_ledger(node)


def test_what_an_orphan_mutters_fills_no_disk(taximeter_program: str, small_disk: Path) -> None:
    node = Node(taximeter_program, small_disk / "node", config="[witness]\nkernel = false\n")
    with node.agent(), orphan(node, MUTTERS) as wrapper:
        assert wrapper.stdout is not None
        say(wrapper, 40)
        assert wrapper.stdout.readline() == "said\n"
        (heard,) = node.journal.glob("*.heard")
        wait_until(lambda: heard.stat().st_blocks * 512 < 1 << 20, "the disk to be given back what was booked")
    check_ledger(node)
