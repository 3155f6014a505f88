"""What was used beside time: shared out in whole numbers, and unknown where nobody measured."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.events import Event, FinishMark, Held, Marked, Measured, Options, StartMark, Status, Usage
from taximeter.instance import Peaks
from taximeter.meter import fold, open_instance
from taximeter.records import RecordType
from taximeter.resources import apportion, peaks_until
from taximeter.values import replace
from tests.core.stories import MS, SECOND, Told, beat, book, exited, finish, opened, ready, spawned, start, with_looks

UNKNOWN = {
    "cpu_ns": None,
    "rss_peak_bytes": None,
    "gpu_memory_peak_bytes": None,
    "energy_mj": None,
    "energy_source": None,
}
WORKER, ONE_SHOT = Options(worker=True), Options(prediction="p1")


def measured(at_s: float, energy_mj: int | None = None, **used: Any) -> Measured:
    source = None if energy_mj is None else "counter"
    return Measured(int(at_s * SECOND), energy_mj=energy_mj, energy_source=source, **used)


def tell(options: Options, *events: Event, interim_s: int = 60) -> Told:
    by = book(interim_s * SECOND)
    step = fold(open_instance(opened(options), by), with_looks([spawned(0), ready(0), *events], 999 * SECOND), by)
    return Told(step.instance, list(step.records), [reason for _, reason in step.rejected])


def used(told: Told, at: int = -1, kind: RecordType = RecordType.PREDICTION) -> Any:
    return told.of(kind)[at].data["resources"]


# --- Whole parts ---


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        (10, [1, 1], (5, 5)),
        (10, [1, 1, 1], (4, 3, 3)),
        (1, [1, 2], (0, 1)),
        (7, [0, 0], (4, 3)),
        (0, [3, 4], (0, 0)),
        (5, [0, 9], (0, 5)),
    ],
)
def test_a_whole_number_is_parted_by_the_largest_remainder(
    total: int, weights: list[int], parts: tuple[int, ...]
) -> None:
    assert apportion(total, weights) == parts


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**18), min_size=1, max_size=20))
def test_parts_add_up_and_each_is_right_to_within_one(total: int, weights: list[int]) -> None:
    parts = apportion(total, weights)
    assert sum(parts) == total
    whole = sum(weights)
    assert all(abs(part * whole - total * weight) < whole for part, weight in zip(parts, weights, strict=True) if whole)


# --- Of an instance ---


def test_what_nobody_measured_is_unknown() -> None:
    told = tell(ONE_SHOT, replace(exited(5 * SECOND), usage=Usage()))
    assert used(told) == UNKNOWN


def test_processor_time_and_memory_are_those_of_whoever_saw_more() -> None:
    look = measured(4, cpu_ns=9 * SECOND, rss_peak_bytes=7, gpu_memory_peak_bytes=3)
    told = tell(ONE_SHOT, look, replace(exited(5 * SECOND), usage=Usage(SECOND, 4096)))
    assert used(told) == UNKNOWN | {"cpu_ns": 9 * SECOND, "rss_peak_bytes": 4096, "gpu_memory_peak_bytes": 3}


def test_of_two_of_whom_one_does_not_know_the_other_counts() -> None:
    told = tell(ONE_SHOT, measured(4, cpu_ns=SECOND), replace(exited(5 * SECOND), usage=Usage()))
    assert used(told) == UNKNOWN | {"cpu_ns": SECOND}
    told = tell(ONE_SHOT, measured(4), replace(exited(5 * SECOND), usage=Usage(SECOND, 5)))
    assert used(told) == UNKNOWN | {"cpu_ns": SECOND, "rss_peak_bytes": 5}


def test_energy_of_interim_records_adds_up() -> None:
    looks = [measured(1), measured(50, 700), measured(70, 900), measured(110, 1000)]
    told = tell(ONE_SHOT, *looks, exited(130 * SECOND))
    assert [record.data["resources"]["energy_mj"] for record in told.predictions()] == [700, 300, None]  # type: ignore[index]
    assert [record.data["resources"]["energy_source"] for record in told.predictions()] == ["counter", "counter", None]  # type: ignore[index]


def test_energy_that_is_told_late_is_in_the_next_record() -> None:
    events = [spawned(0), ready(0), measured(1), *[beat(at * SECOND) for at in range(1, 61)], measured(59, 700)]
    by = book()
    step = fold(open_instance(opened(ONE_SHOT), by), [*events, exited(61 * SECOND)], by)
    told = Told(step.instance, list(step.records), [])
    assert [record.data["resources"]["energy_mj"] for record in told.predictions()] == [None, 700]  # type: ignore[index]


def test_energy_of_a_prediction_that_is_told_late_is_in_its_next_record() -> None:
    events = [spawned(0), ready(0), start(0, "a"), measured(1), *[beat(at * SECOND) for at in range(1, 61)]]
    by = book()
    end = [finish(61 * SECOND, "a"), exited(61 * SECOND)]
    step = fold(open_instance(opened(WORKER), by), [*events, measured(59, 580), *end], by)
    told = Told(step.instance, list(step.records), [])
    energies = [record.data["resources"]["energy_mj"] for record in told.predictions()]  # type: ignore[index]
    assert energies[0] is None
    assert energies[1] > 0


def test_processor_time_of_interim_records_adds_up() -> None:
    told = tell(
        ONE_SHOT, measured(50, cpu_ns=30), beat(70 * SECOND, cpu_ns=50), replace(exited(80 * SECOND), usage=Usage())
    )
    assert [record.data["resources"]["cpu_ns"] for record in told.instances()] == [30, 20]  # type: ignore[index]


# --- Of a worker's predictions ---


def test_energy_is_shared_out_over_overlapping_predictions_by_their_shares() -> None:
    told = tell(
        WORKER,
        measured(10),
        start(10 * SECOND, "a"),
        start(15 * SECOND, "b"),
        measured(20, 1000),
        finish(21 * SECOND, "a"),
        finish(21 * SECOND, "b"),
        exited(30 * SECOND),
    )
    assert [record.data["resources"]["energy_mj"] for record in told.predictions()] == [750, 250]  # type: ignore[index]
    assert used(told, kind=RecordType.INSTANCE)["energy_mj"] == 1000


def test_processor_time_is_shared_out_over_overlapping_predictions_by_their_shares() -> None:
    told = tell(
        WORKER,
        measured(10, cpu_ns=5000),
        start(10 * SECOND, "a"),
        start(15 * SECOND, "b"),
        measured(20, cpu_ns=6000),
        finish(21 * SECOND, "a"),
        finish(21 * SECOND, "b"),
        exited(30 * SECOND),
    )
    assert [record.data["resources"]["cpu_ns"] for record in told.predictions()] == [750, 250]  # type: ignore[index]


def test_processor_time_of_a_prediction_that_goes_on_is_that_since_its_last_record() -> None:
    told = tell(
        WORKER,
        start(0, "a"),
        measured(0, cpu_ns=0),
        measured(50, cpu_ns=500),
        measured(100, cpu_ns=1000),
        finish(130 * SECOND, "a"),
        exited(131 * SECOND),
    )
    assert [record.data["resources"]["cpu_ns"] for record in told.predictions()] == [500, 500, None]  # type: ignore[index]


def test_what_is_drawn_while_idle_is_the_instances_alone() -> None:
    told = tell(
        WORKER, measured(0), start(5 * SECOND, "a"), measured(10, 1000), finish(11 * SECOND, "a"), exited(12 * SECOND)
    )
    assert used(told) == UNKNOWN | {"energy_mj": 500, "energy_source": "counter"}


def test_a_prediction_that_ended_between_two_looks_has_no_energy() -> None:
    told = tell(
        WORKER, measured(0), start(SECOND, "a"), finish(2 * SECOND, "a"), measured(10, 1000), exited(12 * SECOND)
    )
    assert used(told) == UNKNOWN


def test_a_prediction_that_goes_on_has_the_energy_since_its_last_record() -> None:
    told = tell(
        WORKER,
        start(0, "a"),
        measured(0),
        measured(50, 500),
        measured(100, 1000),
        finish(130 * SECOND, "a"),
        exited(131 * SECOND),
    )
    assert [record.data["resources"]["energy_mj"] for record in told.predictions()] == [500, 500, None]  # type: ignore[index]


def test_energy_that_is_not_known_leaves_what_is_known() -> None:
    told = tell(
        WORKER, start(0, "a"), measured(0), measured(5, 100), measured(6), finish(7 * SECOND, "a"), exited(8 * SECOND)
    )
    assert used(told)["energy_mj"] == 100


def test_a_first_look_that_knows_an_energy_already_gives_none_of_it_to_a_prediction() -> None:
    told = tell(WORKER, start(0, "a"), measured(5, 100), finish(7 * SECOND, "a"), exited(8 * SECOND))
    assert used(told) == UNKNOWN


# --- Memory while a worker's prediction ran ---


def held(at_s: float, size_bytes: int, *, on_devices: bool = False) -> Held:
    return Held(int(at_s * SECOND), size_bytes, on_devices)


def memory(told: Told, at: int = -1) -> tuple[int | None, int | None]:
    resources = used(told, at)
    return resources["rss_peak_bytes"], resources["gpu_memory_peak_bytes"]


def test_memory_of_a_prediction_is_the_most_that_its_process_held_at_a_look_while_it_ran() -> None:
    looks = [held(1, 900), held(3, 5), held(4, 7, on_devices=True), held(5, 8), held(6, 6), held(9, 1000)]
    told = tell(WORKER, looks[0], start(2 * SECOND, "a"), *looks[1:5], finish(8 * SECOND, "a"), looks[5])
    assert memory(told) == (8, 7)


def test_predictions_that_ran_together_have_the_same_look() -> None:
    told = tell(
        WORKER,
        start(SECOND, "a"),
        start(2 * SECOND, "b"),
        held(3, 5),
        finish(4 * SECOND, "a"),
        held(5, 9),
        finish(6 * SECOND, "b"),
    )
    assert [memory(told, at)[0] for at in (0, 1)] == [5, 9]


def test_a_prediction_between_two_looks_held_nobody_knows_how_much() -> None:
    told = tell(WORKER, held(1, 5), start(2 * SECOND, "a"), finish(3 * SECOND, "a"), held(4, 6))
    assert used(told) == UNKNOWN


def test_a_look_counts_by_when_it_was_taken_not_by_when_it_was_told() -> None:
    said_late = Marked(8 * SECOND, FinishMark("a", Status.SUCCEEDED), said_ns=6 * SECOND)
    told = tell(WORKER, start(SECOND, "a"), held(5, 5), held(7, 9), said_late)
    assert memory(told) == (5, None)
    told = tell(WORKER, held(5, 5), Marked(5 * SECOND + MS, StartMark("a"), said_ns=5 * SECOND - MS), beat(6 * SECOND))
    assert told.instance.predictions[0].start_ns == 5 * SECOND - MS
    assert peaks_until(told.instance, told.instance.predictions[0], 6 * SECOND) == Peaks(5, None)


def test_memory_in_interim_records_is_to_date() -> None:
    events = [start(0, "a"), held(50, 9), held(70, 5), finish(130 * SECOND, "a"), exited(131 * SECOND)]
    assert [memory(tell(WORKER, *events), at)[0] for at in range(3)] == [9, 9, 9]
    events = [start(0, "a"), held(50, 5), held(59, 7), held(61, 9), finish(130 * SECOND, "a"), exited(131 * SECOND)]
    assert [memory(tell(WORKER, *events), at)[0] for at in range(3)] == [7, 9, 9]


def test_memory_of_a_prediction_stands_beside_what_else_is_known_of_it() -> None:
    told = tell(
        WORKER,
        measured(0, cpu_ns=0),
        start(0, "a"),
        measured(5, 100, cpu_ns=50),
        held(5, 7),
        finish(6 * SECOND, "a"),
    )
    assert used(told) == UNKNOWN | {
        "cpu_ns": 50,
        "rss_peak_bytes": 7,
        "energy_mj": 100,
        "energy_source": "counter",
    }


@given(
    st.lists(st.tuples(st.integers(1, 99), st.integers(0, 9), st.booleans()), max_size=12),
    st.lists(st.tuples(st.integers(1, 99), st.integers(1, 50)), min_size=1, max_size=4),
    st.integers(1, 60),
)
def test_memory_is_the_highest_of_the_looks_from_a_predictions_start_to_its_end(
    looks: list[tuple[int, int, bool]], runs: list[tuple[int, int]], interim_s: int
) -> None:
    looks = sorted({at: look for look in looks for at in [look[0]]}.values())
    events: list[Event] = [held(at_s + 0.5, size, on_devices=on_devices) for at_s, size, on_devices in looks]
    for number, (at_s, length_s) in enumerate(runs):
        events += [start(at_s * SECOND, f"p{number}"), finish((at_s + length_s) * SECOND, f"p{number}")]
    told = tell(WORKER, *sorted(events, key=lambda event: event.at_ns or 0), exited(200 * SECOND), interim_s=interim_s)
    finals = {record.prediction: record for record in told.predictions() if record.data["final"]}
    for number, (at_s, length_s) in enumerate(runs):
        resources: Any = finals[f"p{number}"].data["resources"]
        for name, kind in (("rss_peak_bytes", False), ("gpu_memory_peak_bytes", True)):
            seen = [size for at, size, on_devices in looks if on_devices is kind and at_s <= at < at_s + length_s]
            assert resources[name] == max(seen, default=None)


# --- Laws ---


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 10**6)), min_size=1, max_size=6), st.integers(1, 90))
def test_predictions_never_draw_more_than_their_instance(looks: list[tuple[int, int]], interim_s: int) -> None:
    events: list[Event] = [measured(0)]
    at_s, energy_mj = 0.0, 0
    for number, (tenths, grown_mj) in enumerate(looks):
        at_s, energy_mj = at_s + tenths / 10, energy_mj + grown_mj
        events += [start(int(at_s * SECOND), f"p{number}"), measured(at_s, energy_mj)]
        if number % 2:
            events.append(finish(int(at_s * SECOND), f"p{number - 1}"))
    told = tell(WORKER, *events, exited(int(at_s * SECOND) + SECOND), interim_s=interim_s)
    drawn = [record.data["resources"]["energy_mj"] or 0 for record in told.predictions()]  # type: ignore[index]
    own = [record.data["resources"]["energy_mj"] or 0 for record in told.instances()]  # type: ignore[index]
    assert min(drawn) >= 0
    assert sum(drawn) <= sum(own) <= energy_mj
