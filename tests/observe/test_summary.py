"""A run in one line: what a person wants to know of it once it is over."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taximeter.events import Oom, Options, Signaled
from taximeter.observe.queries import Queries
from taximeter.observe.summary import line_of
from taximeter.records import UsageRecord
from tests.core.stories import SECOND, exited, ready, spawned, tell
from tests.observe import histories
from tests.observe.nodes import ledger_of

Tell = Callable[..., str]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Tell]:
    """The line of a run with these records, by default of its instance."""
    readers = []

    def made(records: list[UsageRecord], asked: str | None = None, refused: dict[str, int] | None = None) -> str:
        readers.append(ledger_of(tmp_path, records))
        receipt = Queries(readers[-1]).last_run(asked or records[0].instance or "")
        assert receipt is not None
        return line_of(receipt, {} if refused is None else refused)

    yield made
    for reader in readers:
        reader.close()


def test_a_plain_run_is_short(told: Tell) -> None:
    assert told(histories.one_shot()) == "ran 0.412 s · exit 0 · cpu · 0.0000412 USD (share) · seen by the wrapper"


def test_marks_that_had_no_effect_are_told(told: Tell) -> None:
    line = told(histories.one_shot(), refused={"no_such_prediction": 2, "fixed_by_run": 1})
    assert line.endswith(" · seen by the wrapper · 3 marks refused (fixed_by_run, no_such_prediction)")


def test_phases_are_told_where_there_were_several(told: Tell) -> None:
    line = told(histories.shared_worker())
    assert line.startswith("ran 0.950 s (boot 0.200 s, idle 0.150 s, active 0.600 s) · exit 0 · ")
    assert "· 0.00006 USD (share) ·" in line


def test_a_line_is_of_one_run_also_where_its_id_was_used_twice(told: Tell) -> None:
    line = told(histories.twice(), "p1")
    assert line.startswith("ran 0.500 s · exit 0 · cpu · 0.00005 USD (share) · ")
    assert line.endswith("· the last of 2 runs that bear this id")


def test_what_is_charged_for_is_named(told: Tell) -> None:
    assert "· 0.00005 USD (boot, active) ·" in told(histories.private_run())


def test_a_prediction_may_be_billed_with_its_instance(told: Tell) -> None:
    assert "· billed with its instance ·" in told(histories.private_run(), "p1")


@pytest.mark.parametrize("asked", [None, "p1"])
def test_no_price_is_no_zero(told: Tell, asked: str | None) -> None:
    assert "· gpu-odd · no price ·" in told(histories.unpriced_run(), asked)


def test_a_worker_without_predictions_costs_nobody_anything(told: Tell) -> None:
    records = tell(Options(worker=True), [spawned(0), ready(0), exited(SECOND)]).records
    assert told(records).startswith("ran 1.000 s (idle 1.000 s) · exit 0 · cpu · nothing billed · ")


def test_a_long_amount_is_shortened_and_says_so(told: Tell) -> None:
    records = tell(Options(), [spawned(0), ready(0), exited(1_234_567_891)]).records
    assert "· ≈ 0.0001235 USD (share) ·" in told(records)


def test_a_run_that_never_was_ready_says_so(told: Tell) -> None:
    assert told(histories.never_ready_run()).startswith("ran 1.000 s (boot 1.000 s) · exit 1, never ready · ")


def test_a_run_that_was_canceled_says_so(told: Tell) -> None:
    events = [spawned(0), ready(0), Signaled(SECOND, 15, False, True), exited(SECOND, None, 15)]
    assert "· killed by SIGTERM (15), canceled ·" in told(tell(Options(), events).records)


def test_a_node_without_memory_says_so_and_costs_nothing(told: Tell) -> None:
    events = [spawned(0), ready(0), exited(SECOND, None, 9, oom=Oom.NODE)]
    line = told(tell(Options(), events).records)
    assert "· killed by SIGKILL (9), out of memory: the node had none left, aborted · cpu · 0 USD" in line


def test_witnesses_that_differ_are_told_apart(told: Tell) -> None:
    assert told(histories.aborted_run(), "p1").endswith("· start told by the worker, end seen by the wrapper")
