"""Every call of the door with every code that NVML has: what is told equals what the table of answers says.

Two GPUs, of which the second fails in one call with one code. Whatever it is, the reader lives, answers at once, counts
the error under its name, and tells of the first GPU what it told before; of the second, what that call would have told
is unknown, and everything else as before.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from taximeter.hardware.inventory import Device
from taximeter.hardware.nvml.answers import CODES, NAMES, Answer, Pause, Refusals, answer_to, name_of
from taximeter.hardware.nvml.protocol import Reading
from taximeter.hardware.samples import DeviceSample
from tests.hardware.seeing import Sight, seen
from tests.nvml_standin import h100s

#: Codes that nobody knows, too.
EVERY_CODE = (*CODES, 4711, -1)
MIB = 1 << 20

#: What each call tells of a device: fields of the device, fields of its sample.
OF_DEVICE: Mapping[str, Mapping[str, Any]] = {
    "nvmlDeviceGetName": {"name": "unknown"},
    "nvmlDeviceGetMemoryInfo": {"memory_bytes": None},
    "nvmlDeviceGetPciInfo_v3": {"pci_device_id": None, "pci_bus_id": None},
    "nvmlDeviceGetCudaComputeCapability": {"compute_capability": None, "multiprocessors": None},
    "nvmlDeviceGetNumGpuCores": {"multiprocessors": None},
    "nvmlDeviceGetMigMode": {"mig": None},
}
OF_SAMPLE: Mapping[str, Mapping[str, Any]] = {
    "nvmlDeviceGetUtilizationRates": {"utilisation": None},
    "nvmlDeviceGetMemoryInfo_v2": {"memory_used_bytes": None},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_mj": None},
    "nvmlDeviceGetPowerUsage": {"power_mw": None},
    "nvmlDeviceGetClockInfo": {"sm_clock_mhz": None, "memory_clock_mhz": None},
    "nvmlDeviceGetCurrentClocksEventReasons": {"throttle_reasons": None},
    "nvmlDeviceGetTotalEccErrors": {"ecc_corrected": None, "ecc_uncorrected": None},
    "nvmlDeviceGetComputeRunningProcesses_v3": {"processes": None, "all_lists": False},
    "nvmlDeviceGetGraphicsRunningProcesses_v3": {"all_lists": False},
    "nvmlDeviceGetMPSComputeRunningProcesses_v3": {"all_lists": False},
}
#: What the call's predecessor tells where there is one, and the driver says that it is too old for this one.
BY_PREDECESSOR: Mapping[str, Mapping[str, Any]] = {
    "nvmlDeviceGetMemoryInfo_v2": {"memory_used_bytes": (1024 + 600) * MIB},
    "nvmlDeviceGetCurrentClocksEventReasons": {},
    "nvmlDeviceGetComputeRunningProcesses_v3": {},
    "nvmlDeviceGetGraphicsRunningProcesses_v3": {},
    "nvmlDeviceGetMPSComputeRunningProcesses_v3": {},
}
#: Without them no device is known; the rest of the calls that concern no device tell nothing that is missed.
OF_THE_NODE = (
    "nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion", "nvmlDeviceGetCount_v2", "nvmlEventSetCreate",
    "nvmlEventSetWait_v2", "nvmlEventSetFree", "nvmlShutdown",
)  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What the door tells of two GPUs."""

    reading: Reading
    samples: Sequence[DeviceSample]

    def device(self, at: int) -> Device:
        return self.reading.devices[at]


class Node:
    """A node of two GPUs, asked from the beginning with each fault."""

    def __init__(self, sight: Sight) -> None:
        self._sight = sight
        self._driver = sight.scenario.driver
        sight.ask()
        self.sound = self.with_fault()

    def with_fault(self, code: int = 0, call: str = "", uuid: str = "*") -> Told:
        """What is told by a driver that was just loaded, if a call fails so."""
        scenario = self._sight.scenario
        scenario.more.clear()
        scenario.process("GPU-0", 42, MIB).process("GPU-1", 43, MIB)
        scenario.driver = None
        scenario.play()
        for _ in range(40):  # a node without devices is looked at seldom
            self._sight.ask()
            if self._sight.reading.problems == ("the NVIDIA driver is not loaded: no process can use a GPU now",):
                break
        scenario.driver = self._driver
        if call:
            scenario.fail(code, call, uuid)
        scenario.play()
        report = self._sight.ask()
        assert set(report.errors) <= set(NAMES)
        if call and answer_to(code) is not Answer.NOTHING and call not in ("nvmlEventSetFree", "nvmlShutdown"):
            assert name_of(code) in report.errors or (call, code) == ("nvmlEventSetWait_v2", 10)
        devices = report.samples.devices if report.samples else ()
        return Told(self._sight.reading, [replace(sample, at_ns=0) for sample in devices])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, nvml_library: Path) -> Any:
    with seen(h100s(tmp_path_factory.mktemp("errors") / "scenario", 2), nvml_library) as sight:
        yield Node(sight)
        assert sight.door.spawned == 1
        assert sight.door.late == 0


@pytest.mark.parametrize("call", OF_DEVICE)
def test_a_call_that_fails_leaves_what_it_tells_of_a_device_unknown(node: Node, call: str) -> None:
    for code in EVERY_CODE:
        told = node.with_fault(code, call, "GPU-1")
        expected = lost(node) if is_lost(code) else replace(node.sound.device(1), **OF_DEVICE[call])
        assert told.reading.devices == (node.sound.device(0), expected), (call, code)
        assert told.samples == (node.sound.samples[:1] if is_lost(code) else node.sound.samples), (call, code)


@pytest.mark.parametrize("call", OF_SAMPLE)
def test_a_call_that_fails_leaves_what_it_tells_of_a_moment_unknown(node: Node, call: str) -> None:
    for code in EVERY_CODE:
        told = node.with_fault(code, call, "GPU-1")
        if is_lost(code):
            here = replace(node.sound.device(1), lost=True)
            assert told.reading.devices == (node.sound.device(0), here), (call, code)
            assert told.samples == node.sound.samples[:1], (call, code)
            continue
        is_older = answer_to(code) is Answer.OLDER and call in BY_PREDECESSOR
        assert told.reading == node.sound.reading, (call, code)
        missing = BY_PREDECESSOR[call] if is_older else OF_SAMPLE[call]
        assert told.samples == [node.sound.samples[0], replace(node.sound.samples[1], **missing)], (call, code)


@pytest.mark.parametrize("call", ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID"])
def test_a_gpu_that_cannot_be_named_keeps_its_place_and_fits_no_tier(node: Node, call: str) -> None:
    for code in EVERY_CODE:
        told = node.with_fault(code, call, "GPU-1")
        first, second = told.reading.devices
        assert first == node.sound.device(0), (call, code)
        assert (second.uuid, second.index) == ("unknown-1", 1), (call, code)
        assert told.samples[0] == node.sound.samples[0], (call, code)
        assert len(told.reading.problems) == 1, (call, code)


@pytest.mark.parametrize("call", OF_THE_NODE)
def test_a_call_that_concerns_no_device_costs_no_device(node: Node, call: str) -> None:
    for code in EVERY_CODE:
        told = node.with_fault(code, call)
        if call == "nvmlDeviceGetCount_v2":
            assert (told.reading.devices, told.reading.known) == ((), False), code
            continue
        version = {"nvmlSystemGetDriverVersion": "driver_version", "nvmlSystemGetNVMLVersion": "nvml_version"}.get(call)
        assert told.reading == (replace(node.sound.reading, **{version: None}) if version else node.sound.reading), code
        assert told.samples == node.sound.samples, (call, code)


@pytest.mark.parametrize("code", EVERY_CODE)
def test_a_driver_that_says_it_of_everything_is_answered_by_the_table(
    code: int, tmp_path: Path, nvml_library: Path
) -> None:
    scenario = h100s(tmp_path / "scenario", 1)
    with seen(scenario, nvml_library) as sight:
        sight.ask()
        scenario.fail(code).play()
        began_s = time.monotonic()
        for _ in range(4):
            sight.try_to_ask()
        assert time.monotonic() - began_s < 20
        assert sight.door.spawned == 1 or answer_to(code) is Answer.REPLACE
        if answer_to(code) is Answer.ABSENT:
            assert (sight.reading.devices, sight.reading.known) == ((), True)
        elif answer_to(code) in (Answer.RESTART, Answer.REPLACE):
            assert (sight.reading.devices, sight.reading.known) == ((), False)
        else:
            assert [device.uuid for device in sight.reading.devices][:1] in (["GPU-0"], []), code


def is_lost(code: int) -> bool:
    return answer_to(code) is Answer.LOST


def lost(node: Node) -> Device:
    """A GPU that was lost before it was ever known."""
    return Device("unknown-1", "unknown", None, 1, lost=True)


# --- The table itself, and what is remembered of it ---


def test_every_code_of_nvml_has_an_answer_and_a_name() -> None:
    import pynvml

    names = {name: value for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")}
    known = {f"NVML_ERROR_{name.upper()}": code for code, (name, _) in CODES.items()}
    assert known.items() <= names.items()
    assert set(names.values()) - set(CODES) <= {0}  # a kind of memory error is called so, too


def test_what_keeps_failing_is_asked_more_and_more_seldom() -> None:
    pause = Pause(most=8)
    asked = []
    for number in range(40):
        if pause.over(number):
            asked.append(number)
            pause.fail(number)
    assert asked == [0, 1, 3, 7, 15, 23, 31, 39]


def test_what_has_answered_is_asked_again_soon_when_it_fails() -> None:
    pause = Pause()
    for number in (1, 2, 4):
        pause.fail(number)
    assert not pause.over(7)
    pause.well()
    pause.fail(8)
    assert pause.over(9)


@pytest.mark.parametrize("answer", [Answer.NOTHING, Answer.LOST])
def test_what_is_no_refusal_is_asked_again_at_once(answer: Answer) -> None:
    refusals = Refusals()
    refusals.note("processes", answer, 1)
    assert refusals.asks("processes", 1)


def test_what_a_device_cannot_is_not_asked_again_until_all_is_forgotten() -> None:
    refusals = Refusals()
    refusals.note("energy", Answer.NEVER, 1)
    assert not refusals.asks("energy", 1_000)
    refusals.forget()
    assert refusals.asks("energy", 1_000)


def test_an_answer_ends_the_pause() -> None:
    refusals = Refusals()
    refusals.note("power", Answer.LATER, 1)
    refusals.note("power", Answer.LATER, 2)
    assert not refusals.asks("power", 3)
    refusals.well("power")
    assert refusals.asks("power", 3)
