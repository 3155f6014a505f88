"""How values look to people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.cli import text
from taximeter.cli.sheet import Sheet


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (None, "–"),
        (0, "0 ns"),
        (999, "999 ns"),
        (38_000, "38 µs"),
        (999_600, "1 ms"),
        (412_000_000, "412 ms"),
        (999_999_999, "1.000 s"),
        (1_000_000_000, "1.000 s"),
        (3_123_456_790, "3.123 s"),
        (59_999_600_000, "1 min 00.0 s"),
        (723_100_000_000, "12 min 03.1 s"),
        (3_599_990_000_000, "1 h 00 min 00 s"),
        (11_523_000_000_000, "3 h 12 min 03 s"),
        (90_000_000_000_000, "1 d 01 h 00 min"),
        (-38_000, "−38 µs"),
    ],
)
def test_a_duration_reads_as_people_say_it(ns: int | None, shown: str) -> None:
    assert text.duration(ns) == shown


@given(st.text())
def test_nothing_from_outside_reaches_the_terminal_as_a_command(said: str) -> None:
    assert text.safe(said).isprintable()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("two\nlines", "two\\nlines"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\x9b2J", "\\x9b2J"),
        ("\ud800", "\\ud800"),
        ("", "–"),
        (None, "–"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_escaped(said: str | None, shown: str) -> None:
    assert text.safe(said) == shown


@given(
    st.dictionaries(st.sampled_from(["boot", "idle", "active", "teardown", "unknown"]), st.integers(0, 10**15)),
    st.integers(5, 120),
)
def test_the_bar_of_phases_is_exactly_as_wide_as_it_was_asked_for(parts: dict[str, int], width: int) -> None:
    cells = text.portions(parts, width)
    assert sum(cells.values()) == (width if any(parts.values()) else 0)
    assert all(cells[name] >= 1 for name, value in parts.items() if value)


@given(st.text(max_size=40), st.integers(1, 20))
def test_a_shortened_text_fits_and_keeps_both_its_ends(said: str, width: int) -> None:
    short = text.shorten(said, width)
    assert len(short) <= width
    assert short == text.safe(said) or "…" in short


def test_an_instant_is_cut_and_not_rounded() -> None:
    assert text.instant("2026-11-22T10:00:03.999999999Z") == "2026-11-22 10:00:03.999"


def test_a_small_part_is_not_shown_as_nothing() -> None:
    assert text.percent(1, 10_000) == "<1 %"


def test_what_a_line_is_of_stands_apart_from_the_rest_however_long_it_is() -> None:
    sheet = Sheet(79)
    sheet.leader("computing_second", "1 s × 0.008 USD/s × 1", "0.008 USD")
    assert sheet.lines[0].plain.startswith(" computing_second 1 s × 0.008")
    assert sheet.lines[0].cell_len == 79
