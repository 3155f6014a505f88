"""Who owns a prediction, and what it costs when its process ends, is lost from sight, or never says that it is done."""

from decimal import Decimal
from typing import Any

import pytest

from taximeter.events import (
    Alive,
    BadMark,
    Event,
    Exited,
    Lost,
    Marked,
    Oom,
    Options,
    OwnerEnded,
    OwnersHeld,
    ServiceClass,
    Signaled,
    Source,
    Status,
    Stopping,
    StoppingMark,
    StopReason,
    UnitsMark,
    Unread,
)
from taximeter.meter import fold, open_instance
from taximeter.records import RecordType
from taximeter.values import replace
from tests.core.stories import (
    MINUTE,
    MS,
    SECOND,
    WORKER,
    Told,
    beat,
    book,
    clock,
    exited,
    finish,
    in_pieces,
    opened,
    ready,
    spawned,
    start,
    tell,
)

CHILD, OTHER = 12, 13
#: What a second costs on the tests' card.
PER_S = Decimal("0.0001")
BEGUN = [spawned(0), ready(0)]


def gone(at_ns: int, pid: int = CHILD, source: Source = Source.KERNEL) -> OwnerEnded:
    """A child was seen to end, and that is told a little later."""
    return OwnerEnded(at_ns + 60 * MS, pid, at_ns, at_ns + 100 * MS, source)


def unseen(at_ns: int, pid: int = CHILD) -> OwnerEnded:
    """A child is nowhere to be found."""
    return OwnerEnded(at_ns, pid, None, at_ns)


def last(told: Told, prediction: str) -> Any:
    """The data of a prediction's final record."""
    return told.predictions(prediction)[-1].data


# --- whose it is ---


def test_a_prediction_fails_where_its_process_was_seen_to_end() -> None:
    told = tell(WORKER, [*BEGUN, start(SECOND, "a", pid=CHILD), gone(3 * SECOND), exited(9 * SECOND)])
    assert (last(told, "a")["status"], last(told, "a")["interval"]["end_ns"]) == (Status.FAILED, 3 * SECOND)
    assert told.amount() == 2 * PER_S


@pytest.mark.parametrize(("source", "within_ns"), [(Source.KERNEL, 100_000), (Source.AGENT, 10 * MS)])
def test_the_record_says_who_saw_that_end_and_how_far_off_it_may_be(source: Source, within_ns: int) -> None:
    told = tell(WORKER, [*BEGUN, start(SECOND, "a", pid=CHILD), gone(3 * SECOND, source=source)])
    end = last(told, "a")["timing"]["end"]
    assert (end.source, end.uncertainty_ns) == (source, within_ns)


@pytest.mark.parametrize("end", [gone(6 * SECOND), unseen(6 * SECOND)])
def test_what_a_drain_leaves_undone_in_a_child_is_the_platforms_doing(end: OwnerEnded) -> None:
    """A server that is asked to stop kills its workers once its own patience is over."""
    events = [start(SECOND, "a", pid=CHILD), Signaled(2 * SECOND, 15, False, True), end]
    told = tell(replace(WORKER, on_term=StopReason.DRAIN), [*BEGUN, *events, exited(7 * SECOND)])
    assert (last(told, "a")["status"], told.amount()) == (Status.ABORTED, 0)


@pytest.mark.parametrize(("reason", "status"), [("canceled", Status.CANCELED), ("aborted", Status.ABORTED)])
def test_what_begins_in_a_child_behind_another_stop_ends_as_that_has_it(reason: str, status: Status) -> None:
    events = [Signaled(SECOND, 15, False, True), start(2 * SECOND, "a", pid=CHILD), gone(6 * SECOND)]
    told = tell(replace(WORKER, on_term=StopReason(reason)), [*BEGUN, *events, exited(7 * SECOND)])
    assert last(told, "a")["status"] is status


def test_a_child_that_crashed_before_the_drain_failed() -> None:
    events = [start(SECOND, "a", pid=CHILD), Signaled(3 * SECOND, 15, False, True), gone(2 * SECOND)]
    told = tell(replace(WORKER, on_term=StopReason.DRAIN), [*BEGUN, *events, exited(7 * SECOND)])
    assert (last(told, "a")["status"], told.amount()) == (Status.FAILED, PER_S)


def test_the_others_on_the_instance_go_on() -> None:
    events = [start(SECOND, "a", pid=CHILD), start(SECOND, "b", pid=OTHER), start(SECOND, "c")]
    told = tell(WORKER, [*BEGUN, *events, gone(4 * SECOND)])
    assert [open_.id for open_ in told.instance.predictions] == ["b", "c"]
    assert last(told, "a")["time"]["share_ns"] == SECOND


def test_all_that_a_process_had_begun_ends_with_it() -> None:
    events = [start(SECOND, "a", pid=CHILD), start(2 * SECOND, "b", pid=CHILD), gone(4 * SECOND)]
    told = tell(WORKER, [*BEGUN, *events, exited(9 * SECOND)])
    assert [last(told, name)["interval"]["end_ns"] for name in "ab"] == [4 * SECOND, 4 * SECOND]
    assert told.amount() == 3 * PER_S


@pytest.mark.parametrize("whose", [{}, {"pid": 4711}, {"pid": CHILD, "detached": True}])
def test_what_the_command_itself_began_and_what_is_detached_outlives_a_child(whose: dict[str, Any]) -> None:
    told = tell(WORKER, [*BEGUN, start(SECOND, "a", **whose), gone(3 * SECOND), exited(5 * SECOND)])
    assert last(told, "a")["interval"]["end_ns"] == 5 * SECOND
    assert told.amount() == 4 * PER_S


def test_a_detached_prediction_is_finished_by_whoever_goes_on_with_it() -> None:
    events = [start(SECOND, "a", pid=CHILD, detached=True), gone(2 * SECOND), finish(6 * SECOND, "a")]
    told = tell(WORKER, [*BEGUN, *events, exited(9 * SECOND)])
    assert (last(told, "a")["status"], told.amount()) == (Status.SUCCEEDED, 5 * PER_S)


def test_any_process_of_the_instance_may_finish_what_another_began() -> None:
    """A mark is not signed: a parent that collects its children's work says so for them."""
    told = tell(WORKER, [*BEGUN, start(SECOND, "a", pid=CHILD), finish(2 * SECOND, "a"), gone(3 * SECOND)])
    assert (last(told, "a")["status"], told.amount(), told.rejected) == (Status.SUCCEEDED, PER_S, [])


def test_what_a_recycled_pid_began_does_not_end_with_its_predecessor() -> None:
    events = [start(SECOND, "a", pid=CHILD), start(3 * SECOND, "b", pid=CHILD), gone(2 * SECOND)]
    told = tell(WORKER, [*BEGUN, *events])
    assert [open_.id for open_ in told.instance.predictions] == ["b"]


def test_a_finish_that_was_said_before_its_process_ended_counts_whatever_comes_later() -> None:
    told = tell(WORKER, [*BEGUN, start(SECOND, "a", pid=CHILD), finish(2 * SECOND, "a"), gone(2 * SECOND + 1)])
    assert [record.data["status"] for record in told.predictions()] == [Status.SUCCEEDED]


def test_an_end_that_is_told_after_others_came_and_went_takes_back_what_lies_beyond_it() -> None:
    events = [start(SECOND, "a", pid=CHILD), start(4 * SECOND, "b"), gone(3 * SECOND), exited(6 * SECOND)]
    told = tell(WORKER, [*BEGUN, *events])
    (correction,) = told.of(RecordType.CORRECTION)
    assert (correction.data["reason"], correction.data["corrects"]["id"]) == (
        "owner_ended",
        told.predictions("a")[0].id,
    )
    assert told.amount("a") == 2 * PER_S
    assert told.amount("b") == 2 * PER_S


def test_a_child_that_ends_in_a_silence_leaves_it_unknown() -> None:
    events = [*BEGUN, start(SECOND, "a", pid=CHILD), gone(30 * SECOND)]
    told = tell(WORKER, events, silent=True)
    time = last(told, "a")["time"]
    assert (time["active_ns"], time["unknown_ns"], told.amount()) == (0, 29 * SECOND, 0)


def test_a_child_of_an_adopted_command_is_billed_to_its_end_however_seldom_the_agent_looks() -> None:
    events = [*BEGUN, start(SECOND, "a", pid=CHILD), beat_at(2), gone(30 * SECOND)]
    assert tell(WORKER, events, silent=True).amount() == 29 * PER_S


# --- what nobody saw ---


def test_an_unseen_end_bills_to_the_last_word_and_the_rest_is_unknown() -> None:
    """The last sign of life of the instance is that of 7 s."""
    units = Marked(3 * SECOND, UnitsMark("a", {"image": "1"}))
    told = tell(WORKER, [*BEGUN, start(SECOND, "a", pid=CHILD), units, unseen(8 * SECOND), exited(9 * SECOND)])
    time, end = last(told, "a")["time"], last(told, "a")["timing"]["end"]
    assert (time["active_ns"], time["unknown_ns"], told.amount()) == (2 * SECOND, 4 * SECOND, 2 * PER_S)
    assert (end.source, end.uncertainty_ns) == (Source.MARK, 4 * SECOND)


def test_the_instance_is_idle_where_the_unseen_may_have_been() -> None:
    """It lived, and others' shares are theirs alone: only this one's time is unknown."""
    events = [
        start(SECOND, "a", pid=CHILD),
        Signaled(7 * SECOND, 10, False, True),
        unseen(7 * SECOND),
        exited(9 * SECOND),
    ]
    time = tell(WORKER, [*BEGUN, *events]).instances()[-1].data["time"]
    assert (time["active_ns"], time["idle_ns"], time["unknown_ns"]) == (0, 9 * SECOND, 0)


def test_what_interim_records_told_of_the_unseen_is_taken_back() -> None:
    units = Marked(50 * SECOND, UnitsMark("a", {"image": "1"}))
    told = tell(
        WORKER, [*BEGUN, start(0, "a", pid=CHILD), units, beat_at(130), unseen(130 * SECOND), exited(140 * SECOND)]
    )
    (correction,) = told.of(RecordType.CORRECTION)
    assert (correction.data["reason"], correction.data["time"]["share_ns"]) == ("owner_unseen", -70 * SECOND)
    assert told.amount() == 50 * PER_S


def beat_at(at_s: int) -> Alive:
    return Alive(at_s * SECOND, clock(at_s * SECOND))


def test_several_unseen_ends_bill_each_to_its_own_last_word() -> None:
    events = [start(SECOND, "a", pid=CHILD), start(SECOND, "b", pid=OTHER), Marked(3 * SECOND, UnitsMark("a", {}))]
    told = tell(WORKER, [*BEGUN, *events, exited(9 * SECOND)])
    assert (told.amount("a"), told.amount("b")) == (2 * PER_S, 0)


@pytest.mark.parametrize(("held", "costs"), [((CHILD,), 8 * PER_S), ((), Decimal(0)), ((OTHER,), Decimal(0))])
def test_at_the_commands_end_only_a_child_that_was_held_is_known_to_have_lived_until_then(
    held: tuple[int, ...], costs: Decimal
) -> None:
    events = [*BEGUN, start(SECOND, "a", pid=CHILD), OwnersHeld(9 * SECOND, held), exited(9 * SECOND, code=1)]
    told = tell(WORKER, events)
    assert (last(told, "a")["status"], told.amount()) == (Status.FAILED, costs)
    assert last(told, "a")["interval"]["end_ns"] == 9 * SECOND


def test_where_nobody_saw_the_command_end_either_its_children_bill_to_their_last_word() -> None:
    told = tell(
        WORKER, [*BEGUN, start(SECOND, "a", pid=CHILD), Marked(2 * SECOND, UnitsMark("a", {})), Lost(None, "rebooted")]
    )
    assert (last(told, "a")["status"], told.amount()) == (Status.ABORTED, 0)


def test_what_is_told_of_a_process_with_nothing_open_changes_nothing() -> None:
    told = tell(WORKER, [*BEGUN, gone(SECOND), unseen(SECOND), exited(2 * SECOND)])
    assert (told.rejected, len(told.records)) == ([], 1)


# --- late finishes ---


def test_an_old_finish_ends_the_bill_at_its_word_also_behind_interim_records() -> None:
    told = tell(WORKER, [*BEGUN, start(0, "a"), beat_at(150), finish(150 * SECOND, "a", said_ns=30 * SECOND)])
    (correction,) = told.of(RecordType.CORRECTION)
    assert (correction.data["reason"], correction.data["status"]) == ("late_finish", Status.SUCCEEDED)
    assert correction.data["time"] == {"load_ns": 0, "active_ns": -90 * SECOND, "share_ns": -90 * SECOND}
    assert (correction.data["interval"]["start_ns"], correction.data["interval"]["end_ns"]) == (30 * SECOND, 2 * MINUTE)
    assert told.amount() == 30 * PER_S


def test_a_finish_from_before_its_own_start_bills_nothing() -> None:
    told = tell(WORKER, [*BEGUN, start(50 * SECOND, "a"), beat_at(70), finish(70 * SECOND, "a", said_ns=1)])
    assert told.amount() == 0


def test_a_finish_that_takes_nothing_back_corrects_nothing() -> None:
    told = tell(WORKER, [*BEGUN, start(5 * SECOND, "a"), finish(5 * SECOND, "a", said_ns=1)])
    assert (told.of(RecordType.CORRECTION), told.amount()) == ([], 0)


def test_a_late_finish_takes_load_back_that_came_before() -> None:
    rules = book(fast_boot={"load": "1"})
    events = [start(0, "a", service_class=ServiceClass.FAST_BOOT), beat_at(70)]
    told = tell(WORKER, [*BEGUN, *events, finish(70 * SECOND, "a", said_ns=20 * SECOND)], rules)
    assert told.amount() == 20 * PER_S


def test_a_late_finish_leaves_the_bills_of_others_alone() -> None:
    events = [start(0, "a"), start(0, "b"), beat_at(70), finish(70 * SECOND, "a", said_ns=40 * SECOND)]
    told = tell(WORKER, [*BEGUN, *events, finish(80 * SECOND, "b")])
    assert told.amount("b") == 50 * PER_S
    assert told.amount("a") == 10 * PER_S  # of the 20 s that it had: in doubt for the payer


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELED])
def test_what_is_taken_back_is_priced_as_the_end_is(status: Status) -> None:
    rules = book(public={"failed": "0.5", "canceled": "0"})
    told = tell(WORKER, [*BEGUN, start(0, "a"), beat_at(70), finish(70 * SECOND, "a", status, 20 * SECOND)], rules)
    assert told.amount() == (10 * PER_S if status is Status.FAILED else 0)


def test_on_a_private_instance_a_late_finish_corrects_time_and_no_money() -> None:
    options = Options(worker=True, service_class=ServiceClass.PRIVATE, account="cus_1")
    told = tell(options, [*BEGUN, start(0, "a"), beat_at(70), finish(70 * SECOND, "a", said_ns=40 * SECOND)])
    correction, of_instance = told.of(RecordType.CORRECTION)
    assert (correction.data["time"]["share_ns"], correction.data["billing"].status) == (-20 * SECOND, "informative")
    assert (of_instance.data["time"]["idle_ns"], of_instance.data["billing"].amount) == (20 * SECOND, "0")


def test_without_a_price_nothing_is_taken_back() -> None:
    told = tell(
        WORKER, [*BEGUN, start(0, "a"), beat_at(70), finish(70 * SECOND, "a", said_ns=40 * SECOND)], book(rates=())
    )
    assert told.of(RecordType.CORRECTION)[0].data["billing"].status == "unrated"


# --- crashes, and what they cost ---


def test_a_worker_that_dies_fails_what_is_open_where_it_died() -> None:
    told = tell(WORKER, [*BEGUN, start(SECOND, "a"), exited(3 * SECOND, code=None, signal=9)])
    assert (last(told, "a")["status"], told.amount()) == (Status.FAILED, 2 * PER_S)


def test_what_the_platform_stops_costs_nothing_and_its_interims_are_corrected() -> None:
    options = Options(worker=True, on_term=StopReason.ABORTED)
    told = tell(options, [*BEGUN, start(0, "a"), Signaled(70 * SECOND, 15, False, True), exited(71 * SECOND)])
    assert last(told, "a")["status"] is Status.ABORTED
    assert (told.predictions("a")[0].data["billing"].amount, told.amount()) == ("0.006", 0)


def test_a_node_without_memory_costs_a_childs_customer_nothing() -> None:
    events = [start(SECOND, "a", pid=CHILD), OwnersHeld(3 * SECOND, (CHILD,))]
    told = tell(WORKER, [*BEGUN, *events, exited(3 * SECOND, code=None, signal=9, oom=Oom.NODE)])
    assert (last(told, "a")["status"], told.amount()) == (Status.ABORTED, 0)


def test_what_is_never_finished_fails_with_its_instance_and_is_billed_until_then() -> None:
    told = tell(WORKER, [*BEGUN, start(SECOND, "a"), exited(11 * SECOND)])
    assert (last(told, "a")["status"], told.amount()) == (Status.FAILED, 10 * PER_S)


def test_a_wrapper_that_was_stopped_for_30_s_costs_nothing_of_them() -> None:
    """Stopped from 2 s to 32 s; the finish without a word of its own was said somewhere in between."""
    events = [start(SECOND, "a"), *(beat_at(s) for s in (1, 2)), finish(32 * SECOND, "a"), exited(33 * SECOND)]
    told = tell(WORKER, [*BEGUN, *events], silent=True)
    assert (last(told, "a")["status"], told.amount()) == (Status.SUCCEEDED, PER_S)


def test_who_says_when_it_finished_is_billed_until_then_though_the_wrapper_stood_still() -> None:
    events = [start(SECOND, "a"), *(beat_at(s) for s in (1, 2)), finish(32 * SECOND, "a", said_ns=3 * SECOND)]
    assert tell(WORKER, [*BEGUN, *events], silent=True).amount() == 2 * PER_S


def test_a_prediction_that_spans_the_stop_of_a_wrapper_is_billed_without_it() -> None:
    events = [start(SECOND, "a"), *(beat_at(s) for s in (1, 2)), Marked(32 * SECOND, UnitsMark("a", {"image": "1"}))]
    told = tell(WORKER, [*BEGUN, *events, finish(33 * SECOND, "a")], silent=True)
    assert (last(told, "a")["time"]["unknown_ns"], told.amount()) == (30 * SECOND, 2 * PER_S)


# --- what is refused, and kept ---


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        (finish(2 * SECOND, "b"), "no_such_prediction"),
        (start(2 * SECOND, "a"), "already_started"),
        (Marked(2 * SECOND, UnitsMark("b", {"image": "1"})), "no_such_prediction"),
        (BadMark(2 * SECOND, "not_json"), "not_json"),
        (start(2 * SECOND, "b", account="cus_2"), "fixed_by_run"),
    ],
)
def test_a_mark_that_makes_no_sense_has_no_effect_and_is_counted(mark: Any, reason: str) -> None:
    options = Options(worker=True, account="cus_1")
    told = tell(options, [*BEGUN, start(SECOND, "a"), mark, finish(3 * SECOND, "a"), exited(4 * SECOND)])
    assert (told.rejected, told.amount()) == ([reason], 2 * PER_S)


def test_a_second_finish_has_no_effect() -> None:
    told = tell(WORKER, [*BEGUN, start(SECOND, "a"), finish(2 * SECOND, "a"), finish(3 * SECOND, "a", Status.FAILED)])
    assert (told.rejected, last(told, "a")["status"]) == (["no_such_prediction"], Status.SUCCEEDED)


@pytest.mark.parametrize(
    "mark", [start(3 * SECOND, "b"), finish(3 * SECOND, "a"), Marked(3 * SECOND, UnitsMark("a", {}))]
)
def test_marks_after_the_end_have_no_effect(mark: Marked) -> None:
    told = tell(WORKER, [*BEGUN, start(SECOND, "a"), exited(2 * SECOND), mark])
    assert (told.rejected, told.amount()) == (["after_the_end"], PER_S)


@pytest.mark.parametrize("said_ns", [0, 2 * SECOND, 10**15, 2**63 - 1])
def test_a_start_by_another_clock_begins_at_its_receipt(said_ns: int) -> None:
    told = tell(WORKER, [*BEGUN, start(5 * SECOND, "a", said_ns=said_ns), finish(7 * SECOND, "a")])
    assert told.amount() == 2 * PER_S


@pytest.mark.parametrize("said_ns", [8 * SECOND, 10**15, 2**63 - 1])
def test_a_finish_from_the_future_ends_at_its_receipt(said_ns: int) -> None:
    told = tell(WORKER, [*BEGUN, start(5 * SECOND, "a"), finish(7 * SECOND, "a", said_ns=said_ns)])
    assert told.amount() == 2 * PER_S


# --- who may say that the platform did it ---

CUSTOMERS = Options(worker=True, account="cus_1")


def test_a_customers_code_may_not_say_that_the_platform_stopped_it() -> None:
    word = Marked(3 * SECOND, StoppingMark(StopReason.ABORTED))
    told = tell(CUSTOMERS, [*BEGUN, start(SECOND, "a"), word, finish(4 * SECOND, "a"), exited(5 * SECOND)])
    assert (told.rejected, told.amount()) == (["not_yours"], 3 * PER_S)


def test_the_platforms_own_server_may() -> None:
    word = Marked(3 * SECOND, StoppingMark(StopReason.ABORTED))
    told = tell(WORKER, [*BEGUN, start(SECOND, "a", account="cus_1"), word, exited(5 * SECOND)])
    assert (told.rejected, last(told, "a")["status"], told.amount()) == ([], Status.ABORTED, 0)


@pytest.mark.parametrize("word", [Marked(2 * SECOND, StoppingMark()), Stopping(2 * SECOND, StopReason.DRAIN)])
@pytest.mark.parametrize(
    ("options", "status", "costs"),
    [(CUSTOMERS, Status.FAILED, 2 * PER_S), (WORKER, Status.ABORTED, Decimal(0))],
)
def test_what_a_customers_code_leaves_open_when_it_drains_by_itself_is_its_own_failure(
    word: Any, options: Options, status: Status, costs: Decimal
) -> None:
    told = tell(options, [*BEGUN, start(SECOND, "a"), word, exited(3 * SECOND, code=1)])
    assert (last(told, "a")["status"], told.amount()) == (status, costs)


def test_a_customers_code_that_drains_is_in_teardown_once_it_is_done() -> None:
    events = [start(SECOND, "a"), Marked(2 * SECOND, StoppingMark()), finish(3 * SECOND, "a"), exited(5 * SECOND)]
    told = tell(CUSTOMERS, [*BEGUN, *events])
    assert told.instances()[-1].data["time"]["teardown_ns"] == 2 * SECOND
    assert told.instances()[-1].data["status"] is Status.SUCCEEDED


def test_a_customers_code_may_cancel_what_it_runs() -> None:
    events = [start(SECOND, "a"), Marked(2 * SECOND, StoppingMark(StopReason.CANCELED)), exited(3 * SECOND)]
    told = tell(CUSTOMERS, [*BEGUN, *events])
    assert (last(told, "a")["status"], told.amount()) == (Status.CANCELED, PER_S)


def test_a_stop_from_outside_counts_though_the_worker_drains_already() -> None:
    options = replace(CUSTOMERS, on_term=StopReason.ABORTED)
    words = [
        Marked(2 * SECOND, StoppingMark()),
        Signaled(3 * SECOND, 15, False, True),
        Marked(4 * SECOND, StoppingMark()),
    ]
    told = tell(options, [*BEGUN, start(SECOND, "a"), *words, exited(5 * SECOND)])
    assert (last(told, "a")["status"], told.amount()) == (Status.ABORTED, 0)


def test_an_exit_that_is_unknown_bills_a_child_that_was_held() -> None:
    lost = Exited(4 * SECOND, None, None, False, None)
    told = tell(WORKER, [*BEGUN, start(SECOND, "a", pid=CHILD), OwnersHeld(4 * SECOND, (CHILD,)), lost])
    assert told.amount() == 3 * PER_S


# --- many of them ---

#: What ends one prediction after the other, and at which of their last words it finds them.
ENDINGS: dict[str, list[Event]] = {
    "seen": [gone(50 * SECOND), beat(51 * SECOND)],
    "seen late, behind a cut": [beat(61 * SECOND), gone(59 * SECOND), exited(62 * SECOND)],
    "seen, with the cut on its way": [gone(61 * SECOND), beat(62 * SECOND)],
    "unseen": [unseen(50 * SECOND), beat(51 * SECOND)],
    "unseen, behind a cut": [beat(61 * SECOND), unseen(61 * SECOND), exited(62 * SECOND)],
    "the command's, well": [exited(50 * SECOND)],
    "the command's, with some held": [OwnersHeld(50 * SECOND, (OTHER,)), exited(50 * SECOND, code=3)],
    "the command's, before their last words": [replace(exited(50 * SECOND, code=3), kernel_ns=35 * SECOND)],
    "the command's, in a drain": [Stopping(50 * SECOND, StopReason.DRAIN), exited(50 * SECOND)],
    "lost": [Lost(50 * SECOND, "wrapper_lost", clock(50 * SECOND))],
    "a stop": [Signaled(50 * SECOND, 15, False, True), beat(51 * SECOND)],
    "a stop, with the cut on its way": [Signaled(61 * SECOND, 15, False, True), exited(62 * SECOND)],
    "the worker's own word of a stop": [Stopping(50 * SECOND, StopReason.ABORTED), exited(51 * SECOND)],
    "the same, as a mark": [Marked(50 * SECOND, StoppingMark(StopReason.CANCELED)), exited(51 * SECOND)],
}


@pytest.mark.parametrize("endings", ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("at_once", [1, 4, 9])
@pytest.mark.parametrize("unread", [False, True])
def test_an_end_of_many_is_made_in_pieces_which_lead_to_what_one_leads_to(
    endings: list[Event], at_once: int, unread: bool
) -> None:
    pids = [CHILD, OTHER, None]
    starts = [start((1 + n) * MS, f"p{n}", account=f"cus_{n % 3}", pid=pids[n % 4 % 3]) for n in range(20)]
    words = [Marked((30 + n // 2) * SECOND, UnitsMark(f"p{n}", {"image": "1"}), None) for n in range(20)]
    beats = [beat(at * SECOND) for at in range(1, 50)]
    events: list[Event] = sorted([*starts, *words, *beats], key=lambda event: event.at_ns or 0)
    lost = [Unread(None)] if unread else []
    begun = fold(open_instance(opened(WORKER), book()), [*BEGUN, *events, *lost], book()).instance
    late = [beat(at * SECOND) for at in range(51, 61)] if endings[0].at_ns > 60 * SECOND else []  # type: ignore[operator]
    steps = in_pieces(begun, [*late, *endings], book(), at_once=at_once)
    assert steps[-1] == fold(begun, [*late, *endings], book())
    assert len(steps) >= max(2, 10 // at_once)
