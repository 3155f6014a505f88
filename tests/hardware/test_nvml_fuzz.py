"""A driver that says anything whatever: the reader lives, and what it tells is a value that can be, or unknown."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.hardware.nvml.answers import CODES
from taximeter.hardware.samples import MOST_WATTS, DeviceSample
from tests.hardware.seeing import Sight, seen
from tests.nvml_standin import Scenario

_SPECIAL = st.sampled_from([0, 1, 100, 101, 0x7FFFFFF0, 0xFFFFFFF0, 0xFFFFFFFF, 2**63, 2**64 - 17, 2**64 - 3])
_NUMBER = _SPECIAL | st.integers(0, 2**64 - 3)
_BYTE = st.integers(1, 255).map(lambda value: f"\\x{value:02x}")
_TEXT = st.lists(st.sampled_from(["NVIDIA", " MIG ", "3g.40gb", " ", "GPU-"]) | _BYTE, max_size=12).map("".join)
_KEYS = (  # of a device or a slice
    "memory_mib", "reserved_mib", "used_mib", "pci", "cores", "mig", "util", "energy_mj", "power_mw", "sm_mhz",
    "mem_mhz", "throttle", "ecc", "ecc_corrected", "ecc_uncorrected", "gi", "ci", "gpu_slices", "compute_slices", "sms",
)  # fmt: skip
_FIELDS = st.fixed_dictionaries(
    {}, optional={**dict.fromkeys(_KEYS, _NUMBER), "name": _TEXT, "bus": _TEXT, "profile": _TEXT, "cc": _TEXT}
)
_CALLS = st.sampled_from(
    [
        "*",
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlEventSetWait_v2",
    ]
)


@pytest.fixture(scope="module")
def sight(tmp_path_factory: pytest.TempPathFactory, nvml_library: Path) -> Iterator[Sight]:
    with seen(Scenario(tmp_path_factory.mktemp("fuzz") / "scenario"), nvml_library) as sight:
        yield sight
        assert sight.door.spawned == 1


@settings(max_examples=150)
@given(
    devices=st.dictionaries(st.sampled_from(["GPU-0", "GPU-1", r"\xff", " "]), _FIELDS, max_size=3),
    slices=st.dictionaries(st.sampled_from(["MIG-0", "MIG-1"]), _FIELDS, max_size=2),
    processes=st.lists(st.tuples(st.sampled_from(["GPU-0", "MIG-0"]), _NUMBER, _NUMBER), max_size=5),
    failures=st.lists(st.tuples(_CALLS, st.sampled_from([*CODES, -1]).filter(lambda code: code != 18)), max_size=2),
    xid=_NUMBER,
    version=_TEXT,
)
def test_whatever_a_driver_says_is_told_as_it_can_be_or_as_unknown(
    sight: Sight,
    devices: dict[str, dict[str, object]],
    slices: dict[str, dict[str, object]],
    processes: list[tuple[str, int, int]],
    failures: list[tuple[str, int]],
    xid: int,
    version: str,
) -> None:
    scenario = sight.scenario
    scenario.devices = devices
    scenario.slices = {uuid: {"parent": "GPU-0", **fields} for uuid, fields in slices.items()}
    scenario.driver = f"version={version};nvml={version}"
    scenario.more = [f"xid uuid=GPU-0;number={xid};id={xid}"]
    for uuid, pid, used in processes:
        scenario.process(uuid, pid, used, "compute,mps")
    for call, code in failures:
        scenario.fail(code, call)
    begin_anew(sight)
    scenario.play()
    for _ in range(2):
        report = sight.ask()
        for sample in report.samples.devices if report.samples else ():
            assert_can_be(sample)
    for device in sight.reading.devices:
        assert device.name.isprintable()
        assert device.memory_bytes is None or 0 < device.memory_bytes < 1 << 50


def begin_anew(sight: Sight) -> None:
    """Have the reader find no driver, so that it asks everything of the next one."""
    Scenario(sight.scenario.path, driver=None).play()
    for _ in range(40):  # a node without devices is looked at seldom
        sight.ask()
        if sight.reading.problems == ("the NVIDIA driver is not loaded: no process can use a GPU now",):
            return
    raise AssertionError(f"the reader does not find out: {sight.reading}")


def assert_can_be(sample: DeviceSample) -> None:
    assert sample.utilisation is None or 0 <= sample.utilisation <= 1
    assert sample.memory_used_bytes is None or 0 <= sample.memory_used_bytes < 1 << 51
    assert sample.power_mw is None or 0 <= sample.power_mw <= MOST_WATTS * 1000
    assert sample.energy_mj is None or 0 <= sample.energy_mj < 1 << 63
    for use in sample.processes or ():
        assert 0 < use.pid <= 1 << 22
        assert use.used_bytes is None or use.used_bytes < 1 << 51
