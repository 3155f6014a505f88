"""The till: what a batch of records does to the accounts that pay for it, and the records that this leads to.

Sums are those of the file, so that a batch which is tried again, after a crash or a disk that failed, leads to the
same. Owns where a threshold's record stands: right behind the one that crossed it. Refuses to know when it is written.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from taximeter.billing.credit import Grant, Purse
from taximeter.billing.notices import grant_record, own_id, threshold_record
from taximeter.billing.spending import Spending
from taximeter.billing.tab import PurseKey, Tab
from taximeter.billing.thresholds import Due, Key, Standing, Thresholds, spent_by
from taximeter.ledger import accounts
from taximeter.records import UsageRecord

if TYPE_CHECKING:
    import apsw

#: So many sums are kept in memory; then all are read anew as they are needed.
_MOST_REMEMBERED = 20_000
# Of ids that begin alike the last, by their numbers: an own record's id is the ledger's and a number.
_LAST_OWN = "SELECT id FROM lookups WHERE id >= ?1 || '-' AND id < ?1 || '.' ORDER BY id DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class Settled:
    """What is to be written: records, those that they led to among them, and the sums behind the last of them."""

    records: Sequence[UsageRecord]
    standings: Mapping[Key, Standing] = field(default_factory=dict)
    purses: Mapping[PurseKey, Purse] = field(default_factory=dict)
    crossings: Sequence[tuple[Key, Decimal, str]] = ()
    told: Sequence[UsageRecord] = ()  #: the records that were not given, but led to

    @property
    def accounts(self) -> frozenset[str]:
        """Whose sums change."""
        return frozenset({key.account for key in self.standings} | {key.account for key in self.purses})

    def write(self, connection: "apsw.Connection") -> None:
        """Keep the sums; within the transaction that writes the records."""
        if self.standings:
            accounts.save_standings(connection, self.standings)
        if self.crossings:
            accounts.save_crossings(connection, self.crossings)
        if self.purses:
            accounts.save_purses(connection, self.purses)


class Till:
    """The accounts of one ledger, and the rules in force.

    Sums stay in memory from one commit to the next: `forget` whenever one of them was not written.
    """

    def __init__(self, ledger_id: str) -> None:
        self._ledger_id = ledger_id
        self._rules = Spending()
        self._tab: Tab | None = None

    def charge_by(self, rules: Spending) -> None:
        """Judge by these rules from now on."""
        self._rules = rules
        self.forget()

    def forget(self) -> None:
        """Read every sum anew: what was settled may not have been written."""
        self._tab = None

    def settle(self, connection: "apsw.Connection", records: Sequence[UsageRecord], source: str) -> Settled:
        """What `records` lead to, behind what the file has now."""
        spends = [(at, one) for at, one in enumerate(map(spent_by, records)) if one is not None]
        if not spends:
            return Settled(records)
        tab, credit = self._opened(connection), self._rules.credit
        due = tab.spend(spends)
        if credit.prepaid != frozenset() or accounts.any_credit(connection):
            for _, one in spends:
                tab.use_credit(one, prepaid=credit.is_prepaid(one.account))
        standings, purses = tab.take_changed()
        if not due:
            return Settled(records, standings, purses)
        ids = itertools.count(next_own(connection, self._ledger_id))
        told = [threshold_record(own_id(self._ledger_id, next(ids)), one, records[one.at], source) for one in due]
        crossings = [(one.key, one.threshold, record.id) for one, record in zip(due, told, strict=True)]
        return Settled(_with(records, due, told), standings, purses, crossings, told)

    def grant(self, connection: "apsw.Connection", grant: Grant) -> Settled:
        """What a new grant leads to."""
        tab = self._opened(connection)
        tab.grant(grant)
        _, purses = tab.take_changed()
        record = grant_record(own_id(self._ledger_id, next_own(connection, self._ledger_id)), grant)
        return Settled((record,), {}, purses, told=(record,))

    def _opened(self, connection: "apsw.Connection") -> Tab:
        if self._tab is None or self._tab.size > _MOST_REMEMBERED:
            self._tab = tab_on(connection, self._rules.thresholds)
        return self._tab


def tab_on(connection: "apsw.Connection", thresholds: Thresholds | None = None) -> Tab:
    """A tab on the sums that the file has."""
    return Tab(lambda key: accounts.standing(connection, key), lambda key: accounts.purse(connection, key), thresholds)


def next_own(connection: "apsw.Connection", ledger_id: str) -> int:
    """The number of the next record that is the ledger's own."""
    row = connection.execute(_LAST_OWN, (ledger_id,)).fetchone()
    return 0 if row is None else int(row[0].rpartition("-")[2]) + 1


def _with(records: Sequence[UsageRecord], due: Sequence[Due], told: Sequence[UsageRecord]) -> list[UsageRecord]:
    """`records`, and each of those that are told behind the one that it is due to."""
    whole: list[UsageRecord] = []
    begin = 0
    for one, record in zip(due, told, strict=True):
        whole += records[begin : one.at + 1]
        whole.append(record)
        begin = one.at + 1
    return [*whole, *records[begin:]]
