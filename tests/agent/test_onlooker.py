"""Who is on a device, found out with real processes; what NVML tells of them is data."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taximeter import kernel
from taximeter.agent.books import Books
from taximeter.agent.eyewitness import Eyewitness
from taximeter.agent.halves import Halves
from taximeter.agent.onlooker import Onlooker
from taximeter.agent.reading import Reading
from taximeter.agent.sights import Sight
from taximeter.agent.telling import Telling
from taximeter.events import Measured, Observed
from taximeter.hardware.inventory import Device, Hardware, Host, Inventory
from taximeter.hardware.samples import DeviceSample, ProcessKind, ProcessUse, Samples
from taximeter.hardware.tiers import Catalogue, Tier
from taximeter.instance import Instance, Looks
from taximeter.journal import open_directory
from taximeter.kernel import boot_id
from taximeter.resources import peaks_until
from tests.agent.desks import write
from tests.core.stories import book
from tests.journal_samples import clock as journal_clock
from tests.journal_samples import fact, mark_line, open_line, options
from tests.require import lacking, require_root
from tests.system.agents import wait_until

A, B = (Device(f"GPU-{name}", "a GPU", None, at) for at, name in enumerate("ab"))
INVENTORY = Inventory(Host(8, 64 << 30), (A, B))
CATALOGUE = Catalogue((Tier("one", "one", 1, ("a GPU",)), Tier("two", "two", 2, ("a GPU",))))
#: A shell that has a child; whatever kills the shell leaves that to whoever takes orphans in.
FAMILY = ["sh", "-c", "sleep 100 & wait"]

Place = Callable[[Hardware], "Scene"]


class Scene:
    """Books with instances that are processes of this test, and an onlooker on them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = open_directory(path)
        self.declared = Hardware("one", 1, (A,))
        eyes = Eyewitness(self.fd, None)
        self.books = Books(book(), lambda _: self.declared)
        halves = Halves(self.books)
        self.reading, self.telling = Reading(self.fd, None, halves, eyes.attest), Telling(halves)
        self.onlooker = Onlooker(self.fd, self.telling, lambda: INVENTORY, CATALOGUE)
        self.books.last_words = self.onlooker.last_words
        self.processes: list[subprocess.Popen[bytes]] = []
        self.energy: dict[str, int] = {}  #: by UUID, as the next look tells it

    def start(self, name: str, command: list[str], wrapper: int | None = None) -> int:
        """An instance whose command this is; its wrapper is ourselves, without a lock, or one that has it."""
        process = subprocess.Popen(command, start_new_session=True)
        self.processes.append(process)
        self.begin(name, process.pid, wrapper or os.getpid())
        return process.pid

    def begin(self, name: str, pid: int, wrapper: int) -> None:
        now = time.monotonic_ns()
        clock = {**journal_clock(now), "boot_id": boot_id()}
        told = options(worker=True, account=None, model=None, prediction=None, units={})
        lines = [
            open_line(name, t=now, clock=clock, options=told, pid=wrapper),
            # However long ago it began: on a busy machine whoever waits for it waits for long.
            fact("spawn", now + 1, before=now - 60_000_000_000, pid=pid, start=kernel.start_ticks(pid)),
            fact("ready", now + 2, by="exec"),
        ]
        write(self.path / f"{name}.0.ndjson", lines)
        self.reading.read(name)

    def look(self, *uses: tuple[int, str], used: int | None = None, kind: ProcessKind = ProcessKind.COMPUTE) -> None:
        """One round of samples."""
        now = time.monotonic_ns()
        devices = [
            DeviceSample(
                uuid,
                now,
                energy_mj=self.energy.get(uuid),
                processes=tuple(ProcessUse(pid, uuid, used, kind) for pid, on in uses if on == uuid),
            )
            for uuid in ("GPU-a", "GPU-b")
        ]
        self.onlooker.heard(Samples(now, tuple(devices)))

    def instance(self, name: str) -> Instance:
        found = self.books.accounts[name].instance
        assert found is not None
        return found

    def seen(self, name: str) -> tuple[str, ...]:
        observed = self.instance(name).observed
        return tuple(device.uuid for device in observed.hardware.devices) if observed and observed.hardware else ()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    for process in made.processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
    os.close(made.fd)


def child_of(pid: int) -> int:
    found = wait_until(lambda: kernel.descendants(kernel.everybody(), {pid}, set()) - {pid}, "a child")
    return int(min(found))


def test_a_command_and_its_descendants_are_seen_on_their_devices(scene: Scene) -> None:
    pid = scene.start("i1", FAMILY)
    scene.look((pid, "GPU-a"))
    assert scene.seen("i1") == ("GPU-a",)
    scene.look((child_of(pid), "GPU-b"))
    assert scene.seen("i1") == ("GPU-a", "GPU-b")
    assert scene.instance("i1").evidence == "mismatch"


def test_strangers_and_processes_that_are_gone_are_nobodys(scene: Scene) -> None:
    scene.start("i1", FAMILY)
    scene.look((os.getppid(), "GPU-a"), (2**22 - 1, "GPU-a"))
    assert scene.instance("i1").observed is None


def test_who_began_after_the_look_has_another_ones_pid(scene: Scene) -> None:
    before = time.monotonic_ns()
    time.sleep(0.05)  # a tick of start times is 10 ms
    pid = scene.start("i1", FAMILY)
    sample = DeviceSample("GPU-a", before, processes=(ProcessUse(pid, "GPU-a", None, ProcessKind.COMPUTE),))
    scene.onlooker.heard(Samples(before, (sample,)))
    assert scene.instance("i1").observed is None


def test_an_orphan_that_was_met_before_is_still_its_instances(scene: Scene) -> None:
    pid = scene.start("i1", FAMILY)
    orphan = child_of(pid)
    scene.onlooker.measure(kernel.everybody())
    os.kill(pid, 9)
    scene.processes[0].wait()
    scene.look((orphan, "GPU-a"))
    assert scene.seen("i1") == ("GPU-a",)
    os.kill(orphan, 9)


def test_a_server_of_the_multi_process_service_is_not_its_client(scene: Scene, tmp_path: Path) -> None:
    server = tmp_path / "nvidia-cuda-mps-server"
    os.symlink(sys.executable, server)
    pid = scene.start("i1", [str(server), "-S", "-c", "import time; time.sleep(100)"])
    wait_until(lambda: (kernel.look_at(pid) or [""] * 4)[3].startswith("nvidia-cuda-mps"), "its name")
    scene.look((pid, "GPU-a"))
    assert scene.instance("i1").observed is None


def test_two_instances_on_one_device_share_it(scene: Scene) -> None:
    one, other = scene.start("i1", FAMILY), scene.start("i2", FAMILY)
    scene.look((one, "GPU-a"), (other, "GPU-a"))
    for name in ("i1", "i2"):
        observed = scene.instance(name).observed
        assert observed is not None
        assert observed.shared == ("GPU-a",)


def test_a_device_that_two_were_given_is_shared_though_nobody_uses_it(scene: Scene) -> None:
    scene.start("i1", FAMILY)
    scene.start("i2", FAMILY)
    scene.look()
    assert scene.instance("i1").observed == Observed(0, 0, None, ("GPU-a",))


def test_energy_is_parted_among_those_who_were_on_the_device_at_both_looks(scene: Scene) -> None:
    one, other = scene.start("i1", FAMILY), scene.start("i2", FAMILY)
    scene.energy["GPU-a"] = 1000
    scene.look((one, "GPU-a"), (other, "GPU-a"), used=5)
    scene.energy["GPU-a"] = 1101
    scene.look((one, "GPU-a"), (other, "GPU-a"), used=5)
    words = [scene.onlooker.last_words(name, scene.instance(name)) for name in ("i1", "i2")]
    assert [word[-1].energy_mj for word in words] == [51, 50]  # type: ignore[union-attr]
    assert [word[-1].gpu_memory_peak_bytes for word in words] == [5, 5]  # type: ignore[union-attr]


def test_a_stranger_takes_its_part_of_the_energy(scene: Scene) -> None:
    pid = scene.start("i1", FAMILY)
    for energy_mj in (0, 1000):
        scene.energy["GPU-a"] = energy_mj
        scene.look((pid, "GPU-a"), (os.getppid(), "GPU-a"))
    (measured,) = scene.onlooker.last_words("i1", scene.instance("i1"))
    assert measured.energy_mj == 0  # type: ignore[union-attr]  # it was idle, and the stranger was there all the time


def test_the_processor_time_of_a_tree_is_summed(scene: Scene) -> None:
    busy = (
        "import os, time\n"
        "os.fork() or os.fork()\n"
        "end = time.process_time() + 0.2\n"
        "while time.process_time() < end: pass\n"
        "time.sleep(100)"
    )
    pid = scene.start("i1", [sys.executable, "-S", "-c", busy])

    def used_ns() -> int:
        scene.onlooker.measure(kernel.everybody())
        measured = scene.onlooker._sights["i1"]
        return measured.cpu_ns or 0

    wait_until(lambda: used_ns() >= 550_000_000, "three processes that used a fifth of a second each, in ticks")
    alone = kernel.look_at(pid)
    assert alone is not None
    assert alone.cpu_ns < 400_000_000
    (measured,) = scene.onlooker.last_words("i1", scene.instance("i1"))
    assert isinstance(measured, Measured)
    assert (measured.rss_peak_bytes or 0) > 1 << 20


def test_memory_at_each_look_is_told_of_a_worker_while_it_has_predictions(scene: Scene) -> None:
    pid = scene.start("i1", FAMILY)
    scene.look((pid, "GPU-a"), used=900)
    assert scene.instance("i1").looks == Looks()
    journal = scene.path / "i1.0.ndjson"
    said = mark_line(time.monotonic_ns(), {"mark": "start", "prediction": "a"})
    journal.write_bytes(journal.read_bytes().rstrip(b"\0") + said + b"\n")
    scene.reading.read("i1")
    for used in (5, 7, 6):
        scene.look((pid, "GPU-a"), used=used)
    scene.onlooker.measure(kernel.everybody())
    instance = scene.instance("i1")
    (prediction,) = instance.predictions
    peaks = peaks_until(instance, prediction, time.monotonic_ns())
    assert peaks.devices == 7
    assert peaks.node is not None
    assert peaks.node > 1 << 18


def test_the_descendants_of_another_instances_wrapper_are_that_ones(scene: Scene) -> None:
    """A wrapper of its own, holding its journal's lock, below the command of another instance."""
    script = (
        "import fcntl, os, sys, time\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o640)\n"
        "fcntl.lockf(fd, fcntl.LOCK_EX)\n"
        "os.fork() or os.execvp('sleep', ['sleep', '100'])\n"
        "time.sleep(100)"
    )
    inner = scene.path / "i2.0.ndjson"
    outer = scene.start("i1", ["sh", "-c", '"$@" & wait', "sh", sys.executable, "-S", "-c", script, str(inner)])
    wrapper = child_of(outer)

    def named(pid: int) -> str:
        found = kernel.look_at(pid)
        return found.name if found else ""

    def sleeper() -> int:
        return next((p for p in kernel.descendants(kernel.everybody(), {wrapper}, set()) if named(p) == "sleep"), 0)

    command = wait_until(sleeper, "the inner command")
    scene.begin("i2", command, wrapper)
    scene.look((command, "GPU-a"))
    assert (scene.seen("i1"), scene.seen("i2")) == ((), ("GPU-a",))
    assert command not in scene.onlooker._kin.tree("i1", kernel.everybody())
    assert command in scene.onlooker._kin.tree("i2", kernel.everybody())


@pytest.fixture
def group() -> Iterator[Path]:
    require_root()
    top = Path("/sys/fs/cgroup/cpuacct")
    if not top.is_dir():
        lacking("needs the cpuacct controller of cgroup v1; version 2 is tried with files of its shape")
    made = top / f"taximeter-onlooker-{os.getpid()}"
    made.mkdir()
    yield made
    wait_until(lambda: not (made / "cgroup.procs").read_text(), "everybody to leave")
    made.rmdir()


def test_a_control_group_of_its_own_tells_what_a_tree_used_until_a_stranger_is_in_it(scene: Scene, group: Path) -> None:
    script = (
        "import fcntl, os, sys, time\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o640)\n"
        "fcntl.lockf(fd, fcntl.LOCK_EX)\n"
        "open(sys.argv[2] + '/cgroup.procs', 'w').write('0')\n"
        "os.fork() or os.execvp('sh', ['sh', '-c', 'while :; do :; done'])\n"
        "time.sleep(100)"
    )
    command = [sys.executable, "-S", "-c", script, str(scene.path / "i1.0.ndjson"), str(group)]
    wrapper = subprocess.Popen(command, start_new_session=True)
    scene.processes.append(wrapper)
    scene.begin("i1", child_of(wrapper.pid), wrapper.pid)

    def measured() -> Sight:
        scene.onlooker.measure(kernel.everybody())
        return scene.onlooker._sights["i1"]

    assert measured().has_group
    assert wait_until(lambda: (measured().cpu_ns or 0) % 10_000_000, "a time that is finer than ticks")
    stranger = subprocess.Popen(["sleep", "100"], start_new_session=True)
    scene.processes.append(stranger)
    (group / "cgroup.procs").write_text(str(stranger.pid))
    assert measured().has_group is False
    os.killpg(wrapper.pid, 9)
    stranger.kill()
    wrapper.wait()
    stranger.wait()


def test_an_instance_that_has_ended_is_forgotten(scene: Scene) -> None:
    pid = scene.start("i1", FAMILY)
    scene.look((pid, "GPU-a"))
    scene.telling.lose("i1", kernel.read_clock())
    scene.look((pid, "GPU-a"))
    assert "i1" not in scene.books.accounts
    assert scene.onlooker._sights == {}
