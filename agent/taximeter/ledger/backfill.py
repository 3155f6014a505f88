"""Makes the sums of accounts anew from the records, where an older Taximeter kept none, or somebody dropped them.

Owns how that goes on where it was interrupted: each stretch of records is added in one transaction with the number up
to which the sums are of. Refuses to judge the records; the audit does.
"""

import contextlib
import logging
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from taximeter.billing.spending import Spending, parse_spending
from taximeter.billing.tab import Tab
from taximeter.billing.thresholds import Key, Spent
from taximeter.errors import TaximeterError
from taximeter.ledger import accounts
from taximeter.ledger.balance import Event
from taximeter.ledger.sayings import SPENDING, crossing_in, grant_in, spent_in
from taximeter.ledger.till import tab_on
from taximeter.ledger.transaction import transaction
from taximeter.records import RecordType

if TYPE_CHECKING:
    import apsw

logger = logging.getLogger(__name__)

#: In `meta`, while sums are being made: the number of the last record that is in them.
_SUMMED_TO, _RULES = "summed_to", "spending"
_STRETCH = 20_000
_NEXT = "SELECT seq, body FROM records WHERE seq > ? ORDER BY seq LIMIT ?"
_NOTE = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2"


_decode = msgspec.json.Decoder(Event).decode


def make_tables(connection: "apsw.Connection") -> None:
    """The tables, where they are not there; and what is in the ledger already is to be added to them."""
    if _tables(connection).issuperset(accounts.NAMES):
        return
    with transaction(connection):
        for name in accounts.NAMES:
            connection.execute(f"DROP TABLE IF EXISTS {name}")
        connection.execute(accounts.TABLES)
        connection.execute(_NOTE, (_SUMMED_TO, "0"))


def fill(connection: "apsw.Connection") -> None:
    """Add to the sums what they lack of the records; returns at once where that is nothing."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (_SUMMED_TO,)).fetchone()
    if row is None:
        return
    seq, rules = int(row[0]), Spending()
    kept = connection.execute("SELECT value FROM meta WHERE key = ?", (_RULES,)).fetchone()
    if seq and kept is not None:
        rules = parse_spending(msgspec.json.decode(kept[0]), "ledger")
    tab = tab_on(connection)
    rows: list[tuple[Any, ...]]
    while rows := connection.execute(_NEXT, (seq, _STRETCH)).fetchall():
        if seq == 0 and len(rows) == _STRETCH:
            logger.warning("ledger.sums: adding up what accounts spent, once, from the records")
        seq = rows[-1][0]
        with transaction(connection):
            rules = _add(connection, tab, [body for _, body in rows], rules)
            connection.execute(_NOTE, (_SUMMED_TO, str(seq)))
            keep_rules(connection, rules)
    connection.execute("DELETE FROM meta WHERE key = ?", (_SUMMED_TO,))


def fill_all(connection: "apsw.Connection") -> None:
    """Add all records to sums that are empty."""
    connection.execute(_NOTE, (_SUMMED_TO, "0"))
    fill(connection)


def is_filled(connection: "apsw.Connection") -> bool:
    """Whether there are sums of all records."""
    if not _tables(connection).issuperset(accounts.NAMES):
        return False
    return connection.execute("SELECT 1 FROM meta WHERE key = ?", (_SUMMED_TO,)).fetchone() is None


def keep_rules(connection: "apsw.Connection", rules: Spending) -> None:
    """Have the rules in force beside the sums, so that whoever reads these need not look for the fact."""
    connection.execute(_NOTE, (_RULES, msgspec.json.encode(rules.content()).decode()))


def kept_rules(connection: "apsw.Connection") -> Spending:
    """The rules that were last in force."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (_RULES,)).fetchone()
    return Spending() if row is None else parse_spending(msgspec.json.decode(row[0]), "ledger")


def _add(connection: "apsw.Connection", tab: Tab, bodies: Iterable[bytes], rules: Spending) -> Spending:
    stretch = _Stretch(tab, rules, any_credit=accounts.any_credit(connection))
    for body in bodies:
        # What says no sense was put there by somebody: the audit names it, and it holds up nobody.
        with contextlib.suppress(ValueError, TypeError, ArithmeticError, TaximeterError):
            stretch.take(_decode(body))
    stretch.settle()
    standings, purses = tab.take_changed()
    accounts.save_standings(connection, standings)
    accounts.save_crossings(connection, stretch.crossings)
    accounts.save_purses(connection, purses)
    return stretch.rules


class _Stretch:
    """Records in their order, of which usage is added up in one go wherever nothing else comes in between."""

    def __init__(self, tab: Tab, rules: Spending, *, any_credit: bool) -> None:
        self.rules = rules
        self.crossings: list[tuple[Key, Decimal, str]] = []
        self._tab = tab
        self._any_credit = any_credit
        self._spends: list[Spent] = []

    def take(self, event: Event) -> None:
        if event.type == RecordType.THRESHOLD:
            self.crossings.append(crossing_in(event))
        elif event.type == RecordType.GRANT:
            grant = grant_in(event)
            self.settle()
            self._tab.grant(grant)
            self._any_credit = True
        elif event.type != RecordType.FACT:
            one = spent_in(event)
            if one is not None:
                self._spends.append(one)
        elif event.data.fact == SPENDING:
            rules = parse_spending(event.data.content, "ledger")
            self.settle()
            self.rules = rules

    def settle(self) -> None:
        spends, self._spends = self._spends, []
        self._tab.spend(enumerate(spends))
        if self._any_credit or self.rules.credit.prepaid != frozenset():
            for one in spends:
                self._tab.use_credit(one, prepaid=self.rules.credit.is_prepaid(one.account))


def _tables(connection: "apsw.Connection") -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
