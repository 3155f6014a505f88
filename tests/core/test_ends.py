"""How a run's end is told: what killed it, for whose want of memory, and what it left behind."""

from decimal import Decimal
from typing import Any

import pytest

from taximeter.events import Exited, Oom, Options, Signaled, Status, StopReason
from taximeter.values import replace
from tests.core.stories import MINUTE, SECOND, exited, ready, spawned, start, tell

WORKER = Options(worker=True)


def ended(event: Exited, *between: Any, options: Options | None = None) -> Any:
    """The data of the instance's last record after a one-shot of two seconds, and its amount."""
    told = tell(options, [spawned(0), ready(0), *between, replace(event, at_ns=2 * SECOND)])
    assert told.predictions()[-1].data["status"] == told.instances()[-1].data["status"]
    return told.instances()[-1].data, told.amount()


def killed(oom: Oom | None) -> Exited:
    return exited(0, code=None, signal=9, oom=oom)


def test_a_node_without_memory_aborts_what_was_open_and_bills_nothing() -> None:
    data, amount = ended(killed(Oom.NODE))
    assert (data["status"], amount) == (Status.ABORTED, 0)
    assert (data["exit"].oom, data["exit"].reason) == (True, "oom_node")


def test_a_memory_limit_fails_what_was_open_and_bills_its_run() -> None:
    data, amount = ended(killed(Oom.LIMIT))
    assert (data["status"], amount) == (Status.FAILED, Decimal("0.0002"))
    assert (data["exit"].oom, data["exit"].reason) == (True, "oom_limit")


@pytest.mark.parametrize(("oom", "told"), [(Oom.NONE, False), (None, None)])
def test_a_kill_for_something_else_is_told_apart_from_one_that_nobody_can_explain(oom: Oom, told: bool | None) -> None:
    data, _ = ended(killed(oom))
    assert (data["status"], data["exit"].oom, data["exit"].reason) == (Status.FAILED, told, "signaled")


@pytest.mark.parametrize(("code", "signal"), [(0, None), (1, None), (137, None), (None, 15), (None, 11)])
def test_whatever_does_not_die_of_sigkill_was_not_killed_for_want_of_memory(
    code: int | None, signal: int | None
) -> None:
    assert ended(exited(0, code=code, signal=signal))[0]["exit"].oom is False


def test_what_never_started_or_was_not_seen_to_end_is_not_judged() -> None:
    for event in (Exited(0, 127, None, False, None, error="not found"), Exited(0, None, None, False, None)):
        left = tell(None, [event]).instances()[0].data["exit"]
        assert (left.oom, left.core, left.left_running) == (None, None, None)


@pytest.mark.parametrize(
    ("reason", "status"), [(StopReason.CANCELED, Status.CANCELED), (StopReason.ABORTED, Status.ABORTED)]
)
@pytest.mark.parametrize("oom", [Oom.LIMIT, Oom.NODE])
def test_a_stop_before_the_kill_decides_the_status(reason: StopReason, status: Status, oom: Oom) -> None:
    options = Options(prediction="p1", on_term=reason)
    data, _ = ended(killed(oom), Signaled(SECOND, 15, False, True), options=options)
    assert (data["status"], data["exit"].oom) == (status, True)


def test_what_a_worker_had_open_is_aborted_when_the_node_has_no_memory() -> None:
    told = tell(WORKER, [spawned(0), start(0, "a"), exited(SECOND, code=None, signal=9, oom=Oom.NODE)])
    assert told.predictions("a")[0].data["status"] is Status.ABORTED
    assert told.amount() == 0


def test_interim_records_are_corrected_when_the_node_had_no_memory() -> None:
    told = tell(None, [spawned(0), ready(0), exited(2 * MINUTE + SECOND, code=None, signal=9, oom=Oom.NODE)])
    assert len(told.predictions()) == 3
    assert told.amount() == 0


def test_what_was_left_running_and_a_core_dump_are_told() -> None:
    data, _ = ended(replace(exited(0, code=None, signal=11), core_dumped=True, left=2))
    assert (data["exit"].left_running, data["exit"].core) == (2, True)
    assert ended(exited(0))[0]["exit"].core is False
