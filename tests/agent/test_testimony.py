"""What the agent says of a command in its hands: when it certainly lived, by whoever saw that last."""

from types import SimpleNamespace
from typing import Any

import pytest

from taximeter import kernel
from taximeter.agent.keeper import Ended
from taximeter.agent.testimony import lived

SIGN_NS = 50
KEEPERS = Ended("one", 90, None, 70)


@pytest.mark.parametrize(
    ("end", "seen", "alive_ns"),
    [
        (KEEPERS, None, [70]),
        (KEEPERS, kernel.End(80, 0), [80]),
        (KEEPERS, kernel.End(95, 0), [90]),
        (None, kernel.End(80, 0), [80]),
        (Ended("one", 90, None, 50), None, []),
        (None, None, []),
    ],
)
def test_a_command_lived_until_the_kernel_saw_it_end_or_when_the_keeper_last_looked(
    end: Ended | None, seen: kernel.End | None, alive_ns: list[int]
) -> None:
    instance: Any = SimpleNamespace(sign_ns=SIGN_NS)
    assert [sign.at_ns for sign in lived(instance, end, seen)] == alive_ns
