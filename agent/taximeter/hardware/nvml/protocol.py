"""What the child that talks to NVML writes to the agent: one report a round, a line of JSON.

Owns the report's shape and which reports are believed. Refuses to know where a line came from. Shared by both sides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from taximeter.errors import HardwareError
from taximeter.hardware.inventory import Device, Host, Inventory
from taximeter.hardware.nvml.answers import NAMES
from taximeter.hardware.nvml.values import MOST_DEVICES, MOST_PROCESSES
from taximeter.hardware.samples import Samples

#: GPUs and their slices; a GPU has eight at most.
_MOST_PARTS = MOST_DEVICES * 9
_MOST_PROBLEMS = _MOST_PARTS * 4
_MOST_TEXT = 400


@dataclass(frozen=True, slots=True)
class Reading:
    """Which devices there are. With `known` false there may be some of which NVML told nothing."""

    devices: tuple[Device, ...] = ()
    driver_version: str | None = None
    nvml_version: str | None = None
    problems: tuple[str, ...] = ()
    known: bool = True
    missing: tuple[str, ...] = ()  #: UUIDs of GPUs that were here, and that NVML counts no more

    def inventory(self, host: Host) -> Inventory:
        """Return this reading with the host around it."""
        versions = (self.driver_version, self.nvml_version)
        return Inventory(host, self.devices, self.problems, *versions, self.known, self.missing)


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to one question: what changed, and how the devices are."""

    number: int  #: of the round
    reading: Reading | None = None  #: None: as before
    samples: Samples | None = None  #: None: there is nothing to sample
    errors: Mapping[str, int] = field(default_factory=dict)  #: by name, since the last report
    replace: bool = False  #: only a new process sees the driver that is there now


#: For a node that was told not to ask (`hardware.nvml = false`).
OFF = Reading(problems=("NVML is not asked: hardware.nvml is false",))

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Report)


def unknown(problem: str) -> Reading:
    """Return the reading of a node whose devices cannot be known, for a reason in words."""
    return Reading(problems=(problem,), known=False)


def write(report: Report) -> bytes:
    """Return a report as a line."""
    return _encoder.encode(report) + b"\n"


def parse(line: bytes, number: int, asked_ns: int, now_ns: int) -> Report:
    """Return the report on round `number`, asked for at `asked_ns`; raises HardwareError for what is none."""
    try:
        report = _decoder.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise HardwareError(
            f"cannot read what the NVML reader wrote: expected a report as JSON ({str(error)[:100]})"
        ) from error
    doubt = _doubt(report, number, asked_ns, now_ns)
    if doubt:
        raise HardwareError(f"cannot believe what the NVML reader wrote: expected {doubt}")
    return report


def _doubt(report: Report, number: int, asked_ns: int, now_ns: int) -> str | None:
    """What a report should have said."""
    if report.number != number:
        return f"round {number}, not {report.number}"
    if any(name not in NAMES or count < 0 for name, count in report.errors.items()):
        return "errors that NVML has"
    return _doubt_reading(report.reading) or _doubt_samples(report.samples, asked_ns, now_ns)


def _doubt_reading(reading: Reading | None) -> str | None:
    if reading is None:
        return None
    if len(reading.devices) > _MOST_PARTS or len(reading.problems) > _MOST_PROBLEMS:
        return f"at most {_MOST_PARTS} devices and {_MOST_PROBLEMS} problems"
    texts = [text for device in reading.devices for text in (device.uuid, device.name)]
    if any(len(text) > _MOST_TEXT for text in (*texts, *reading.problems, *reading.missing)):
        return f"texts of at most {_MOST_TEXT} characters"
    if len({device.uuid for device in reading.devices}) != len(reading.devices):
        return "each device once"
    return None


def _doubt_samples(samples: Samples | None, asked_ns: int, now_ns: int) -> str | None:
    if samples is None:
        return None
    if len(samples.devices) > _MOST_PARTS:
        return f"at most {_MOST_PARTS} devices"
    if any(len(device.processes or ()) > MOST_PROCESSES for device in samples.devices):
        return f"at most {MOST_PROCESSES} processes on a device"
    times = [samples.at_ns, *(device.at_ns for device in samples.devices), *(xid.at_ns for xid in samples.xids)]
    if any(not asked_ns <= at_ns <= now_ns for at_ns in times):
        return "moments between the question and the answer"
    return None
