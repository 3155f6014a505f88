"""What hardware is sold: prices to the last digit, and what this node has first."""

from decimal import Decimal

import pytest

from taximeter.hardware.inventory import Device, Host, Inventory
from taximeter.hardware.tiers import Catalogue, Tier
from taximeter.observe.offers import offers
from tests.core.stories import card

H100 = "NVIDIA H100 80GB HBM3"
CATALOGUE = Catalogue(
    (
        Tier("cpu", "CPU", 0),
        Tier("gpu-t4", "NVIDIA T4", 1, ("Tesla T4",)),
        Tier("gpu-h100", "NVIDIA H100", 1, (H100,)),
        Tier("gpu-h100-2x", "2 × NVIDIA H100", 2, (H100,)),
        Tier("gpu-h100-4x", "4 × NVIDIA H100", 4, (H100,)),
        Tier("gpu-h100", "NVIDIA H100, by another name", 1, ("H100 PCIe",)),
        Tier("mig-1g", "a slice", 1, ("A100",), mig_slices=1),
    )
)
CARD = card(**{"gpu-h100": "0.0015250000000001"})
HOST = Host(8, 1 << 35, "x86_64")


def node(*devices: Device) -> Inventory:
    return Inventory(HOST, devices)


def gpus(count: int, name: str = H100) -> tuple[Device, ...]:
    return tuple(Device(f"GPU-{at}", name, 85520809984, at) for at in range(count))


def here(*devices: Device) -> list[str]:
    return [offer["sku"] for offer in offers(CATALOGUE, CARD, node(*devices)) if offer["here"]]


def test_each_tier_is_offered_once_whatever_number_of_rules_it_has() -> None:
    told = offers(CATALOGUE, CARD, None)
    assert [offer["sku"] for offer in told] == ["cpu", "gpu-t4", "gpu-h100", "gpu-h100-2x", "gpu-h100-4x", "mig-1g"]
    assert told[2]["name"] == "NVIDIA H100"


def test_a_price_keeps_all_of_its_digits() -> None:
    priced = {offer["sku"]: offer["pricing"] for offer in offers(CATALOGUE, CARD, None)}
    amount = Decimal("0.0015250000000001")
    assert priced["gpu-h100"] == {"amount": amount, "currency": "USD", "unit": "computing_second"}


def test_a_tier_without_a_price_is_offered_without_one() -> None:
    assert [offer["pricing"] for offer in offers(CATALOGUE, CARD, None) if offer["sku"] == "gpu-t4"] == [None]


def test_without_a_card_nothing_has_a_price() -> None:
    assert {offer["pricing"] for offer in offers(CATALOGUE, None, None)} == {None}


def test_what_the_node_has_comes_first() -> None:
    told = [offer["sku"] for offer in offers(CATALOGUE, CARD, node(*gpus(2)))]
    assert told[:3] == ["cpu", "gpu-h100", "gpu-h100-2x"]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ((), ["cpu"]),
        (gpus(1), ["cpu", "gpu-h100"]),
        (gpus(3), ["cpu", "gpu-h100", "gpu-h100-2x"]),
        (gpus(8), ["cpu", "gpu-h100", "gpu-h100-2x", "gpu-h100-4x"]),
        (gpus(64), ["cpu", "gpu-h100"]),
        ((*gpus(1), Device("GPU-9", "Tesla T4", 1 << 34, 1)), ["cpu", "gpu-t4", "gpu-h100"]),
        (gpus(1, "Odd"), ["cpu"]),
        (
            (
                Device("GPU-1", "A100", 1 << 35, 0, mig=True),
                Device("MIG-1", "A100", 1 << 32, 0, parent_uuid="GPU-1", mig_profile="1g", gpu_slices=1),
            ),
            ["cpu", "mig-1g"],
        ),
    ],
    ids=["none", "one", "three", "eight", "very many", "two kinds", "unknown", "slices"],
)
def test_a_node_has_what_its_devices_can_be_sold_as(devices: tuple[Device, ...], expected: list[str]) -> None:
    assert here(*devices) == expected


def test_without_a_catalogue_nothing_is_offered() -> None:
    assert offers(None, CARD, node()) == []
