"""A door to NVML on a scenario of the stand-in: asked as often as a test likes, closed when it ends."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taximeter.hardware.nvml.door import Door
from taximeter.hardware.nvml.protocol import Reading, Report
from taximeter.hardware.samples import Samples
from tests.nvml_standin import Scenario

PATIENCE_S = 30.0


class Sight:
    """What the agent would see of a scenario."""

    def __init__(self, scenario: Scenario, deadline_s: float = PATIENCE_S) -> None:
        self.scenario = scenario
        self.door = Door(deadline_s)
        self.loop = asyncio.Runner()
        self.reading = Reading(known=False)

    def ask(self) -> Report:
        """One round, which must have an answer."""
        report = self.try_to_ask()
        assert report is not None, self.door.trouble
        return report

    def try_to_ask(self) -> Report | None:
        """One round."""
        report = self.loop.run(self.door.ask())
        if report is not None and report.reading is not None:
            self.reading = report.reading
        return report

    def sample(self) -> Samples:
        """The samples of one round."""
        samples = self.ask().samples
        assert samples is not None
        return samples


@contextmanager
def seen(scenario: Scenario, library: Path, deadline_s: float = PATIENCE_S) -> Iterator[Sight]:
    """A door on a scenario."""
    sight = Sight(scenario, deadline_s)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in scenario.environment(library).items():
            patch.setitem(os.environ, name, value)
        try:
            yield sight
        finally:
            sight.door.close()
            with sight.loop as loop:
                assert loop.run(sight.door.gone(PATIENCE_S)), "a reader outlives its door"
