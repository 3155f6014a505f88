"""The benchmark of timing truth runs whole, on a few naps: tools, agents, the kernel's trace, tables and plot."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.require import lacking, require_program, require_root

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "timing_truth.py"


@pytest.mark.timing
def test_a_quick_run_prints_every_table(taximeter_program: str, tmp_path: Path) -> None:
    require_root()
    require_program("cc", "gcc")
    kept, drawn = tmp_path / "kept.csv", tmp_path / "drawn.svg"
    argv = [sys.executable, BENCHMARK, "--quick", "--csv", kept, "--plot", drawn]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("skipped: "):
        lacking(done.stdout.strip())
    titles = [line for line in done.stdout.splitlines() if line.startswith("###")]
    assert titles == ["### Idle", "### Every core busy", "### The two ends of a record", "### Goals"]
    assert "| Taximeter, pidfd | 4 |" in done.stdout
    again = subprocess.run([sys.executable, BENCHMARK, "--again", kept], capture_output=True, text=True, timeout=110)
    assert again.stdout == done.stdout
    assert drawn.read_text().startswith("<svg")
