"""Marks that had no effect: whoever can put that right hears of it, and hears of it once."""

import logging
from collections.abc import Callable

import pytest

from taximeter.agent import refusals
from taximeter.agent.refusals import Refusals
from taximeter.events import Options, ServiceClass
from taximeter.observe.tally import Tally

#: What `run` was told.
TOLD = Options(worker=True, account="cus_1", service_class=ServiceClass.TRAINING)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The log's lines so far."""
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def refused() -> Refusals:
    return Refusals(Tally())


def test_a_contradiction_is_logged_with_what_run_was_told(refused: Refusals, said: Callable[[], list[str]]) -> None:
    refused.count("i1", "fixed_by_run", TOLD)
    (line,) = said()
    assert line == (
        "mark.refused instance=i1 reason=fixed_by_run: what contradicts its `taximeter run` begins no prediction, and "
        "bills none: expected --account 'cus_1', --class 'training', or no word of it"
    )


def test_it_is_logged_once_for_an_instance_and_a_reason(refused: Refusals, said: Callable[[], list[str]]) -> None:
    for name, reason in [("i1", "fixed_by_run"), ("i1", "bad_class"), ("i2", "fixed_by_run")] * 5:
        refused.count(name, reason, TOLD)
    assert len(said()) == 3
    assert refused.counts() == {"i1": {"fixed_by_run": 5, "bad_class": 5}, "i2": {"fixed_by_run": 5}}


@pytest.mark.parametrize("reason", ["not_a_worker", "no_such_prediction"])
def test_where_nothing_goes_unbilled_neither_the_log_nor_the_status_says_so(
    refused: Refusals, said: Callable[[], list[str]], reason: str
) -> None:
    refused.count("i1", reason, TOLD)
    assert (said(), refused.problems()) == ([], [])
    assert refused.counts() == {"i1": {reason: 1}}


def test_the_status_tells_of_the_last_three_and_how_many_more_there_are(refused: Refusals) -> None:
    for name in ("i1", "i2", "i3", "i4", "i5", "i2"):
        refused.count(name, "too_many_open", TOLD)
    *told, more = refused.problems()
    assert [problem.partition(":")[0] for problem in told] == [
        "1 mark refused (too_many_open) of instance i4",
        "1 mark refused (too_many_open) of instance i5",
        "2 marks refused (too_many_open) of instance i2",
    ]
    assert more == "marks of 2 more instances refused: see the agent's log"


def test_the_status_tells_of_it_for_an_hour(refused: Refusals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    refused.count("i1", "fixed_by_run", TOLD)
    monkeypatch.setattr("time.monotonic", lambda: 4599.0)
    assert len(refused.problems()) == 1
    monkeypatch.setattr("time.monotonic", lambda: 4600.0)
    assert refused.problems() == []


def test_many_instances_fill_neither_the_memory_nor_the_log(
    refused: Refusals, said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MOST_REMEMBERED", 100)
    for number in range(1000):
        refused.count(f"i{number}", "not_json", TOLD)
    assert len(refused.counts()) == len(refused._told) == 100
    assert len(said()) <= 122  # two minutes' worth, should one have ended
    assert said()[60] == "marks.refused: more of them in this minute than are said; see the metric"
