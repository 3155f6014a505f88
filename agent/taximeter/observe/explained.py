"""Why each tier: every rule that was tried and what it missed, for the node, each device alone and each instance.

A JSON-able dict: {"node", "devices", "instances"}, where each item has its {"tier", "rule"} and "trials", a list of
{"number", "tier", "misses"} in the order of the catalogue; the first without misses is the tier. Pure; owns this shape.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from taximeter.hardware.inventory import Device, Inventory
from taximeter.hardware.tiers import Catalogue, explain, match, place_node
from taximeter.hardware.visible import usable
from taximeter.observe.snapshot import InstanceView

Json = dict[str, Any]


def explained(inventory: Inventory, catalogue: Catalogue, instances: Iterable[InstanceView] = ()) -> Json:
    """Explain the node, its devices and what runs on them."""
    node, whole = place_node(inventory, catalogue), usable(inventory.devices)
    return {
        "node": {"tier": node.tier, "rule": node.rule, "trials": _trials(whole, inventory, catalogue)},
        "devices": [_device(device, inventory, catalogue) for device in inventory.devices],
        "instances": [_instance(view, inventory, catalogue) for view in instances],
    }


def _device(device: Device, inventory: Inventory, catalogue: Catalogue) -> Json:
    alone = match((device,), inventory.host, catalogue)
    return {
        "uuid": device.uuid,
        "name": device.name,
        "tier": alone.tier,
        "rule": alone.rule,
        "trials": _trials((device,), inventory, catalogue),
    }


def _instance(view: InstanceView, inventory: Inventory, catalogue: Catalogue) -> Json:
    """What was placed is told as it was; the rules are tried on the devices as they are now."""
    devices = tuple(device for device in inventory.devices if device.uuid in view.devices)
    return {
        "instance": view.instance,
        "tier": view.tier,
        "rule": view.rule,
        "evidence": view.evidence,
        "declared": list(view.declared),
        "observed": list(view.observed),
        "shared_devices": list(view.shared_devices),
        "trials": _trials(devices, inventory, catalogue),
    }


def _trials(devices: Sequence[Device], inventory: Inventory, catalogue: Catalogue) -> list[Json]:
    tried = explain(devices, inventory.host, catalogue)
    return [{"number": trial.number, "tier": trial.tier, "misses": list(trial.misses)} for trial in tried]
