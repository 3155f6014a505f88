"""The hardware that is sold under a catalogue and a rate card, in the platforms' own shape: a list of {"name", "sku"}.

An offer is {"name", "sku", "count", "here", "pricing"}: how many devices it has, whether this node has it, and what a
second of the whole of it costs, {"amount", "currency", "unit"} with the amount a Decimal, or null without a price. What
this node has comes first. Pure; owns this shape.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from taximeter.billing.rates import RateCard
from taximeter.hardware.inventory import Device, Inventory
from taximeter.hardware.tiers import Catalogue, Tier, match
from taximeter.hardware.visible import usable

Json = dict[str, Any]

#: Of more devices of a kind only one, and all of them, are taken for something that is sold here.
_TOGETHER_MAX = 16


def offers(catalogue: Catalogue | None, card: RateCard | None, inventory: Inventory | None) -> list[Json]:
    """List every tier that is sold, those first that instances on this node can have."""
    if catalogue is None:
        return []
    here = set() if inventory is None else set(_tiers_here(catalogue, inventory))
    tiers: dict[str, Tier] = {}
    for tier in catalogue.tiers:
        tiers.setdefault(tier.slug, tier)  # several rules may lead to one tier
    listed = [
        {
            "name": tier.title,
            "sku": slug,
            "count": tier.count,
            "here": slug in here,
            "pricing": pricing(card, slug),
        }
        for slug, tier in tiers.items()
    ]
    return sorted(listed, key=lambda offer: not offer["here"])


def pricing(card: RateCard | None, slug: str) -> Json | None:
    """What a second on a tier costs; None where the card has no price for it."""
    price = card.tiers.get(slug) if card else None
    if card is None or price is None:
        return None
    return {"amount": price, "currency": card.currency, "unit": "computing_second"}


def _tiers_here(catalogue: Catalogue, inventory: Inventory) -> Iterator[str]:
    """The tiers of no device, of each device or slice alone, and of several of a kind together."""
    kinds: dict[tuple[object, ...], list[Device]] = {}
    for device in usable(inventory.devices):
        kinds.setdefault((device.name, device.memory_bytes, device.mig_profile, device.lost), []).append(device)
    slices = [(device,) for device in inventory.devices if device.parent_uuid]
    for devices in ((), *slices, *_together(kinds.values())):
        yield match(devices, inventory.host, catalogue).tier


def _together(kinds: Iterable[Sequence[Device]]) -> Iterator[tuple[Device, ...]]:
    for alike in kinds:
        counts = range(1, len(alike) + 1) if len(alike) <= _TOGETHER_MAX else (1, len(alike))
        yield from (tuple(alike[:count]) for count in counts)
