"""How far off a reported duration is: Taximeter and the tools that people time processes with, against the kernel.

Every tool times the same naps (of 0, 10, 100 and 1000 ms) in one run, in random order, first with the cores idle, then
with every core busy. The truth is the kernel's: from the tracepoint of a nap's exec to that of the SIGCHLD that its end
sends. Prints the tables of docs/timing.md; `--write-docs` puts them there, and the plot beside it.

    python benchmarks/timing_truth.py [--quick] [--csv FILE] [--write-docs]        (root)
"""

import argparse
import re
import sys
from pathlib import Path

from interpreter import describe_kind
from timing import bench, meters, plot, report, samples, tracing

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"(<!-- printed: timing_truth -->\n).*?(<!-- end -->)", re.DOTALL)
DURATIONS_MS, EACH = (0, 10, 100, 1000), 200
QUICK_DURATIONS_MS, QUICK_EACH = (0, 10), 2


def without_witness(found: list[samples.Sample]) -> tuple[list[samples.Sample], str]:
    """Samples without the kernel's row where the kernel told the agent nothing, and a note of it."""
    if any(sample.tool == meters.KERNEL and sample.start_source == "kernel" for sample in found):
        return found, ""
    note = f"{meters.KERNEL} is left out: the agent may not listen to process events here"
    return [sample for sample in found if sample.tool != meters.KERNEL], note


def write_docs(text: str, found: list[samples.Sample]) -> None:
    """Put the tables into the page, and the plot beside it."""
    page = DOCS / "timing.md"
    shown = f"![Size of the error of each tool: idle, and with every core busy](timing.svg)\n\n{text}"
    page.write_text(BLOCK.sub(lambda block: f"{block[1]}\n{shown}\n\n{block[2]}", page.read_text()))
    (DOCS / "timing.svg").write_text(plot.draw(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a few short naps, to see that everything works")
    parser.add_argument("--each", type=int, help=f"naps of every duration under every tool and load (default {EACH})")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="keep every nap here")
    parser.add_argument("--again", type=Path, metavar="FILE", help="no run: print what was kept in this CSV")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the plot here (SVG)")
    parser.add_argument("--write-docs", action="store_true", help="put tables and plot into docs/")
    asked = parser.parse_args()
    if asked.again:
        notes, found = samples.read(asked.again)
    else:
        each = asked.each or (QUICK_EACH if asked.quick else EACH)
        notes = [describe_kind()]
        try:
            said, found = bench.measure(QUICK_DURATIONS_MS if asked.quick else DURATIONS_MS, each)
        except tracing.Unavailable as error:
            print(f"skipped: {error}")
            return 0
        found, missing = without_witness(found)
        notes += [note for note in (*said, missing) if note]
    if asked.csv:
        samples.write(asked.csv, notes, found)
    text = "\n".join(f"- {note}" for note in notes) + "\n\n" + report.write(found)
    print(text)
    if asked.plot:
        asked.plot.write_text(plot.draw(found))
    if asked.write_docs:
        write_docs(text, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
