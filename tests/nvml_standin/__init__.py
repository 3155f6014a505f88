"""A stand-in for `libnvidia-ml.so.1`, built with the compiler, and the scenarios that it plays (see standin.c)."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.require import require_program

SOURCE = Path(__file__).parent / "standin.c"
#: What drivers before R510, and before R470, had not yet.
BEFORE_R510 = (
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetNumGpuCores",
    "nvmlDeviceGetCurrentClocksEventReasons",
)
BEFORE_R470 = (*BEFORE_R510, "nvmlDeviceGetMPSComputeRunningProcesses_v2")
LOST = 15


def build(directory: Path, without: tuple[str, ...] = ()) -> Path:
    """Compile the library into `directory`, as a driver would have it that lacks the symbols `without`."""
    directory.mkdir(parents=True, exist_ok=True)
    options = []
    if without:
        script = directory / "hidden.map"
        script.write_text("{ global: *; local: " + " ".join(f"{symbol};" for symbol in without) + " };")
        options = [f"-Wl,--version-script={script}"]
    target = directory / "libnvidia-ml.so.1"
    command = [require_program("cc", "gcc"), "-O1", "-Wall", "-Werror", "-shared", "-fPIC", *options]
    subprocess.run([*command, "-o", str(target), str(SOURCE)], check=True, timeout=60)
    return directory


@dataclass
class Scenario:
    """A file that says what there is; it is replaced at every change, which the library sees at its next call."""

    path: Path
    driver: str | None = "version=595.45.04;nvml=13.595.45.04"
    devices: dict[str, dict[str, object]] = field(default_factory=dict)  #: by UUID
    slices: dict[str, dict[str, object]] = field(default_factory=dict)
    more: list[str] = field(default_factory=list)  #: lines: processes, failures, …
    log: Path | None = None

    def __post_init__(self) -> None:
        self._versions = count()
        self.play()

    def environment(self, library: Path) -> Mapping[str, str]:
        """What a process needs to see the stand-in with this scenario."""
        return {"NVML_STANDIN": str(self.path), "LD_LIBRARY_PATH": str(library)}

    def gpu(self, uuid: str, **fields: object) -> "Scenario":
        """Add a GPU, in NVML's order."""
        self.devices[uuid] = fields
        return self

    def part(self, parent: str, uuid: str, **fields: object) -> "Scenario":
        """Add a slice of a GPU."""
        self.slices[uuid] = {"parent": parent, **fields}
        return self

    def process(self, uuid: str, pid: int, used: int | None = None, kind: str = "compute") -> "Scenario":
        """Put a process on a device."""
        size = "" if used is None else f";used={used}"
        return self.line(f"process uuid={uuid};pid={pid};kind={kind}{size}")

    def fail(self, code: int, call: str = "*", uuid: str = "*") -> "Scenario":
        """Let a call fail."""
        return self.line(f"fail call={call};uuid={uuid};code={code}")

    def slow(self, ms: int, call: str = "*", uuid: str = "*") -> "Scenario":
        """Let a call take long."""
        return self.line(f"slow call={call};uuid={uuid};ms={ms}")

    def line(self, text: str) -> "Scenario":
        """Add any other line."""
        self.more.append(text)
        return self

    def play(self) -> "Scenario":
        """Make it true from the next call on."""
        lines = [] if self.driver is None else [f"driver {self.driver}"]
        lines += [f"device {_fields(uuid, fields)}" for uuid, fields in self.devices.items()]
        lines += [f"slice {_fields(uuid, fields)}" for uuid, fields in self.slices.items()]
        lines += self.more
        if self.log is not None:
            lines.append(f"log path={self.log}")
        new = self.path.with_suffix(f".{next(self._versions)}")
        new.write_text("\n".join(lines) + "\n")
        os.replace(new, self.path)
        return self

    def calls(self) -> list[tuple[str, str]]:
        """What was called since the last time, with the device's UUID; needs `log`."""
        if self.log is None or not self.log.exists():
            return []
        lines = self.log.read_text().splitlines()
        self.log.unlink()
        return [(call, uuid) for call, _, uuid in (line.partition(" ") for line in lines)]


def _fields(uuid: str, fields: Mapping[str, object]) -> str:
    return ";".join([f"uuid={uuid}", *(f"{key}={value}" for key, value in fields.items())])


H100: Mapping[str, object] = {
    "name": "NVIDIA H100 80GB HBM3", "memory_mib": 81559, "pci": "0x233010de", "cc": "9.0", "cores": 16896, "mig": 0,
    "util": 37, "used_mib": 1024, "energy_mj": 5_000_000, "power_mw": 321_000, "sm_mhz": 1980, "mem_mhz": 2619,
    "throttle": 0, "ecc": 1, "ecc_corrected": 2,
}  # fmt: skip
T4: Mapping[str, object] = {
    "name": "Tesla T4", "memory_mib": 15360, "pci": "0x1eb810de", "cc": "7.5", "cores": 2560, "util": 5,
    "used_mib": 100, "power_mw": 27_000, "sm_mhz": 1590, "mem_mhz": 5000, "throttle": 1, "ecc": 1,
}  # fmt: skip
A100: Mapping[str, object] = {
    **H100, "name": "NVIDIA A100-SXM4-80GB", "memory_mib": 81920, "pci": "0x20b210de", "cc": "8.0", "cores": 6912,
}  # fmt: skip
_UNCUT: Mapping[str, object] = {key: value for key, value in H100.items() if key != "mig"}
L40S: Mapping[str, object] = {
    **_UNCUT, "name": "NVIDIA L40S", "memory_mib": 46068, "pci": "0x26b910de", "cc": "8.9", "cores": 18176,
}  # fmt: skip
A40: Mapping[str, object] = {
    **_UNCUT, "name": "NVIDIA A40", "memory_mib": 46068, "pci": "0x223510de", "cc": "8.6", "cores": 10752,
}  # fmt: skip
#: profile: slices of the GPU instance, slices that compute, memory in MiB, multiprocessors
_PROFILES = {"1g.10gb": (1, 1, 9728, 14), "2g.20gb": (2, 2, 19968, 28), "3g.40gb": (3, 3, 40192, 42)}


def h100s(path: Path, number: int = 8) -> Scenario:
    """A node with so many H100s: GPU-0, GPU-1, …"""
    scenario = Scenario(path)
    for index in range(number):
        scenario.gpu(f"GPU-{index}", **H100)
    return scenario.play()


def cut(path: Path) -> Scenario:
    """Two A100s, each cut into a 1g, a 2g and a 3g: MIG-0-1, MIG-0-2, …"""
    scenario = Scenario(path)
    for index in range(2):
        scenario.gpu(f"GPU-{index}", **{**A100, "mig": 1})
    for index in range(2):
        for gi, (profile, (gpu_slices, compute_slices, memory_mib, sms)) in enumerate(_PROFILES.items(), 1):
            sizes = {"gpu_slices": gpu_slices, "compute_slices": compute_slices, "memory_mib": memory_mib, "sms": sms}
            scenario.part(f"GPU-{index}", f"MIG-{index}-{gi}", profile=profile, gi=gi, ci=0, used_mib=10 * gi, **sizes)
    return scenario.play()
