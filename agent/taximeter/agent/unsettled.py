"""What is billed anew of instances whose records are not settled: they are open, or over and gone through once more.

Owns when an instance that is over is let go of: once nothing of what it billed is to be reviewed, and no rate card
that came late has anything left to correct. Refuses to know what is corrected, and to read any record.
"""

from collections.abc import Iterable

from taximeter.agent.accounts import Account, Under
from taximeter.agent.halves import Halves
from taximeter.events import Opened
from taximeter.instance import Ended, Review
from taximeter.late import review
from taximeter.lifecycle import Stage
from taximeter.overdue import corrected
from taximeter.records import UsageRecord
from taximeter.values import replace


class Unsettled:
    """The instances in the books whose records may still be corrected."""

    def __init__(self, halves: Halves) -> None:
        self.books = halves.books
        self.halves = halves

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [*self.books.accounts, *self.books.settling]

    def account(self, name: str) -> Account | None:
        """What is known of an instance; None where it is settled."""
        return self.books.accounts.get(name) or self.books.settling.get(name)

    # --- Other evidence ---

    def review_of(self, instance: str) -> tuple[Opened, Review] | None:
        """What is to be looked through again of an instance's records; None, and no more asked for, if nothing is."""
        account = self.account(instance)
        known = account.instance if account is not None else None
        if known is None or known.review is None:
            self.books.reviews.pop(instance, None)
            return None
        return known.opened, known.review

    def reviewed(self, instance: str, ended: Iterable[tuple[int, Ended]], at: int) -> None:
        """Book the corrections of what has ended, as its records up to `at` say, and how far that got."""
        account = self.account(instance)
        if account is None or account.instance is None or account.half is not None:
            return  # it is to be reviewed anew, once it is whole
        account.instance, records = review(account.instance, ended, at, self.books.book)
        self.books.book_corrections(records)
        if account.instance.review is None:
            self.books.reviews.pop(instance, None)
        if account.instance.stage is Stage.CLOSED:
            self.books.close(instance, account)
        else:
            self.books.keep(instance, account)

    # --- Rate cards that came late ---

    @property
    def repriced(self) -> list[str]:
        """Who is over, and whose records are to be settled by a card that came late; what is reviewed comes first."""
        settling = self.books.settling.items()
        return [name for name, account in settling if account.instance is not None and account.instance.review is None]

    def put_under(self, name: str, card: str) -> Under | None:
        """Have an instance go on as if a card had not come late; None where it is settled, or has not begun."""
        self.halves.complete(name)
        account = self.account(name)
        if account is None or account.instance is None:
            return None
        return self.halves.put_under(name, account, card)

    def correct(self, name: str, records: tuple[UsageRecord, ...]) -> bool:
        """Book corrections of an instance's records; False where it is settled."""
        self.halves.complete(name)
        account = self.account(name)
        if account is None or account.instance is None:
            return False
        account.instance, told = corrected(account.instance, records)
        self.books.book_corrections(told)
        self.books.keep(name, account)
        return True

    def settled(self, name: str) -> None:
        """Let go of an instance that is over, now that its records are as if no card had come late."""
        account = self.books.settling.get(name)
        if account is not None and account.instance is not None:
            account.instance = replace(account.instance, repriced=())
            self.books.close(name, account)
