"""What each timer says of a nap, in its own words."""

import random
from typing import Any

import pytest
from timing import meters, naps, slurm, tools
from timing.timers import Reading, Witness


def record(prediction: str, final: bool, start_ns: int, wall_ns: int) -> dict[str, Any]:
    quantity = f"{wall_ns / 1e9:.9f}"
    return {
        "prediction": prediction,
        "final": final,
        "interval": {"start_ns": start_ns, "end_ns": start_ns + wall_ns},
        "time": {"wall_ns": wall_ns},
        "billing": {"lines": [{"unit": "computing_second", "quantity": quantity, "multiplier": "1"}]},
        "timing": {
            "start": {"source": "kernel", "uncertainty_ns": start_ns + 1},
            "end": {"source": "wrapper", "uncertainty_ns": start_ns + 2},
        },
    }


def test_seconds_are_read_exactly() -> None:
    assert [tools.seconds(text) for text in ("0.1\n", "12.000000001", "3")] == [100_000_000, 12_000_000_001, 3 * 10**9]


def test_hyperfine_says_it_in_json() -> None:
    assert tools.of_hyperfine('{"results": [{"times": [0.0105]}]}') == 10_500_000


def test_perf_says_it_in_a_report() -> None:
    assert tools.of_perf(" Performance counter stats\n\n       0.001234567 seconds time elapsed\n\n") == 1_234_567


def test_a_report_of_perf_without_a_time_is_told() -> None:
    with pytest.raises(ValueError, match="expected `seconds time elapsed`"):
        tools.of_perf("Error: no permission")


@pytest.mark.parametrize(("said", "s"), [("00:00:01", 1), ("01:02:03", 3723), ("2-00:00:00", 172_800)])
def test_slurm_says_it_in_whole_seconds(said: str, s: int) -> None:
    assert slurm.parse(f"nap.4|{said}\n") == {"nap.4": Reading(s * 10**9)}


def test_what_slurm_never_says_is_told() -> None:
    with pytest.raises(ValueError, match="expected a job's name"):
        slurm.parse("slurm_load_jobs error")


def test_a_prediction_is_read_from_its_record() -> None:
    found = meters.parse([record("nap.1", True, 5, 1_500_000_000)])
    assert found == {
        "nap.1": Reading(1_500_000_000, 1_500_000_000, Witness(5, "kernel", 6), Witness(1_500_000_005, "wrapper", 7))
    }


def test_records_of_one_prediction_are_added_up() -> None:
    found = meters.parse([record("nap.1", False, 0, 60), record("nap.2", True, 7, 1), record("nap.1", True, 60, 4)])
    assert (found["nap.1"].wall_ns, found["nap.1"].billed_ns) == (64, 64)
    assert (found["nap.1"].start, found["nap.1"].end) == (Witness(0, "kernel", 1), Witness(64, "wrapper", 62))


def test_a_prediction_that_still_runs_is_not_read() -> None:
    assert meters.parse([record("nap.1", False, 0, 60)]) == {}


def test_every_nap_is_planned_idle_first_and_numbered() -> None:
    planned = naps.plan({"a": 2, "b": 1}, [0, 10], random.Random(0))
    assert [nap.number for nap in planned] == list(range(12))
    assert [nap.load for nap in planned] == ["idle"] * 6 + ["loaded"] * 6
    for load in naps.LOADS:
        taken = sorted((nap.tool, nap.ms) for nap in planned if nap.load == load)
        assert taken == [("a", 0), ("a", 0), ("a", 10), ("a", 10), ("b", 0), ("b", 10)]
