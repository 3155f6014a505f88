"""The tab: what records do to the sums of the accounts that pay for them.

Owns one way of adding up for all who do: the ledger as it writes, the audit, and whoever makes the sums anew from
records. Sums are asked for when they are first touched. Refuses to know where they are kept.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import NamedTuple

from taximeter.billing.credit import Grant, Purse, put_in, take_out
from taximeter.billing.money import EXACT
from taximeter.billing.thresholds import Due, Key, Spent, Standing, Thresholds, period_of

_HOUR_NS = 3_600_000_000_000
#: So many places are remembered of those who ask for no `size`: accounts, models and hours of a year may be millions.
_PLACES_MAX = 50_000


class PurseKey(NamedTuple):
    """Whose credit, in which currency."""

    account: str
    currency: str


class _Sum:
    """What was spent under one key; `next` is the least threshold that is still to be reached."""

    __slots__ = ("crossed", "key", "next", "spend")

    def __init__(self, key: Key, standing: Standing) -> None:
        self.key = key
        self.spend, self.crossed = standing
        self.next: Decimal | None = None

    def reach(self, at: int, thresholds: tuple[Decimal, ...]) -> list[Due]:
        """Every threshold that is due now; each is crossed from here on."""
        reached = [one for one in thresholds if one <= self.spend and one not in self.crossed]
        self.crossed = self.crossed.union(reached)
        self.look_ahead(thresholds)
        return [Due(at, self.key, one, self.spend) for one in reached]

    def look_ahead(self, thresholds: tuple[Decimal, ...]) -> None:
        self.next = next((one for one in thresholds if one not in self.crossed), None)


class Tab:
    """Sums under way, of which some have changed since they were last taken."""

    def __init__(
        self,
        standing: Callable[[Key], Standing] = lambda _: Standing(),
        purse: Callable[[PurseKey], Purse] = lambda _: Purse(),
        thresholds: Thresholds | None = None,
    ) -> None:
        self._kept_standing = standing
        self._kept_purse = purse
        self._thresholds = thresholds or Thresholds()
        self._sums: dict[Key, _Sum] = {}
        # A worker may have thousands of predictions a second: what they find again is by the hour, not by the month.
        self._places: dict[tuple[str, str, str | None, int], tuple[_Sum, _Sum | None]] = {}
        self._purses: dict[PurseKey, Purse] = {}
        self._changed: set[_Sum] = set()
        self._changed_purses: set[PurseKey] = set()

    @property
    def size(self) -> int:
        """How much is remembered here."""
        return len(self._places) + len(self._purses)

    def judge_by(self, thresholds: Thresholds) -> None:
        """Have these thresholds from now on; what was crossed stays crossed."""
        self._thresholds = thresholds
        for kept in self._sums.values():
            if not kept.key.model:
                kept.look_ahead(thresholds.of(kept.key.account))

    def spend(self, spends: Iterable[tuple[int, Spent]]) -> list[Due]:
        """Add what was spent, in this order; gives the thresholds that this reaches."""
        due: list[Due] = []
        changed, places, add = self._changed, self._places, EXACT.add
        for at, (account, currency, model, time_utc_ns, amount) in spends:
            place = (account, currency, model, time_utc_ns // _HOUR_NS)
            whole, part = places.get(place) or self._placed(place, period_of(time_utc_ns))
            whole.spend = add(whole.spend, amount)
            changed.add(whole)
            if part is not None:
                part.spend = add(part.spend, amount)
                changed.add(part)
            if whole.next is not None and whole.next <= whole.spend:
                due += whole.reach(at, self._thresholds.of(account))
        return due

    def use_credit(self, spent: Spent, *, prepaid: bool) -> None:
        """Take what was spent out of the account's credit; a prepaid one owes what that does not cover."""
        key = PurseKey(spent.account, spent.currency)
        purse = self._purse(key)
        if purse.parts or purse.owed or prepaid:
            self._purses[key] = take_out(purse, spent.amount, spent.time_utc_ns, prepaid=prepaid)
            self._changed_purses.add(key)

    def grant(self, grant: Grant) -> None:
        """Add credit."""
        key = PurseKey(grant.account, grant.currency)
        self._purses[key] = put_in(self._purse(key), grant)
        self._changed_purses.add(key)

    def standing(self, key: Key) -> Standing:
        """What was spent under a key so far, and crossed."""
        kept = self._sum(key)
        return Standing(kept.spend, kept.crossed)

    def take_changed(self) -> tuple[dict[Key, Standing], dict[PurseKey, Purse]]:
        """The sums, and the credit, that have changed since this was last asked."""
        standings = {kept.key: Standing(kept.spend, kept.crossed) for kept in self._changed}
        purses = {key: self._purses[key] for key in self._changed_purses}
        self._changed, self._changed_purses = set(), set()
        return standings, purses

    def _placed(self, place: tuple[str, str, str | None, int], period: str) -> tuple[_Sum, _Sum | None]:
        account, currency, model, _ = place
        key = Key(account, currency, period)
        placed = self._sum(key), self._sum(key._replace(model=model)) if model else None
        if len(self._places) >= _PLACES_MAX:
            self._places.clear()
        self._places[place] = placed
        return placed

    def _sum(self, key: Key) -> _Sum:
        kept = self._sums.get(key)
        if kept is None:
            kept = self._sums[key] = _Sum(key, self._kept_standing(key))
            if not key.model:
                kept.look_ahead(self._thresholds.of(key.account))
        return kept

    def _purse(self, key: PurseKey) -> Purse:
        purse = self._purses.get(key)
        if purse is None:
            purse = self._purses[key] = self._kept_purse(key)
        return purse
