"""The soak, for a few seconds, and its verdict on made-up records: it finds what it is there to find."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.require import require_program, require_root
from tests.soak.verdict import MS, SECOND, Truth, judge

ROOT = Path(__file__).parents[2]
RODE = Truth(7, SECOND, frozenset(), is_loose=False, predictions={})


@pytest.mark.system
@pytest.mark.timing
def test_a_short_soak_finds_nothing_lost_and_nothing_twice() -> None:
    require_root()
    require_program("cc", "gcc")
    words = [sys.executable, "-m", "tests.soak", "--seconds", "8", "--seed", "1"]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost, nothing twice" in done.stdout


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"}


def records(share_ns: int, *, final: bool = True, unknown_ns: int = 0) -> list[dict[str, Any]]:
    """What a receiver holds of one one-shot."""
    seen = {"start": {"source": "kernel"}, "end": {"source": "kernel"}}
    labels = {"nap": "7"}
    whole = {"instance": "i", "labels": labels, "time": {"unknown_ns": unknown_ns}, "timing": seen}
    own = {"instance": "i", "labels": labels, "prediction": "nap.7", "final": final, "time": {"share_ns": share_ns}}
    kinds = ("taximeter.usage.instance.v1", whole), ("taximeter.usage.prediction.v1", own)
    return [{"type": kind, "data": data} for kind, data in kinds]


def test_a_true_bill_is_no_fault() -> None:
    assert judge([RODE], records(SECOND)).faults == []


def test_what_is_billed_beyond_the_truth_is_a_fault() -> None:
    assert judge([RODE], records(SECOND + 300 * MS)).faults == [
        "run 7 (unharmed): 1300.000 ms were billed, and it ran for 1000.000 ms"
    ]


def test_what_is_in_no_record_is_a_fault() -> None:
    assert judge([RODE], records(SECOND // 2)).faults == ["run 7 (unharmed): 500.000 ms of 1000.000 are in no record"]


def test_what_is_recorded_as_unknown_is_none() -> None:
    assert judge([RODE], records(SECOND // 2, unknown_ns=SECOND // 2)).faults == []


def test_a_run_that_nobody_booked_is_a_fault() -> None:
    assert judge([RODE], []).faults == ["run 7 (unharmed): nobody booked it"]


def test_a_prediction_that_ended_twice_is_a_fault() -> None:
    twice = [*records(SECOND // 2), *records(SECOND // 2)[1:]]
    assert judge([RODE], twice).faults == ["run 7 (unharmed): a prediction was ended twice"]


def test_a_prediction_that_a_server_finished_and_nobody_booked_is_a_fault() -> None:
    served = replace(RODE, predictions={"nap.7": MS, "other": MS})
    assert judge([served], records(SECOND)).faults == [
        "run 7 (unharmed): it finished ['other'], and nobody booked them"
    ]


def test_small_excess_of_one_run_is_none_and_of_the_hundredth_part_is_a_fault() -> None:
    rides = [replace(RODE, number=number) for number in range(200)]
    held = [
        event for number in range(200) for event in renumbered(records(SECOND + MS if number < 3 else SECOND), number)
    ]
    assert judge(rides, held).faults == ["witness kernel: 1.000 ms billed beyond the truth at p99"]
    assert judge(rides[2:], held).faults == []


def renumbered(events: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    named = {"labels": {"nap": str(number)}, "instance": str(number), "prediction": f"nap.{number}"}
    return [{**event, "data": {**event["data"], **named}} for event in events]
