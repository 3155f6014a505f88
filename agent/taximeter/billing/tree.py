"""Calls of calls: flat rows, a few for each prediction, become one tree in which every prediction stands once.

Owns where each stands, what it costs with all that it called, and what cannot be so. Any rows make a tree: what names a
parent that is not among them stands under a placeholder for that one, a chain that comes back to itself is cut at its
earliest call, and neither the order of the rows nor the depth of the calls matters. Money is added by currency, never
across. Refuses to read, to price, and to judge whose bill it is.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from taximeter.billing.money import EXACT
from taximeter.records import BillingStatus

Money = Mapping[str, Decimal]  #: by currency
_NO_MONEY: Money = {}
_NONE: Mapping[str, str] = {}


class Row(NamedTuple):
    """What is known of a prediction on one instance."""

    prediction: str
    instance: str
    started: str  #: when, as a text that sorts as time does
    parent: str | None = None
    root: str | None = None
    account: str | None = None
    model: str | None = None
    service_class: str | None = None
    status: str | None = None
    billing: str | None = None  #: rated, informative, …; None before its first record
    pending: bool = False
    runs: int = 1  #: how many bear this id on this instance
    active_ns: int = 0
    share_ns: int = 0
    amounts: Money = _NO_MONEY


class Sums(NamedTuple):
    """What several predictions come to."""

    predictions: int = 0
    pending: int = 0
    unrated: int = 0  #: those that have no price, so that no amount tells of them
    informative: int = 0  #: those that are billed with the instance they ran on, and not here
    active_ns: int = 0
    share_ns: int = 0
    amounts: Money = _NO_MONEY

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        if not other.predictions and not other.amounts:
            return self
        return Sums(
            self.predictions + other.predictions,
            self.pending + other.pending,
            self.unrated + other.unrated,
            self.informative + other.informative,
            self.active_ns + other.active_ns,
            self.share_ns + other.share_ns,
            _added(self.amounts, other.amounts),
        )


_NO_SUMS = Sums()


class Link(StrEnum):
    """Why something stands where it does."""

    ROOT = "root"  #: the first of all
    CALL = "call"  #: under the parent that it names
    LOOSE = "loose"  #: it names its root and no parent
    CUT = "cut"  #: the chain of its parents comes back to it
    ELSEWHERE = "elsewhere"  #: a placeholder: others name it, and its records are not here


class Kind(StrEnum):
    """What is worth a look in a tree; none of it changes a bill."""

    CYCLE = "cycle"  #: its parents lead back to itself
    ORPHAN = "orphan"  #: its parent has no record here
    ROOT_MISMATCH = "root_mismatch"  #: it names another root than its parent does
    ACCOUNT = "account"  #: another account pays for it than for its parent
    DUPLICATE = "duplicate"  #: several runs bear its id


class Finding(NamedTuple):
    """One of these, of one prediction."""

    kind: Kind
    prediction: str
    said: str | None = None  #: its parent, its root, its account
    expected: str | None = None  #: its parent's root, its parent's account


@dataclass(frozen=True, slots=True)
class Node:
    """A place in the tree, with what stands there: all the runs of one prediction as one row; None: a placeholder."""

    prediction: str
    row: Row | None
    link: Link
    under: str | None  #: whom it stands under
    depth: int
    size: int  #: how many places it makes up with all below
    calls: int  #: how many places are right below it
    own: Sums
    downstream: Sums

    @property
    def total(self) -> Sums:
        """It, and all below."""
        return self.own.plus(self.downstream)


@dataclass(frozen=True, slots=True)
class Tree:
    """Places, each before those below it, siblings by their start; and what is worth a look."""

    nodes: tuple[Node, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def top(self) -> Node:
        """The first caller of all that is shown."""
        return self.nodes[0]

    def part(self, prediction: str) -> "Tree | None":
        """One place with all below it; None where nothing stands for that prediction."""
        for at, node in enumerate(self.nodes):
            if node.prediction == prediction:
                nodes = self.nodes[at : at + node.size]
                named = {one.prediction for one in nodes}
                return Tree(nodes, tuple(finding for finding in self.findings if finding.prediction in named))
        return None

    def path(self, prediction: str) -> tuple[Node, ...]:
        """The callers of a prediction, from the first one to its own."""
        by_id = {node.prediction: node for node in self.nodes}
        path: list[Node] = []
        above = by_id[prediction].under
        while above is not None:
            path.append(by_id[above])
            above = by_id[above].under
        return tuple(reversed(path))

    def listed(self, most: int) -> tuple[Node, ...]:
        """At most so many places: whoever called is there before what was called, and all levels fill evenly."""
        if len(self.nodes) <= most:
            return self.nodes
        levels = sorted(range(len(self.nodes)), key=lambda at: self.nodes[at].depth)
        return tuple(self.nodes[at] for at in sorted(levels[:most]))

    def payers(self) -> dict[str | None, Sums]:
        """What each account is charged."""
        sums: dict[str | None, Sums] = {}
        for node in self.nodes:
            if node.row is not None:
                sums[node.row.account] = sums.get(node.row.account, Sums()).plus(node.own)
        return dict(sorted(sums.items(), key=lambda item: item[0] or ""))


def build(rows: Iterable[Row], top: str, known: Mapping[str, str] = _NONE) -> Tree:
    """The tree of all `rows` below the prediction `top`.

    `known` has the roots of predictions that are named as parents and have records here, though they are not among
    the rows: parents in another tree.
    """
    return _Growth(rows, top, known).tree()


def sums_of(row: Row) -> Sums:
    """What one prediction comes to."""
    return Sums(
        1,
        int(row.pending),
        int(row.billing == BillingStatus.UNRATED),
        int(row.billing == BillingStatus.INFORMATIVE),
        row.active_ns,
        row.share_ns,
        row.amounts,
    )


@dataclass(slots=True)
class _Sprout:
    """A place while the tree grows."""

    under: str | None = None
    link: Link = Link.ELSEWHERE
    below: list[str] = field(default_factory=list)
    depth: int = 0
    size: int = 1
    downstream: Sums = _NO_SUMS


class _Growth:
    """Rows on their way to a tree."""

    def __init__(self, rows: Iterable[Row], top: str, known: Mapping[str, str]) -> None:
        self._rows = _by_prediction(rows)
        self._top = top
        self._known = known
        self._cut = set(self._cuts())
        self._places: dict[str, _Sprout] = {top: _Sprout()}

    def tree(self) -> Tree:
        for name in self._rows:
            self._place(name)
        order = self._walk()
        for name in reversed(order):
            self._add_up(name)
        return Tree(tuple(self._node(name) for name in order), tuple(self._findings()))

    def _parent(self, name: str) -> str | None:
        """Who called it; nobody called the first of all, whatever that one says."""
        return None if name == self._top else self._rows[name].parent

    def _cuts(self) -> Iterator[str]:
        """Of each chain of parents that comes back to itself, the earliest call."""
        done: set[str] = set()
        for name in self._rows:
            chain: dict[str, None] = {}
            at: str | None = name
            while at in self._rows and at not in done:
                done.add(at)
                chain[at] = None
                at = self._parent(at)
            if at in chain:
                ring = list(chain)[list(chain).index(at) :]
                yield min(ring, key=self._rank)

    def _rank(self, name: str) -> tuple[str, str]:
        return self._rows[name].started, name

    def _place(self, name: str) -> None:
        parent = self._parent(name)
        if name == self._top:
            self._places[name].link = Link.ROOT
            return
        if name in self._cut:
            link, under = Link.CUT, self._top
        elif parent is None:
            link, under = Link.LOOSE, self._top
        else:
            link, under = Link.CALL, parent
            if parent not in self._rows and parent not in self._places:
                self._places[parent] = _Sprout(self._top)
                self._places[self._top].below.append(parent)
        place = self._places.setdefault(name, _Sprout())
        place.link, place.under = link, under
        self._places.setdefault(under, _Sprout()).below.append(name)

    def _walk(self) -> list[str]:
        """All places, each before those below it."""
        order: list[str] = []
        ahead = [self._top]
        while ahead:
            name = ahead.pop()
            order.append(name)
            place = self._places[name]
            for below in place.below:
                self._places[below].depth = place.depth + 1
            ahead.extend(reversed(place.below))
        return order

    def _add_up(self, name: str) -> None:
        place = self._places[name]
        if place.under is not None:
            above = self._places[place.under]
            above.size += place.size
            above.downstream = above.downstream.plus(self._own(name)).plus(place.downstream)

    def _own(self, name: str) -> Sums:
        return sums_of(self._rows[name]) if name in self._rows else Sums()

    def _node(self, name: str) -> Node:
        place = self._places[name]
        return Node(
            name,
            self._rows.get(name),
            place.link,
            place.under,
            place.depth,
            place.size,
            len(place.below),
            self._own(name),
            place.downstream,
        )

    def _findings(self) -> Iterator[Finding]:
        for name, row in self._rows.items():
            if name in self._cut or (name == self._top and row.parent in self._rows):
                yield Finding(Kind.CYCLE, name, row.parent)
            yield from self._of_parent(name, row)
            if row.runs > 1:
                yield Finding(Kind.DUPLICATE, name, str(row.runs))

    def _of_parent(self, name: str, row: Row) -> Iterator[Finding]:
        if row.parent is None:
            return
        parent = self._rows.get(row.parent)
        root = self._known.get(row.parent) if parent is None else parent.root
        if root is None and parent is None:
            yield Finding(Kind.ORPHAN, name, row.parent)
        if root is not None and row.root != root:
            yield Finding(Kind.ROOT_MISMATCH, name, row.root, root)
        if parent is not None and row.account != parent.account:
            yield Finding(Kind.ACCOUNT, name, row.account, parent.account)


def _by_prediction(rows: Iterable[Row]) -> dict[str, Row]:
    """One row for each prediction, by their start: kin is that of its first run, how it stands that of its last."""
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(row.prediction, []).append(row)
    merged = [_merged(sorted(of, key=_order)) for of in runs.values()]
    return {row.prediction: row for row in sorted(merged, key=lambda row: (row.started, row.prediction))}


def _order(row: Row) -> tuple[str, ...]:
    words = (row.instance, row.parent, row.root, row.account, row.model, row.status, row.billing, row.service_class)
    return (row.started, *(word or "" for word in words))


def _merged(runs: Sequence[Row]) -> Row:
    first, last = runs[0], runs[-1]
    if first is last:
        return first
    amounts = _NO_MONEY
    for run in runs:
        amounts = _added(amounts, run.amounts)
    return last._replace(
        started=first.started,
        parent=first.parent,
        root=first.root,
        pending=any(run.pending for run in runs),
        runs=sum(run.runs for run in runs),
        active_ns=sum(run.active_ns for run in runs),
        share_ns=sum(run.share_ns for run in runs),
        amounts=amounts,
    )


def _added(one: Money, other: Money) -> Money:
    if not one or not other:
        return one or other
    return {**one, **{currency: EXACT.add(one.get(currency, Decimal(0)), sum_) for currency, sum_ in other.items()}}
