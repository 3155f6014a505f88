"""What is done for a command whose wrapper is gone: a real process, a real journal, and a keeper that comes late."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from taximeter import kernel
from taximeter.agent.custody import Custody
from taximeter.agent.eyewitness import Eyewitness
from taximeter.agent.keeper import Ended, Keeper
from taximeter.events import OwnerEnded
from taximeter.journal import open_directory
from taximeter.records import RecordType
from tests.agent.desks import Node, start, write
from tests.agent.test_eyewitness import Told
from tests.journal_samples import INSTANCE, clock, fact, mark_line, open_line, options

LOOKS = 50
SECOND = 1_000_000_000


def write_start(node: Node, pid: int, more: Sequence[bytes] = (), **told: Any) -> None:
    """A journal that says that this process was started just now, and what follows."""
    now_ns = time.monotonic_ns()
    ticks = kernel.start_ticks(pid)
    read = clock(now_ns) | {"boot_id": kernel.boot_id()}
    said = open_line(pid=os.getpid(), uid=os.getuid(), clock=read, options=options(**told))
    # However long ago it began: on a busy machine whoever waits for it waits for long.
    write(node.journal, [said, fact("spawn", now_ns, before=now_ns - 60 * SECOND, pid=pid, start=ticks), *more])


def wait_late(self: Keeper) -> None:
    """As the keeper's thread does that gets no core."""
    while self._stop not in dict(self._epoll.poll()):
        pass


def node_of(path: Path, kernels: kernel.ProcessEvents | None = None) -> tuple[Node, Custody]:
    """A node, and who holds its instances."""
    path.mkdir(exist_ok=True)
    eyes = Eyewitness(open_directory(path), kernels)
    node = start(path, attest=eyes.attest)
    return node, Custody(node.directory_fd, None, node.telling, eyes)


@contextlib.contextmanager
def custody_of(
    path: Path, more: Sequence[bytes] = (), **told: Any
) -> Iterator[tuple[Node, Custody, subprocess.Popen[bytes]]]:
    """A command that lives, without a wrapper, and is held."""
    node, custody = node_of(path)
    with subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE) as command:
        write_start(node, command.pid, more, **told)
        node.read()
        custody.look_after([INSTANCE])
        assert custody._keeper.is_alive(INSTANCE)
        yield node, custody, command
        command.kill()
    custody.close()


def end(command: subprocess.Popen[bytes]) -> None:
    command.kill()
    os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)


def is_booked(node: Node, custody: Custody) -> bool:
    custody.take_news()
    return INSTANCE not in node.books.accounts


def test_an_end_that_the_keepers_thread_has_not_seen_at_the_adoption_is_booked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Keeper, "_watch", wait_late)
    with custody_of(tmp_path / "node") as (node, custody, command):
        end(command)
        custody.abandoned(INSTANCE)
        assert any(is_booked(node, custody) for _ in range(LOOKS))
        assert not custody.has_more


@pytest.mark.parametrize(("alive_ns", "unknown_ns"), [(9 * SECOND, 0), (SECOND, 9 * SECOND)])
def test_a_loop_that_is_late_with_its_heartbeat_leaves_nothing_unknown_as_far_as_the_keeper_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive_ns: int, unknown_ns: int
) -> None:
    monkeypatch.setattr(Keeper, "_watch", wait_late)
    with custody_of(tmp_path / "node") as (node, custody, _):
        custody.abandoned(INSTANCE)
        now_ns = node.books.accounts[INSTANCE].instance.sign_ns
        custody._keeper.tell_again(Ended(INSTANCE, now_ns + 10 * SECOND, 7 << 8, now_ns + alive_ns))
        assert is_booked(node, custody)
        node.commit()
        (record,) = [record["data"] for record in node.usage() if record["type"] == RecordType.PREDICTION]
    assert record["time"]["unknown_ns"] == unknown_ns
    assert record["interval"]["end_ns"] == now_ns + 10 * SECOND


def test_an_end_waits_until_what_is_half_folded_of_its_instance_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Keeper, "_watch", wait_late)
    now_ns = time.monotonic_ns()
    starts = [mark_line(now_ns, {"mark": "start", "prediction": f"p{n}", "pid": 77}) for n in range(300)]
    with custody_of(tmp_path / "node", starts, worker=True, prediction=None, units={}) as (node, custody, _):
        while node.reading.read(INSTANCE):
            pass
        custody.abandoned(INSTANCE)
        end_ns = node.books.accounts[INSTANCE].instance.sign_ns + SECOND
        node.telling.book_look(INSTANCE, [OwnerEnded(end_ns, 77, end_ns, end_ns)])
        assert node.halves.names == {INSTANCE}
        custody._keeper.tell_again(Ended(INSTANCE, end_ns + SECOND, 0, end_ns))
        assert [is_booked(node, custody) for _ in range(3)] == [False, False, True]
        assert not custody.has_more
        node.commit()
        ended = [record["data"] for record in node.usage() if record["type"] == RecordType.PREDICTION]
    assert [record["interval"]["end_ns"] for record in ended] == [end_ns] * 300


@dataclass
class Lossy(Told):
    """Loses words of the kernel when it is told to, and notes who is followed."""

    followed: list[int] = field(default_factory=list)

    def follow(self, pid: int, since_ns: int) -> bool:
        self.followed.append(pid)
        return True


def test_after_a_loss_of_the_kernels_words_the_command_and_its_children_are_followed_anew(tmp_path: Path) -> None:
    told, path = Lossy(), tmp_path / "node"
    words = ["sh", "-c", "sleep 60 & echo $!; read line; kill $!"]
    node, custody = node_of(path, told)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as command:
        assert command.stdout is not None
        child, now_ns = int(command.stdout.readline()), time.monotonic_ns()
        told.start = kernel.Start(command.pid, now_ns, now_ns)
        begun = mark_line(time.monotonic_ns(), {"mark": "start", "prediction": "a", "pid": child})
        write_start(node, command.pid, [fact("ready", time.monotonic_ns(), by="exec"), begun], worker=True)
        node.read()
        custody.look_after([INSTANCE])
        told.followed.clear()
        custody.beat()
        assert told.followed == []
        told.overruns += 1
        custody.beat()
        command.communicate(b"\n")
    custody.close()
    assert sorted(told.followed) == sorted([command.pid, child])
