"""Under which name hardware is sold: the first rule that fits, and never a guess."""

from dataclasses import replace

import pytest

from taximeter.config import load
from taximeter.hardware.inventory import Device, Evidence, Host, Inventory
from taximeter.hardware.tiers import Catalogue, Match, Range, Tier, Trial, explain, match, place, place_node

MIB = 1 << 20
HOST = Host(32, 256 << 30, "x86_64")
SMALL = Host(4, 16 << 30, "x86_64")
SHIPPED = load(None, {"TAXIMETER_STATE_DIR": "/nowhere"}).catalogue


def gpu(name: str, memory_mib: int | None, index: int = 0, **more: str) -> Device:
    memory_bytes = None if memory_mib is None else memory_mib * MIB
    return Device(f"GPU-{index:04d}", name, memory_bytes, index, **more)


def some(count: int, name: str, memory_mib: int) -> tuple[Device, ...]:
    return tuple(gpu(name, memory_mib, index) for index in range(count))


H100 = ("NVIDIA H100 80GB HBM3", 81559)


def test_a_device_that_is_lost_is_sold_as_nothing() -> None:
    lost = replace(gpu(*H100), lost=True)
    assert match((lost,), HOST, SHIPPED) == Match(
        "unknown", f"no rule fits 1 × {H100[0]}; closest gpu-h100: lost, expected one that answers"
    )


@pytest.mark.parametrize(
    ("devices", "host", "slug"),
    [
        ((), HOST, "cpu"),
        (some(1, "Tesla T4", 15360), HOST, "gpu-t4"),
        (some(1, "NVIDIA A40", 46068), SMALL, "gpu-a40-small"),
        (some(1, "NVIDIA A40", 46068), HOST, "gpu-a40-large"),
        (some(1, "NVIDIA A40", 49140), HOST, "gpu-a40-large"),
        (some(1, "NVIDIA L40S", 46068), HOST, "gpu-l40s"),
        (some(2, "NVIDIA L40S", 46068), HOST, "gpu-2x-l40s"),
        (some(4, "NVIDIA L40S", 46068), HOST, "gpu-4x-l40s"),
        (some(8, "NVIDIA L40S", 46068), HOST, "gpu-8x-l40s"),
        (some(1, "NVIDIA A100-SXM4-40GB", 40960), HOST, "gpu-a100-small"),
        (some(1, "NVIDIA A100-SXM4-40GB", 40536), HOST, "gpu-a100-small"),
        (some(2, "NVIDIA A100-PCIE-40GB", 40960), HOST, "gpu-a100-small-2x"),
        (some(1, "A100-SXM4-80GB", 81920), HOST, "gpu-a100-large"),
        (some(1, "NVIDIA A100 80GB PCIe", 81920), HOST, "gpu-a100-large"),
        (some(8, "NVIDIA A100-SXM4-80GB", 81920), HOST, "gpu-a100-large-8x"),
        (some(1, *H100), HOST, "gpu-h100"),
        (some(2, *H100), HOST, "gpu-h100-2x"),
        (some(4, *H100), HOST, "gpu-h100-4x"),
        (some(8, *H100), HOST, "gpu-h100-8x"),
        (some(1, "NVIDIA H200", 143771), HOST, "gpu-h200"),
        (some(8, "NVIDIA H200", 143771), HOST, "gpu-h200-8x"),
    ],
)
def test_what_is_sold_is_known_by_name_memory_count_and_host(
    devices: tuple[Device, ...], host: Host, slug: str
) -> None:
    assert match(devices, host, SHIPPED).tier == slug


@pytest.mark.parametrize(
    ("devices", "rule"),
    [
        (
            some(3, *H100),
            "no rule fits 3 × NVIDIA H100 80GB HBM3; closest gpu-h100-2x: 3 devices, expected 2",
        ),
        (
            some(1, "NVIDIA H100 PCIe", 81559),
            "no rule fits 1 × NVIDIA H100 PCIe; no rule knows the name",
        ),
        (
            some(1, "NVIDIA L40S", 8376),
            "no rule fits 1 × NVIDIA L40S; closest gpu-l40s: 8376 MiB, expected 45000 to 49152",
        ),
        (
            (gpu("NVIDIA H200", None),),
            "no rule fits 1 × NVIDIA H200; closest gpu-h200: unknown MiB, expected 140000 to 147456",
        ),
        (
            (gpu(*H100), gpu("Tesla T4", 15360, 1)),
            (
                "no rule fits 1 × NVIDIA H100 80GB HBM3, 1 × Tesla T4; closest gpu-h100-2x: "
                "name 'Tesla T4', expected NVIDIA H100 80GB HBM3, 15360 MiB, expected 80000 to 81920"
            ),
        ),
        (
            (gpu(*H100, mig_profile="1g.10gb"),),
            (
                "no rule fits 1 × NVIDIA H100 80GB HBM3 MIG 1g.10gb; "
                "closest gpu-h100: a MIG slice 1g.10gb, expected a whole GPU"
            ),
        ),
    ],
)
def test_what_no_rule_fits_is_unknown_and_the_closest_rule_says_why(devices: tuple[Device, ...], rule: str) -> None:
    found = match(devices, HOST, SHIPPED)
    assert (found.tier, found.rule) == ("unknown", rule)


X = gpu("X", 1000, pci_device_id="2330", compute_capability="9.0")
SLICE = gpu("X", 1000, mig_profile="3g.40gb", parent_uuid="GPU-9")


@pytest.mark.parametrize(
    ("rule", "device", "fits"),
    [
        (Tier("x", "", 1, names=("X*",)), X, True),
        (Tier("x", "", 1, names=("x",)), X, False),
        (Tier("x", "", 1, names=("Y", "X")), X, True),
        (Tier("x", "", 1, pci=("2330",)), X, True),
        (Tier("x", "", 1, pci=("2331",)), X, False),
        (Tier("x", "", 1, pci=("2330",)), gpu("X", 1), False),
        (Tier("x", "", 1, pci=("20b2",)), gpu("X", 1, pci_device_id="20B2"), True),
        (Tier("x", "", 1, compute=("8.0", "9.0")), X, True),
        (Tier("x", "", 1, compute=("8.0",)), X, False),
        (Tier("x", "", 1, compute=("8.0",)), gpu("X", 1), False),
        (Tier("x", "", 1, memory_mib=Range(1000)), X, True),
        (Tier("x", "", 1, memory_mib=Range(None, 999)), X, False),
        (Tier("x", "", 1, names=("X",)), SLICE, False),
        (Tier("x", "", 1, mig=("3g.*",)), SLICE, True),
        (Tier("x", "", 1, mig=("1g.*",)), SLICE, False),
        (Tier("x", "", 1, mig=("3g.*",)), X, False),
        (Tier("x", "", 1, host_cpus=Range(32, 32), host_memory_gib=Range(256, 256)), X, True),
        (Tier("x", "", 1, host_cpus=Range(33)), X, False),
        (Tier("x", "", 1, host_memory_gib=Range(None, 255)), X, False),
    ],
)
def test_every_condition_that_is_given_must_hold(rule: Tier, device: Device, *, fits: bool) -> None:
    found = match((device,), HOST, Catalogue((rule,)))
    assert (found.tier == "x") is fits
    assert found.rule


def test_all_devices_of_an_instance_must_fit() -> None:
    two = Tier("two", "", 2, names=("X",))
    assert match((X, gpu("Y", 1, 1)), HOST, Catalogue((two,))).tier == "unknown"


def test_of_two_rules_that_fit_the_first_wins() -> None:
    rules = (Tier("first", "", 1, names=("X",)), Tier("second", "", 1, names=("X",)))
    assert match((X,), HOST, Catalogue(rules)).tier == "first"


def test_a_match_says_which_rule_it_was_and_what_fitted() -> None:
    found = match(some(1, "NVIDIA A40", 46068), SMALL, SHIPPED)
    assert found.rule == (
        "rule 3, gpu-a40-small: 1 × NVIDIA A40, 45000 to 49152 MiB each, "
        "host with at most 8 CPUs, host with at most 64 GiB"
    )


def test_without_a_device_every_rule_is_compared() -> None:
    assert match((), HOST, Catalogue((Tier("x", "", 1, names=("X",)),))).rule == (
        "no rule fits no device; closest x: no device, expected 1"
    )


def test_an_empty_catalogue_makes_everything_unknown() -> None:
    assert match((X,), HOST, Catalogue(())).rule == "no rule fits 1 × X; the catalogue is empty"


# Placing an instance.


def test_an_instance_is_placed_by_what_its_environment_lets_it_see() -> None:
    hardware = place(Inventory(HOST, some(8, *H100)), {"CUDA_VISIBLE_DEVICES": "2,3"}, SHIPPED)
    assert (hardware.tier, hardware.count, hardware.evidence) == ("gpu-h100-2x", 2, Evidence.DECLARED)
    assert [device.index for device in hardware.devices] == [2, 3]
    assert hardware.rule.endswith("; CUDA_VISIBLE_DEVICES=2,3")


def test_an_instance_that_hides_all_gpus_runs_on_the_cpu() -> None:
    hardware = place(Inventory(HOST, some(1, *H100)), {"CUDA_VISIBLE_DEVICES": ""}, SHIPPED)
    assert (hardware.tier, hardware.count) == ("cpu", 0)


def test_on_a_node_without_gpus_the_variables_say_nothing() -> None:
    hardware = place_node(Inventory(HOST), SHIPPED)
    assert (hardware.tier, hardware.rule) == ("cpu", "rule 1, cpu: no device")


def test_where_devices_cannot_be_read_nothing_is_sold_as_cpu() -> None:
    inventory = Inventory(HOST, problems=("NVML did not answer",), devices_known=False)
    hardware = place_node(inventory, SHIPPED)
    assert (hardware.tier, hardware.rule) == ("unknown", "devices cannot be read: NVML did not answer")


def test_where_the_environment_leaves_a_doubt_the_tier_is_unknown() -> None:
    hardware = place(Inventory(HOST, some(1, *H100)), {"CUDA_VISIBLE_DEVICES": "GPU-zzzz"}, SHIPPED)
    assert (hardware.tier, hardware.count, hardware.devices) == ("unknown", 0, ())
    assert "GPU-zzzz" in hardware.rule


# --- Slices, by what they are and not by what they are called ---

THREE = Tier("three", "3 of 7", 1, names=("NVIDIA H100 80GB HBM3",), mig_slices=3, memory_mib=Range(39_000, 41_000))
SEVEN = replace(THREE, slug="seven", mig_slices=7, memory_mib=Range(79_000, 82_000))
SLICES = Catalogue((THREE, SEVEN))


def part(profile: str, memory_mib: int, gpu_slices: int | None, compute_slices: int | None) -> Device:
    device = gpu(H100[0], memory_mib, mig_profile=profile, parent_uuid="GPU-0")
    return replace(device, gpu_slices=gpu_slices, compute_slices=compute_slices)


@pytest.mark.parametrize(
    ("device", "tier"),
    [
        (part("3g.40gb", 40_192, 3, 3), "three"),
        (part("3g.39gb", 40_192, 3, None), "three"),
        (part("7g.79gb", 81_000, 7, 7), "seven"),
        (part("7g.80gb", 81_000, 7, 7), "seven"),
        (part("3g.40gb", 40_192, None, None), "unknown"),
        (part("3g.40gb", 40_192, 4, 4), "unknown"),
        (part("3g.20gb", 20_000, 3, 3), "unknown"),
        (part("1c.3g.40gb", 40_192, 3, 1), "unknown"),
        (gpu(H100[0], 40_192), "unknown"),
    ],
)
def test_a_slice_is_known_by_its_slices_and_its_memory(device: Device, tier: str) -> None:
    assert match((device,), HOST, SLICES).tier == tier


@pytest.mark.parametrize(
    ("device", "missed"),
    [
        (gpu(H100[0], 40_192), "a whole GPU, expected a MIG slice of 3"),
        (part("4g.40gb", 40_192, 4, 4), "a MIG slice of 4, expected one of 3"),
        (part("3g.40gb", 40_192, None, None), "a MIG slice of unknown, expected one of 3"),
        (part("1c.3g.40gb", 40_192, 3, 1), "it computes with 1 of its 3 slices, expected all of them"),
    ],
)
def test_what_keeps_a_slice_from_a_tier_is_said(device: Device, missed: str) -> None:
    assert explain((device,), HOST, SLICES)[0] == Trial(1, "three", (missed,))


def test_every_rule_is_explained_in_its_order_and_the_first_without_misses_is_the_tier() -> None:
    devices = some(2, *H100)
    trials = explain(devices, HOST, SHIPPED)
    assert [trial.number for trial in trials] == list(range(1, len(SHIPPED.tiers) + 1))
    first = next(trial for trial in trials if not trial.misses)
    assert first.tier == match(devices, HOST, SHIPPED).tier == "gpu-h100-2x"
    assert trials[0].misses == ("2 devices, expected 0",)
