"""A tree of calls drawn with lines, at the width there is: a call on each line, and columns for what it came to.

Owns where each call stands on paper, and what gives way where there is no room: first the models, then the middle of
ids, then the time. Draws those nearest to the top, and says how many more there are. Refuses to know what it means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from taximeter.cli import text

Json = Mapping[str, Any]

#: So many are drawn; --json lists more of them.
DRAWN_MAX = 40
#: What is less tells no id from another.
_NAME_LEAST = 13
#: With so much, models may have the rest.
_NAME_ENOUGH = 22
_MODEL_LEAST = 8
_GAP = "  "
_NO_COST = {"informative": "by instance", "unrated": "no price", "free": "free"}


@dataclass(frozen=True, slots=True)
class Line:
    """A call, or how many more there are where it stands; what it costs is an amount with its currency, or a word."""

    rails: str
    name: str
    model: str = ""
    status: str = ""
    time: str = ""
    cost: str = ""
    currency: str = ""
    more: str = ""  #: behind the name: how many it called that are not drawn


def drawn(tree: Json) -> tuple[list[Line], list[Line]]:
    """The nodes of a tree, those nearest to its top, and what all of them come to without the first."""
    below = tree["downstream"]
    amounts = list(below["amounts"].items()) or [("", text.NOTHING)]
    calls = _lines(tree["nodes"])
    named, time = f"{below['predictions']:,} downstream", text.duration(below["active_ns"])
    sums = [
        Line("", "" if at else named, time="" if at else time, cost=amount, currency=currency)
        for at, (currency, amount) in enumerate(amounts)
    ]
    lines = _with_currencies([*calls, *sums])
    return lines[: len(calls)], lines[len(calls) :]


def laid_out(calls: Sequence[Line], sums: Sequence[Line], width: int) -> list[Text]:
    """A tree in lines of text, at most `width` wide."""
    columns = Columns.of([*calls, *sums], width)
    return [*map(columns.line, calls), columns.rule(), *map(columns.line, sums)]


def _with_currencies(lines: Sequence[Line]) -> list[Line]:
    """The same with amounts whose points stand below each other, each with its currency."""
    amounts = text.aligned([line.cost if line.currency else "" for line in lines])
    return [
        replace(line, cost=f"{amount} {line.currency}") if line.currency else line
        for line, amount in zip(lines, amounts, strict=True)
    ]


def _lines(nodes: Sequence[Json]) -> list[Line]:
    """Those that are drawn, each below its caller; how many more there are stands where they would."""
    shown = _nearest(nodes)
    below: dict[str | None, list[Json]] = {}
    for node in shown[1:]:
        below.setdefault(node["under"], []).append(node)
    lines: list[Line] = []
    ahead: list[tuple[Json | int, str, str]] = [(shown[0], "", "")]
    while ahead:
        item, rails, inner = ahead.pop()
        if isinstance(item, int):
            lines.append(Line(rails, f"… and {item:,} more"))
            continue
        called = below.get(item["prediction"], [])
        hidden = item["downstream"]["predictions"] - sum(map(_size, called))
        lines.append(_line(item, rails, 0 if called else hidden))
        items: list[Json | int] = [*called, *([hidden] if hidden and called else [])]
        for at in reversed(range(len(items))):
            last = at == len(items) - 1
            ahead.append((items[at], inner + ("└ " if last else "├ "), inner + ("  " if last else "│ ")))
    return lines


def _nearest(nodes: Sequence[Json]) -> list[Json]:
    levels = sorted(range(len(nodes)), key=lambda at: int(nodes[at]["depth"]))
    return [nodes[at] for at in sorted(levels[:DRAWN_MAX])]


def _size(node: Json) -> int:
    return int(node["link"] != "elsewhere") + int(node["downstream"]["predictions"])


def _line(node: Json, rails: str, hidden: int) -> Line:
    more = f" +{hidden:,}" if hidden else ""
    if node["link"] == "elsewhere":
        return Line(rails, text.safe(node["prediction"]), status="elsewhere", more=more)
    name = ("↺ " if node["link"] == "cut" else "") + text.safe(node["prediction"])
    time = text.NOTHING if node["pending"] and not node["active_ns"] else text.duration(node["active_ns"])
    line = Line(
        rails, name, text.safe(node["model"]) if node["model"] else "", text.safe(node["status"]), time, more=more
    )
    if node["amount"] is None:
        return replace(line, cost=_NO_COST.get(str(node["billing"]), text.NOTHING))
    return replace(line, cost=text.safe(node["amount"]), currency=text.safe(node["currency"]))


@dataclass(frozen=True, slots=True)
class Columns:
    """How wide each column is; 0: there is no room for it."""

    name: int
    model: int
    status: int
    time: int
    cost: int

    @classmethod
    def of(cls, lines: Sequence[Line], width: int) -> "Columns":
        """Share out a width."""
        status, time, cost = (
            max(len(cell) for cell in column)
            for column in zip(*((line.status, line.time, line.cost) for line in lines), strict=True)
        )
        room = width - sum(column + len(_GAP) for column in (status, time, cost) if column)
        if room < _NAME_LEAST:
            room, time = room + time + len(_GAP), 0
        names = max(len(line.rails) + cell_len(line.name) + len(line.more) for line in lines)
        model = max(cell_len(line.model) for line in lines)
        if room < names + len(_GAP) + model:
            model = min(model, max(_MODEL_LEAST, room // 3))
        if room < min(names, _NAME_ENOUGH) + len(_GAP) + model:
            model = 0
        return cls(room - (model + len(_GAP) if model else 0), model, status, time, cost)

    def line(self, line: Line) -> Text:
        """Lay out one line."""
        rails = line.rails
        if len(rails) > 4 and len(rails) + min(cell_len(line.name), _NAME_LEAST) + len(line.more) > self.name:
            rails = f"⋮{len(rails) // 2} "  # too deep to be drawn: its level in digits
        name = _fit(line.name, self.name - len(rails) - len(line.more))
        laid = Text.assemble(" ", (rails, "dim"), name, (line.more, "dim"))
        laid.append(" " * (1 + self.name - laid.cell_len))
        for cell, width, style in (
            (_fit(line.model, self.model), self.model, ""),
            (line.status, self.status, text.STATUS_STYLES.get(line.status, "dim")),
        ):
            if width:
                laid.append(_GAP).append(cell + " " * (width - cell_len(cell)), style=style)
        for cell, width in ((line.time, self.time), (line.cost, self.cost)):
            if width:
                laid.append(f"{_GAP}{cell:>{width}}")
        return laid

    def rule(self) -> Text:
        """A line above the sums."""
        before = 1 + sum(column + len(_GAP) for column in (self.name, self.model, self.status) if column)
        rule = Text(" " * (before - len(_GAP)))
        for width in (self.time, self.cost):
            rule.append(_GAP if width else "").append("─" * width, style="dim")
        return rule


def _fit(name: str, width: int) -> str:
    """Shorten a name to so many columns: some characters take two."""
    room = width
    while cell_len(shown := text.shorten(name, room) if name else "") > width and room > 1:
        room -= 1
    return shown
