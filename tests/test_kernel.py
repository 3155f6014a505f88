"""The kernel's doors: notes of what changed in a directory, and processes held by more than their pid."""

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from taximeter import kernel
from taximeter.errors import TaximeterError


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[kernel.DirectoryWatch]:
    with kernel.DirectoryWatch(tmp_path) as watching:
        yield watching


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_file_that_is_made_and_one_that_is_written_to_are_named(tmp_path: Path, watch: kernel.DirectoryWatch) -> None:
    (tmp_path / "made").touch()
    (tmp_path / "written").write_bytes(b"1")
    assert watch.read() == kernel.Changes(frozenset({"made", "written"}), lost=False)


def test_what_was_read_is_not_said_again(tmp_path: Path, watch: kernel.DirectoryWatch) -> None:
    (tmp_path / "made").touch()
    watch.read()
    assert watch.read() == kernel.Changes(frozenset(), lost=False)


def test_a_file_that_is_moved_in_is_named(tmp_path: Path, watch: kernel.DirectoryWatch) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a").touch()
    watch.read()
    (inside / "a").rename(tmp_path / "a")
    assert watch.read().names == {"a"}


def test_names_need_not_be_text(tmp_path: Path, watch: kernel.DirectoryWatch) -> None:
    name = b"\xff\xfe"
    os.close(os.open(os.fsencode(tmp_path) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    assert watch.read().names == {os.fsdecode(name)}


@pytest.mark.anyio
async def test_the_event_loop_is_woken_by_a_write(tmp_path: Path, watch: kernel.DirectoryWatch) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, (tmp_path / "a").touch)
        with anyio.fail_after(10):
            await anyio.wait_readable(watch.fd)
    assert watch.read().names == {"a"}


def test_a_directory_that_is_removed_is_a_loss(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with kernel.DirectoryWatch(gone) as watching:
        gone.rmdir()
        assert watching.read().lost


def test_notes_that_the_kernel_dropped_are_a_loss(tmp_path: Path, watch: kernel.DirectoryWatch) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    paths = [tmp_path / "a", tmp_path / "b"]
    for number in range(most + 2):
        os.close(os.open(paths[number % 2], os.O_CREAT | os.O_WRONLY))
    assert watch.read().lost


def test_a_directory_that_is_absent_cannot_be_watched(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TaximeterError, match=r"cannot watch .*: expected the kernel's notes of it, got: No such file"):
        kernel.DirectoryWatch(tmp_path / "absent")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_is_known_by_pid_and_start(sleeper: subprocess.Popen[bytes]) -> None:
    ticks = kernel.start_ticks(sleeper.pid)
    assert ticks is not None
    fd = kernel.open_process(sleeper.pid, ticks)
    assert fd is not None
    assert select.select([fd], [], [], 0)[0] == []
    sleeper.send_signal(signal.SIGKILL)
    assert select.select([fd], [], [], 10)[0] == [fd]
    os.close(fd)


def test_a_pid_with_another_start_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    ticks = kernel.start_ticks(sleeper.pid)
    assert ticks is not None
    assert kernel.open_process(sleeper.pid, ticks - 1) is None


def test_a_process_that_is_gone_has_no_start_and_cannot_be_held() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert kernel.start_ticks(process.pid) is None
    assert kernel.open_process(process.pid, 1) is None


def test_a_command_named_to_deceive_does_not_shift_its_start(tmp_path: Path) -> None:
    deceiver = tmp_path / "a) R 1 (b"
    deceiver.write_bytes(Path("/bin/sleep").read_bytes())
    deceiver.chmod(0o755)
    with subprocess.Popen([str(deceiver), "60"]) as process:
        with subprocess.Popen(["sleep", "60"]) as other:
            first, second = kernel.start_ticks(process.pid), kernel.start_ticks(other.pid)
            other.kill()
        process.kill()
    assert first is not None
    assert second is not None
    assert 0 <= second - first < 1_000


def test_the_boot_has_a_name() -> None:
    assert kernel.boot_id() == kernel.boot_id()
    assert len(kernel.boot_id()) == 36
