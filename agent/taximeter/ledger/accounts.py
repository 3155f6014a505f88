"""What is kept of accounts beside the records: sums of what they spent, what they crossed, and their credit.

Owns the tables' SQL. Amounts are decimal strings. All of it follows from the records, and is changed in the transaction
that writes them; it can be made anew (backfill). Refuses to know any rule.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from taximeter.billing.admission import Holdings
from taximeter.billing.credit import Grant, Part, Purse, balance
from taximeter.billing.money import EXACT, plain
from taximeter.billing.tab import PurseKey
from taximeter.billing.thresholds import Key, Standing, period_of

if TYPE_CHECKING:
    import apsw

TABLES = """
CREATE TABLE IF NOT EXISTS spends (
    account TEXT NOT NULL, currency TEXT NOT NULL, period TEXT NOT NULL, model TEXT NOT NULL, amount TEXT NOT NULL,
    PRIMARY KEY (account, period, currency, model)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crossings (
    account TEXT NOT NULL, currency TEXT NOT NULL, period TEXT NOT NULL, threshold TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (account, currency, period, threshold)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS grants (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, currency TEXT NOT NULL, amount TEXT NOT NULL,
    granted_utc_ns INTEGER NOT NULL, expires_utc_ns INTEGER, left TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS grants_account ON grants (account, currency);
CREATE INDEX IF NOT EXISTS grants_expires ON grants (expires_utc_ns) WHERE expires_utc_ns IS NOT NULL;
CREATE TABLE IF NOT EXISTS debts (
    account TEXT NOT NULL, currency TEXT NOT NULL, owed TEXT NOT NULL, PRIMARY KEY (account, currency)
) WITHOUT ROWID;
"""
NAMES = ("spends", "crossings", "grants", "debts")

_SPEND = "SELECT amount FROM spends WHERE account = ? AND currency = ? AND period = ? AND model = ?"
_CROSSED = "SELECT threshold FROM crossings WHERE account = ? AND currency = ? AND period = ?"
_SPENDS_OF = "SELECT currency, period, model, amount FROM spends WHERE account = ?"
_SPENDS_IN = "SELECT currency, model, amount FROM spends WHERE account = ? AND period = ?"
_CROSSINGS_OF = """
SELECT currency, period, threshold, crossings.id, seq, time_utc_ns FROM crossings JOIN lookups USING (id)
WHERE crossings.account = ?
"""
_PARTS = """
SELECT id, account, currency, amount, granted_utc_ns, expires_utc_ns, left FROM grants
WHERE account = ? AND currency = ? ORDER BY expires_utc_ns IS NULL, expires_utc_ns, granted_utc_ns, id
"""
_ALL_PARTS = """
SELECT id, account, currency, amount, granted_utc_ns, expires_utc_ns, left FROM grants
ORDER BY expires_utc_ns IS NULL, expires_utc_ns, granted_utc_ns, id
"""
_ONE_GRANT = "SELECT id, account, currency, amount, granted_utc_ns, expires_utc_ns, left FROM grants WHERE id = ?"
#: Of each grant, what is left.
LEFT = "SELECT id, account, currency, granted_utc_ns, expires_utc_ns, left FROM grants"
_OWED = "SELECT owed FROM debts WHERE account = ? AND currency = ?"
_PURSES_OF = "SELECT currency FROM grants WHERE account = ?1 UNION SELECT currency FROM debts WHERE account = ?1"
_KNOWN = "SELECT account FROM grants UNION SELECT account FROM debts UNION SELECT account FROM spends"
_EXPIRED = "SELECT DISTINCT account FROM grants WHERE expires_utc_ns > ? AND expires_utc_ns <= ?"
_SAVE_SPEND = """
INSERT INTO spends VALUES (?, ?, ?, ?, ?)
ON CONFLICT (account, period, currency, model) DO UPDATE SET amount = excluded.amount
"""
_SAVE_CROSSING = "INSERT OR IGNORE INTO crossings VALUES (?, ?, ?, ?, ?)"
_SAVE_GRANT = "INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET left = excluded.left"
_SAVE_OWED = """
INSERT INTO debts VALUES (?, ?, ?) ON CONFLICT (account, currency) DO UPDATE SET owed = excluded.owed
"""


class Crossing(NamedTuple):
    """A threshold that was told to billing."""

    currency: str
    period: str
    threshold: str
    id: str  #: of its record
    seq: int
    time_utc_ns: int


@dataclass(frozen=True, slots=True)
class Statement:
    """Everything that is kept of one account."""

    spends: Mapping[tuple[str, str, str], Decimal]  #: by currency, period and model (or ALL_MODELS)
    crossings: tuple[Crossing, ...]
    purses: Mapping[str, Purse]  #: by currency


def standing(connection: "apsw.Connection", key: Key) -> Standing:
    """What was spent, and crossed, so far."""
    row = connection.execute(_SPEND, key).fetchone()
    if row is None:
        return Standing()
    crossed = () if key.model else connection.execute(_CROSSED, key[:3])
    return Standing(Decimal(row[0]), frozenset(Decimal(threshold) for (threshold,) in crossed))


def purse(connection: "apsw.Connection", key: PurseKey) -> Purse:
    """An account's credit in one currency."""
    parts = tuple(_part(*row) for row in connection.execute(_PARTS, key))
    owed = connection.execute(_OWED, key).fetchone()
    return Purse(parts, Decimal(owed[0]) if owed else Decimal(0))


def grant_by(connection: "apsw.Connection", grant_id: str) -> Grant | None:
    """The grant of that id."""
    row = connection.execute(_ONE_GRANT, (grant_id,)).fetchone()
    return None if row is None else _part(*row).grant


def any_credit(connection: "apsw.Connection") -> bool:
    """Whether anything was ever granted, or is owed."""
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM grants) OR EXISTS (SELECT 1 FROM debts)").get)


def statement(connection: "apsw.Connection", account: str) -> Statement:
    """Everything of one account."""
    rows = connection.execute(_SPENDS_OF, (account,))
    spends = {(currency, period, model): Decimal(amount) for currency, period, model, amount in rows}
    crossings = [Crossing(*row) for row in connection.execute(_CROSSINGS_OF, (account,))]
    crossings.sort(key=lambda crossing: crossing.seq)
    currencies = [currency for (currency,) in connection.execute(_PURSES_OF, (account,))]
    purses = {currency: purse(connection, PurseKey(account, currency)) for currency in currencies}
    return Statement(spends, tuple(crossings), purses)


def spends(connection: "apsw.Connection") -> dict[Key, Decimal]:
    """What every account spent."""
    rows = connection.execute("SELECT account, currency, period, model, amount FROM spends")
    return {Key(*key): Decimal(amount) for *key, amount in rows}


def purses(connection: "apsw.Connection") -> dict[PurseKey, Purse]:
    """What every account has left of its credit, and owes."""
    parts: dict[PurseKey, list[Part]] = {}
    for part in (_part(*row) for row in connection.execute(_ALL_PARTS)):
        parts.setdefault(PurseKey(part.grant.account, part.grant.currency), []).append(part)
    rows = connection.execute("SELECT account, currency, owed FROM debts")
    owed = {PurseKey(account, currency): Decimal(amount) for account, currency, amount in rows}
    return {key: Purse(tuple(parts.get(key, ())), owed.get(key, Decimal(0))) for key in {**parts, **owed}}


def holdings(connection: "apsw.Connection", account: str, now_utc_ns: int) -> Holdings:
    """What an account has now, and has spent in this month."""
    currencies = [currency for (currency,) in connection.execute(_PURSES_OF, (account,))]
    balances = {one: balance(purse(connection, PurseKey(account, one)), now_utc_ns) for one in currencies}
    rows = connection.execute(_SPENDS_IN, (account, period_of(now_utc_ns)))
    return Holdings(balances, {(currency, model): Decimal(amount) for currency, model, amount in rows})


def known(connection: "apsw.Connection") -> list[str]:
    """Every account that ever spent anything, or was granted credit."""
    return [account for (account,) in connection.execute(_KNOWN)]


def expired(connection: "apsw.Connection", after_utc_ns: int, until_utc_ns: int) -> list[str]:
    """The accounts of grants that expired meanwhile."""
    return [account for (account,) in connection.execute(_EXPIRED, (after_utc_ns, until_utc_ns))]


def save_standings(connection: "apsw.Connection", standings: Mapping[Key, Standing]) -> None:
    """Keep what was spent."""
    connection.executemany(_SAVE_SPEND, [(*key, plain(kept.spend)) for key, kept in standings.items()])


def save_crossings(connection: "apsw.Connection", crossings: Iterable[tuple[Key, Decimal, str]]) -> None:
    """Keep which thresholds were told, by which records."""
    connection.executemany(_SAVE_CROSSING, [(*key[:3], plain(threshold), id_) for key, threshold, id_ in crossings])


def save_purses(connection: "apsw.Connection", purses: Mapping[PurseKey, Purse]) -> None:
    """Keep what is left of each grant, and what is owed."""
    for key, kept in purses.items():
        connection.executemany(_SAVE_GRANT, [_row(part) for part in kept.parts])
        connection.execute(_SAVE_OWED, (*key, plain(kept.owed)))


def total(spends: Mapping[tuple[str, str, str], Decimal], currency: str) -> Decimal:
    """All that was ever spent in a currency."""
    whole = Decimal(0)
    for (of, _, model), amount in spends.items():
        if of == currency and not model:
            whole = EXACT.add(whole, amount)
    return whole


def _part(*row: object) -> Part:
    id_, account, currency, amount, granted_utc_ns, expires_utc_ns, left = row
    grant = Grant(id_, account, currency, Decimal(amount), granted_utc_ns, expires_utc_ns)  # type: ignore[arg-type]
    return Part(grant, Decimal(left))  # type: ignore[arg-type]


def _row(part: Part) -> tuple[object, ...]:
    grant = part.grant
    return (*grant[:3], plain(grant.amount), grant.granted_utc_ns, grant.expires_utc_ns, plain(part.left))
