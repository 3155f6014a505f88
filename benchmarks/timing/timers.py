"""What every timer has in common: it starts a nap, and says later how long that took."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Witness:
    """One end of a record of Taximeter's: when, who saw it, and how far off that may be."""

    at_ns: int
    source: str
    stated_ns: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What was said of a nap; all but the duration only by Taximeter."""

    wall_ns: int
    billed_ns: int | None = None
    start: Witness | None = None
    end: Witness | None = None


class Timer(Protocol):
    """Something that says how long a process ran."""

    @property
    def name(self) -> str: ...

    @property
    def environment(self) -> dict[str, str]:
        """What it is started with."""

    def running(self) -> AbstractContextManager[None]:
        """What it needs beside itself, for as long as naps are taken and read."""

    def words(self, nap: Path, ms: int) -> list[str]:
        """How it is asked to time a nap."""

    def readings(self, naps: Sequence[Path]) -> Mapping[str, Reading]:
        """What it says of those naps, by the path's last part."""


class Missing(Exception):
    """A timer cannot be had here; the text says what would help."""
