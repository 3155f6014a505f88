"""What samples come to: percentiles, tables, goals and the plot."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import timing_truth
from timing import plot, report, samples
from timing.meters import KERNEL, PIDFD
from timing.samples import Sample

MS = 1_000_000


def naps(tool: str, *errors_ns: int, load: str = "idle", billed_ns: int | None = None) -> list[Sample]:
    """Naps of 10 ms that a tool got wrong by so much."""
    billed = None if billed_ns is None else 10 * MS + billed_ns
    return [Sample(load, tool, 10, 1000, 1000 + 10 * MS, 10 * MS + error, billed) for error in errors_ns]


def met(*groups: list[Sample]) -> dict[str, bool]:
    return {goal.said: goal.met for goal in report.goals([sample for group in groups for sample in group])}


@pytest.mark.parametrize(("percent", "value"), [(1, 2), (50, 100), (99, 198), (100, 200)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: int) -> None:
    assert samples.percentile(range(200, 0, -1), percent) == value


def test_the_percentile_of_one_value_is_that_value() -> None:
    assert [samples.percentile([7], percent) for percent in (1, 50, 99)] == [7, 7, 7]


def test_samples_are_kept_whole(tmp_path: Path) -> None:
    kept = [Sample("idle", KERNEL, 10, 1, 2, 3, 4, 5, "kernel", 6, 7, "wrapper", 8), *naps("bash time", -5)]
    samples.write(tmp_path / "kept.csv", ["a machine, two cores"], kept)
    assert samples.read(tmp_path / "kept.csv") == (["a machine, two cores"], kept)


def test_an_end_holds_where_it_is_no_farther_off_than_it_says() -> None:
    sample = Sample("idle", KERNEL, 10, 100, 200, 90, 90, 105, "kernel", 5, 194, "kernel", 5)
    assert [(end.name, end.late_ns, end.holds) for end in sample.ends] == [("start", 5, True), ("end", -6, False)]


def test_only_taximeter_tells_its_ends() -> None:
    assert naps("bash time", 5)[0].ends == []


def test_the_kernels_row_is_held_to_the_size_of_its_error() -> None:
    said = f"Idle: {KERNEL}: off by at most 0.05 ms at the median, 0.1 ms at p99"
    assert met(naps(KERNEL, -50_000, 50_000, 100_000)) == {said: True}
    assert met(naps(KERNEL, -50_001, -50_001, 0)) == {said: False}
    assert met(naps(KERNEL, 0, 0, -100_001)) == {said: False}


@pytest.mark.parametrize(("error_ns", "expected"), [(200_000, True), (199_999, False)])
def test_others_must_be_twenty_times_as_far_off_under_load(error_ns: int, expected: bool) -> None:
    found = met(naps(KERNEL, 10_000, load="loaded"), naps("bash time", error_ns, load="loaded"))
    assert found[f"Every core busy: {KERNEL}: at p99 at least 20 × tighter than bash time"] is expected


def test_nobody_is_tighter_than_the_trace_is_fine() -> None:
    found = [*naps(KERNEL, 0, load="loaded"), *naps("bash time", 200_000, load="loaded")]
    assert [goal.measured for goal in report.goals(found) if "tighter" in goal.said] == ["200 ×"]


def test_an_error_of_nothing_has_no_minus() -> None:
    assert report.spread([-400, 400, -1000]) == "+0.000 (-0.001 … +0.000)"


def test_how_much_tighter_is_no_goal_where_cores_are_idle() -> None:
    assert not [said for said in met(naps(KERNEL, 1), naps("bash time", 1)) if "tighter" in said]


@pytest.mark.parametrize(("errors_ns", "expected"), [((-2, 2, 9), True), ((-3, 3, 9), False), ((2, 2, 10), False)])
def test_pidfds_are_held_to_hyperfine(errors_ns: tuple[int, ...], expected: bool) -> None:
    found = met(naps(PIDFD, *errors_ns), naps("hyperfine -N", 2, 2, 9))
    assert found == {f"Idle: {PIDFD}: no farther off than hyperfine -N, at the median and at p99": expected}


@pytest.mark.parametrize(("tool", "most_ns"), [(KERNEL, 100_000), (PIDFD, 10 * MS)])
def test_a_bill_may_not_exceed_the_truth_by_more_than_is_promised(tool: str, most_ns: int) -> None:
    for over_ns, expected in ((most_ns, True), (most_ns + 1, False), (-most_ns * 9, True)):
        found = met(naps(tool, 0, billed_ns=over_ns))
        assert [kept for said, kept in found.items() if "billed" in said] == [expected]


def test_what_was_not_measured_is_no_goal() -> None:
    assert met(naps("bash time", 5), naps("perf stat", 5, load="loaded")) == {}


def test_a_table_says_median_tails_and_how_often_too_long() -> None:
    row = report.errors(naps("bash time", -1_500_000, 250_000, 750_000, 2_000_000)).splitlines()[-1]
    assert row == "| bash time | 4 | +0.250 | -1.500 | +2.000 | 75% | 2.000 |"


def test_durations_have_columns_of_their_own() -> None:
    table = report.by_duration([*naps("bash time", 1000), Sample("idle", "bash time", 0, 0, 5000, 4000)])
    assert table.splitlines()[0] == "| median (p1 … p99) | naps of 0 ms | naps of 10 ms |"
    assert table.splitlines()[-1] == "| bash time | -0.001 (-0.001 … -0.001) | +0.001 (+0.001 … +0.001) |"


def drawn(found: list[Sample]) -> ET.Element:
    return ET.fromstring(plot.draw(found))


def test_the_plot_names_every_tool_once_and_its_p99_in_either_panel() -> None:
    found = naps(KERNEL, 20_000) + naps(KERNEL, 30_000, load="loaded") + naps("<tool>", 2 * MS) + naps("a&b", 10**9)
    said = [text.text for text in drawn(found).iter("{http://www.w3.org/2000/svg}text")]
    assert [said.count(name) for name in (KERNEL, "<tool>", "a&b")] == [1, 1, 1]
    assert {"20 µs", "30 µs", "2.0 ms", "1.0 s"} <= set(said)


def test_the_plot_claims_nothing_finer_than_the_trace_is() -> None:
    assert [plot.amount(ns) for ns in (1, 1000, 1060)] == ["≤ 1 µs", "≤ 1 µs", "1.1 µs"]


def test_errors_beyond_the_axis_are_drawn_at_its_end() -> None:
    circles = drawn(naps("exact", 0) + naps("lost", 10**13)).iter("{http://www.w3.org/2000/svg}circle")
    assert [float(circle.get("cx", "")) for circle in circles] == [plot.LEFT, plot.LEFT + plot.PANEL]


def test_the_page_has_a_place_for_what_is_printed() -> None:
    assert len(timing_truth.BLOCK.findall((timing_truth.DOCS / "timing.md").read_text())) == 1
