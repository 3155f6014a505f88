"""What the door tells of nodes that tests cannot have: the real pynvml, a stand-in library, a real child process."""

from dataclasses import replace
from pathlib import Path

import pytest

from taximeter.hardware.inventory import Device
from taximeter.hardware.samples import DeviceSample, ProcessKind, ProcessUse
from tests.hardware.seeing import seen
from tests.nvml_standin import A40, BEFORE_R470, BEFORE_R510, H100, L40S, LOST, T4, Scenario, build, cut, h100s

MIB = 1 << 20
GPU_0 = Device(
    "GPU-0", "NVIDIA H100 80GB HBM3", 81559 * MIB, 0, "2330", "9.0",
    pci_bus_id="00000000:10:00.0", multiprocessors=132, mig=False,
)  # fmt: skip


def test_eight_gpus_are_told_with_everything_that_a_rule_may_ask(tmp_path: Path, nvml_library: Path) -> None:
    with seen(h100s(tmp_path / "scenario"), nvml_library) as sight:
        sight.ask()
    bus = [f"00000000:{16 + index:02X}:00.0" for index in range(8)]
    assert sight.reading.devices == tuple(
        replace(GPU_0, uuid=f"GPU-{index}", index=index, pci_bus_id=bus[index]) for index in range(8)
    )
    assert (sight.reading.driver_version, sight.reading.nvml_version) == ("595.45.04", "13.595.45.04")
    assert (sight.reading.problems, sight.reading.known, sight.reading.missing) == ((), True, ())


def test_a_sample_says_how_a_gpu_is_and_who_is_on_it(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 1).process("GPU-0", 42, MIB).process("GPU-0", 43).play()
    with seen(scenario, nvml_library) as sight:
        (sample,) = sight.sample().devices
    assert sample == DeviceSample(
        "GPU-0", sample.at_ns, utilisation=0.37, memory_used_bytes=1024 * MIB, energy_mj=5_000_000, power_mw=321_000,
        sm_clock_mhz=1980, memory_clock_mhz=2619, throttle_reasons=0, ecc_corrected=2, ecc_uncorrected=0,
        processes=(
            ProcessUse(42, "GPU-0", MIB, ProcessKind.COMPUTE),
            ProcessUse(43, "GPU-0", None, ProcessKind.COMPUTE),
        ),
    )  # fmt: skip


def test_slices_are_told_beside_the_gpu_that_is_cut(tmp_path: Path, nvml_library: Path) -> None:
    with seen(cut(tmp_path / "scenario"), nvml_library) as sight:
        sight.ask()
    whole, *slices = sight.reading.devices[:4]
    assert (whole.uuid, whole.mig, whole.mig_profile, whole.parent_uuid) == ("GPU-0", True, None, None)
    assert slices[2] == Device(
        "MIG-0-3", "NVIDIA A100-SXM4-80GB", 40192 * MIB, 0, "20B2", "8.0", "3g.40gb", "GPU-0", "00000000:10:00.0",
        multiprocessors=42, gpu_instance=3, compute_instance=0, gpu_slices=3, compute_slices=3,
    )  # fmt: skip
    assert [device.mig_profile for device in slices] == ["1g.10gb", "2g.20gb", "3g.40gb"]
    assert [device.uuid for device in sight.reading.devices[4:]] == ["GPU-1", "MIG-1-1", "MIG-1-2", "MIG-1-3"]


@pytest.mark.parametrize("refused", [(), (4,)], ids=["told by the GPU", "the GPU refuses, so its slices are asked"])
def test_a_process_on_a_slice_is_the_slices(refused: tuple[int, ...], tmp_path: Path, nvml_library: Path) -> None:
    scenario = cut(tmp_path / "scenario").process("MIG-0-2", 42, MIB).process("MIG-1-3", 43, MIB)
    for code in refused:
        for index in range(2):
            scenario.fail(code, "nvmlDeviceGetComputeRunningProcesses_v3", f"GPU-{index}")
    with seen(scenario.play(), nvml_library) as sight:
        samples = sight.sample()
    assert samples.of_process(42) == (ProcessUse(42, "MIG-0-2", MIB, ProcessKind.COMPUTE),)
    assert samples.of_process(43) == (ProcessUse(43, "MIG-1-3", MIB, ProcessKind.COMPUTE),)
    whole = samples.device("GPU-0")
    assert whole is not None
    assert whole.processes == (None if refused else ())


def test_what_a_slice_does_not_tell_is_unknown(tmp_path: Path, nvml_library: Path) -> None:
    with seen(cut(tmp_path / "scenario"), nvml_library) as sight:
        sample = sight.sample().device("MIG-0-1")
    assert sample is not None
    assert (sample.memory_used_bytes, sample.energy_mj, sample.utilisation, sample.power_mw) == (10 * MIB, *[None] * 3)


def test_slices_that_are_cut_anew_are_found_when_they_are_looked_for(tmp_path: Path, nvml_library: Path) -> None:
    scenario = cut(tmp_path / "scenario")
    with seen(scenario, nvml_library) as sight:
        sight.ask()
        scenario.slices = {"MIG-9": {"parent": "GPU-0", "profile": "7g.80gb", "gi": 0, "ci": 0, "memory_mib": 80384}}
        scenario.play()
        sight.ask()  # a slice that is asked says that it is not there
        sight.ask()
    found = [device.uuid for device in sight.reading.devices]
    assert found == ["GPU-0", "MIG-9", "GPU-1"]


def test_slices_that_the_agent_may_not_see_are_a_problem_in_words(tmp_path: Path, nvml_library: Path) -> None:
    scenario = cut(tmp_path / "scenario").fail(4, "nvmlDeviceGetMigDeviceHandleByIndex", "GPU-0").play()
    with seen(scenario, nvml_library) as sight:
        sight.ask()
    assert [device.uuid for device in sight.reading.devices] == ["GPU-0", "GPU-1", "MIG-1-1", "MIG-1-2", "MIG-1-3"]
    assert sight.reading.problems == (
        "NVML tells no slice of GPU-0, which is in MIG mode: there is none, or the agent may not read /dev/nvidia-caps",
    )


def test_a_t4_has_no_counter_of_energy_and_is_asked_for_it_once(tmp_path: Path, nvml_library: Path) -> None:
    scenario = Scenario(tmp_path / "scenario", log=tmp_path / "calls").gpu("GPU-0", **T4).play()
    with seen(scenario, nvml_library) as sight:
        (sample,) = sight.sample().devices
        sight.ask()
        sight.ask()
    assert (sample.energy_mj, sample.power_mw, sample.utilisation) == (None, 27_000, 0.05)
    asked = [call for call, _ in scenario.calls()]
    assert asked.count("nvmlDeviceGetTotalEnergyConsumption") == 1
    assert asked.count("nvmlDeviceGetPowerUsage") == 3


def test_unlike_devices_are_told_in_nvmls_order(tmp_path: Path, nvml_library: Path) -> None:
    scenario = Scenario(tmp_path / "scenario").gpu("GPU-b", **L40S).gpu("GPU-a", **A40).play()
    with seen(scenario, nvml_library) as sight:
        sight.ask()
    told = [(device.index, device.name, device.multiprocessors, device.mig) for device in sight.reading.devices]
    assert told == [(0, "NVIDIA L40S", 142, None), (1, "NVIDIA A40", 84, None)]


def test_a_node_with_a_driver_and_no_gpu_has_no_devices(tmp_path: Path, nvml_library: Path) -> None:
    with seen(Scenario(tmp_path / "scenario"), nvml_library) as sight:
        report = sight.ask()
    assert (sight.reading.devices, sight.reading.known, sight.reading.problems) == ((), True, ())
    assert report.samples is None


def test_a_machine_without_nvml_is_a_cpu_machine(tmp_path: Path) -> None:
    # A file of that name which is no library: the same to the loader as none, also on a machine with a driver.
    (tmp_path / "libnvidia-ml.so.1").write_text("no library")
    with seen(Scenario(tmp_path / "scenario"), tmp_path) as sight:
        sight.ask()
    assert (sight.reading.devices, sight.reading.known) == ((), True)
    assert sight.reading.problems == ("no NVML on this machine: GPUs, if it has any, cannot be seen",)


def test_a_library_that_is_installed_later_is_found_by_the_same_reader(tmp_path: Path, nvml_library: Path) -> None:
    directory = tmp_path / "lib"
    directory.mkdir()
    (directory / "libnvidia-ml.so.1").write_text("no library")
    with seen(h100s(tmp_path / "scenario", 1), directory) as sight:
        sight.ask()
        (directory / "libnvidia-ml.so.1").unlink()
        (directory / "libnvidia-ml.so.1").symlink_to(nvml_library / "libnvidia-ml.so.1")
        sight.ask()
        assert sight.door.spawned == 1
    assert [device.uuid for device in sight.reading.devices] == ["GPU-0"]


def test_a_driver_that_is_loaded_later_is_found_by_the_same_reader(tmp_path: Path, nvml_library: Path) -> None:
    scenario = Scenario(tmp_path / "scenario", driver=None).gpu("GPU-0", **H100).play()
    with seen(scenario, nvml_library) as sight:
        sight.ask()
        assert (sight.reading.devices, sight.reading.known) == ((), True)
        assert sight.reading.problems == ("the NVIDIA driver is not loaded: no process can use a GPU now",)
        scenario.driver = "version=595.45.04;nvml=13.595.45.04"
        scenario.play()
        sight.ask()
        assert sight.door.spawned == 1
    assert [device.uuid for device in sight.reading.devices] == ["GPU-0"]


def test_a_driver_that_is_reloaded_is_seen_again_with_other_devices(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 2)
    with seen(scenario, nvml_library) as sight:
        sight.ask()
        driver, scenario.driver = scenario.driver, None
        scenario.play()
        sight.ask()
        assert sight.reading.problems == ("the NVIDIA driver is not loaded: no process can use a GPU now",)
        scenario.driver = driver
        del scenario.devices["GPU-0"]
        scenario.play()
        sight.ask()
    assert [device.uuid for device in sight.reading.devices] == ["GPU-1"]
    assert sight.reading.missing == ()  # which GPUs a driver has was settled anew


def test_a_gpu_that_is_lost_keeps_its_place_and_the_others_go_on(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 3)
    with seen(scenario, nvml_library) as sight:
        sight.ask()
        scenario.fail(LOST, uuid="GPU-1").play()
        samples = sight.sample()
        assert [(device.uuid, device.lost) for device in sight.reading.devices] == [
            ("GPU-0", False), ("GPU-1", True), ("GPU-2", False),
        ]  # fmt: skip
        assert [device.uuid for device in samples.devices] == ["GPU-0", "GPU-2"]
        assert sight.reading.problems == ("NVML has lost GPU-1: GPU is lost",)
        scenario.more.clear()
        scenario.play()
        for _ in range(3):
            samples = sight.sample()
    assert [(device.uuid, device.lost) for device in sight.reading.devices] == [(f"GPU-{n}", False) for n in range(3)]
    assert [device.uuid for device in samples.devices] == ["GPU-0", "GPU-1", "GPU-2"]
    assert sight.reading.problems == ()


def test_a_gpu_that_is_counted_no_more_is_missing_and_the_others_move_up(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 3)
    with seen(scenario, nvml_library) as sight:
        sight.ask()
        gone = scenario.devices.pop("GPU-1")
        scenario.play()
        for _ in range(3):
            sight.ask()
        assert [(device.uuid, device.index) for device in sight.reading.devices] == [("GPU-0", 0), ("GPU-2", 1)]
        assert sight.reading.missing == ("GPU-1",)
        scenario.gpu("GPU-1", **gone).play()
        for _ in range(8):
            sight.ask()
    assert [device.uuid for device in sight.reading.devices] == ["GPU-0", "GPU-2", "GPU-1"]
    assert sight.reading.missing == ()


def test_a_gpu_that_is_lost_when_the_agent_starts_is_a_stranger_of_no_tier(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 2).fail(LOST, uuid="GPU-1").play()
    with seen(scenario, nvml_library) as sight:
        sight.ask()
    assert sight.reading.devices == (GPU_0, Device("unknown-1", "unknown", None, 1, lost=True))
    assert sight.reading.problems == ("NVML does not tell the device 1: GPU is lost",)


def test_a_lost_gpu_does_not_make_the_events_spin(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 2)
    scenario.log = tmp_path / "calls"
    scenario.play()
    with seen(scenario, nvml_library) as sight:
        sight.ask()
        del scenario.devices["GPU-1"]
        scenario.play()
        scenario.calls()
        for _ in range(20):
            sight.ask()
    assert [call for call, _ in scenario.calls()].count("nvmlEventSetWait_v2") <= 8


def test_faults_that_the_driver_reports_are_told_once(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 2)
    with seen(scenario, nvml_library) as sight:
        assert sight.sample().xids == ()
        scenario.line("xid uuid=GPU-1;number=79;id=1").line("xid uuid=GPU-0;number=13;id=2").play()
        assert [(xid.uuid, xid.number) for xid in sight.sample().xids] == [("GPU-1", 79), ("GPU-0", 13)]
        assert sight.sample().xids == ()


def test_a_process_in_several_lists_is_one_with_its_last_kind(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 1)
    scenario.process("GPU-0", 42, MIB, "compute,mps").process("GPU-0", 43, None, "graphics").play()
    with seen(scenario, nvml_library) as sight:
        samples = sight.sample()
    assert [use.kind for use in samples.of_process(42)] == [ProcessKind.MPS]
    assert [use.kind for use in samples.of_process(43)] == [ProcessKind.GRAPHICS]


def test_process_ids_that_cannot_be_are_not_told(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 1).process("GPU-0", 0).process("GPU-0", 0xFFFFFFFF).play()
    with seen(scenario, nvml_library) as sight:
        (sample,) = sight.sample().devices
    assert sample.processes == ()


@pytest.mark.parametrize("without", [BEFORE_R510, BEFORE_R470], ids=["before R510", "before R470"])
def test_an_older_driver_is_asked_as_it_understands_it(
    without: tuple[str, ...], tmp_path: Path, nvml_library: Path
) -> None:
    older = build(tmp_path / "older", without)
    scenario = h100s(tmp_path / "scenario", 1).process("GPU-0", 42, MIB).play()
    with seen(scenario, older) as sight:
        (sample,) = sight.sample().devices
        sight.ask()
    assert sample.processes == (ProcessUse(42, "GPU-0", MIB, ProcessKind.COMPUTE),)
    assert sample.all_lists is (without is BEFORE_R510)
    assert sample.memory_used_bytes == (1024 + 600) * MIB  # which counts what the driver reserves
    assert sample.throttle_reasons == 0
    assert sight.reading.devices[0].multiprocessors is None


def test_garbage_is_unknown_and_never_zero(tmp_path: Path, nvml_library: Path) -> None:
    scenario = Scenario(tmp_path / "scenario", driver=r"version=\xff\xfe;nvml=13.595.45.04")
    ones, minus_16 = "0xFFFFFFFFFFFFFFFD", "2147483632"
    scenario.gpu(
        "GPU-0", name=r"\xc3\x28", memory_mib=0, pci="0xFFFFFFFF", cc="-16.0", cores=minus_16, mig=2, util=minus_16,
        used_mib=ones, energy_mj=ones, power_mw=minus_16, sm_mhz="4294967280", mem_mhz=minus_16, throttle=ones, ecc=1,
        ecc_corrected=ones, bus="nowhere",
    ).process("GPU-0", 7, 0xFFFFFFFFFFFFFFF0).play()  # fmt: skip
    with seen(scenario, nvml_library) as sight:
        (sample,) = sight.sample().devices
    assert sight.reading.devices == (Device("GPU-0", "unknown", None, 0),)
    assert sight.reading.driver_version is None
    unknown = replace(DeviceSample("GPU-0", sample.at_ns), ecc_uncorrected=0)
    assert sample == replace(unknown, processes=(ProcessUse(7, "GPU-0", None, ProcessKind.COMPUTE),))


def test_an_impossible_number_of_devices_is_not_believed(tmp_path: Path, nvml_library: Path) -> None:
    scenario = Scenario(tmp_path / "scenario", driver="version=1;nvml=1;count=2147483632").play()
    with seen(scenario, nvml_library) as sight:
        sight.ask()
    assert (sight.reading.devices, sight.reading.known) == ((), False)
    assert sight.reading.problems == ("NVML counts 2147483632 devices: expected 0 to 64",)


def test_what_devices_are_is_asked_once(tmp_path: Path, nvml_library: Path) -> None:
    scenario = h100s(tmp_path / "scenario", 2)
    scenario.log = tmp_path / "calls"
    scenario.play()
    with seen(scenario, nvml_library) as sight:
        for _ in range(5):
            sight.ask()
    asked = [call for call, _ in scenario.calls()]
    assert [asked.count(call) for call in ("nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlInitWithFlags")] == [2, 2, 1]
