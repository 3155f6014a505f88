"""Notes of what changed in a directory."""

import os
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


def test_a_file_that_is_made_and_one_that_is_written_to_are_named(tmp_path: Path, watch: kernel.DirectoryWatch) -> None:
    (tmp_path / "made").touch()
    (tmp_path / "written").write_bytes(b"1")
    changes = watch.read()
    assert (changes.names, changes.lost) == ({"made", "written"}, False)


def test_what_was_read_is_not_said_again(tmp_path: Path, watch: kernel.DirectoryWatch) -> None:
    (tmp_path / "made").touch()
    watch.read()
    assert watch.read() == kernel.Changes(frozenset(), lost=False)


def test_a_file_that_is_still_open_for_writing_is_not_closed(tmp_path: Path, watch: kernel.DirectoryWatch) -> None:
    with (tmp_path / "a").open("wb", buffering=0) as file:
        file.write(b"1")
        assert watch.read().closed == set()
    assert watch.read().closed == {"a"}


def test_a_file_whose_writer_was_killed_is_closed(tmp_path: Path, watch: kernel.DirectoryWatch) -> None:
    with (tmp_path / "a").open("wb") as file, subprocess.Popen(["sleep", "60"], stdout=file) as writer:
        file.close()
        watch.read()
        writer.kill()
        writer.wait()
        assert watch.read().closed == {"a"}


def test_a_file_that_was_only_read_is_not_closed(tmp_path: Path, watch: kernel.DirectoryWatch) -> None:
    (tmp_path / "a").touch()
    watch.read()
    (tmp_path / "a").read_bytes()
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
