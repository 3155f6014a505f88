"""A peer that reads NVML sees through the stand-in what our door sees."""

import json
import subprocess
import sys
from pathlib import Path

from tests.hardware.seeing import seen
from tests.nvml_standin import cut, h100s
from tests.require import require_module

_ASK = """
import json, nvitop
def told(device):
    uses = {pid: process.gpu_memory() for pid, process in device.processes().items()}
    return [device.uuid(), device.name(), device.memory_total(), uses]
found = []
for device in nvitop.Device.all():
    found.append(told(device))
    found += [told(part) for part in device.mig_devices()]
print(json.dumps(found))
"""


def test_nvitop_lists_the_same_devices_and_processes(tmp_path: Path, nvml_library: Path) -> None:
    require_module("nvitop")
    with subprocess.Popen(["sleep", "60"]) as process:  # nvitop tells of living processes alone
        for scenario, where in ((h100s(tmp_path / "whole", 8), "GPU-3"), (cut(tmp_path / "cut"), "MIG-1-2")):
            scenario.process(where, process.pid, 1 << 30).play()
            with seen(scenario, nvml_library) as sight:
                samples = sight.sample()
                ran = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=60)
                assert ran.returncode == 0, ran.stderr
                theirs = {uuid: (name, memory, uses) for uuid, name, memory, uses in json.loads(ran.stdout)}
                assert list(theirs) == [device.uuid for device in sight.reading.devices]
                for device in sight.reading.devices:
                    name, memory_bytes, uses = theirs[device.uuid]
                    sample = samples.device(device.uuid)
                    assert sample is not None
                    assert name.partition(" MIG ")[0] == device.name
                    assert memory_bytes == device.memory_bytes
                    if device.mig is not True:  # of a GPU that is cut, nvitop lists the processes of its slices, too
                        assert uses == {str(use.pid): use.used_bytes for use in sample.processes or ()}
        process.kill()
