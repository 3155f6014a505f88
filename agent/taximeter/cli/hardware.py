"""`taximeter hardware`: the devices here, the tier that each maps to, and why; what matched nothing, and why not.

Owns the look, and the walk to the machine itself where no agent has looked. Refuses to match: the tiers do.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taximeter.cli import text
from taximeter.cli.source import Source
from taximeter.hardware.inventory import UNKNOWN_TIER

if TYPE_CHECKING:
    from taximeter.cli.sheet import Sheet

Json = Mapping[str, Any]


def hardware(
    config: Annotated[
        Path | None, typer.Option("--config", help="Match with this config's tiers, without the agent.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Show the devices here, their tier, and why.

    Exits 1 where the tier is unknown.
    """
    found = (Source(os.environ).hardware() if config is None else None) or _look(config)
    from taximeter.cli.sheet import Sheet, print_json  # noqa: PLC0415 - rich, only where something is shown

    if as_json:
        print_json(found)
    else:
        sheet = Sheet()
        write(found, sheet)
        sheet.show()
    return 1 if found["tier"] in (None, UNKNOWN_TIER) else 0


def _look(config_path: Path | None) -> dict[str, Any]:
    """Look at this machine as the agent would."""
    import anyio  # noqa: PLC0415 - only where no agent has looked

    from taximeter.config import load  # noqa: PLC0415
    from taximeter.hardware.host import read_host  # noqa: PLC0415
    from taximeter.hardware.nvml.door import read_devices  # noqa: PLC0415
    from taximeter.hardware.nvml.protocol import OFF  # noqa: PLC0415
    from taximeter.hardware.tiers import match, place_node  # noqa: PLC0415

    config = load(config_path, os.environ)
    reading = anyio.run(read_devices, config.hardware.deadline_s) if config.hardware.nvml else OFF
    inventory = reading.inventory(read_host())
    node = place_node(inventory, config.catalogue)
    found = {"tier": node.tier, "rule": node.rule, **asdict(inventory)}
    for device, written in zip(inventory.devices, found["devices"], strict=True):
        alone = match((device,), inventory.host, config.catalogue)
        written |= {"tier": alone.tier, "rule": alone.rule}
    return found


def write(found: Json, sheet: "Sheet") -> None:
    """Write what there is on a sheet."""
    tier = found["tier"] or UNKNOWN_TIER
    sheet.title("TAXIMETER HARDWARE", text.safe(tier), "red" if tier == UNKNOWN_TIER else "green")
    host = found["host"]
    architecture = f", {text.safe(host['architecture'])}" if host["architecture"] else ""
    sheet.row("host", f"{text.plural(host['cpus'], 'CPU')}, {text.size(host['memory_bytes'])}{architecture}")
    if found.get("driver_version"):
        sheet.row("driver", f"{text.safe(found['driver_version'])}, NVML {text.safe(found['nvml_version'])}")
    sheet.row("sold as", tier, "bold")
    sheet.row("why", found["rule"])
    for device in found["devices"]:
        _device(device, sheet)
    for at, problem in enumerate(found["problems"]):
        sheet.row("note" if at == 0 else "", problem, "yellow")


def _device(device: Json, sheet: "Sheet") -> None:
    slice_of = f", MIG {text.safe(device['mig_profile'])}" if device.get("mig_profile") else ""
    sheet.section(f"Device {device['index']}: {text.safe(device['name'])}{slice_of}")
    sheet.row("uuid", device["uuid"])
    facts = [text.size(device["memory_bytes"]) if device["memory_bytes"] is not None else "memory unknown"]
    if device.get("pci_device_id"):
        facts.append(f"PCI {text.safe(device['pci_device_id'])}")
    if device.get("compute_capability"):
        facts.append(f"compute {text.safe(device['compute_capability'])}")
    sheet.row("memory", ", ".join(facts))
    if "tier" in device:
        sheet.row("alone", device["tier"], "red" if device["tier"] == UNKNOWN_TIER else "")
        sheet.row("why", device["rule"])
