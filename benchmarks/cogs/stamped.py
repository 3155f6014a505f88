"""The example's predictor with stamps of its own around `setup` and `run`: the truth that cog_times.py compares with.

Cog loads this file. It appends a line of JSON for each to the file that $STAMPS names: name, from, to, both in
nanoseconds of CLOCK_MONOTONIC.
"""

import json
import os
import sys
import time
from pathlib import Path as File

from cog import Input, Path, concurrent, current_scope

sys.path.insert(0, str(File(__file__).parents[2] / "examples" / "cog"))

import predict


def stamp(name: str, began_ns: int) -> None:
    """Keep one."""
    ended_ns = time.monotonic_ns()
    with open(os.environ["STAMPS"], "a", encoding="utf-8") as stamps:
        stamps.write(json.dumps([name, began_ns, ended_ns]) + "\n")


class Runner(predict.Runner):
    """As the example, and timed."""

    def setup(self, weights: str) -> None:
        began_ns = time.monotonic_ns()
        super().setup(weights)
        stamp("setup", began_ns)

    @concurrent(max=4)
    async def run(
        self,
        text: str = Input(default=""),
        document: Path | None = Input(default=None),
        words: int = Input(default=100),
        seed: int = Input(default=0),
    ) -> str:
        began_ns = time.monotonic_ns()
        try:
            return await super().run(text, document, words, seed)
        finally:
            stamp(current_scope().context["prediction"], began_ns)
