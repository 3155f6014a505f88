"""What the samples come to: tables of errors, and the goals, met or not. Pure: samples in, Markdown out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from timing.meters import KERNEL, PIDFD
from timing.naps import IDLE, LOADED
from timing.samples import End, Sample, percentile
from timing.tracing import RESOLUTION_NS

TITLES = {IDLE: "Idle", LOADED: "Every core busy"}
MEDIAN_GOAL_MS, P99_GOAL_MS, TIGHTER_GOAL = 0.05, 0.1, 20
PEER, LOOSER = "hyperfine -N", ("hyperfine -N", "bash time", "Python subprocess")
#: Promise P3: what is billed may exceed the truth by so much, at p99.
BILL_GOALS_MS = {KERNEL: 0.1, PIDFD: 10.0}


@dataclass(frozen=True, slots=True)
class Goal:
    """One promise, and what came of it."""

    said: str
    measured: str
    met: bool


def write(samples: Sequence[Sample]) -> str:
    """Everything, as Markdown."""
    parts: list[str] = []
    for load, title in TITLES.items():
        half = [sample for sample in samples if sample.load == load]
        parts += [f"### {title}", errors(half), by_duration(half)]
    parts += ["### The two ends of a record", ends(samples)]
    parts += ["### Goals", table(("goal", "measured", ""), ((g.said, g.measured, verdict(g)) for g in goals(samples)))]
    return "\n\n".join(parts)


def errors(samples: Sequence[Sample]) -> str:
    """A row for each tool: all durations together."""
    rows = []
    for tool, naps in by_tool(samples).items():
        off = [nap.error_ns for nap in naps]
        over = sum(ns > 0 for ns in off) / len(off)
        three = (signed(percentile(off, percent)) for percent in (50, 1, 99))
        rows.append((tool, str(len(naps)), *three, f"{over:.0%}", f"{ms(away(naps, 99)):.3f}"))
    return table(("error in ms of", "naps", "median", "p1", "p99", "too long", "p99 of its size"), rows)


def by_duration(samples: Sequence[Sample]) -> str:
    """A row for each tool, a column for each duration."""
    durations = sorted({sample.ms for sample in samples})
    rows = (
        (tool, *(spread([nap.error_ns for nap in naps if nap.ms == duration]) for duration in durations))
        for tool, naps in by_tool(samples).items()
    )
    return table(("median (p1 … p99)", *(f"naps of {duration} ms" for duration in durations)), rows)


def ends(samples: Sequence[Sample]) -> str:
    """Where Taximeter's own error comes from, and whether what a record states of it holds."""
    found: dict[tuple[str, str, str, str], list[End]] = {}
    for sample in samples:
        for end in sample.ends:
            found.setdefault((TITLES[sample.load], sample.tool, end.name, end.source), []).append(end)
    rows = (
        (
            *key,
            spread([end.late_ns for end in several]),
            f"{ms(percentile([end.stated_ns for end in several], 50)):.3f}",
            f"{sum(end.holds for end in several) / len(several):.1%}",
        )
        for key, several in sorted(found.items(), key=lambda item: (item[0][0] != TITLES[IDLE], item[0][1]))
    )
    head = ("", "record of", "its", "seen by", "late by ms: median (p1 … p99)", "stated, median", "held by")
    return table(head, rows)


def goals(samples: Sequence[Sample]) -> list[Goal]:
    """Every goal whose rows are there, idle and loaded."""
    found: list[Goal] = []
    for load, title in TITLES.items():
        rows = by_tool([sample for sample in samples if sample.load == load])
        found += [Goal(f"{title}: {goal.said}", goal.measured, goal.met) for goal in _goals(rows, load)]
    return found


def _goals(rows: dict[str, list[Sample]], load: str) -> Iterator[Goal]:
    if KERNEL in rows:
        median, p99 = (ms(away(rows[KERNEL], percent)) for percent in (50, 99))
        yield Goal(
            f"{KERNEL}: off by at most {MEDIAN_GOAL_MS} ms at the median, {P99_GOAL_MS} ms at p99",
            f"{median:.3f} ms, {p99:.3f} ms",
            median <= MEDIAN_GOAL_MS and p99 <= P99_GOAL_MS,
        )
        for tool in LOOSER:
            if load == LOADED and tool in rows:
                times = away(rows[tool], 99) / max(away(rows[KERNEL], 99), RESOLUTION_NS)
                said = f"{KERNEL}: at p99 at least {TIGHTER_GOAL} × tighter than {tool}"
                yield Goal(said, f"{times:,.0f} ×", times >= TIGHTER_GOAL)
    if PIDFD in rows and PEER in rows:
        mine, its = ([ms(away(rows[tool], percent)) for percent in (50, 99)] for tool in (PIDFD, PEER))
        yield Goal(
            f"{PIDFD}: no farther off than {PEER}, at the median and at p99",
            f"{mine[0]:.3f} and {mine[1]:.3f} ms against {its[0]:.3f} and {its[1]:.3f} ms",
            mine[0] <= its[0] and mine[1] <= its[1],
        )
    for tool, most_ms in BILL_GOALS_MS.items():
        over = [nap.overbilled_ns for nap in rows.get(tool, []) if nap.overbilled_ns is not None]
        if over:
            p99 = ms(percentile(over, 99))
            said = f"{tool}: what is billed exceeds the truth by at most {most_ms:g} ms at p99"
            yield Goal(said, f"{signed(percentile(over, 99))} ms", p99 <= most_ms)


def by_tool(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Samples of each tool, in the order in which tools first come."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.tool, []).append(sample)
    return found


def away(naps: Iterable[Sample], percent: float) -> float:
    """A percentile of the size of the error, in ns."""
    return percentile([abs(nap.error_ns) for nap in naps], percent)


def ms(ns: float) -> float:
    """Milliseconds."""
    return ns / 1e6


def spread(values_ns: Sequence[int]) -> str:
    """Median and tails in a cell."""
    median, low, high = (signed(percentile(values_ns, percent)) for percent in (50, 1, 99))
    return f"{median} ({low} … {high})"


def signed(ns: float) -> str:
    """An error in milliseconds; nothing is not less than nothing."""
    return f"{round(ms(ns), 3) + 0.0:+.3f}"


def verdict(goal: Goal) -> str:
    """The last cell of a goal's row."""
    return "met" if goal.met else "**not met**"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table: words to the left, figures to the right."""
    lines = [head, ["---" if place == 0 else "---:" for place in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
