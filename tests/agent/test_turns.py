"""Whose turn it is: of one instance as it came, of several one after the other."""

from hypothesis import given
from hypothesis import strategies as st

from taximeter.agent.keeper import Ended, Said
from taximeter.agent.turns import Turns, Unseen, split


def said(instance: str, data: bytes = b"", end: int | None = None) -> Said:
    return Said(instance, 7, data, end)


def test_nobody_who_says_much_keeps_others_waiting() -> None:
    turns = Turns()
    turns.add([said("loud", b"%d" % n) for n in range(100)])
    turns.add([said("quiet"), Ended("third", 1, 0)])
    assert {turns.take().instance for _ in range(3)} == {"loud", "quiet", "third"}


def test_of_one_instance_everything_comes_in_its_order_also_what_was_put_back() -> None:
    turns = Turns()
    items = [said("a", b"1"), said("a", b"2"), Unseen("a")]
    turns.add(items)
    turns.add([said("b")])
    first = turns.take()
    turns.put_back([first])
    assert [turns.take() for _ in range(4)] == [said("b"), *items]
    assert not turns


def test_an_end_that_is_told_twice_comes_once_and_what_is_said_meanwhile_comes_all_the_same() -> None:
    turns = Turns()
    turns.add([Ended("a", 1, 0), said("a", b"1"), Ended("a", 1, 0), said("b")])
    turns.add([Ended("a", 1, 0)])
    assert [turns.take() for _ in range(3)] == [Ended("a", 1, 0), said("b"), said("a", b"1")]
    assert not turns


def test_what_is_dropped_does_not_come() -> None:
    turns = Turns()
    turns.add([said("a"), said("b")])
    turns.drop("a")
    assert not turns.has("a")
    assert turns.take() == said("b")
    assert not turns


@given(data=st.binary(max_size=60).map(lambda raw: raw.replace(b"x", b"\n")), most=st.integers(1, 5))
def test_what_is_split_is_all_there_cut_behind_a_line_and_at_its_place_in_the_file(data: bytes, most: int) -> None:
    whole = said("a", data, 1000)
    rest: Said | None = whole
    taken = b""
    while rest is not None:
        front, rest = split(rest, most)
        taken += front.data
        assert front.data.count(b"\n") <= most
        assert front.end == 1000 - len(data) + len(taken)
        assert rest is None or front.data.endswith(b"\n")
    assert taken == data


def test_what_is_kept_in_no_file_has_no_place_there() -> None:
    front, rest = split(said("a", b"1\n2\n"), 1)
    assert rest is not None
    assert (front.end, rest.end) == (None, None)
