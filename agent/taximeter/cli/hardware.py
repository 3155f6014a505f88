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
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell every rule that was tried, and what it missed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Show the devices here, their tier, and why.

    Exits 1 where the tier is unknown.
    """
    source = Source(os.environ) if config is None else None
    found = source.devices() if source else None
    why = source.explained() if source and found and explain else None
    if found is None:
        found, why = _look(config, explain=explain)
    if why is not None:
        found = found | {"explained": why}
    from taximeter.cli.sheet import Sheet, print_json  # noqa: PLC0415 - rich, only where something is shown

    if as_json:
        print_json(found)
    else:
        sheet = Sheet()
        write(found, sheet)
        sheet.show()
    return 1 if found["tier"] in (None, UNKNOWN_TIER) else 0


def _look(config_path: Path | None, *, explain: bool) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Look at this machine as the agent would; also, if asked for, at every rule."""
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
    if not explain:
        return found, None
    from taximeter.observe.explained import explained  # noqa: PLC0415

    return found, explained(inventory, config.catalogue)


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
    if "explained" in found:
        _explained(found["explained"], sheet)


def _explained(why: Json, sheet: "Sheet") -> None:
    """Write every rule and what it missed: for the node, each device by itself, each instance."""
    _tried("The node", why["node"], sheet)
    for device in why["devices"]:
        _tried(f"{text.safe(device['uuid'])} alone", device, sheet)
    for instance in why["instances"]:
        _tried(f"Instance {text.safe(instance['instance'])}", instance, sheet)


def _tried(what: str, item: Json, sheet: "Sheet") -> None:
    sheet.section(f"{what}: {text.safe(item['tier'])}")
    if "evidence" in item:
        named, seen = (", ".join(item[name]) or "none" for name in ("declared", "observed"))
        sheet.row("evidence", f"{item['evidence']}; declared {named}; seen on {seen}")
        if item["shared_devices"]:
            sheet.row("shared", ", ".join(item["shared_devices"]))
    sheet.row("why", item["rule"])
    for trial in item["trials"]:
        missed = "; ".join(trial["misses"]) or "fits"
        sheet.row(f"rule {trial['number']}", f"{trial['tier']}: {missed}", "" if trial["misses"] else "green")


def _device(device: Json, sheet: "Sheet") -> None:
    slice_of = f", MIG {text.safe(device['mig_profile'])}" if device.get("mig_profile") else ""
    lost = ", lost" if device.get("lost") else ""
    sheet.section(f"Device {device['index']}: {text.safe(device['name'])}{slice_of}{lost}")
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
