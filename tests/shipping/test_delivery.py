"""One batch to one receiver: everything that it takes arrives, and what it refuses is found, however much that is."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.errors import SinkError
from taximeter.shipping.delivery import Refused, deliver, deliver_again
from tests.shipping.outbox import Outbox, Stored

pytestmark = pytest.mark.anyio


@dataclass
class Picky:
    """A receiver that refuses certain records, and any batch that one of them is in."""

    poison: dict[int, str] = field(default_factory=dict)  #: number -> reason
    name: str = "picky"
    held: set[int] = field(default_factory=set)
    tried: list[tuple[int, ...]] = field(default_factory=list)
    broken: bool = False

    async def send(self, bodies: Sequence[bytes]) -> None:
        numbers = tuple(int(body) for body in bodies)
        self.tried.append(numbers)
        if self.broken:
            raise SinkError("server_error", "500")
        for number in numbers:
            if number in self.poison:
                raise SinkError(self.poison[number], f"not {number}")
        self.held.update(numbers)

    async def close(self) -> None:
        """Hold nothing."""


@dataclass
class Counted:
    """Whoever is told."""

    count: int = 0
    refused: list[Refused] = field(default_factory=list)

    def passed(self, count: int) -> None:
        self.count += count

    def set_aside(self, sink: str, refused: Sequence[Refused]) -> None:
        self.refused += refused


def outbox_of(count: int) -> Outbox:
    return Outbox([b"%d" % number for number in range(1, count + 1)])


async def delivered(sink: Picky, outbox: Outbox, most: int = 100, *, in_vain: bool = False) -> Counted:
    told = Counted()
    await deliver(sink, outbox, await outbox.unshipped(sink.name, most), told, in_vain=in_vain)
    return told


async def test_a_batch_that_passes_is_one_request() -> None:
    sink = Picky()
    await delivered(sink, outbox_of(50))
    assert len(sink.tried) == 1


async def test_one_refused_record_of_a_hundred_costs_two_requests_for_each_halving() -> None:
    sink = Picky({37: "rejected"})
    await delivered(sink, outbox_of(100))
    assert len(sink.tried) <= 1 + 2 * 7


async def test_what_the_receiver_has_already_counts_as_delivered() -> None:
    outbox = outbox_of(9)
    told = await delivered(Picky({4: "duplicate"}), outbox)
    assert (outbox.done, outbox.letters, told.count) == (9, {}, 9)


async def test_a_record_that_is_too_large_alone_is_set_aside() -> None:
    outbox = outbox_of(9)
    await delivered(Picky({4: "too_large"}), outbox)
    assert outbox.letters == {4: Refused(4, "too_large", "not 4")}


async def test_a_receiver_that_refuses_all_of_a_batch_and_takes_the_newest_is_not_at_fault() -> None:
    outbox = outbox_of(5)
    await delivered(Picky(dict.fromkeys((1, 2, 3), "rejected")), outbox, most=3)
    assert (outbox.done, list(outbox.letters)) == (3, [1, 2, 3])


async def test_a_receiver_that_refuses_the_newest_too_is_at_fault() -> None:
    outbox = outbox_of(5)
    with pytest.raises(SinkError, match="not 3"):
        await delivered(Picky(dict.fromkeys((1, 2, 3, 5), "rejected")), outbox, most=3)
    assert (outbox.done, outbox.letters) == (0, {})


async def test_after_a_round_in_vain_a_receiver_that_refuses_everything_is_asked_twice() -> None:
    sink = Picky(dict.fromkeys(range(1, 201), "rejected"))
    with pytest.raises(SinkError):
        await delivered(sink, outbox_of(200), in_vain=True)
    assert [len(numbers) for numbers in sink.tried] == [100, 1]


async def test_after_a_round_in_vain_the_newest_that_passes_shows_that_the_receiver_is_well_again() -> None:
    outbox = outbox_of(3)
    await delivered(Picky({1: "rejected", 2: "rejected"}), outbox, in_vain=True)
    assert (outbox.done, list(outbox.letters)) == (3, [1, 2])


async def test_trouble_on_the_way_sets_nothing_aside() -> None:
    sink, outbox = Picky({1: "rejected"}, broken=True), outbox_of(4)
    with pytest.raises(SinkError, match="500"):
        await delivered(sink, outbox)
    assert (outbox.done, outbox.letters) == (0, {})


async def test_what_passes_when_it_is_tried_again_is_no_dead_letter_any_more() -> None:
    outbox = outbox_of(3)
    outbox.letters, outbox.wanted = {2: Refused(2, "rejected", "")}, {2}
    told = Counted()
    await deliver_again(Picky(), outbox, Stored(2, b"2"), told)
    assert (outbox.letters, told.count) == ({}, 1)


async def test_what_is_refused_again_says_why_anew() -> None:
    outbox = outbox_of(3)
    outbox.letters, outbox.wanted = {2: Refused(2, "too_large", "")}, {2}
    await deliver_again(Picky({2: "rejected"}), outbox, Stored(2, b"2"), Counted())
    assert outbox.letters == {2: Refused(2, "rejected", "not 2")}


@given(
    count=st.integers(2, 60),
    poison=st.dictionaries(st.integers(1, 60), st.sampled_from(("rejected", "too_large", "duplicate")), max_size=60),
    most=st.integers(1, 60),
    in_vain=st.booleans(),
)
def test_law_every_record_arrives_or_is_a_dead_letter_or_waits(
    count: int, poison: dict[int, str], most: int, in_vain: bool
) -> None:
    sink, outbox = Picky(poison), outbox_of(count)
    held_before = {number for number, reason in poison.items() if reason == "duplicate"}

    async def all_rounds() -> None:
        while not outbox.empty:
            await delivered(sink, outbox, most, in_vain=in_vain)

    with suppress(SinkError):
        anyio.run(all_rounds)
    has = sink.held | held_before
    assert all((number in has) != (number in outbox.letters) for number in range(1, outbox.done + 1))
    assert all(poison[number] != "duplicate" for number in outbox.letters)
    if not outbox.empty:  # only a receiver that takes nothing of this batch, nor the newest, holds up anything
        batch = () if in_vain else range(outbox.done + 1, min(outbox.done + most, count) + 1)
        assert all(number in poison for number in (*batch, count))
