"""What NVML says of the GPUs, asked in a child process with a deadline. The only door to pynvml.

    agent ── read_devices() ──► python -I -m taximeter.hardware.nvml ──► libnvidia-ml ──► driver
              JSON, or a problem in words ◄──

A call into a sick driver may never return, and not even SIGKILL ends it: so it is made in a child that can be
left behind. Owns that child, what it prints and how that is read. What a device does not tell is unknown,
never zero. Refuses to set anything on a device, and to know tiers.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, cast

import anyio
import anyio.abc
import msgspec

from taximeter.hardware.inventory import Device, Host, Inventory

_MOST_BYTES = 1 << 20
_MOST_DEVICES = 64
_GRACE_S = 1.0
_COMMAND = (sys.executable, "-I", "-m", "taximeter.hardware.nvml")


@dataclass(frozen=True, slots=True)
class Reading:
    """What NVML told. With `known` false there may be devices of which it told nothing."""

    devices: tuple[Device, ...] = ()
    driver_version: str | None = None
    nvml_version: str | None = None
    problems: tuple[str, ...] = ()
    known: bool = True

    def inventory(self, host: Host) -> Inventory:
        """Return this reading with the host around it."""
        return Inventory(host, self.devices, self.problems, self.driver_version, self.nvml_version, self.known)


#: For a node that was told not to ask (`hardware.nvml = false`).
OFF = Reading(problems=("NVML is not asked: hardware.nvml is false",))


async def read_devices(deadline_s: float) -> Reading:
    """Return what NVML says within `deadline_s` seconds; any trouble comes back as a sentence, nothing is raised."""
    try:
        child = await anyio.open_process(_COMMAND, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError as error:
        return _unknown(f"cannot start the NVML reader {_COMMAND[0]}: {error.strerror}")
    printed: bytes | None = None
    with anyio.move_on_after(deadline_s):
        printed = await _printed(child)
    if printed is None:
        await _leave(child)
        return _unknown(f"NVML did not answer within {deadline_s:g} s: expected a driver that answers; see its log")
    if child.returncode:
        return _unknown(f"the NVML reader ended {_ending(child.returncode)}: expected it to print the devices")
    return parse(printed)


def parse(printed: bytes) -> Reading:
    """Return the reading that the child printed; what is not one is a problem, too."""
    try:
        return msgspec.json.decode(printed, type=Reading)
    except msgspec.MsgspecError as error:
        return _unknown(f"cannot read what the NVML reader printed: expected a reading as JSON ({error})")


async def _printed(child: anyio.abc.Process) -> bytes:
    """Return what the child prints; of one that prints without end only the beginning, and that is its end."""
    printed = b""
    async for chunk in _output(child):
        if len(printed) > _MOST_BYTES:
            continue  # it is killed: only the end of the pipe is waited for, which closes it
        printed += chunk
        if len(printed) > _MOST_BYTES:
            _kill(child)
    await child.wait()
    return printed


async def _leave(child: anyio.abc.Process) -> None:
    """End the child if it can be ended; one that hangs in the driver is left behind."""
    _kill(child)
    with anyio.move_on_after(_GRACE_S, shield=True):
        async for _ in _output(child):
            pass
        await child.wait()


def _output(child: anyio.abc.Process) -> "AsyncIterable[bytes]":
    return cast("AsyncIterable[bytes]", child.stdout)  # a pipe: open_process made it


def _kill(child: anyio.abc.Process) -> None:
    with suppress(ProcessLookupError):  # it has ended in this very moment
        child.kill()


def _ending(returncode: int) -> str:
    if returncode > 0:
        return f"with status {returncode}"
    try:
        return f"by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"by signal {-returncode}"


def _unknown(problem: str) -> Reading:
    return Reading(problems=(problem,), known=False)


# From here on: the child.


class Reader:
    """Asks a `pynvml` module for everything; each question fails on its own."""

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml
        self.problems: list[str] = []
        # pynvml's own errors, and what it raises over garbage: undecodable names, lists of impossible length.
        mismatch = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)
        self.errors = (nvml.NVMLError, mismatch, ValueError, TypeError, AttributeError, OSError, MemoryError)

    def read(self) -> Reading:
        """Return all that NVML tells."""
        nvml = self.nvml
        try:
            nvml.nvmlInit()
        except self.errors as error:
            return self._no_init(error)
        driver = _text(self._ask("driver version", nvml.nvmlSystemGetDriverVersion))
        version = _text(self._ask("NVML version", nvml.nvmlSystemGetNVMLVersion))
        count = self._ask("number of devices", nvml.nvmlDeviceGetCount)
        if not isinstance(count, int) or not 0 <= count <= _MOST_DEVICES:
            self.problems.append(f"NVML counts {count} devices: expected 0 to {_MOST_DEVICES}")
            return Reading((), driver, version, tuple(self.problems), known=False)
        devices: list[Device] = []
        for index in range(count):
            devices += self._device(index)
        unique = {device.uuid: device for device in devices}  # indices may move while we count
        return Reading(tuple(unique.values()), driver, version, tuple(self.problems))

    def _no_init(self, error: Exception) -> Reading:
        code = getattr(error, "value", None)
        if code == self.nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return Reading(problems=("no NVML on this machine: GPUs, if it has any, cannot be seen",))
        if code == self.nvml.NVML_ERROR_DRIVER_NOT_LOADED:
            return Reading(problems=("the NVIDIA driver is not loaded: no process can use a GPU now",))
        return _unknown(f"NVML cannot be initialised: {error}")

    def _device(self, index: int) -> list[Device]:
        """Return a device and its slices. One that tells no UUID keeps its place in the order, and fits no tier."""
        handle = self._ask(f"device {index}", self.nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is None:
            return [Device(f"unknown-{index}", "unknown", None, index)]
        device = self._identity(handle, index, None)
        mode = self._quiet(self.nvml.nvmlDeviceGetMigMode, handle)
        if not (isinstance(mode, list | tuple) and mode and mode[0] == self.nvml.NVML_DEVICE_MIG_ENABLE):
            return [device]
        slots = self._quiet(self.nvml.nvmlDeviceGetMaxMigDeviceCount, handle)
        found = [device]
        for slot in range(min(slots, _MOST_DEVICES) if isinstance(slots, int) else 0):
            part = self._quiet(self.nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot)
            if part is not None:
                found.append(self._identity(part, index, device.uuid))
        return found

    def _identity(self, handle: object, index: int, parent: str | None) -> Device:
        nvml, which = self.nvml, f"device {index}"
        uuid = _text(self._ask(f"UUID of {which}", nvml.nvmlDeviceGetUUID, handle))
        name = _text(self._ask(f"name of {which}", nvml.nvmlDeviceGetName, handle)) or "unknown"
        memory = self._ask(f"memory of {which}", nvml.nvmlDeviceGetMemoryInfo, handle)
        pci = self._quiet(nvml.nvmlDeviceGetPciInfo, handle)
        compute = self._quiet(nvml.nvmlDeviceGetCudaComputeCapability, handle)
        whole_name, _, profile = name.partition(" MIG ")
        return Device(
            uuid=uuid or f"unknown-{index}",
            name=whole_name,
            memory_bytes=_bytes(getattr(memory, "total", None)),
            index=index,
            pci_device_id=_pci(getattr(pci, "pciDeviceId", None)),
            compute_capability=_compute(compute),
            mig_profile=(profile or "unknown") if parent else None,
            parent_uuid=parent,
        )

    def _ask(self, what: str, call: Callable[..., Any], *args: object) -> Any:
        try:
            return call(*args)
        except self.errors as error:
            self.problems.append(f"NVML does not tell the {what}: {error}")
            return None

    def _quiet(self, call: Callable[..., Any], *args: object) -> Any:
        """Ask what many devices and drivers rightly do not answer."""
        try:
            return call(*args)
        except self.errors:
            return None


def _text(value: object) -> str | None:
    return value.strip()[:128] or None if isinstance(value, str) else None


def _bytes(value: object) -> int | None:
    """Return a size in bytes; zero and NVML's "not available" (all ones, or -16 seen as unsigned) are unknown."""
    return value if isinstance(value, int) and 0 < value < 1 << 50 else None


def _pci(value: object) -> str | None:
    """Return the device's half of NVML's device and vendor id."""
    return f"{value >> 16:04X}" if isinstance(value, int) and 0 < value < 0xFFFFFFFF else None


def _compute(value: object) -> str | None:
    text = ".".join(str(part) for part in value) if isinstance(value, list | tuple) else ""
    return text if re.fullmatch(r"[1-9][0-9]?\.[0-9]", text) else None


def main() -> None:
    """Print what NVML tells as JSON: the whole life of the child."""
    import pynvml  # noqa: PLC0415 - the agent itself never loads it

    reading: Mapping[str, object] = asdict(Reader(pynvml).read())
    sys.stdout.write(json.dumps(reading))


if __name__ == "__main__":
    main()
