"""Predictions that call predictions, as values: what is known of each, what they come to, and where each stands.

Owns sums by currency, which are never added across, and what can be asked of a tree: a part of it, a path in it, its
payers, a few places for all. Refuses to know how a tree comes about (billing.tree).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from taximeter.billing.money import EXACT
from taximeter.records import BillingStatus

Money = Mapping[str, Decimal]  #: by currency
NO_MONEY: Money = {}


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
    amounts: Money = NO_MONEY
    charged: "tuple[Row, ...]" = ()  #: what each account had of it, where several ran it under one id


class Sums(NamedTuple):
    """What several predictions come to."""

    predictions: int = 0
    pending: int = 0
    unrated: int = 0  #: those that have no price, so that no amount tells of them
    informative: int = 0  #: those that are billed with the instance they ran on, and not here
    active_ns: int = 0
    share_ns: int = 0
    amounts: Money = NO_MONEY

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
            added(self.amounts, other.amounts),
        )


NO_SUMS = Sums()


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


class Node(NamedTuple):
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
        """What each account is charged; a prediction that several ran under one id is one of each of them."""
        sums: dict[str | None, Sums] = {}
        for row in (node.row for node in self.nodes if node.row is not None):
            for part in row.charged or (row,):
                sums[part.account] = sums.get(part.account, NO_SUMS).plus(sums_of(part))
        return dict(sorted(sums.items(), key=lambda item: item[0] or ""))


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


def added(one: Money, other: Money) -> Money:
    """Money and money, by currency."""
    if not one or not other:
        return one or other
    return {**one, **{currency: EXACT.add(one.get(currency, Decimal(0)), sum_) for currency, sum_ in other.items()}}
