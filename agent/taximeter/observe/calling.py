"""Who called whom on a node: from the ledger, and what an agent sees running, to the tree that a prediction stands in.

Owns which predictions belong to a tree, and that memory stays bounded however many do: PLACED_MAX stand in it, the rest
is in the sums. Refuses to write, and to know how a tree is shown.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

import msgspec

from taximeter.billing.calls import NO_MONEY, NO_SUMS, Money, Row, Sums, Tree, added
from taximeter.billing.tree import build
from taximeter.errors import LedgerError
from taximeter.observe.snapshot import InstanceView, PredictionView
from taximeter.records import BillingStatus, RecordType

#: So many predictions are placed in a tree, each on each instance; what one root has beyond is counted and summed.
PLACED_MAX = 50_000
#: So many parents that are not in a tree are looked up, to tell those in another tree from those without a record.
_STRANGERS_MAX = 1_000
#: Of so many predictions it is remembered who the first is that their roots lead to.
_TOPS_MAX = 100_000


class Called(Protocol):
    """What is asked of a ledger's reader."""

    def root_of(self, prediction: str) -> str | None:
        """The root that a prediction's first record names; None where it has no record."""

    def roots(self, top: str, most: int) -> tuple[str, ...]:
        """`top` and whatever below it is named as a root by others."""

    def of_root(self, root: str) -> Iterator[bytes]:
        """The records of a root, and of the predictions that name it as theirs."""

    def below(self, root: str) -> Iterator[bytes]:
        """The records of the predictions that name `root` as theirs."""

    def next_root(self, after: str = "") -> str | None:
        """The first root in order beyond `after` that another prediction names."""


@dataclass(frozen=True, slots=True)
class Calls:
    """The tree that a prediction stands in."""

    tree: Tree
    #: By account, what belongs to it and was too many to be placed.
    beyond: Mapping[str | None, Sums] = field(default_factory=dict)


# What is read of a record: no more, and nothing that could hold a ring, so that no collector looks at it.
class _Line(msgspec.Struct, gc=False):
    multiplier: str


class _Billing(msgspec.Struct, gc=False):
    status: str
    amount: str | None = None
    currency: str | None = None
    lines: list[_Line] = []


class _Interval(msgspec.Struct, gc=False):
    start_utc: str


class _Time(msgspec.Struct, gc=False):
    active_ns: int = 0
    share_ns: int = 0


class _Data(msgspec.Struct, gc=False):
    prediction: str
    instance: str
    interval: _Interval
    time: _Time
    billing: _Billing
    parent: str | None = None
    root: str | None = None
    account: str | None = None
    model: str | None = None
    service_class: str | None = msgspec.field(name="class", default=None)
    status: str | None = None
    final: bool | None = None


class _Event(msgspec.Struct, gc=False):
    type: str
    data: _Data


class _UnreadableError(LedgerError):
    pass


_decode = msgspec.json.Decoder(_Event).decode


def calls_of(ledger: Called, views: Iterable[InstanceView], asked: str) -> Calls | None:
    """The tree that a prediction stands in, all of it; None where nobody knows of that prediction."""
    running = _Running(ledger, views)
    top = running.top_of(asked)
    calls = _calls(ledger, running, top)
    return calls if any(node.prediction == asked for node in calls.tree.nodes) else None


def all_calls(ledger: Called) -> Iterator[Calls]:
    """Every tree of a ledger in which anybody called anybody, one after the other, as far as it can be read."""
    running = _Running(ledger, ())
    root: str | None = ""
    while root is not None:
        try:
            root = ledger.next_root(root)
            if root is not None and running.top_of(root) == root:
                yield _calls(ledger, running, root)
        except _UnreadableError:
            continue  # what is wrong with that record is the audit's to say
        except LedgerError:
            return


class _Running:
    """What runs now, by its id, and the roots that it and the ledger's predictions name."""

    def __init__(self, ledger: Called, views: Iterable[InstanceView]) -> None:
        self._ledger = ledger
        self._open = [(view.instance, own) for view in views for own in view.predictions]
        self._roots = {own.prediction: own.root for _, own in self._open}
        self._tops: dict[str, str] = {}  # so that a long chain is gone through once, and not once for each of its links

    def top_of(self, prediction: str) -> str:
        """The first of all that its root leads to; of roots that lead in a circle, the one that is first by name."""
        seen: dict[str, None] = {}
        at = prediction
        while at not in seen and at not in self._tops:
            seen[at] = None
            at = self._ledger.root_of(at) or self._roots.get(at) or at
        top = self._tops.get(at) or min(list(seen)[list(seen).index(at) :])
        if len(self._tops) + len(seen) > _TOPS_MAX:
            self._tops.clear()
        self._tops.update(dict.fromkeys(seen, top))
        return top

    def below(self, top: str) -> Sequence[tuple[str, PredictionView]]:
        """What runs in the tree of `top`, each with its instance."""
        return [(instance, own) for instance, own in self._open if self.top_of(own.prediction) == top]


def _calls(ledger: Called, running: _Running, top: str) -> Calls:
    open_ = running.below(top)
    firsts = dict.fromkeys([top, *(own.prediction for _, own in open_)])
    roots = dict.fromkeys(root for first in firsts for root in ledger.roots(first, PLACED_MAX))
    rows = _Rows()
    for root in roots:
        for body in ledger.of_root(root) if root in firsts else ledger.below(root):
            rows.take(_read(body))
    for instance, own in open_:
        rows.see(instance, own)
    found = rows.all()
    return Calls(build(found, top, _strangers(ledger, found)), rows.beyond)


def _read(body: bytes) -> _Event:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _UnreadableError(f"cannot read a record: expected one of a prediction, got: {error}") from error


def _strangers(ledger: Called, rows: Sequence[Row]) -> Mapping[str, str]:
    """The roots of parents that have records here, and are not among the rows."""
    named = {row.prediction for row in rows}
    absent = dict.fromkeys(row.parent for row in rows if row.parent is not None and row.parent not in named)
    found = {name: ledger.root_of(name) for name in list(absent)[:_STRANGERS_MAX]}
    return {name: root for name, root in found.items() if root is not None}


@dataclass(slots=True)
class _Run:
    """What the records of one prediction of one account on one instance come to, so far."""

    first: _Data
    last: _Data
    ended: int = 0
    open: bool = False
    active_ns: int = 0
    share_ns: int = 0
    amounts: Money | None = None
    statuses: tuple[str, ...] = ()

    def take(self, event: _Event) -> None:
        data, billing = event.data, event.data.billing
        if billing.amount is not None and billing.currency is not None:
            self.amounts = added(self.amounts or NO_MONEY, {billing.currency: Decimal(billing.amount)})
        if event.type == RecordType.CORRECTION:
            if any(not line.multiplier.startswith("-") for line in billing.lines):
                self.statuses = (BillingStatus.RATED,)  # evidence that came late found a price for all of it
            return
        self.last = data
        self.active_ns += data.time.active_ns
        self.share_ns += data.time.share_ns
        if billing.status not in self.statuses:
            self.statuses += (billing.status,)
        self.ended += bool(data.final)
        self.open = not data.final

    def row(self) -> Row:
        first, last = self.first, self.last
        known = [status for status in _STRONGEST if status in self.statuses]
        return Row(
            first.prediction,
            first.instance,
            first.interval.start_utc,
            first.parent,
            first.root,
            last.account,
            last.model,
            last.service_class,
            last.status,
            known[0].value if known else None,
            self.open,
            max(1, self.ended + self.open),
            self.active_ns,
            self.share_ns,
            self.amounts or NO_MONEY,
        )


#: What a run of records of several kinds is: without a price, if a part of it has none.
_STRONGEST = (BillingStatus.UNRATED, BillingStatus.RATED, BillingStatus.INFORMATIVE, BillingStatus.FREE)


_Key = tuple[str, str, str | None]  # prediction, instance, account


class _Rows:
    """Rows while records pass by."""

    def __init__(self) -> None:
        self._runs: dict[_Key, _Run] = {}
        self._open: dict[_Key, Row] = {}
        self.beyond: dict[str | None, Sums] = {}

    def take(self, event: _Event) -> None:
        """Add a record."""
        data = event.data
        key = data.prediction, data.instance, data.account
        run = self._runs.get(key)
        if run is None and len(self._runs) < PLACED_MAX:
            run = self._runs[key] = _Run(data, data)
        if run is not None:
            run.take(event)
            return
        over = _Run(data, data)
        over.take(event)
        row = over.row()
        sums = Sums(int(bool(data.final)), 0, 0, 0, row.active_ns, row.share_ns, row.amounts)
        account = row.account if row.account in self.beyond or len(self.beyond) < PLACED_MAX else None
        self.beyond[account] = self.beyond.get(account, NO_SUMS).plus(sums)

    def see(self, instance: str, own: PredictionView) -> None:
        """Add what runs; it may have records already, of what it used so far or of an earlier run."""
        key = own.prediction, instance, own.account
        run = self._runs.get(key)
        if run is not None:
            run.open = True
        elif len(self._open) < PLACED_MAX:
            self._open[key] = _running(instance, own)

    def all(self) -> Sequence[Row]:
        """Every row."""
        return [*(run.row() for run in self._runs.values()), *self._open.values()]


def _running(instance: str, own: PredictionView) -> Row:
    return Row(
        own.prediction,
        instance,
        own.started_utc,
        own.parent,
        own.root,
        own.account,
        own.model,
        own.service_class,
        "processing",
        pending=True,
    )
