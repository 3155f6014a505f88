"""A sheet of paper: titles, labelled rows, sections, leaders and tables, at the width there is.

Owns layout and printing, in colour where there is a terminal and plain where there is none. All text goes
through `text.safe` and none of it is read as markup. Refuses to know what it shows.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from taximeter.cli.text import portions, safe, short_hash

if TYPE_CHECKING:
    from taximeter.cli.branches import Line
    from taximeter.cli.ride import Part

_LABEL = 12
_NARROWEST, _WIDEST = 60, 100


def console() -> Console:
    """Return a console for stdout that interprets nothing."""
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True)


def print_lines(lines: Iterable[Text], screen: Console) -> None:
    """Print lines, in colour on a terminal; written by hand, since rich ends with a traceback or 1 on a broken pipe."""
    with screen.capture() as captured:
        for line in lines:
            line.rstrip()
            screen.print(line)
    sys.stdout.write(captured.get())


class Sheet:
    """Lines of one width, written from top to bottom, then printed at once."""

    def __init__(self, width: int | None = None) -> None:
        self._console = console()
        self.width = max(_NARROWEST, min(width or self._console.width, _WIDEST))
        self.lines: list[Text] = []

    def title(self, left: str, right: str = "", style: str = "") -> None:
        """Head the sheet: a name, and in which state it is."""
        gap = self.width - 1 - cell_len(left) - cell_len(right)
        self._line((f" {left}", "bold"), (" " * max(1, gap), ""), (right, f"bold {style}"))
        self._line((" " + "═" * (self.width - 1), "dim"))

    def section(self, name: str) -> None:
        """Begin a part."""
        self.blank()
        self._line((" ── ", "dim"), (name, "bold"), (" " + "─" * (self.width - 5 - cell_len(name)), "dim"))

    def row(self, label: str, value: object, style: str = "") -> None:
        """Write `label   value`, a long value over several lines."""
        text = value if isinstance(value, Text) else Text(safe(value), style=style)
        for at, part in enumerate(text.wrap(self._console, self.width - _LABEL - 1, overflow="fold")):
            first = f"{label} " if len(label) >= _LABEL else label  # a record's number may be long
            self.lines.append(Text.assemble((f" {first if at == 0 else '':<{_LABEL}}", "dim"), part))

    def flow(self, label: str, items: Iterable[Text], gap: int = 3) -> None:
        """Write items side by side, on as many lines as they need; none of them is broken."""
        lines: list[Text] = []
        for item in items:
            if not lines or lines[-1].cell_len + gap + item.cell_len > self.width - _LABEL - 1:
                lines.append(Text())
            lines[-1].append(" " * gap if lines[-1] else "").append_text(item)
        for at, line in enumerate(lines):
            self.row(label if at == 0 else "", line)

    def bar(self, label: str, parts: "Sequence[Part]") -> None:
        """Draw parts side by side, each as wide as it was long, and name them below."""
        cells = portions({part.name: part.ns for part in parts}, self.width - _LABEL - 1)
        if not cells:
            return
        bar = Text()
        for part in parts:
            bar.append(part.glyph * cells[part.name], style=part.style)
        self.row(label, bar)
        self.flow("", [Text.assemble((part.glyph, part.style), f" {part.name} {part.share}") for part in parts])

    def tree(self, calls: "Sequence[Line]", sums: "Sequence[Line]") -> None:
        """Draw calls below their callers, and what they come to."""
        from taximeter.cli.branches import laid_out  # noqa: PLC0415 - only where there is a tree

        self.lines += laid_out(calls, sums, self.width - 1)

    def leader(self, label: str, left: str, right: str, style: str = "") -> None:
        """Write `label   left ········ right`; what does not fit on one line takes two."""
        label = f"{label:<{_LABEL}}" if cell_len(label) < _LABEL else f"{label} "
        start, room = 1 + cell_len(label) + cell_len(left), self.width - cell_len(right)
        head = ((f" {label}", "dim"), (left, ""))
        if room - start < 4:
            self._line(*head)
            start, head = _LABEL + 1, ((" " * (_LABEL + 1), ""), ("", ""))
        self._line(*head, (" " + "·" * (room - start - 2) + " ", "dim"), (right, style))

    def total(self, label: str, right: str) -> None:
        """Write what it comes to, below a double line."""
        span = max(cell_len(right), 14)
        self._line((" " * (self.width - span) + "═" * span, "dim"))
        gap = self.width - 1 - cell_len(label) - cell_len(right)
        self._line((f" {label}{' ' * gap}{right}", "bold"))

    def _line(self, *parts: tuple[str, str]) -> None:
        self.lines.append(Text.assemble(*parts))

    def blank(self) -> None:
        """Leave a line free."""
        self.lines.append(Text())

    def close_up(self) -> None:
        """Take back a blank line, if one is the last."""
        if self.lines and not self.lines[-1].plain:
            self.lines.pop()

    @staticmethod
    def hash(value: object) -> str:
        """A hash as there is room for it."""
        return short_hash(value)

    def show(self) -> None:
        """Print the sheet."""
        print_lines(self.lines, self._console)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; the columns with the lowest `rank` stay when there is no room for all."""

    name: str
    cells: tuple[str, ...]
    rank: int = 0
    right: bool = False
    styles: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Return how wide its widest cell is."""
        return max(cell_len(text) for text in (self.name, *self.cells))


def table(columns: Sequence[Column], width: int) -> list[Text]:
    """Lay out as many columns as there is room for, in their order; no cell is ever cut."""
    fitting: list[Column] = []
    for column in sorted(columns, key=lambda column: column.rank):
        if fitting and sum(other.width + 2 for other in fitting) + column.width > width:
            break
        fitting.append(column)
    shown = [column for column in columns if column in fitting]
    rows = max((len(column.cells) for column in shown), default=0)
    lines = [Text("  ").join(_cell(column, column.name, "bold") for column in shown)]
    for at in range(rows):
        cells = [_cell(column, column.cells[at], column.styles[at] if column.styles else "") for column in shown]
        lines.append(Text("  ").join(cells))
    return lines


def _cell(column: Column, content: str, style: str) -> Text:
    pad = " " * (column.width - cell_len(content))
    return Text(pad).append(content, style=style) if column.right else Text("").append(content, style=style).append(pad)


def print_json(value: Any) -> None:
    """Print a value as JSON for programs, in which no character can command a terminal."""
    written = json.dumps(value, indent=2, ensure_ascii=False)
    sys.stdout.write(harmless(written) + "\n")


def harmless(written: str) -> str:
    r"""Return the same JSON with what a terminal might obey as `\u` escapes."""
    if written.isascii() and "\x7f" not in written:
        return written
    return "".join(
        char if char.isprintable() or char in "\n\t" else json.dumps(char)[1:-1].replace("\x7f", "\\u007f")
        for char in written
    )
