"""Reads the hardware once, and places instances on it.

Owns the agent's copy of the inventory. Refuses to know tiers and NVML (hardware does).
"""

from collections.abc import Mapping

from taximeter.config.model import HardwareSettings
from taximeter.hardware.host import read_host
from taximeter.hardware.inventory import Hardware, Inventory
from taximeter.hardware.nvml import OFF, read_devices
from taximeter.hardware.tiers import Catalogue, place, place_node

_REMEMBERED = 1024


async def read_inventory(settings: HardwareSettings) -> Inventory:
    """Host and devices, as far as they tell within the deadline."""
    host = read_host()
    reading = await read_devices(settings.deadline_s) if settings.nvml else OFF
    return reading.inventory(host)


class Placer:
    """Says what an instance with a given environment runs on; the same environment is worked out once."""

    def __init__(self, inventory: Inventory, catalogue: Catalogue) -> None:
        self._inventory = inventory
        self._catalogue = catalogue
        self._placed: dict[tuple[tuple[str, str], ...], Hardware] = {}
        self.whole_node = place_node(inventory, catalogue)

    def place(self, visible: Mapping[str, str]) -> Hardware:
        """The hardware of an instance whose environment says `visible` of devices."""
        key = tuple(sorted(visible.items()))
        found = self._placed.get(key)
        if found is None:
            if len(self._placed) >= _REMEMBERED:
                self._placed.clear()
            found = self._placed[key] = place(self._inventory, visible, self._catalogue)
        return found
