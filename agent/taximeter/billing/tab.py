"""The tab: what a stretch of records does to the sums of the accounts that it touches.

Owns one way of adding up for all who do: the ledger as it writes, the audit and whoever makes the sums anew from records.
Sums are asked for when they are first touched. Refuses to know where they are kept.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

from taximeter.billing.credit import Grant, Purse, put_in, take_out
from taximeter.billing.thresholds import Key, Spent, Standing, period_of, spend_more


class PurseKey(NamedTuple):
    """Whose credit, in which currency."""

    account: str
    currency: str


class Tab:
    """Sums under way; `standings` and `purses` are those that were touched, as they are now."""

    def __init__(
        self,
        standing: Callable[[Key], Standing] = lambda _: Standing(),
        purse: Callable[[PurseKey], Purse] = lambda _: Purse(),
    ) -> None:
        self.standings: dict[Key, Standing] = {}
        self.purses: dict[PurseKey, Purse] = {}
        self._kept_standing = standing
        self._kept_purse = purse

    def spend(self, spent: Spent, thresholds: Sequence[Decimal] = ()) -> tuple[Key, list[Decimal]]:
        """Add what was spent; gives under which key, and the thresholds that are due now."""
        key = Key(spent.account, spent.currency, period_of(spent.time_utc_ns))
        if spent.model:
            by_model = key._replace(model=spent.model)
            self.standings[by_model], _ = spend_more(self.standing(by_model), spent.amount, ())
        self.standings[key], due = spend_more(self.standing(key), spent.amount, thresholds)
        return key, due

    def use_credit(self, spent: Spent, *, prepaid: bool) -> None:
        """Take what was spent out of the account's credit; a prepaid one owes what that does not cover."""
        key = PurseKey(spent.account, spent.currency)
        purse = self.purse(key)
        if purse.parts or purse.owed or prepaid:
            self.purses[key] = take_out(purse, spent.amount, spent.time_utc_ns, prepaid=prepaid)

    def grant(self, grant: Grant) -> None:
        """Add credit."""
        key = PurseKey(grant.account, grant.currency)
        self.purses[key] = put_in(self.purse(key), grant)

    def standing(self, key: Key) -> Standing:
        """What was spent so far, and crossed."""
        known = self.standings.get(key)
        return self._kept_standing(key) if known is None else known

    def purse(self, key: PurseKey) -> Purse:
        """The credit as it is now."""
        known = self.purses.get(key)
        return self._kept_purse(key) if known is None else known
