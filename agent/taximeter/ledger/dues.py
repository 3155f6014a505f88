"""The dues: what accounts spent by the records, and which thresholds had to be told, as the audit walks by.

Owns the laws between records of accounts: a threshold's record stands right behind the one that crossed it, says what
was spent by then, and there is no other; kept sums are those of the records. Keeps a sum for each account, currency,
month and model. Refuses to know the chain.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from decimal import Decimal

from taximeter.billing.money import plain
from taximeter.billing.spending import parse_spending
from taximeter.billing.tab import Tab
from taximeter.billing.thresholds import Due, Key, Standing
from taximeter.errors import ConfigError
from taximeter.ledger.balance import Event
from taximeter.ledger.metered import Say
from taximeter.ledger.sayings import SPENDING, crossing_in, spent_in
from taximeter.records import RecordType

_THRESHOLD, _FACT = RecordType.THRESHOLD.value, RecordType.FACT.value


class Dues:
    """The running sums of a ledger that is walked in order."""

    def __init__(self) -> None:
        self._tab = Tab()
        self._carried: Mapping[Key, Standing] = {}
        self._due: deque[tuple[str, Due]] = deque()  # and the record that it is due to

    def resume(self, spends: Mapping[Key, Standing]) -> None:
        """Go on from what was spent by records that are not there any more."""
        self._carried = spends
        self._tab = Tab(lambda key: spends.get(key, Standing()))

    def carried(self) -> dict[Key, Standing]:
        """What was spent so far, by all accounts."""
        summed, _ = self._tab.take_changed()
        return {**self._carried, **summed}

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
                self._tab.judge_by(parse_spending(event.data.content, "its rules").thresholds)
            elif (one := spent_in(event, time_utc_ns)) is not None:
                for due in self._tab.spend(((0, one),)):
                    self._due.append((event.id, due))
        except ConfigError as error:
            say(str(error))
        except ArithmeticError:
            say("threshold: expected a number written as a decimal string")
        except ValueError:
            say(f"time: expected an instant, got {event.time!r}")

    def missing(self) -> Iterator[str]:
        """What was due and was not told, right behind the record that crossed it."""
        while self._due:
            by, due = self._due.popleft()
            yield f"stands where the record is missing that {by} {_crossed(due)}"

    def differing(self, kept: Mapping[Key, Decimal]) -> Iterator[str]:
        """Where the sums that are kept beside the records are not those of the records."""
        summed = self.carried()
        for key in sorted({*kept, *summed}):
            expected = summed[key].spend if key in summed else Decimal(0)
            if kept.get(key, Decimal(0)) != expected:
                found = plain(kept[key]) if key in kept else "none"
                model = f", model {key.model}" if key.model else ""
                whose = f"account {key.account}, {key.period}{model}"
                yield f"the sum that is kept of {whose} is {found} {key.currency}, expected {plain(expected)}"

    def _compare(self, event: Event, say: Say) -> None:
        key, threshold, _ = crossing_in(event)
        if not self._due or (self._due[0][1].key, self._due[0][1].threshold) != (key, threshold):
            say(f"says that {key.account} crossed {plain(threshold)} {key.currency} in {key.period}: nothing did here")
            return
        _, due = self._due.popleft()
        if event.data.spend != plain(due.spend):
            say(f"spend is {event.data.spend}, expected {plain(due.spend)}")


def _crossed(due: Due) -> str:
    return f"crossed {plain(due.threshold)} {due.key.currency} of account {due.key.account}"
