"""What a control group used: the files of either version, and a real group where this machine lets us make one."""

import os
import subprocess
from pathlib import Path

import pytest

from taximeter.kernel.cgroups import Group, group_of
from tests.require import lacking, require_root

V2_STAT = "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "42").mkdir()
    return tmp_path / "proc"


def mounted(proc: Path, *mounts: tuple[str, str, str, Path]) -> None:
    lines = [f"30 23 0:26 {root} {point} rw - {kind} none {options}" for kind, options, root, point in mounts]
    (proc / "self" / "mountinfo").write_text("\n".join(["1 0 8:1 / / rw - ext4 /dev/vda rw", *lines]) + "\n")


def group(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(content)
    return directory


def unified(proc: Path, path: str, root: str = "/") -> Path:
    """A process in a group of version 2."""
    point = proc.parent / "v2"
    point.mkdir(exist_ok=True)
    (proc / "42" / "cgroup").write_text(f"0::{path}\n")
    mounted(proc, ("cgroup2", "rw", root, point))
    return point


def test_a_group_of_version_2_tells_time_and_memory_without_the_page_cache(proc: Path) -> None:
    point = unified(proc, "/a.slice/b")
    group(
        point / "a.slice/b",
        cgroup__procs="42\n43\n",
        cpu__stat=V2_STAT,
        memory__stat="anon 100\nfile 900\nfile_mapped 5\n",
    )
    assert group_of(42, proc) == Group(frozenset({42, 43}), 1_500_000, 105)


def test_who_is_in_a_group_below_is_in_it_as_well(proc: Path) -> None:
    point = unified(proc, "/b")
    group(point / "b", cgroup__procs="", cpu__stat=V2_STAT)
    group(point / "b/c/d", cgroup__procs="44\n")
    group(point / "b/c", cgroup__procs="")
    assert group_of(42, proc) == Group(frozenset({44}), 1_500_000, None)


def test_a_group_is_found_below_what_is_mounted_here(proc: Path) -> None:
    point = unified(proc, "/docker/x/b", "/docker/x")
    group(point / "b", cgroup__procs="42\n", cpu__stat=V2_STAT)
    assert group_of(42, proc) == Group(frozenset({42}), 1_500_000, None)


@pytest.mark.parametrize("path", ["/", "/../b", "/elsewhere"])
def test_the_root_and_what_lies_outside_are_no_group(proc: Path, path: str) -> None:
    group(unified(proc, path, "/" if path != "/elsewhere" else "/docker"), cgroup__procs="42\n", cpu__stat=V2_STAT)
    assert group_of(42, proc) is None


def test_a_group_of_version_1_tells_time_and_where_it_is_the_same_memory(proc: Path) -> None:
    (proc / "42" / "cgroup").write_text("4:memory:/m\n2:cpu,cpuacct:/c\n0::/\n")
    cpu, memory = (proc.parent / name for name in ("cpu", "memory"))
    mounted(proc, ("cgroup", "rw,cpu,cpuacct", "/", cpu), ("cgroup", "rw,memory", "/", memory))
    group(cpu / "c", cgroup__procs="42\n", cpuacct__usage="1234\n")
    group(memory / "m", cgroup__procs="42\n", memory__stat="total_rss 7\ntotal_mapped_file 2\ntotal_cache 99\n")
    assert group_of(42, proc) == Group(frozenset({42}), 1234, 9)
    group(memory / "m", cgroup__procs="42\n43\n")
    assert group_of(42, proc) == Group(frozenset({42}), 1234, None)


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::/b\n"])
def test_what_cannot_be_read_is_no_group(proc: Path, text: str) -> None:
    (proc / "42" / "cgroup").write_text(text)
    mounted(proc)
    assert group_of(42, proc) is None
    assert group_of(43, proc) is None


#: Counted from its own beginning: what the shell before it used before it joined the group is no part of that.
BUSY = """
import time
end = time.process_time() + 0.05
while time.process_time() < end: pass
print(flush=True)
input()
"""


def test_a_real_group_counts_who_was_in_it() -> None:
    require_root()
    top = Path("/sys/fs/cgroup/cpuacct")
    if not top.is_dir():
        lacking("needs the cpuacct controller of cgroup v1; version 2 is tried with files of its shape")
    mine = top / f"taximeter-test-{os.getpid()}"
    mine.mkdir()
    try:
        command = ["sh", "-c", f'echo $$ > {mine}/cgroup.procs && exec python3 -S -c "$0"', BUSY]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            found = group_of(process.pid)
            process.kill()
        assert found is not None
        assert found.pids == {process.pid}
        assert found.cpu_ns >= 50_000_000
    finally:
        mine.rmdir()
