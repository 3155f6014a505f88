"""The keeper: ends are stamped when they are shown, and no flood of marks fills the memory."""

import contextlib
import fcntl
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taximeter.agent.keeper import Ended, Keeper, Said
from tests.require import require_path
from tests.system.agents import wait_until

PATIENCE_S = 20
NAME = "one"


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    kept = Keeper()
    yield kept
    kept.close()


@contextlib.contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends when it is told to."""
    process = subprocess.Popen(["sh", "-c", "read line; exit 7"], stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def take(keeper: Keeper) -> list[Ended | Said]:
    """The news so far, dealt with at once."""
    news = keeper.take()
    for item in news:
        if isinstance(item, Said):
            keeper.go_on(item)
    return news


def drained(keeper: Keeper) -> bytes:
    """All that was said before the end, and what bites it came in."""
    data = data_of(keeper.take())
    while bite := keeper.drain(NAME):
        assert len(data_of([*bite])) < 400_000
        data += data_of([*bite])
    return data


def told(keeper: Keeper) -> list[Ended | Said]:
    """The next news, waited for."""
    assert select.select([keeper.fd], [], [], PATIENCE_S)[0], "no news came"
    return keeper.take()


def fifo(path: Path) -> tuple[int, int]:
    """A FIFO as the keeper holds it, and the end that a worker writes to."""
    os.mkfifo(path)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK), os.open(path, os.O_RDWR | os.O_NONBLOCK)


def test_an_end_is_told_with_its_time(keeper: Keeper) -> None:
    with sleeper() as process:
        keeper.hold(NAME, os.pidfd_open(process.pid), -1)
        before_ns = time.monotonic_ns()
        process.stdin.write(b"\n")
        process.stdin.flush()
        (end,) = told(keeper)
        assert isinstance(end, Ended)
        assert before_ns < end.at_ns < time.monotonic_ns()


def test_an_end_says_when_the_command_was_last_seen_to_live(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taximeter.agent.keeper._LOOK_S", 0.005)
    with sleeper() as process:
        before_ns = time.monotonic_ns()
        keeper.hold(NAME, os.pidfd_open(process.pid), -1)
        held_ns = time.monotonic_ns()
        wait_until(lambda: keeper._looked_ns > held_ns, "a look")
        killed_ns = time.monotonic_ns()
        process.kill()
        (end,) = told(keeper)
    assert isinstance(end, Ended)
    assert held_ns < end.alive_ns <= end.at_ns
    with sleeper() as process:
        keeper.hold("another", os.pidfd_open(process.pid), -1)
        process.kill()
        process.wait()
        another = keeper.end_of("another")
    assert another is not None
    assert before_ns < killed_ns < another.alive_ns <= another.at_ns


def test_what_lives_is_alive_until_it_ends(keeper: Keeper) -> None:
    with sleeper() as process:
        keeper.hold(NAME, os.pidfd_open(process.pid), -1)
        assert keeper.is_alive(NAME)
        process.kill()
        told(keeper)
        assert not keeper.is_alive(NAME)


def test_an_end_is_remembered_and_told_once(keeper: Keeper) -> None:
    with sleeper() as process:
        keeper.hold(NAME, os.pidfd_open(process.pid), -1)
        process.kill()
        (end,) = told(keeper)
        assert keeper.end_of(NAME) == end
        assert keeper.take() == []


def test_an_end_can_be_asked_for_as_soon_as_it_is_there(keeper: Keeper) -> None:
    with sleeper() as process:
        pidfd = os.pidfd_open(process.pid)
        keeper.hold(NAME, pidfd, -1)
        process.kill()
        select.select([pidfd], [], [], PATIENCE_S)
        assert isinstance(keeper.end_of(NAME), Ended)


def test_an_end_before_it_was_held_was_seen_by_nobody(keeper: Keeper) -> None:
    with sleeper() as process:
        pidfd = os.pidfd_open(process.pid)
        process.kill()
        select.select([pidfd], [], [], PATIENCE_S)
        keeper.hold(NAME, pidfd, -1)
        assert keeper.end_of(NAME) is None
        assert not keeper.is_alive(NAME)


def test_a_fifo_is_not_read_before_somebody_has_to(keeper: Keeper, tmp_path: Path) -> None:
    ours, theirs = fifo(tmp_path / "marks")
    keeper.hold(NAME, -1, ours)
    os.write(theirs, b"a\n")
    assert keeper.take() == []
    assert os.read(theirs, 10) == b"a\n"
    os.close(theirs)


def test_what_was_said_before_is_read_at_once(keeper: Keeper, tmp_path: Path) -> None:
    ours, theirs = fifo(tmp_path / "marks")
    keeper.hold(NAME, -1, ours)
    os.write(theirs, b"a\n")
    os.close(theirs)
    keeper.listen(NAME)
    (said,) = keeper.take()
    assert isinstance(said, Said)
    assert said.data == b"a\n"


def test_what_is_said_later_is_told_as_it_comes(keeper: Keeper, tmp_path: Path) -> None:
    ours, theirs = fifo(tmp_path / "marks")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME)
    os.write(theirs, b"a\n")
    (said,) = told(keeper)
    assert isinstance(said, Said)
    assert said.data == b"a\n"
    os.close(theirs)


def test_a_writer_that_comes_and_goes_is_heard_each_time(keeper: Keeper, tmp_path: Path) -> None:
    path = tmp_path / "marks"
    ours, theirs = fifo(path)
    os.close(theirs)
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME)
    for line in (b"a\n", b"b\n"):
        with path.open("wb", buffering=0) as writer:
            writer.write(line)
        (said,) = told(keeper)
        assert isinstance(said, Said)
        assert said.data == line


def file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT)


def test_what_is_heard_is_in_a_file_before_anybody_has_it(keeper: Keeper, tmp_path: Path) -> None:
    ours, theirs = fifo(tmp_path / "marks")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME, file(tmp_path / "heard"), 0)
    ends = []
    for line in (b"a\n", b"bc\n"):
        os.write(theirs, line)
        (said,) = told(keeper)
        assert isinstance(said, Said)
        ends.append(said.end)
    assert (tmp_path / "heard").read_bytes() == b"a\nbc\n"
    assert ends == [2, 5]
    os.close(theirs)


def test_what_an_earlier_keeper_heard_and_nobody_took_comes_first(keeper: Keeper, tmp_path: Path) -> None:
    (tmp_path / "heard").write_bytes(b"taken\nleft\n")
    ours, theirs = fifo(tmp_path / "marks")
    os.write(theirs, b"new\n")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME, file(tmp_path / "heard"), len(b"taken\n"))
    assert [item.data for item in keeper.take() if isinstance(item, Said)] == [b"left\n", b"new\n"]
    os.close(theirs)


def test_where_there_is_no_file_to_keep_it_in_it_is_heard_all_the_same(keeper: Keeper, tmp_path: Path) -> None:
    ours, theirs = fifo(tmp_path / "marks")
    os.write(theirs, b"a\n")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME, os.open(require_path("/dev/full", "a Linux system has it"), os.O_RDWR), 0)
    assert [(item.data, item.end) for item in keeper.take() if isinstance(item, Said)] == [(b"a\n", None)]
    os.close(theirs)


def data_of(news: list[Ended | Said]) -> bytes:
    return b"".join(item.data for item in news if isinstance(item, Said))


def test_where_the_file_has_no_room_it_is_heard_all_the_same(keeper: Keeper, tmp_path: Path) -> None:
    full = os.memfd_create("heard", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(full, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    ours, theirs = fifo(tmp_path / "marks")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME, full, 0)
    for line in (b"a\n", b"b\n"):
        os.write(theirs, line)
        assert [(item.data, item.end) for item in told(keeper) if isinstance(item, Said)] == [(line, None)]
    os.close(theirs)


def test_what_an_earlier_keeper_heard_is_taken_in_bites(keeper: Keeper, tmp_path: Path) -> None:
    left = b"".join(b"%015d\n" % number for number in range(100_000))
    (tmp_path / "heard").write_bytes(left)
    ours, theirs = fifo(tmp_path / "marks")
    os.write(theirs, b"new\n")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME, file(tmp_path / "heard"), 16)
    bites = []
    while bite := data_of(take(keeper)):
        bites.append(bite)
    assert b"".join(bites) == left[16:] + b"new\n"
    assert max(map(len, bites)) < 400_000
    os.close(theirs)


def test_what_an_earlier_keeper_heard_of_an_ended_command_is_taken_whole(keeper: Keeper, tmp_path: Path) -> None:
    (tmp_path / "heard").write_bytes(b"x" * 3_000_000)
    ours, theirs = fifo(tmp_path / "marks")
    os.write(theirs, b"new\n")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME, file(tmp_path / "heard"), 0)
    assert drained(keeper) == b"x" * 3_000_000 + b"new\n"
    os.close(theirs)


def test_what_is_booked_is_given_back_to_the_disk_and_a_place_in_the_file_stays_the_same(
    keeper: Keeper, tmp_path: Path
) -> None:
    (tmp_path / "heard").write_bytes(b"x" * 100_000)
    ours, theirs = fifo(tmp_path / "marks")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME, file(tmp_path / "heard"), 0)
    keeper.take()
    keeper.give_back(NAME, 100_000)
    assert (tmp_path / "heard").stat().st_blocks == 0
    os.write(theirs, b"new\n")
    assert [(item.data, item.end) for item in told(keeper) if isinstance(item, Said)] == [(b"new\n", 100_004)]
    os.close(theirs)
    keeper.release(NAME)
    keeper.hold("two", -1, os.open(tmp_path / "marks", os.O_RDONLY | os.O_NONBLOCK))
    keeper.listen("two", file(tmp_path / "heard"), 100_000)
    assert data_of(keeper.take()) == b"new\n"


def test_what_was_given_back_before_a_keeper_was_killed_is_not_heard_again(keeper: Keeper, tmp_path: Path) -> None:
    ours, theirs = fifo(tmp_path / "marks")
    os.write(theirs, b"new\n")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME, file(tmp_path / "heard"), 100_000)
    assert [(item.data, item.end) for item in keeper.take() if isinstance(item, Said)] == [(b"new\n", 100_004)]
    os.close(theirs)


def test_nothing_is_given_back_before_all_of_it_is_booked(keeper: Keeper, tmp_path: Path) -> None:
    (tmp_path / "heard").write_bytes(b"x" * 100_000)
    ours, theirs = fifo(tmp_path / "marks")
    os.close(theirs)
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME, file(tmp_path / "heard"), 0)
    keeper.give_back(NAME, 99_999)
    assert (tmp_path / "heard").read_bytes() == b"x" * 100_000


def test_the_file_of_what_is_heard_is_bounded_and_all_is_heard(keeper: Keeper, tmp_path: Path) -> None:
    ours, theirs = fifo(tmp_path / "marks")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME, file(tmp_path / "heard"), 0)
    sent = got = 0
    deadline_s = time.monotonic() + PATIENCE_S
    while sent < 12_000_000 and time.monotonic() < deadline_s:
        with contextlib.suppress(BlockingIOError):
            sent += os.write(theirs, b"x" * 32_768)
        got += len(data_of(take(keeper)))
    while got < sent and time.monotonic() < deadline_s:
        got += len(data_of(take(keeper)))
    assert got == sent >= 12_000_000
    assert (tmp_path / "heard").stat().st_size < 9_000_000
    os.close(theirs)


def test_a_flood_waits_in_the_pipe_until_somebody_takes_it(keeper: Keeper, tmp_path: Path) -> None:
    ours, theirs = fifo(tmp_path / "marks")
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 1 << 20)
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME)
    sent = 0
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            sent += os.write(theirs, b"x" * 4095 + b"\n")
        except BlockingIOError:
            break
    assert sent <= (1 << 20) + (1 << 19)
    got = 0
    while got < sent and time.monotonic() < deadline_s:
        got += len(data_of(take(keeper)))
    assert got == sent
    os.close(theirs)


def test_what_an_ended_command_left_behind_is_taken_whole(keeper: Keeper, tmp_path: Path) -> None:
    ours, theirs = fifo(tmp_path / "marks")
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 1 << 20)
    for _ in range(256):
        os.write(theirs, b"y" * 4095 + b"\n")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME)
    assert len(drained(keeper)) == 1 << 20
    os.close(theirs)


def test_who_still_writes_after_the_end_is_not_drained_for_ever(keeper: Keeper, tmp_path: Path) -> None:
    ours, theirs = fifo(tmp_path / "marks")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME)
    os.write(theirs, b"y" * 4096)
    taken = 0
    while bite := keeper.drain(NAME):
        taken += len(data_of([*bite]))
        os.write(theirs, b"y" * 4096)
    assert taken < 100_000
    os.close(theirs)


def test_who_is_drained_is_read_by_nobody_else(keeper: Keeper, tmp_path: Path) -> None:
    ours, theirs = fifo(tmp_path / "marks")
    keeper.hold(NAME, -1, ours)
    keeper.listen(NAME)
    keeper.drain(NAME)
    os.write(theirs, b"late\n")
    keeper.read_on()
    assert keeper.take() == []
    assert data_of(keeper.drain(NAME)) == b"late\n"
    os.close(theirs)


def test_what_is_let_go_of_is_closed(keeper: Keeper, tmp_path: Path) -> None:
    ours, theirs = fifo(tmp_path / "marks")
    with sleeper() as process:
        pidfd = os.pidfd_open(process.pid)
        keeper.hold(NAME, pidfd, ours)
        keeper.release(NAME)
        assert not keeper.holds(NAME)
        for fd in (pidfd, ours):
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(fd)
    os.close(theirs)
