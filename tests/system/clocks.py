"""A calendar that a test sets as it likes, while all other clocks stay as they are."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.require import require_path, require_program


@dataclass
class Calendar:
    """What CLOCK_REALTIME is for the programs that are started with `environment` (libfaketime)."""

    path: Path
    library: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.path),
            "FAKETIME_NO_CACHE": "1",
            # Else it moves CLOCK_MONOTONIC, CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW as well.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, by_s: int) -> None:
        """Be so many seconds ahead of the machine's own calendar from now on; at once, as a step is."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(f"{by_s:+d}\n")
        fresh.rename(self.path)


def make_calendar(path: Path) -> Calendar:
    """A calendar that agrees with the machine's, until it is set."""
    require_program("faketime")
    library = f"/usr/lib/{os.uname().machine}-linux-gnu/faketime/libfaketime.so.1"
    calendar = Calendar(path, require_path(library, "apt-get install libfaketime"))
    calendar.set(0)
    return calendar
