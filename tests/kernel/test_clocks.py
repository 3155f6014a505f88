"""The clocks that this process has, and what the kernel thinks of its calendar."""

from pathlib import Path

import pytest

from taximeter import kernel
from taximeter.events import TimeOffsets
from taximeter.kernel.clocks import error_of

MS = 1_000_000


def test_the_clocks_are_read_together() -> None:
    clock = kernel.read_clock()
    assert clock.boottime >= clock.monotonic
    assert clock.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_reading_says_how_long_it_took() -> None:
    before, after = kernel.read_clock(), kernel.read_clock()
    assert 0 < before.took_ns <= after.monotonic - before.monotonic


def test_the_kernel_answers_how_far_off_its_calendar_may_be() -> None:
    error_ns = kernel.utc_error_ns()
    assert error_ns is None or error_ns > 0


@pytest.mark.parametrize(
    ("answer", "status", "error_ns"),
    [
        pytest.param(0, 0x2001, 7 * MS, id="in step"),
        pytest.param(1, 0x2011, 7 * MS, id="a leap second is due"),
        pytest.param(5, 0x0040, None, id="nobody keeps it in step"),
        pytest.param(0, 0x0041, None, id="not kept in step any more"),
        pytest.param(-1, 0, None, id="not to be asked"),
    ],
)
def test_the_error_counts_only_while_something_keeps_the_clock_in_step(
    answer: int, status: int, error_ns: int | None
) -> None:
    assert error_of(answer, status, 7_000) == error_ns


def test_our_clocks_are_ahead_of_the_machines_by_nothing_or_by_known_offsets() -> None:
    offsets = kernel.time_offsets()
    assert isinstance(offsets.monotonic, int)


def test_offsets_are_seconds_and_nanoseconds(tmp_path: Path) -> None:
    path = tmp_path / "timens_offsets"
    path.write_text("monotonic      172800         5\nboottime          -60 500000000\n")
    assert kernel.time_offsets(path) == TimeOffsets(172_800_000_000_005, -59_500_000_000)


def test_a_kernel_without_time_namespaces_has_no_offsets(tmp_path: Path) -> None:
    assert kernel.time_offsets(tmp_path / "missing") == TimeOffsets()
