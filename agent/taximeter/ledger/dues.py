"""The dues: what accounts spent and have left by the records, and which thresholds were due, as the audit walks by.

Owns the laws between records of accounts: a threshold's record stands right behind the one that crossed it, says what
was spent by then, and there is no other; nothing is granted twice; kept sums and credit are those of the records: what
was granted, less what was used, grant by grant. Keeps a sum for each account, currency, month and model, and all
grants. Refuses to know the chain.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from decimal import Decimal

from taximeter.billing.admission import Credit
from taximeter.billing.credit import Grant, Purse
from taximeter.billing.money import plain
from taximeter.billing.spending import Spending, parse_spending
from taximeter.billing.tab import PurseKey, Tab
from taximeter.billing.thresholds import Due, Key, Spent, Standing
from taximeter.errors import ConfigError
from taximeter.ledger.balance import Event
from taximeter.ledger.metered import Say
from taximeter.ledger.sayings import SPENDING, crossing_in, grant_in, spent_in
from taximeter.records import RecordType

_THRESHOLD, _FACT, _GRANT = (kind.value for kind in (RecordType.THRESHOLD, RecordType.FACT, RecordType.GRANT))
_NOBODY: frozenset[str] = frozenset()
_EMPTY = Purse()
_NUMBERS = {_GRANT: "amount"}


class Dues:
    """The running sums of a ledger that is walked in order."""

    def __init__(self) -> None:
        self._tab = Tab()
        self._carried: Mapping[Key, Standing] = {}
        self._purses: Mapping[PurseKey, Purse] = {}
        self._granted: set[str] = set()
        self._credit = Credit()
        self._any_credit = False  #: so that a ledger without any pays nothing for it
        self._due: deque[tuple[str, Due]] = deque()  # and the record that it is due to

    def resume(self, spends: Mapping[Key, Standing], purses: Mapping[PurseKey, Purse]) -> None:
        """Go on from what was spent and granted by records that are not there any more."""
        self._carried, self._purses = spends, purses
        self._any_credit = bool(purses)
        self._granted = {part.grant.id for purse in purses.values() for part in purse.parts}
        self._tab = Tab(lambda key: spends.get(key, Standing()), lambda key: purses.get(key, Purse()))

    def carried(self) -> tuple[dict[Key, Standing], dict[PurseKey, Purse]]:
        """What was spent so far, and what is left, by all accounts."""
        summed, purses = self._tab.take_changed()
        return {**self._carried, **summed}, {**self._purses, **purses}

    def enter(self, event: Event, time_utc_ns: int | None, say: Say) -> None:
        """Add a record, whose time is known or not; says what was due before it, or is not due."""
        try:
            if event.type == _THRESHOLD:
                self._compare(event, say)
                return
            if self._due:
                for what in self.missing():
                    say(what)
            if event.type == _FACT and event.data.fact == SPENDING:
                self._judge_by(parse_spending(event.data.content, "its rules"))
            elif event.type == _GRANT:
                self._grant(grant_in(event), say)
            elif (one := spent_in(event, time_utc_ns)) is not None:
                self._spend(event.id, one)
        except ConfigError as error:
            say(str(error))
        except ArithmeticError:
            say(_no_number(_NUMBERS.get(event.type, "threshold")))
        except ValueError:
            said = event.data.expires_utc if event.type == _GRANT else event.time
            say(f"time: expected an instant, got {said!r}")

    def spend(self, by: str, one: Spent, say: Say) -> None:
        """Add what a record spends, of which somebody else has found that it can be read."""
        for what in self.missing():
            say(what)
        try:
            self._spend(by, one)
        except ArithmeticError:
            say(_no_number("threshold"))

    @property
    def is_waiting(self) -> bool:
        """Whether the next record is to tell of a threshold."""
        return bool(self._due)

    def missing(self) -> Iterator[str]:
        """What was due and was not told, right behind the record that crossed it."""
        while self._due:
            by, due = self._due.popleft()
            yield f"stands where the record is missing that {by} {_crossed(due)}"

    def differing(self, kept: Mapping[Key, Decimal], credit: Mapping[PurseKey, Purse]) -> Iterator[str]:
        """Where the sums that are kept beside the records, or the credit, are not those of the records."""
        summed, purses = self.carried()
        yield from _of_credit(credit, purses)
        for key in sorted({*kept, *summed}):
            expected = summed[key].spend if key in summed else Decimal(0)
            if kept.get(key, Decimal(0)) != expected:
                found = plain(kept[key]) if key in kept else "none"
                model = f", model {key.model}" if key.model else ""
                whose = f"account {key.account}, {key.period}{model}"
                yield f"the sum that is kept of {whose} is {found} {key.currency}, expected {plain(expected)}"

    def _judge_by(self, rules: Spending) -> None:
        self._credit = rules.credit
        self._any_credit = self._any_credit or rules.credit.prepaid != _NOBODY
        self._tab.judge_by(rules.thresholds)

    def _spend(self, by: str, one: Spent) -> None:
        for due in self._tab.spend(((0, one),)):
            self._due.append((by, due))
        if self._any_credit:
            self._tab.use_credit(one, prepaid=self._credit.is_prepaid(one.account))

    def _grant(self, grant: Grant, say: Say) -> None:
        if grant.id in self._granted:
            say(f"grants {grant.id}, which was granted before")
            return
        self._granted.add(grant.id)
        self._any_credit = True
        self._tab.grant(grant)

    def _compare(self, event: Event, say: Say) -> None:
        key, threshold, _ = crossing_in(event)
        if not self._due or (self._due[0][1].key, self._due[0][1].threshold) != (key, threshold):
            say(f"says that {key.account} crossed {plain(threshold)} {key.currency} in {key.period}: nothing did here")
            return
        _, due = self._due.popleft()
        if event.data.spend != plain(due.spend):
            say(f"spend is {event.data.spend}, expected {plain(due.spend)}")


def _of_credit(kept: Mapping[PurseKey, Purse], summed: Mapping[PurseKey, Purse]) -> Iterator[str]:
    """What is kept of grants and debts that no record leads to, or that lacks what one leads to."""
    for key in sorted({*kept, *summed}):
        found, expected = kept.get(key, _EMPTY), summed.get(key, _EMPTY)
        whose = f"account {key.account}"
        if found.owed != expected.owed:
            owed = plain(expected.owed)
            yield f"what is kept as owed by {whose} is {plain(found.owed)} {key.currency}, expected {owed}"
        parts, due = ({part.grant: part.left for part in purse.parts} for purse in (found, expected))
        for grant in sorted({*parts, *due}, key=lambda grant: grant.id):
            if grant not in due:
                yield f"grant {grant.id} of {whose} is kept, and no record grants it so"
            elif grant not in parts:
                yield f"grant {grant.id} of {whose} is not kept as its record grants it"
            elif parts[grant] != due[grant]:
                left = f"{plain(parts[grant])} {key.currency}, expected {plain(due[grant])}"
                yield f"what is kept as left of grant {grant.id} of {whose} is {left}"


def _no_number(name: str) -> str:
    return f"{name}: expected a number written as a decimal string"


def _crossed(due: Due) -> str:
    return f"crossed {plain(due.threshold)} {due.key.currency} of account {due.key.account}"
