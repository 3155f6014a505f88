"""What was measured, a line for each nap: the truth beside what a tool said. And how it is kept in a CSV, and counted.

Pure, but for the file. Refuses to know how anything was measured.
"""

import csv
import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class End:
    """One end of a record of Taximeter's."""

    name: str  #: "start" or "end"
    source: str  #: who saw it
    late_ns: int  #: after the truth
    stated_ns: int  #: how far off it may be, as the record states

    @property
    def holds(self) -> bool:
        """Whether it was no farther off than was stated."""
        return abs(self.late_ns) <= self.stated_ns


@dataclass(frozen=True, slots=True)
class Sample:
    """One nap under one tool. What only Taximeter says is None for the others."""

    load: str
    tool: str
    ms: int
    exec_ns: int
    end_ns: int
    said_ns: int
    billed_ns: int | None = None
    start_ns: int | None = None
    start_source: str | None = None
    start_stated_ns: int | None = None
    stop_ns: int | None = None
    stop_source: str | None = None
    stop_stated_ns: int | None = None

    @property
    def error_ns(self) -> int:
        """By how much the tool said too much."""
        return self.said_ns - (self.end_ns - self.exec_ns)

    @property
    def overbilled_ns(self) -> int | None:
        """By how much the bill says too much."""
        return None if self.billed_ns is None else self.billed_ns - (self.end_ns - self.exec_ns)

    @property
    def ends(self) -> list[End]:
        """Both ends of Taximeter's record; of other tools nothing is known but the duration."""
        found: list[End] = []
        if self.start_ns is not None and self.start_source is not None and self.start_stated_ns is not None:
            found.append(End("start", self.start_source, self.start_ns - self.exec_ns, self.start_stated_ns))
        if self.stop_ns is not None and self.stop_source is not None and self.stop_stated_ns is not None:
            found.append(End("end", self.stop_source, self.stop_ns - self.end_ns, self.stop_stated_ns))
        return found


COLUMNS = tuple(field.name for field in dataclasses.fields(Sample))
_WORDS = {"load", "tool", "start_source", "stop_source"}


def write(path: Path, notes: Iterable[str], samples: Iterable[Sample]) -> None:
    """Keep samples as a CSV, below what is to be said of their run."""
    with path.open("w", newline="", encoding="utf-8") as file:
        file.writelines(f"# {note}\n" for note in notes)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(dataclasses.astuple(sample) for sample in samples)


def read(path: Path) -> tuple[list[str], list[Sample]]:
    """What was kept: notes, and samples."""
    lines = path.read_text(encoding="utf-8").splitlines()
    notes = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
    rows = csv.DictReader(lines[len(notes) :])
    return notes, [Sample(**{name: _value(name, text) for name, text in row.items()}) for row in rows]


def _value(name: str, text: str) -> Any:
    if text == "":
        return None
    return text if name in _WORDS else int(text)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that so many percent of them do not exceed: one that was measured, none between."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
