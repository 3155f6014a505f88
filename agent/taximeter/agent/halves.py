"""Folds the facts of an instance that has many predictions open in pieces: others have a turn between two of them.

Owns what is half folded. It is kept beside its account, and booked once it is whole: no fact says that somebody paused,
so a crash between two pieces keeps nothing of it. What is told meanwhile comes behind it. Refuses to know who reads and
who tells, and when there is another turn.
"""

from collections.abc import Sequence

from taximeter.agent.accounts import Account, Half, Under
from taximeter.agent.allowance import AT_ONCE
from taximeter.agent.books import Books
from taximeter.events import Event
from taximeter.journal import Position
from taximeter.meter import Pause, Step, fold, go_on
from taximeter.overdue import goes_under
from taximeter.turn import Paused, Turn
from taximeter.values import replace


class Halves:
    """What is half folded of the instances in the books."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.names: set[str] = set()  #: of whom something is half folded, and goes on with the next reading

    def begin_read(
        self, name: str, events: Sequence[Event], seen: Sequence[Event], until: tuple[Position, bool]
    ) -> bool:
        """Fold what was read of an instance, or a part; whether there is more: there may be in the journal, too.

        `until` is where the journal goes on, and whether it does; what the agent itself has `seen` is kept.
        """
        account, (position, has_more) = self.books.accounts[name], until
        if account.instance is None:
            raise ValueError(f"cannot fold {name} in pieces: expected an instance that has begun")
        now = self.books.clocks.lately()
        step = fold(account.instance, events, self.books.book, now, AT_ONCE)
        return self._keep(name, account, Half(step, now, position, tuple(seen), has_more))

    def tell(self, name: str, events: Sequence[Event], seen: Sequence[Event], heard_bytes: int | None = None) -> None:
        """Fold what the agent itself tells, of which it is to keep what it has `seen`.

        Where many predictions are open it may be but a piece of that; what is half folded comes first.
        """
        books, account = self.books, self.books.accounts[name]
        if account.half is not None:
            account.half = account.half.followed_by(events, seen, heard_bytes)
        elif account.instance is not None and account.open_predictions > AT_ONCE:
            now = books.clocks.lately()
            step, behind = fold(account.instance, events, books.book, now, AT_ONCE), account.is_behind
            self._keep(name, account, Half(step, now, account.position, tuple(seen), behind, True, heard_bytes))
        else:
            books.note(name, seen)
            books.fold(name, account, events)
            if name in books.accounts:
                books.keep(name, account, heard_bytes)

    def put_under(self, name: str, account: Account, card: str) -> Under:
        """Have an instance of which nothing is half folded go on as if a card had not come late."""
        under = Under(card)
        if account.instance is not None:
            step = Step(account.instance, pause=Pause((), 0, account.instance, 0))
            now, most = self.books.clocks.lately(), None if account.open_predictions <= AT_ONCE else AT_ONCE
            half = Half(step, now, account.position, (), account.is_behind, is_told=True, under=under)
            self._keep(name, account, self._on(half, most))
        return under

    def go_on(self, name: str, most: int | None = AT_ONCE) -> bool:
        """Fold on what is half folded of an instance, by one piece; whether there is more, there or in its journal."""
        account = self.books.accounts.get(name)
        half = account.half if account is not None else None
        if account is None or half is None:
            return False
        return self._keep(name, account, self._on(half, most))

    def complete(self, name: str) -> None:
        """Fold what is half folded of an instance at once: whoever asks for that is rare, and cannot wait."""
        self.go_on(name, None)

    def _on(self, half: Half, most: int | None) -> Half:
        """What is half folded, by one piece more."""
        if half.under is None:
            return replace(half, step=go_on(half.step, self.books.book, half.now, most))
        return _under(half, half.under, Turn(self.books.book, list(half.step.records), room=most, may_pause=True))

    def _keep(self, name: str, account: Account, half: Half) -> bool:
        """What is half folded is kept beside the account, what is whole goes into it; whether there is more."""
        if half.step.pause is not None:
            account.half, account.is_behind = half, True
            self.names.add(name)
            return True
        account.half, account.position, account.is_behind = None, half.position, half.has_more
        self.names.discard(name)
        self.books.note(name, half.seen)
        self.books.post(name, account, half.step)
        if half.is_told and name in self.books.accounts:
            self.books.keep(name, account, half.heard_bytes)
        return half.has_more


def _under(half: Half, under: Under, turn: Turn) -> Half:
    """Go under a card by one piece; what was told meanwhile is still to be folded then."""
    step, pause = half.step, half.step.pause
    if pause is None:
        return half
    turn.cut = pause.cut
    try:
        instance = goes_under(step.instance, under.card, turn)
    except Paused as paused:
        pause = replace(pause, cut=paused.cut)
        return replace(half, step=Step(paused.instance, tuple(turn.records), pause=pause))
    records = under.records = tuple(turn.records)
    rest = Pause(pause.rest, 0, instance, len(records)) if pause.rest else None
    return replace(half, step=Step(instance, records, pause=rest), under=None)
