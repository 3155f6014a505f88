"""Draws what documentation says of the code from the code: `make docs` rewrites the blocks, a test holds them current.

A block is what stands between `<!-- drawn: NAME -->` and `<!-- end -->`. Owns the drawings; refuses to know anything
that the code does not say.
"""

import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from taximeter import lifecycle
from taximeter.billing.rates import RateCard
from taximeter.observe.metrics import render
from taximeter.observe.snapshot import PriceListView, Snapshot
from taximeter.wrap import helptext

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/concepts.md", "docs/contracts.md")
BLOCK = re.compile(r"(<!-- drawn: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def draw_lifecycle() -> str:
    """The stages of an instance as a Mermaid diagram, a line for each entry of the table."""
    edges: dict[tuple[str, str], list[str]] = {}
    for stage, moves in lifecycle.TABLE.items():
        for happened, after in moves.items():
            if stage != after:
                edges.setdefault((stage, after), []).append(happened)
    lines = ["stateDiagram-v2", "    direction LR", f"    [*] --> {lifecycle.Stage.PENDING}"]
    lines += [f"    {before} --> {after}: {', '.join(inputs)}" for (before, after), inputs in edges.items()]
    lines.append(f"    {lifecycle.Stage.CLOSED} --> [*]")
    return fenced("mermaid", "\n".join(lines))


def draw_phases() -> str:
    """Which stage is timed as which phase."""
    return table(("stage", "timed as"), [(f"`{stage}`", f"`{phase}`") for stage, phase in lifecycle.PHASES.items()])


def draw_metrics() -> str:
    """Every metric family, with its type and help text, as Prometheus is told."""
    card, listed = RateCard("", 0, "", {}, ""), PriceListView("", None, None)
    snapshot = Snapshot("", "", 0, 0, "", ready=True, card=card, price_list=listed)
    text = render(snapshot)[0].decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    rows = [(f"`{name}`", kinds[name], said) for name, said in re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE)]
    return table(("metric", "type", "says"), rows)


def draw_run() -> str:
    """The help text of `taximeter run`."""
    return fenced("text", helptext.TEXT.rstrip())


def draw_classes() -> str:
    """The shipped multipliers: who pays for which phase."""
    classes: Mapping[str, Mapping[str, str]] = shipped("agent.toml")["billing"]["classes"]
    columns = tuple(next(iter(classes.values())))
    return table(("class", *columns), [(f"`{name}`", *(one[key] for key in columns)) for name, one in classes.items()])


def draw_tiers() -> str:
    """The shipped tiers, in the order in which they are tried, with their prices."""
    card = shipped("rates.toml")
    rows = []
    for tier in shipped("tiers.toml")["tier"]:
        price = card["tiers"].get(tier["slug"], "no price: recorded as `unrated`")
        rows.append((f"`{tier['slug']}`", tier["title"], str(tier["count"]), price))
    return table(("tier", "hardware", "devices", f"{card['currency']} per second"), rows)


def shipped(name: str) -> dict:  # type: ignore[type-arg]  # TOML, as it comes
    """One of the shipped defaults."""
    return tomllib.loads((ROOT / "config" / name).read_text(encoding="utf-8"))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fenced(kind: str, text: str) -> str:
    """A fenced block."""
    return f"```{kind}\n{text}\n```"


DRAWINGS: dict[str, Callable[[], str]] = {
    "lifecycle": draw_lifecycle,
    "phases": draw_phases,
    "metrics": draw_metrics,
    "run": draw_run,
    "classes": draw_classes,
    "tiers": draw_tiers,
}


def redrawn(page: str) -> str:
    """A page with every block drawn anew."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{DRAWINGS[block[2]]()}\n\n{block[3]}", page)


def main() -> int:
    """Rewrite the pages."""
    for name in PAGES:
        path = ROOT / name
        path.write_text(redrawn(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
