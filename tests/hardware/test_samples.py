"""Samples of devices as values: what lies between two of them, and who was where."""

import pytest

from taximeter.hardware.samples import DeviceSample, ProcessKind, ProcessUse, Samples, energy_between

S = 1_000_000_000


def sample(at_s: float, energy_mj: int | None) -> DeviceSample:
    return DeviceSample("GPU-0", int(at_s * S), energy_mj=energy_mj)


@pytest.mark.parametrize(
    ("earlier_mj", "later_mj", "used_mj"),
    [
        (1_000, 4_000, 3_000),
        (1_000, 1_000, 0),
        (None, 4_000, None),
        (1_000, None, None),
        (4_000, 1_000, None),  # the driver was loaded anew
        (1_000, 10**12, None),  # no device draws that much in ten seconds
    ],
)
def test_energy_is_the_difference_of_the_counter_or_unknown(
    earlier_mj: int | None, later_mj: int | None, used_mj: int | None
) -> None:
    assert energy_between(sample(0, earlier_mj), sample(10, later_mj)) == used_mj


def test_a_process_is_found_on_every_device_that_it_is_on() -> None:
    here = ProcessUse(7, "GPU-0", 1 << 30, ProcessKind.COMPUTE)
    there = ProcessUse(7, "GPU-1", None, ProcessKind.MPS)
    other = ProcessUse(8, "GPU-1", 0, ProcessKind.COMPUTE)
    silent = DeviceSample("GPU-2", 0)
    samples = Samples(
        0, (DeviceSample("GPU-0", 0, processes=(here,)), DeviceSample("GPU-1", 0, processes=(there, other)), silent)
    )
    assert samples.of_process(7) == (here, there)
    assert samples.device("GPU-2") == silent
    assert samples.device("GPU-3") is None
