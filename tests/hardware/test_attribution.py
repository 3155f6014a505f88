"""What two looks at the devices mean for those who were on them."""

from dataclasses import replace

import pytest

from taximeter.hardware.attribution import LONGEST_NS, drawn, is_told, meter_of, place_seen
from taximeter.hardware.inventory import Device, Hardware, Host, Inventory
from taximeter.hardware.samples import DeviceSample, Samples
from taximeter.hardware.tiers import Catalogue, Tier

SECOND = 1_000_000_000
A = Device("GPU-a", "a GPU", 80 << 30, 0)
B = Device("GPU-b", "a GPU", 80 << 30, 1)
CUT = Device("GPU-c", "a GPU", 80 << 30, 2, mig=True)
PART = Device("MIG-1", "a GPU", 10 << 30, 2, parent_uuid="GPU-c", gpu_slices=1)
INVENTORY = Inventory(Host(8, 64 << 30), (A, B, CUT, PART))
CATALOGUE = Catalogue((Tier("one", "one", 1, ("a GPU",)), Tier("two", "two", 2, ("a GPU",))))


def sample(at_s: float = 0, uuid: str = "GPU-a", **told: object) -> DeviceSample:
    return replace(DeviceSample(uuid, int(at_s * SECOND)), **told)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("earlier", "later", "used"),
    [
        (sample(0, energy_mj=100), sample(1, energy_mj=400), (300, "counter")),
        (sample(0, energy_mj=100, power_mw=7), sample(1, energy_mj=100, power_mw=9), (0, "counter")),
        (sample(0, energy_mj=100), sample(1, energy_mj=99), None),
        (sample(0, power_mw=100_000), sample(2, power_mw=200_000), (300_000, "power")),
        (sample(0, power_mw=3), sample(0.5, power_mw=4, energy_mj=5), (1, "power")),
        (sample(0, power_mw=100_000), sample(2), None),
        (sample(0), sample(2, power_mw=1), None),
        (sample(0, power_mw=1), sample(LONGEST_NS / SECOND + 1, power_mw=1), None),
        (sample(2, power_mw=1), sample(0, power_mw=1), None),
    ],
)
def test_energy_is_the_counters_or_the_power_over_time(
    earlier: DeviceSample, later: DeviceSample, used: tuple[int, str] | None
) -> None:
    assert drawn(earlier, later) == used


@pytest.mark.parametrize(
    ("uuid", "samples", "meter"),
    [
        ("GPU-a", {}, "GPU-a"),
        ("GPU-z", {}, "GPU-z"),
        ("MIG-1", {}, "GPU-c"),
        ("MIG-1", {"MIG-1": sample(uuid="MIG-1")}, "GPU-c"),
        ("MIG-1", {"MIG-1": sample(uuid="MIG-1", energy_mj=1)}, "MIG-1"),
        ("MIG-1", {"MIG-1": sample(uuid="MIG-1", power_mw=1)}, "MIG-1"),
    ],
)
def test_a_slice_that_measures_no_energy_has_a_part_of_its_gpus(
    uuid: str, samples: dict[str, DeviceSample], meter: str
) -> None:
    assert meter_of(uuid, INVENTORY, samples) == meter


def test_what_was_seen_is_placed_together_in_bus_order() -> None:
    seen = place_seen(INVENTORY, ("GPU-b", "GPU-a"), None, CATALOGUE)
    assert (seen.tier, seen.count, seen.devices) == ("two", 2, (A, B))
    assert seen.rule.endswith("seen by NVML")


def test_a_device_that_was_lost_since_counts_as_what_it_was() -> None:
    lost = replace(INVENTORY, devices=(replace(A, lost=True),))
    assert place_seen(lost, ("GPU-a",), None, CATALOGUE).tier == "one"
    declared = Hardware("one", 1, (A,))
    assert place_seen(Inventory(INVENTORY.host), ("GPU-a",), declared, CATALOGUE).devices == (A,)


def test_a_device_that_nobody_knows_is_of_no_tier() -> None:
    assert place_seen(INVENTORY, ("GPU-z",), None, CATALOGUE).tier == "unknown"


def test_who_is_only_known_to_be_on_a_cut_gpu_is_on_the_slices_that_it_declared() -> None:
    declared = Hardware("one", 1, (PART,))
    assert place_seen(INVENTORY, ("GPU-c",), declared, CATALOGUE).devices == (PART,)
    assert place_seen(INVENTORY, ("GPU-c",), Hardware("one", 1, (A,)), CATALOGUE).devices == (CUT,)


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([sample(processes=())], True),
        ([sample(processes=None)], False),
        ([sample(processes=(), all_lists=False)], False),
        ([], False),
    ],
)
def test_only_a_look_at_all_lists_tells_that_nobody_is_there(samples: list[DeviceSample], told: bool) -> None:
    assert is_told(["GPU-a"], Samples(0, tuple(samples))) is told
    assert is_told([], Samples(0, tuple(samples)))
