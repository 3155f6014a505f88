"""Calls of calls: flat rows, a few for each prediction, become one tree in which every prediction stands once.

Owns where each stands, what it comes to with all that it called, and what cannot be so. Any rows make a tree: what
names a parent that is not among them stands under a placeholder for that one, a chain that comes back to itself is cut
at its earliest call, and neither the order of the rows nor the depth of the calls matters. Refuses to read, to price,
and to judge whose bill it is.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from taximeter.billing.calls import NO_MONEY, NO_SUMS, Finding, Kind, Link, Node, Row, Sums, Tree, added, sums_of

_NONE: Mapping[str, str] = {}


def build(rows: Iterable[Row], top: str, known: Mapping[str, str] = _NONE) -> Tree:
    """The tree of all `rows` below the prediction `top`.

    `known` has the roots of predictions that are named as parents and have records here, though they are not among
    the rows: parents in another tree.
    """
    return _Growth(rows, top, known).tree()


@dataclass(slots=True)
class _Sprout:
    """A place while the tree grows."""

    under: str | None = None
    link: Link = Link.ELSEWHERE
    below: list[str] = field(default_factory=list)
    depth: int = 0
    size: int = 1
    own: Sums = NO_SUMS
    downstream: Sums = NO_SUMS


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
        if name in self._rows:
            place.own = sums_of(self._rows[name])
        if place.under is not None:
            above = self._places[place.under]
            above.size += place.size
            above.downstream = above.downstream.plus(place.own).plus(place.downstream)

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
            place.own,
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
    merged: dict[str, Row] = {}
    several: dict[str, list[Row]] = {}
    for row in rows:
        known = merged.setdefault(row.prediction, row)
        if known is not row:
            several.setdefault(row.prediction, [known]).append(row)
    merged |= {name: _merged(sorted(runs, key=_order)) for name, runs in several.items()}
    return dict(sorted(merged.items(), key=lambda item: (item[1].started, item[0])))


def _order(row: Row) -> tuple[str, ...]:
    words = (row.instance, row.parent, row.root, row.account, row.model, row.status, row.billing, row.service_class)
    return (row.started, *(word or "" for word in words))


def _merged(runs: Sequence[Row]) -> Row:
    first, last = runs[0], runs[-1]
    amounts = NO_MONEY
    by_account: dict[str | None, list[Row]] = {}
    for run in runs:
        amounts = added(amounts, run.amounts)
        by_account.setdefault(run.account, []).append(run)
    return last._replace(
        started=first.started,
        parent=first.parent,
        root=first.root,
        pending=any(run.pending for run in runs),
        runs=sum(run.runs for run in runs),
        active_ns=sum(run.active_ns for run in runs),
        share_ns=sum(run.share_ns for run in runs),
        amounts=amounts,
        charged=tuple(_merged(own) for own in by_account.values()) if len(by_account) > 1 else (),
    )
