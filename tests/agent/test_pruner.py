"""What time it is at least, for whoever lets old records go."""

from taximeter.agent.pruner import surely_ns

BEGAN = (1_000_000, 500)


def test_time_that_passes_is_believed() -> None:
    assert surely_ns(BEGAN, 1_000_070, 570) == 1_000_070


def test_a_clock_that_is_set_forward_makes_nothing_older() -> None:
    assert surely_ns(BEGAN, 9_000_000, 570) == 1_000_070


def test_a_clock_that_was_ahead_at_the_start_and_is_set_back_is_believed() -> None:
    assert surely_ns(BEGAN, 900_000, 570) == 900_000
