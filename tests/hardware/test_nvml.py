"""What NVML says, asked through the real pynvml of a stand-in library, in a real child process."""

import gc
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from taximeter.config import load
from taximeter.hardware import host, nvml
from taximeter.hardware.inventory import Device, Host
from taximeter.hardware.nvml import Reading
from taximeter.hardware.tiers import place_node
from tests.require import require_program

Asked = Callable[..., Reading]
HOST = Host(32, 256 << 30)
H100 = ("NVIDIA H100 80GB HBM3", 81559 << 20)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = require_program("cc", "gcc")
    directory = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).parent / "standin.c"
    target = directory / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(target), str(source)], check=True, timeout=60)
    return directory


@pytest.fixture
def asked(library: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    def ask(standin: str, deadline_s: float = 30) -> Reading:
        monkeypatch.setenv("STANDIN", standin)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
        return read(deadline_s)

    return ask


def read(deadline_s: float) -> Reading:
    """Ask, and have a pipe that was left open be an error here and now, not in a later test."""
    reading = anyio.run(nvml.read_devices, deadline_s)
    gc.collect()
    return reading


def test_devices_are_told_with_everything_that_a_rule_may_ask(asked: Asked) -> None:
    reading = asked("h100")
    assert reading.devices == (
        Device("GPU-0000000", *H100, 0, "2330", "9.0"),
        Device("GPU-1000000", *H100, 1, "2330", "9.0"),
    )
    assert (reading.driver_version, reading.nvml_version) == ("595.45.04", "13.595.45.04")
    assert (reading.problems, reading.known) == ((), True)


def test_slices_are_told_beside_the_gpu_that_is_cut(asked: Asked) -> None:
    whole, first, second = asked("mig").devices
    assert (whole.mig_profile, whole.parent_uuid) == (None, None)
    assert first == Device(
        "MIG-0100000", whole.name, 40326 << 20, 0, None, "9.0", mig_profile="3g.40gb", parent_uuid=whole.uuid
    )
    assert second.uuid == "MIG-0200000"


def test_a_lost_gpu_keeps_its_place_and_fits_no_tier(asked: Asked) -> None:
    reading = asked("lost")
    assert [(device.uuid, device.index) for device in reading.devices] == [("GPU-0000000", 0), ("unknown-1", 1)]
    assert reading.problems == ("NVML does not tell the device 1: GPU is lost",)
    catalogue = load(None, {"TAXIMETER_STATE_DIR": "/nowhere"}).catalogue
    assert place_node(reading.inventory(HOST), catalogue).tier == "unknown"


def test_garbage_is_unknown_and_never_zero(asked: Asked) -> None:
    reading = asked("garbage")
    assert reading.devices == (
        Device("unknown-0", "unknown", None, 0, None, None),
        Device("unknown-1", "unknown", None, 1, None, None),
    )
    assert reading.driver_version is None
    assert len(reading.problems) == 4


def test_an_impossible_number_of_devices_is_not_believed(asked: Asked) -> None:
    reading = asked("endless")
    assert (reading.devices, reading.known) == ((), False)
    assert reading.problems == ("NVML counts 2147483632 devices: expected 0 to 64",)


def test_without_a_driver_no_process_can_use_a_gpu(asked: Asked) -> None:
    reading = asked("nodriver")
    assert (reading.devices, reading.known) == ((), True)
    assert reading.problems == ("the NVIDIA driver is not loaded: no process can use a GPU now",)


@pytest.mark.parametrize("standin", ["mismatch", "silent"])
def test_where_nvml_will_not_start_the_devices_are_not_known(asked: Asked, standin: str) -> None:
    reading = asked(standin)
    assert (reading.devices, reading.known) == ((), False)
    assert reading.problems[0].startswith("NVML cannot be initialised: ")


def test_a_driver_that_kills_who_asks_it_kills_only_the_child(asked: Asked) -> None:
    reading = asked("crash")
    assert reading.known is False
    assert reading.problems == ("the NVML reader ended by SIGABRT: expected it to print the devices",)


def test_a_driver_that_hangs_is_left_behind_at_the_deadline(asked: Asked) -> None:
    began = time.monotonic()
    reading = asked("hang", 1.0)
    assert time.monotonic() - began < 10
    assert reading.known is False
    assert reading.problems == ("NVML did not answer within 1 s: expected a driver that answers; see its log",)


def test_a_machine_without_nvml_is_a_cpu_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A file of that name which is no library: the same to the loader as none, also on a machine with a driver.
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    reading = read(30)
    assert (reading.devices, reading.known) == ((), True)
    assert reading.problems == ("no NVML on this machine: GPUs, if it has any, cannot be seen",)


def test_a_reader_that_cannot_be_started_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "_COMMAND", ("/nowhere/python",))
    reading = read(30)
    assert reading.known is False
    assert reading.problems == ("cannot start the NVML reader /nowhere/python: No such file or directory",)


def test_a_reader_that_prints_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "_COMMAND", ("yes",))
    reading = read(30)
    assert reading.problems == ("the NVML reader ended by SIGKILL: expected it to print the devices",)


@pytest.mark.parametrize("printed", [b"", b"{", b"[]", b'{"devices":[{"uuid":1}]}', b'{"known":"yes"}', b"\xff"])
def test_what_is_no_reading_is_a_problem(printed: bytes) -> None:
    reading = nvml.parse(printed)
    assert reading.known is False
    assert reading.problems[0].startswith("cannot read what the NVML reader printed: expected a reading as JSON")


def test_the_agent_itself_never_loads_pynvml() -> None:
    program = "import sys, taximeter.hardware.nvml; print('pynvml' in sys.modules)"
    done = subprocess.run([nvml._COMMAND[0], "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"


def test_the_host_tells_its_cpus_and_memory() -> None:
    found = host.read_host()
    assert found.cpus == os.cpu_count()
    assert found.memory_bytes > 1 << 27
    assert found.architecture == os.uname().machine
