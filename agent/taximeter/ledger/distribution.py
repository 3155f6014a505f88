"""How whole numbers are spread, in little room: an exact count and sum, and buckets that are as wide as 3 % of them.

A number up to 63 has a bucket of its own; from there on, each doubling is cut into 32. So what is told of a place in
the order (a median, say) is off from the number that was there by less than 1.6 %, whatever its size, and two spreads
add up to the very spread of all their numbers. Integers only: the same everywhere. Pure.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import NamedTuple

from taximeter.billing.money import EXACT

#: How far off a quantile may be, as a part of it.
ERROR = Decimal(1) / 64
_SUB = 5  # bits of a bucket's place within its doubling


def bucket_of(number: int) -> int:
    """The bucket that a number, not negative, lies in."""
    shift = number.bit_length() - _SUB - 1
    return (shift << _SUB) + (number >> shift) if shift > 0 else number


def bounds_of(bucket: int) -> tuple[int, int]:
    """The least and the greatest number that lie in a bucket."""
    shift = max(0, (bucket >> _SUB) - 1)
    least = (bucket - (shift << _SUB)) << shift
    return least, least + (1 << shift) - 1


def middle_of(bucket: int, step: int = 1) -> int:
    """The number in the middle of a bucket; of multiples of `step` the one next to it, if there is any in there."""
    least, greatest = bounds_of(bucket)
    middle = (least + greatest) // 2
    nearest = (middle + step // 2) // step * step
    return nearest if least <= nearest <= greatest else middle


class Distribution(NamedTuple):
    """A spread of numbers, each of which is so many steps: nanoseconds, billionths of a unit, 1e-18 of a currency."""

    n: int
    total: Decimal  #: the sum of all, exact, in steps
    buckets: tuple[tuple[int, int], ...]  #: bucket and how many are in it, in ascending order; no bucket is empty

    def quantile(self, percent: int, step: int = 1) -> int:
        """The number below which so many percent of all lie, by nearest rank; within ERROR of it.

        Of what mostly comes in multiples of `step`, one of these, where that may have been it: within twice ERROR.
        """
        if not self.n:
            raise ValueError("cannot tell a quantile of nothing: expected at least one number")
        rank = max(1, -(-self.n * percent // 100))
        up_to = accumulate(count for _, count in self.buckets)
        reached = (bucket for (bucket, _), number in zip(self.buckets, up_to, strict=True) if number >= rank)
        return middle_of(next(reached), step)

    @property
    def mean(self) -> Decimal:
        """The exact sum by the exact count."""
        return EXACT.divide(self.total, Decimal(self.n))


def spread_of(numbers: Sequence[int]) -> Distribution:
    """The distribution of numbers, none of which is negative."""
    return Distribution(len(numbers), Decimal(sum(numbers)), tuple(sorted(Counter(map(bucket_of, numbers)).items())))


def together(distributions: Iterable[Distribution]) -> Distribution:
    """The distribution of all their numbers."""
    count, total, buckets = 0, Decimal(0), dict[int, int]()
    for one in distributions:
        count += one.n
        total = EXACT.add(total, one.total)
        for bucket, number in one.buckets:
            buckets[bucket] = buckets.get(bucket, 0) + number
    return Distribution(count, total, tuple(sorted(buckets.items())))
