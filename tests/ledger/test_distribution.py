"""Spreads of numbers in little room: what is exact, and how far off the rest may be."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.billing.money import EXACT
from taximeter.ledger.distribution import ERROR, bucket_of, middle_of, spread_of, together

NUMBERS = st.integers(0, 10**30)
SOME = st.lists(st.one_of(st.integers(0, 200), NUMBERS), min_size=1, max_size=60)


@given(NUMBERS)
def test_a_numbers_bucket_is_within_1_6_percent_of_it(number: int) -> None:
    assert abs(middle_of(bucket_of(number)) - number) <= ERROR * number


@given(NUMBERS, NUMBERS)
def test_a_larger_number_is_in_no_lower_bucket(one: int, other: int) -> None:
    assert bucket_of(min(one, other)) <= bucket_of(max(one, other))


@pytest.mark.parametrize("number", [0, 1, 31, 32, 63])
def test_small_numbers_are_exact(number: int) -> None:
    assert middle_of(bucket_of(number)) == number


def test_a_nanosecond_to_a_year_is_in_less_than_two_thousand_buckets() -> None:
    assert bucket_of(365 * 86_400 * 10**9) < 2_000


@given(SOME)
def test_count_sum_and_mean_are_exact(numbers: list[int]) -> None:
    made = spread_of(numbers)
    assert (made.n, made.total) == (len(numbers), sum(numbers))
    assert abs(EXACT.subtract(EXACT.multiply(made.mean, Decimal(made.n)), made.total)) < Decimal("1e-20")


@given(SOME, st.sampled_from([1, 5, 50, 95, 99, 100]))
def test_a_quantile_is_the_number_at_that_rank_within_1_6_percent(numbers: list[int], percent: int) -> None:
    at_rank = sorted(numbers)[max(1, -(-len(numbers) * percent // 100)) - 1]
    assert abs(spread_of(numbers).quantile(percent) - at_rank) <= ERROR * at_rank


@given(NUMBERS, st.sampled_from([1, 10, 10**9]))
def test_a_number_is_told_as_a_whole_one_where_it_may_have_been_that(number: int, step: int) -> None:
    assert abs(spread_of([number]).quantile(50, step) - number) <= 2 * ERROR * number


@given(st.integers(0, 32))
def test_few_whole_units_are_told_as_they_were(units: int) -> None:
    assert spread_of([units * 10**9]).quantile(50, 10**9) == units * 10**9


@given(SOME, SOME)
def test_two_spreads_add_up_to_that_of_all_numbers(some: list[int], others: list[int]) -> None:
    assert together([spread_of(some), spread_of(others)]) == spread_of(some + others)


def test_of_nothing_there_is_no_quantile() -> None:
    with pytest.raises(ValueError, match="expected at least one number"):
        spread_of([]).quantile(50)
