"""Places instances on the hardware that there is when they start.

Owns the memory of what was worked out. Refuses to know tiers (hardware does), and when devices come and go (devices).
"""

from collections.abc import Callable, Mapping

from taximeter.hardware.inventory import Hardware, Inventory
from taximeter.hardware.tiers import Catalogue, place, place_node

_REMEMBERED = 1024


class Placer:
    """Says what an instance with a given environment runs on; the same environment is worked out once an inventory."""

    def __init__(self, current: Callable[[], Inventory], catalogue: Catalogue) -> None:
        self._current = current
        self.catalogue = catalogue
        self._inventory = current()
        self._whole_node = place_node(self._inventory, catalogue)
        self._placed: dict[tuple[tuple[str, str], ...], Hardware] = {}

    def place(self, visible: Mapping[str, str]) -> Hardware:
        """The hardware of an instance whose environment says `visible` of devices."""
        inventory = self._look()
        key = tuple(sorted(visible.items()))
        found = self._placed.get(key)
        if found is None:
            if len(self._placed) >= _REMEMBERED:
                self._placed.clear()
            found = self._placed[key] = place(inventory, visible, self.catalogue)
        return found

    @property
    def whole_node(self) -> Hardware:
        """The hardware of an instance that is given everything."""
        self._look()
        return self._whole_node

    def _look(self) -> Inventory:
        inventory = self._current()
        if inventory is not self._inventory:
            self._inventory = inventory
            self._placed.clear()
            self._whole_node = place_node(inventory, self.catalogue)
        return inventory
