"""Processes held by more than their pid."""

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from taximeter import kernel
from tests.require import lacking
from tests.system.agents import wait_until


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


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


def test_a_process_is_alive_until_it_has_ended_whether_or_not_its_parent_knows(
    sleeper: subprocess.Popen[bytes],
) -> None:
    ticks = kernel.start_ticks(sleeper.pid)
    assert ticks is not None
    assert kernel.is_alive(sleeper.pid, ticks)
    assert not kernel.is_alive(sleeper.pid, ticks + 1)
    fd = kernel.open_process(sleeper.pid, ticks)
    assert fd is not None
    sleeper.kill()
    select.select([fd], [], [], 10)
    os.close(fd)
    assert not kernel.is_alive(sleeper.pid, ticks)
    sleeper.wait()
    assert not kernel.is_alive(sleeper.pid, ticks)


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


def test_everybody_may_see_by_which_words_a_process_was_begun(sleeper: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: kernel.words(sleeper.pid), "the end of its exec")
    assert kernel.words(sleeper.pid) == sleeper.args
    sleeper.kill()
    sleeper.wait()
    assert kernel.words(sleeper.pid) == []


def test_everybody_may_see_whose_a_process_is_and_in_which_session(sleeper: subprocess.Popen[bytes]) -> None:
    assert kernel.whose(sleeper.pid) == (os.getuid(), os.getsid(0))
    sleeper.kill()
    sleeper.wait()
    assert kernel.whose(sleeper.pid) is None


def test_a_thread_of_the_kernel_is_told_from_a_process(sleeper: subprocess.Popen[bytes]) -> None:
    threads = [pid for pid in kernel.everybody() if "\nKthread:\t1\n" in status_of(pid)]
    if not threads:
        lacking("needs to see the kernel's threads: Linux 6.8, outside of a pid namespace")
    assert {kernel.is_kernels_own(pid) for pid in threads if status_of(pid)} == {True}
    assert not kernel.is_kernels_own(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    assert not kernel.is_kernels_own(sleeper.pid)


def status_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""
