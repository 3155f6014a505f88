"""Whose call a prediction is, from marks, options and the environment that `taximeter run` found."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.events import Event, Marked, Options
from taximeter.meter import fold, open_instance
from tests.core.stories import MS, book, exited, finish, opened, ready, spawned, start, tell

Kin = tuple[str | None, str]


def kin_of(told: Options, *marks: Marked) -> dict[str, Kin]:
    """Parent and root of every prediction on an instance that was told `told`."""
    records = tell(told, [spawned(0), ready(MS), *marks, exited(50 * MS)]).predictions()
    return {str(record.prediction): (record.data["parent"], record.data["root"]) for record in records}  # type: ignore[misc]


def worker(parent: str | None = None, root: str | None = None) -> Options:
    return Options(worker=True, parent=parent, root=root)


def called(told: Options, **said: Any) -> Kin:
    """Parent and root of one prediction `p` that says so much."""
    return kin_of(told, start(2 * MS, "p", **said))["p"]


def doubts(told: Options, *events: Event) -> Sequence[str]:
    return fold(open_instance(opened(told), book()), [spawned(0), *events], book()).doubts


@pytest.mark.parametrize(
    ("told", "kin"),
    [
        ({}, (None, "p")),
        ({"parent": "a"}, ("a", "a")),
        ({"root": "r"}, (None, "r")),
        ({"parent": "a", "root": "r"}, ("a", "r")),
        ({"parent": "p"}, (None, "p")),
        ({"parent": "p", "root": "r"}, (None, "r")),
    ],
)
def test_a_one_shot_is_whose_call_it_was_told(told: dict[str, str], kin: Kin) -> None:
    assert kin_of(Options(prediction="p", **told))["p"] == kin  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "kin"),
    [
        ({}, (None, "p")),
        ({"parent": "x"}, ("x", "x")),
        ({"root": "s"}, (None, "s")),
        ({"parent": "x", "root": "s"}, ("x", "s")),
        ({"parent": "p"}, (None, "p")),
        ({"parent": "p", "root": "s"}, (None, "s")),
    ],
)
def test_a_mark_says_whose_call_it_is(said: dict[str, str], kin: Kin) -> None:
    assert called(worker(), **said) == kin


def test_what_a_mark_leaves_open_is_as_its_worker_was_told() -> None:
    assert called(worker("a", "r")) == ("a", "r")


def test_a_mark_with_a_parent_of_its_own_is_not_of_the_tree_that_its_worker_was_started_in() -> None:
    assert called(worker("a", "r"), parent="x") == ("x", "x")


def test_a_mark_that_names_its_workers_parent_has_that_ones_root() -> None:
    assert called(worker("a", "r"), parent="a") == ("a", "r")


def test_a_mark_with_a_root_of_its_own_has_not_its_workers_parent() -> None:
    assert called(worker("a", "r"), root="s") == (None, "s")


def test_a_mark_that_is_its_own_root_was_called_by_nobody() -> None:
    assert called(worker("a", "r"), root="p") == (None, "p")


@pytest.mark.parametrize("told", [worker("a", "r"), worker("r")])
def test_a_mark_that_names_its_workers_root_has_its_workers_parent(told: Options) -> None:
    assert called(told, root="r") == (told.parent, "r")


def test_a_mark_that_names_its_workers_root_as_parent_is_of_that_tree() -> None:
    assert called(worker("a", "r"), parent="r") == ("r", "r")


def test_a_parent_that_is_open_here_gives_its_root() -> None:
    kin = kin_of(worker(), start(2 * MS, "a", root="r"), start(3 * MS, "b", parent="a"), start(4 * MS, "c", parent="b"))
    assert (kin["b"], kin["c"]) == (("a", "r"), ("b", "r"))


def test_a_parent_that_has_ended_is_the_first_that_anybody_knows_of() -> None:
    kin = kin_of(worker(), start(2 * MS, "a", root="r"), finish(3 * MS, "a"), start(4 * MS, "b", parent="a"))
    assert kin["b"] == ("a", "a")


def test_a_root_that_a_mark_names_is_kept_though_its_parent_has_another() -> None:
    kin = kin_of(worker(), start(2 * MS, "a", root="r"), start(3 * MS, "b", parent="a", root="s"))
    assert kin["b"] == ("a", "s")


def test_a_root_that_its_parent_does_not_have_is_counted() -> None:
    marks = start(2 * MS, "a", root="r"), start(3 * MS, "b", parent="a", root="s")
    assert doubts(worker(), *marks) == ("root_mismatch",)


@pytest.mark.parametrize("said", [{}, {"parent": "a"}, {"parent": "a", "root": "r"}, {"parent": "x", "root": "s"}])
def test_what_can_be_so_is_not_counted(said: dict[str, str]) -> None:
    assert doubts(worker(), start(2 * MS, "a", root="r"), start(3 * MS, "b", **said)) == ()


def test_a_mark_that_names_itself_as_parent_is_counted_and_begins_its_prediction() -> None:
    assert doubts(worker(), start(2 * MS, "p", parent="p")) == ("own_parent",)


def test_a_one_shot_that_names_itself_as_parent_is_counted() -> None:
    assert doubts(Options(prediction="p", parent="p")) == ("own_parent",)
    assert doubts(Options(prediction="p", parent="q")) == ()


NAMES = st.sampled_from(["p", "a", "r", "x"])
MAYBE = st.none() | NAMES


@given(MAYBE, MAYBE, MAYBE, MAYBE)
def test_nobody_is_its_own_parent_and_everybody_has_a_root(
    told: str | None, told_root: str | None, said: str | None, said_root: str | None
) -> None:
    parent, root = called(worker(told, told_root), parent=said, root=said_root)
    assert parent != "p"
    assert root
    assert said in (None, "p") or parent == said
    assert said_root is None or root == said_root
