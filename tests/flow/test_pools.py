"""Bytes of a journal in, records out: what marks on a pool may say, and when a long run is written down."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.agent.desks import Node, start, write
from tests.core.stories import SECOND, book
from tests.journal_samples import INSTANCE, clock, fact, mark_line, open_line, options

INTERIM_S = 600


def worker(**told: Any) -> list[bytes]:
    """A worker that is up, to which `run` was told so."""
    nothing = {"account": None, "model": None, "version": None, "prediction": None, "labels": {}, "units": {}}
    opening = open_line(options=options(worker=True, **nothing | {"class": None} | told))
    return [opening, fact("spawn", SECOND, before=SECOND - 5, pid=4712, start=987), beat(2)]


def beat(at_s: int) -> bytes:
    return fact("heartbeat", at_s * SECOND, clock=clock(at_s * SECOND), usage=None)


def ended(at_s: int) -> bytes:
    at_ns = at_s * SECOND
    return fact("exit", at_ns, code=0, signal=None, core=False, clock=clock(at_ns), usage=None, error=None)


def begun(at_s: int, name: str, **said: Any) -> bytes:
    return mark_line(at_s * SECOND, {"mark": "start", "prediction": name, **said})


def booked(path: Path, lines: list[bytes], interim_s: int = 60) -> Node:
    node = start(path / "node", rules=book(interim_s * SECOND))
    write(node.journal, lines)
    node.read()
    node.commit()
    return node


def predictions(node: Node) -> dict[str, dict[str, Any]]:
    return {one["data"]["prediction"]: one["data"] for one in node.usage() if one["data"]["prediction"]}


@pytest.mark.parametrize("given", [None, "public", "private", "deployment"])
@pytest.mark.parametrize("said", ["private", "deployment"])
def test_no_mark_makes_a_prediction_that_bills_its_instance(tmp_path: Path, given: str | None, said: str) -> None:
    node = booked(tmp_path, [*worker(**{"class": given}), begun(2, "a", **{"class": said}), ended(3)])
    assert predictions(node) == {}
    assert node.books.tally.counters().rejected_marks == {"bad_class": 1}


@pytest.mark.parametrize("said", ["public", "fast_boot", "training"])
def test_a_mark_may_give_each_other_class_where_run_gave_none(tmp_path: Path, said: str) -> None:
    node = booked(tmp_path, [*worker(), begun(2, "a", pool="sdxl", version="3f2a", **{"class": said}), ended(3)])
    told = predictions(node)["a"]
    assert (told["class"], told["pool"], told["version"]) == (said, "sdxl", "3f2a")


@pytest.mark.parametrize(
    ("fixed", "said"),
    [("class", "training"), ("pool", "llama"), ("version", "2"), ("account", "cus_2"), ("model", "acme/other")],
)
def test_what_run_fixed_a_mark_may_repeat_or_leave_out_and_not_change(tmp_path: Path, fixed: str, said: str) -> None:
    value = {"class": "fast_boot", "pool": "sdxl", "version": "1", "account": "cus_1", "model": "acme/base"}[fixed]
    marks = [begun(2, "silent"), begun(2, "same", **{fixed: value}), begun(2, "contrary", **{fixed: said})]
    node = booked(tmp_path, [*worker(**{fixed: value}), *marks, ended(3)])
    assert {name: told[fixed] for name, told in predictions(node).items()} == {"silent": value, "same": value}
    assert node.books.tally.counters().rejected_marks == {"fixed_by_run": 1}


def test_of_a_long_run_each_interval_is_in_the_ledger_as_soon_as_it_is_over(tmp_path: Path) -> None:
    """If the node burns then, all but what came after is written. (Three days of it: tests/core/test_interims.py.)"""
    node = start(tmp_path / "node", rules=book(INTERIM_S * SECOND))
    node.journal.touch(0o640)
    with node.journal.open("ab") as journal:
        journal.write(b"".join(line + b"\n" for line in [*worker(pool="sdxl"), begun(2, "a")]))
        for number in range(1, 13):
            beats = range(max(3, (number - 1) * INTERIM_S + 2), number * INTERIM_S + 2)
            journal.write(b"".join(beat(at_s) + b"\n" for at_s in beats))
            journal.flush()
            while node.reading.read(INSTANCE):
                pass
            node.commit()
            assert node.ledger.head.seq == 2 * number
    told = Counter[str]()
    for one in node.usage():
        told[one["data"]["prediction"] or "instance"] += one["data"]["time"]["wall_ns"]
        assert not one["data"]["final"]
    assert told == {"instance": 12 * INTERIM_S * SECOND, "a": (12 * INTERIM_S - 1) * SECOND}
