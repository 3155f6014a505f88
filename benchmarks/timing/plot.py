"""The plot: how far off each tool is, as a hand-drawn SVG.

A row for each tool, a panel for each load; the axis is the error's size, logarithmic. A violin shows where the naps
lie, a dot their median, a bar their p99. Pure: samples in, text out. Refuses to know what is good.
"""

import html
import math
from collections.abc import Iterator, Sequence

from timing.meters import KERNEL, PIDFD
from timing.naps import LOADS
from timing.report import TITLES, by_tool
from timing.samples import Sample, percentile
from timing.tracing import RESOLUTION_NS

WIDTH, LEFT, RIGHT, GAP, TOP, ROW, BOTTOM = 1120, 166, 52, 64, 112, 50, 48
PANEL = (WIDTH - LEFT - RIGHT - GAP) / 2
#: Decades of ns that are drawn, from the trace's resolution on.
LOW, HIGH = 3, 9
BINS_A_DECADE = 12
TICKS = {3: "≤ 1 µs", 4: "10 µs", 5: "0.1 ms", 6: "1 ms", 7: "10 ms", 8: "0.1 s", 9: "1 s"}
#: Okabe and Ito's blue and orange can be told apart with any eyes; what is compared with stays grey.
COLOURS = {KERNEL: "#0072b2", PIDFD: "#d55e00"}
GREY, INK, FAINT = "#8a8f98", "#1f2328", "#d8dce1"
STYLE = f"""<style>
text {{ font: 13px "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; fill: {INK} }}
.title {{ font-size: 19px; font-weight: 600 }}
.panel {{ font-size: 15px; font-weight: 600 }}
.small {{ font-size: 12px; fill: #57606a }}
.ours {{ font-weight: 600 }}
.figure {{ stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round; paint-order: stroke }}
</style>"""


def draw(samples: Sequence[Sample]) -> str:
    """The whole picture."""
    rows = by_tool(samples)
    height = TOP + ROW * len(rows) + BOTTOM
    counts = {len([nap for nap in naps if nap.load == load]) for naps in rows.values() for load in LOADS}
    each = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>How far off a reported duration is, by tool: idle, and with every core busy</title>",
        STYLE,
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(20, 34, "How far off is a reported duration?", "title"),
        text(20, 56, f"Size of the error against the kernel's tracepoints, {each} naps a row. "
             "Violin: all naps; dot: median; bar and figure: p99.", "small"),
    ]  # fmt: skip
    for place, tool in enumerate(rows):
        parts.append(text(LEFT - 14, middle(place) + 5, tool, "ours" if tool in COLOURS else "", "end"))
    for place, load in enumerate(LOADS):
        parts += panel({tool: [nap for nap in naps if nap.load == load] for tool, naps in rows.items()}, load, place)
    parts.append("</svg>\n")
    return "\n".join(parts)


def panel(rows: dict[str, list[Sample]], load: str, place: int) -> Iterator[str]:
    """One load: axis, then rows."""
    left = LEFT + place * (PANEL + GAP)
    bottom = TOP + ROW * len(rows)
    yield text(left, TOP - 22, TITLES[load], "panel")
    for decade, label in TICKS.items():
        x = across(10.0**decade, left)
        yield f'<path d="M{x:.1f} {TOP - 6}V{bottom}" stroke="{FAINT}" stroke-width="1"/>'
        yield text(x, bottom + 20, label, "small", "middle")
    for row, (tool, naps) in enumerate(rows.items()):
        if naps:
            yield from violin([abs(nap.error_ns) for nap in naps], COLOURS.get(tool, GREY), left, middle(row))


def violin(sizes_ns: Sequence[int], colour: str, left: float, y: float) -> Iterator[str]:
    """One row: its shape, its median and its p99."""
    heights = smooth(binned(sizes_ns))
    most = max(heights)
    points = [
        (left + PANEL * place / (len(heights) - 1), ROW * 0.4 * height / most) for place, height in enumerate(heights)
    ]
    upper = [f"{x:.1f} {y - h:.1f}" for x, h in points]
    lower = [f"{x:.1f} {y + h:.1f}" for x, h in reversed(points)]
    yield f'<path d="M{"L".join(upper + lower)}Z" fill="{colour}" fill-opacity="0.35"/>'
    median, p99 = across(percentile(sizes_ns, 50), left), across(percentile(sizes_ns, 99), left)
    yield f'<path d="M{p99:.1f} {y - 13:.1f}v26" stroke="{colour}" stroke-width="3" stroke-linecap="round"/>'
    yield f'<circle cx="{median:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}" stroke="#ffffff" stroke-width="1.5"/>'
    yield text(p99 + 8, y + 5, amount(percentile(sizes_ns, 99)), "figure")


def binned(sizes_ns: Sequence[int]) -> list[float]:
    """How many sizes lie in each bin of the axis; what lies beyond an end is in the last."""
    counts = [0.0] * ((HIGH - LOW) * BINS_A_DECADE + 1)
    for size in sizes_ns:
        counts[round((within(size) - LOW) * BINS_A_DECADE)] += 1
    return counts


def smooth(counts: Sequence[float]) -> list[float]:
    """A bell over the neighbours, so that a shape is seen and not its bins."""
    bell = {shift: math.exp(-(shift**2) / 2) for shift in range(-3, 4)}
    return [
        sum(weight * counts[place + shift] for shift, weight in bell.items() if 0 <= place + shift < len(counts))
        for place in range(len(counts))
    ]


def within(size_ns: float) -> float:
    """The decade of a size, held to the axis."""
    return min(float(HIGH), max(float(LOW), math.log10(max(size_ns, 1))))


def across(size_ns: float, left: float) -> float:
    """Where a size stands in a panel."""
    return left + PANEL * (within(size_ns) - LOW) / (HIGH - LOW)


def middle(row: int) -> float:
    """Where a row stands."""
    return TOP + ROW * (row + 0.5)


def amount(ns: float) -> str:
    """A size as people say it; the trace knows nothing below a microsecond."""
    if ns <= RESOLUTION_NS:
        return TICKS[LOW]
    unit, name = (1e9, "s") if ns >= 1e8 else (1e6, "ms") if ns >= 1e5 else (1e3, "µs")
    value = ns / unit
    return f"{value:.2f} {name}" if value < 0.995 else f"{value:.1f} {name}" if value < 9.95 else f"{value:.0f} {name}"


def text(x: float, y: float, said: str, style: str = "", anchor: str = "start") -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}" text-anchor="{anchor}">{html.escape(said)}</text>'
