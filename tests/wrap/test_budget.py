"""How much a worker may say: an honest one is never kept waiting, and another one gets what is left."""

from hypothesis import given
from hypothesis import strategies as st

from taximeter.wrap.budget import BURST_BYTES, MARK_BYTES, PER_S_BYTES, Budget

SECOND = 1_000_000_000
MARK = b"x" * 249 + b"\n"
BITE = 32_768


def test_ten_thousand_marks_a_second_never_wait() -> None:
    budget = Budget(0)
    assert all(budget.spend(at * SECOND // 10_000, MARK) is None for at in range(600_000))


def test_fifty_thousand_marks_at_once_do_not_wait() -> None:
    budget = Budget(0)
    assert all(budget.spend(0, MARK) is None for _ in range(50_000))


@given(bites=st.lists(st.binary(max_size=200), min_size=1), bite=st.sampled_from([b"\n", b"x\n", b"x", MARK]))
def test_whatever_is_said_no_more_is_taken_than_the_rate_allows(bites: list[bytes], bite: bytes) -> None:
    budget, now_ns, counted = Budget(0), 0, 0
    for data in [(bite * BITE)[:BITE], *bites] * 200:
        again_ns = budget.spend(now_ns, data)
        counted += len(data) + MARK_BYTES * max(1, data.count(b"\n"))
        now_ns = again_ns or now_ns
        one_bite = BITE + MARK_BYTES * BITE
        assert counted <= BURST_BYTES + PER_S_BYTES * now_ns // SECOND + one_bite


def test_who_has_spent_all_waits_for_some_milliseconds_and_then_may_say_more_than_one_mark() -> None:
    budget = Budget(0)
    while (again_ns := budget.spend(0, MARK)) is None:
        pass
    assert 5_000_000 < again_ns < 50_000_000
    assert [budget.spend(again_ns, MARK) for _ in range(100)] == [None] * 100


def test_what_was_not_said_for_long_makes_no_more_than_the_burst() -> None:
    budget = Budget(0)
    taken = 0
    while budget.spend(3600 * SECOND, MARK) is None:
        taken += len(MARK) + MARK_BYTES
    assert taken <= BURST_BYTES


def test_a_clock_that_is_read_in_another_order_gives_nothing_twice() -> None:
    budget = Budget(0)
    for _ in range(1_000_000):
        if budget.spend(SECOND, MARK) is not None:
            break
        budget.spend(0, MARK)
    else:
        raise AssertionError("it never had to wait")
