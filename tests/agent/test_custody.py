"""What is done for a command whose wrapper is gone: a real process, a real journal, and a keeper that comes late."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from taximeter import kernel
from taximeter.agent.books import Books
from taximeter.agent.custody import Custody
from taximeter.agent.eyewitness import Eyewitness
from taximeter.agent.keeper import Keeper
from taximeter.journal import open_directory
from tests.agent.desks import Node, place, start, write
from tests.core.stories import book
from tests.journal_samples import INSTANCE, clock, fact, open_line

LOOKS = 50


def write_start(node: Node, pid: int) -> None:
    """A journal that says that this process was started just now."""
    now_ns = time.monotonic_ns()
    ticks = kernel.start_ticks(pid)
    said = open_line(pid=os.getpid(), uid=os.getuid(), clock=clock(now_ns) | {"boot_id": kernel.boot_id()})
    write(node.journal, [said, fact("spawn", now_ns, before=now_ns - 5, pid=pid, start=ticks)])


def wait_late(self: Keeper) -> None:
    """As the keeper's thread does that gets no core."""
    while self._stop not in dict(self._epoll.poll()):
        pass


def test_an_end_that_the_keepers_thread_has_not_seen_at_the_adoption_is_booked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Keeper, "_watch", wait_late)
    ledger = start(tmp_path / "node").ledger
    directory_fd = open_directory(tmp_path / "node")
    eyes = Eyewitness(directory_fd, None)
    node = Node(tmp_path / "node", ledger, Books(directory_fd, None, book(), place, eyes.attest))
    custody = Custody(directory_fd, None, node.books, eyes)
    with subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE) as command:
        write_start(node, command.pid)
        node.read()
        custody.look_after([INSTANCE])
        assert custody._keeper.is_alive(INSTANCE)
        command.kill()
        os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)
        custody.abandoned(INSTANCE)
    for _ in range(LOOKS):
        custody.take_news()
    assert INSTANCE not in node.books.accounts
    assert not custody.has_more
    custody.close()
