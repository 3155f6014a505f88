"""Calls of calls: any rows become one tree, in which every prediction stands once and every amount counts once."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.billing.calls import Finding, Kind, Link, Node, Row, Sums, Tree, sums_of
from taximeter.billing.tree import build

USD = {"USD": Decimal("0.5")}


def row(prediction: str, parent: str | None = None, at: int = 0, **more: Any) -> Row:
    """A row of a prediction whose root is `r`."""
    said = {"root": "r", "instance": f"i-{prediction}", "amounts": USD, "active_ns": 10, "share_ns": 5}
    return Row(prediction, started=f"2026-11-22T10:00:{at:02d}Z", parent=parent, **{**said, **more})


def drawn(tree: Tree) -> list[str]:
    """The tree as a person would write it down."""
    return ["  " * node.depth + node.prediction for node in tree.nodes]


def at(tree: Tree, prediction: str) -> Node:
    part = tree.part(prediction)
    assert part is not None
    return part.top


def kinds(tree: Tree) -> list[tuple[Kind, str]]:
    return [(finding.kind, finding.prediction) for finding in tree.findings]


FAMILY = [row("r"), row("a", "r", 1), row("b", "r", 2), row("c", "a", 3)]


def test_calls_stand_below_their_callers() -> None:
    assert drawn(build(FAMILY, "r")) == ["r", "  a", "    c", "  b"]


def test_siblings_stand_by_their_start_and_then_by_their_name() -> None:
    tree = build([row("r"), row("c", "r", 5), row("b", "r", 5), row("a", "r", 9)], "r")
    assert drawn(tree) == ["r", "  b", "  c", "  a"]


def test_a_root_alone_is_a_tree() -> None:
    tree = build([row("r")], "r")
    assert (drawn(tree), tree.top.link, tree.top.downstream) == (["r"], Link.ROOT, Sums())


def test_what_is_downstream_is_summed_and_what_is_its_own_is_apart() -> None:
    top = build(FAMILY, "r").top
    assert top.own == Sums(1, 0, 0, 0, 10, 5, {"USD": Decimal("0.5")})
    assert top.downstream == Sums(3, 0, 0, 0, 30, 15, {"USD": Decimal("1.5")})
    assert top.total == Sums(4, 0, 0, 0, 40, 20, {"USD": Decimal("2.0")})


def test_unlike_currencies_are_never_added() -> None:
    tree = build([row("r"), row("a", "r", amounts={"EUR": Decimal(7)}), row("b", "r")], "r")
    assert tree.top.total.amounts == {"USD": Decimal("1.0"), "EUR": Decimal(7)}


def test_what_runs_has_no_price_or_is_billed_elsewhere_is_counted() -> None:
    rows = [row("a", "r", pending=True), row("b", "r", billing="unrated"), row("c", "r", billing="informative")]
    assert build([row("r"), *rows], "r").top.downstream[1:4] == (1, 1, 1)


def test_a_root_that_has_no_record_here_is_a_placeholder() -> None:
    tree = build([row("a", "r"), row("b", "r", 1)], "r")
    assert (drawn(tree), tree.top.link, tree.top.row) == (["r", "  a", "  b"], Link.ELSEWHERE, None)
    assert tree.top.total.predictions == 2


def test_an_orphan_stands_below_a_placeholder_for_its_parent() -> None:
    tree = build([row("r"), row("a", "x"), row("b", "x", 1)], "r")
    assert drawn(tree) == ["r", "  x", "    a", "    b"]
    assert at(tree, "x").link is Link.ELSEWHERE
    assert tree.findings == (Finding(Kind.ORPHAN, "a", "x"), Finding(Kind.ORPHAN, "b", "x"))


def test_who_names_a_root_and_no_parent_stands_below_the_root() -> None:
    tree = build([row("r"), row("a")], "r")
    assert (drawn(tree), at(tree, "a").link, tree.findings) == (["r", "  a"], Link.LOOSE, ())


def test_a_chain_that_comes_back_is_cut_at_its_earliest_call() -> None:
    tree = build([row("r"), row("a", "c", 2), row("b", "a", 1), row("c", "b", 3), row("d", "c", 4)], "r")
    assert drawn(tree) == ["r", "  b", "    c", "      a", "      d"]
    assert (at(tree, "b").link, tree.findings) == (Link.CUT, (Finding(Kind.CYCLE, "b", "a"),))


def test_who_names_itself_as_parent_is_cut() -> None:
    tree = build([row("r"), row("a", "a")], "r")
    assert (drawn(tree), kinds(tree)) == (["r", "  a"], [(Kind.CYCLE, "a")])


def test_a_root_that_was_called_from_below_stays_the_root() -> None:
    tree = build([row("r", "b"), row("a", "r", 1), row("b", "a", 2)], "r")
    assert (drawn(tree), kinds(tree)) == (["r", "  a", "    b"], [(Kind.CYCLE, "r")])


def test_a_root_that_names_a_caller_without_a_record_says_so() -> None:
    assert build([row("r", "x")], "r").findings == (Finding(Kind.ORPHAN, "r", "x"),)


def test_another_root_than_the_parents_is_found() -> None:
    tree = build([row("r"), row("a", "r"), row("b", "a", 1, root="a")], "r")
    assert tree.findings == (Finding(Kind.ROOT_MISMATCH, "b", "a", "r"),)


def test_a_parent_in_another_tree_is_no_orphans_and_has_another_root() -> None:
    tree = build([row("r"), row("a", "x")], "r", {"x": "s"})
    assert tree.findings == (Finding(Kind.ROOT_MISMATCH, "a", "r", "s"),)


def test_a_parent_that_is_kept_apart_and_has_the_same_root_is_nothing_odd() -> None:
    assert build([row("r"), row("a", "x")], "r", {"x": "r"}).findings == ()


def test_another_account_than_the_parents_is_reported() -> None:
    tree = build([row("r", account="cus_1"), row("a", "r", account="cus_2"), row("b", "r", account="cus_1")], "r")
    assert tree.findings == (Finding(Kind.ACCOUNT, "a", "cus_2", "cus_1"),)


def test_each_account_is_told_what_it_is_charged() -> None:
    rows = [row("r", account="cus_2"), row("a", "x", account="cus_1"), row("b", "r"), row("c", "r", account="cus_2")]
    payers = build(rows, "r").payers()
    assert list(payers) == [None, "cus_1", "cus_2"]
    assert payers["cus_2"].amounts == {"USD": Decimal("1.0")}


def test_of_one_id_that_two_accounts_ran_each_is_told_its_own_part() -> None:
    runs = [
        row("r", account="cus_1"),
        row("r", at=1, account="cus_2", amounts={"USD": Decimal(9)}, active_ns=7),
        row("r", at=2, account="cus_1"),
    ]
    payers = build(runs, "r").payers()
    assert {account: sums.amounts["USD"] for account, sums in payers.items()} == {
        "cus_1": Decimal("1.0"),
        "cus_2": Decimal(9),
    }
    assert {account: sums.active_ns for account, sums in payers.items()} == {"cus_1": 20, "cus_2": 7}


def test_several_runs_of_one_id_stand_once_with_all_they_cost() -> None:
    first, last = row("a", "r", 1), row("a", "b", 2, instance="i-2", status="failed", pending=True, runs=2)
    tree = build([last, row("r"), row("b", "r"), first], "r")
    node = at(tree, "a")
    assert node.row is not None
    assert (node.under, node.row.status, node.row.runs, node.row.pending) == ("r", "failed", 3, True)
    assert (node.row.started, node.own.amounts) == (first.started, {"USD": Decimal("1.0")})
    assert tree.findings == (Finding(Kind.DUPLICATE, "a", "3"),)


def test_a_part_is_a_place_with_all_below_it_and_what_is_worth_a_look_there() -> None:
    part = build([*FAMILY, row("d", "b", root="x")], "r").part("a")
    assert part is not None
    assert ([node.prediction for node in part.nodes], part.findings) == (["a", "c"], ())


def test_what_stands_nowhere_has_no_part() -> None:
    assert build(FAMILY, "r").part("nobody") is None


def test_the_path_to_a_call_is_its_callers_from_the_first_on() -> None:
    tree = build(FAMILY, "r")
    assert [node.prediction for node in tree.path("c")] == ["r", "a"]
    assert tree.path("r") == ()


def test_a_few_places_of_many_are_those_near_the_root() -> None:
    tree = build(FAMILY, "r")
    assert [node.prediction for node in tree.listed(3)] == ["r", "a", "b"]
    assert tree.listed(4) == tree.nodes


def test_ten_thousand_calls_deep_is_a_tree() -> None:
    rows = [row("r"), *(row(f"p{n}", f"p{n - 1}" if n else "r") for n in range(10_000))]
    tree = build(rows, "r")
    assert (tree.nodes[-1].depth, tree.top.size) == (10_000, 10_001)
    assert tree.top.downstream.amounts == {"USD": Decimal(5000)}
    assert len(tree.path("p9999")) == 10_000


def test_ten_thousand_calls_wide_is_a_tree() -> None:
    tree = build([row("r"), *(row(f"p{n}", "r") for n in range(10_000))], "r")
    assert (tree.top.calls, tree.top.downstream.predictions) == (10_000, 10_000)


def test_a_ring_of_ten_thousand_is_cut_once() -> None:
    tree = build([row(f"p{n}", f"p{(n + 1) % 10_000}") for n in range(10_000)], "r")
    assert (kinds(tree)[0], tree.top.size) == ((Kind.CYCLE, "p0"), 10_001)


IDS = st.sampled_from([f"p{n}" for n in range(8)])
MONEY: list[dict[str, Decimal]] = [
    {},
    USD,
    {"EUR": Decimal("0.000000000000000001")},
    {"USD": Decimal(9), "EUR": Decimal(1)},
]


def odd_row(drawn: tuple[int, int, int, int]) -> Row:
    """Any row: four numbers are quickly drawn, and a dozen fields are not."""
    name, kin, state, money = drawn
    parent, root = kin % 10, kin // 10
    return Row(
        f"p{name % 8}",
        f"i{name // 8}",
        str(state % 3),
        parent=None if parent == 9 else "elsewhere" if parent == 8 else f"p{parent}",
        root=None if root == 8 else f"p{root}",
        account=[None, "cus_1", "cus_2"][state // 3 % 3],
        billing=[None, "rated", "unrated", "informative"][state // 9 % 4],
        pending=state >= 36,
        active_ns=money,
        share_ns=money // 2,
        amounts=MONEY[money % 4],
    )


ROWS = st.lists(
    st.tuples(st.integers(0, 15), st.integers(0, 89), st.integers(0, 71), st.integers(0, 99)),
    max_size=12,
    unique_by=lambda drawn: drawn[0],
).map(lambda drawn: [odd_row(one) for one in drawn])


def money(rows: Sequence[Row], currency: str) -> Decimal:
    return sum((one.amounts.get(currency, Decimal(0)) for one in rows), Decimal(0))


@given(ROWS, IDS)
def test_every_prediction_of_any_rows_stands_exactly_once(rows: list[Row], top: str) -> None:
    tree = build(rows, top)
    named = [node.prediction for node in tree.nodes]
    assert len(named) == len(set(named))
    assert {one.prediction for one in rows} == {node.prediction for node in tree.nodes if node.row}
    assert tree.top.prediction == top


@given(ROWS, IDS)
def test_a_tree_comes_to_what_its_rows_come_to_in_each_currency(rows: list[Row], top: str) -> None:
    tree = build(rows, top)
    for currency in ("USD", "EUR"):
        assert tree.top.total.amounts.get(currency, Decimal(0)) == money(rows, currency)
        charged = [sums.amounts.get(currency, Decimal(0)) for sums in tree.payers().values()]
        assert sum(charged, Decimal(0)) == money(rows, currency)
    assert tree.top.total.active_ns == sum(one.active_ns for one in rows)


@given(ROWS, IDS)
def test_each_account_is_charged_what_its_own_rows_come_to(rows: list[Row], top: str) -> None:
    charged = build(rows, top).payers()
    assert charged.keys() == {one.account for one in rows}
    for account, sums in charged.items():
        own = [one for one in rows if one.account == account]
        assert sums.share_ns == sum(one.share_ns for one in own)
        for currency in ("USD", "EUR"):
            assert sums.amounts.get(currency, Decimal(0)) == money(own, currency)


@given(ROWS, IDS)
def test_a_place_comes_to_its_own_and_what_the_places_right_below_it_come_to(rows: list[Row], top: str) -> None:
    tree = build(rows, top)
    for node in tree.nodes:
        below = [other for other in tree.nodes if other.under == node.prediction]
        assert len(below) == node.calls
        assert node.size == 1 + sum(other.size for other in below)
        assert node.downstream.share_ns == sum(other.total.share_ns for other in below)
        assert node.own == (Sums() if node.row is None else sums_of(node.row))


@given(ROWS, IDS, st.randoms())
def test_the_order_of_the_rows_changes_nothing(rows: list[Row], top: str, random: Any) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert build(shuffled, top) == build(rows, top)


@given(ROWS, IDS, st.integers(1, 12))
def test_of_whatever_is_listed_the_caller_is_listed_before_it(rows: list[Row], top: str, most: int) -> None:
    tree = build(rows, top)
    named: set[str | None] = {None}
    for node in tree.listed(most):
        assert node.under in named
        named.add(node.prediction)
    assert len(named) - 1 == min(most, len(tree.nodes))


@given(ROWS, IDS)
def test_every_part_of_a_tree_is_a_tree(rows: list[Row], top: str) -> None:
    tree = build(rows, top)
    for node in tree.nodes:
        part = tree.part(node.prediction)
        assert part is not None
        assert len(part.nodes) == node.size
        assert part.nodes[1:] == () or all(below.depth > node.depth for below in part.nodes[1:])
        assert [above.depth for above in tree.path(node.prediction)] == list(range(node.depth))


@pytest.mark.parametrize("kind", Kind)
def test_no_finding_takes_a_prediction_out_of_the_sums(kind: Kind) -> None:
    odd = {
        Kind.CYCLE: row("a", "a"),
        Kind.ORPHAN: row("a", "x"),
        Kind.ROOT_MISMATCH: row("a", "r", root="s"),
        Kind.ACCOUNT: row("a", "r", account="cus_2"),
        Kind.DUPLICATE: row("a", "r", runs=2),
    }[kind]
    tree = build([row("r"), odd], "r")
    assert kinds(tree) == [(kind, "a")]
    assert tree.top.total.amounts == {"USD": Decimal("1.0")}
