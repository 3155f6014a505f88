"""What facts lead to which records: worked cases, one fact each."""

from decimal import Decimal
from typing import Any

import pytest

from taximeter.events import (
    ActiveMark,
    Alive,
    BadMark,
    BecameReady,
    Clock,
    Event,
    Exited,
    FinishMark,
    Lost,
    Marked,
    Options,
    ReadyMark,
    ReadyTimedOut,
    ServiceClass,
    Signaled,
    Status,
    Stopping,
    StoppingMark,
    StopReason,
    UnitsMark,
)
from taximeter.lifecycle import Stage
from taximeter.meter import fold, fold_all, open_instance
from taximeter.records import PLATFORM, UNATTRIBUTED, RecordType, Witness
from taximeter.turn import LATE_NS, PIDFD_NS
from taximeter.values import replace
from tests.core.stories import (
    MINUTE,
    MS,
    SECOND,
    WORKER,
    amount_of,
    beat,
    book,
    card,
    clock,
    exited,
    finish,
    opened,
    ready,
    spawned,
    start,
    tell,
)


def data_of(record: Any) -> Any:
    return record.data


def one_shot(*between: Any, end: int = 3 * SECOND, **told: Any) -> list[Any]:
    return [spawned(SECOND), ready(SECOND), *between, exited(end, **told)]


# --- one-shot ---


def test_a_one_shot_is_active_from_exec_to_exit() -> None:
    (record,) = tell(None, one_shot()).predictions()
    assert (record.data["time"]["active_ns"], record.data["time"]["share_ns"]) == (2 * SECOND, 2 * SECOND)


def test_a_one_shot_that_exits_0_succeeded() -> None:
    assert tell(None, one_shot()).predictions()[0].data["status"] is Status.SUCCEEDED


def test_a_one_shot_that_exits_3_failed_and_is_billed_for_its_run() -> None:
    told = tell(None, one_shot(code=3))
    assert told.predictions()[0].data["status"] is Status.FAILED
    assert told.amount() == Decimal("0.0002")


def test_a_one_shot_killed_by_a_signal_failed() -> None:
    told = tell(None, one_shot(code=None, signal=9))
    assert told.predictions()[0].data["status"] is Status.FAILED
    assert told.instances()[0].data["exit"].reason == "signaled"


def test_ctrl_c_cancels_a_one_shot_that_dies_of_it() -> None:
    told = tell(None, one_shot(Signaled(2 * SECOND, 2, True, False), code=None, signal=2))
    assert told.predictions()[0].data["status"] is Status.CANCELED


def test_ctrl_c_that_a_command_survives_cancels_nothing() -> None:
    told = tell(None, one_shot(Signaled(2 * SECOND, 2, True, False), code=0))
    assert told.predictions()[0].data["status"] is Status.SUCCEEDED


@pytest.mark.parametrize(("code", "signal"), [(None, 15), (0, None), (1, None)])
def test_an_outside_sigterm_cancels_a_one_shot_which_is_active_until_it_exits(
    code: int | None, signal: int | None
) -> None:
    """Else a command that sends itself a SIGTERM, and ignores it, would run for free."""
    told = tell(None, one_shot(Signaled(2 * SECOND, 15, False, True), code=code, signal=signal))
    assert told.predictions()[0].data["status"] is Status.CANCELED
    assert told.predictions()[0].data["time"]["active_ns"] == 2 * SECOND


def test_a_sigterm_from_inside_the_instance_ends_no_bill() -> None:
    told = tell(None, one_shot(Signaled(2 * SECOND, 15, False, False), code=0))
    assert told.predictions()[0].data["time"]["active_ns"] == 2 * SECOND


def test_a_sigterm_that_means_aborted_bills_nothing() -> None:
    options = Options(prediction="p1", on_term=StopReason.ABORTED)
    told = tell(options, one_shot(Signaled(2 * SECOND, 15, False, True), code=None, signal=15))
    assert told.predictions()[0].data["status"] is Status.ABORTED
    assert told.amount() == 0


@pytest.mark.parametrize(("code", "status"), [(0, Status.SUCCEEDED), (1, Status.ABORTED)])
def test_a_draining_one_shot_goes_on_to_its_exit(code: int, status: Status) -> None:
    options = Options(prediction="p1", on_term=StopReason.DRAIN)
    told = tell(options, one_shot(Signaled(2 * SECOND, 15, False, True), code=code))
    assert told.predictions()[0].data["status"] is status
    assert told.predictions()[0].data["time"]["active_ns"] == 2 * SECOND


def test_a_second_stop_changes_nothing() -> None:
    stops = [Stopping(2 * SECOND, StopReason.DRAIN), Signaled(2 * SECOND + 1, 15, False, True)]
    told = tell(WORKER, [spawned(SECOND), *stops, exited(3 * SECOND)])
    assert told.instance.stop is StopReason.DRAIN


@pytest.mark.parametrize(
    "word", [Stopping(2 * SECOND, StopReason.DRAIN), Marked(2 * SECOND, StoppingMark(StopReason.DRAIN))]
)
def test_a_one_shot_that_says_that_it_stops_changes_no_bill(word: Any) -> None:
    """Else a command that fails right after would run for free, as if the platform had stopped it."""
    told = tell(None, one_shot(word, code=1))
    assert told.predictions()[0].data["status"] is Status.FAILED
    assert told.amount() == Decimal("0.0002")


def test_of_very_many_cuts_that_were_missed_only_the_last_is_made_up_for() -> None:
    days_ns = 3 * 24 * 60 * MINUTE
    alive = Alive(days_ns + 1, clock(days_ns + 1))
    told = tell(None, [spawned(0), ready(0), alive, exited(days_ns + SECOND)], silent=True)
    assert [record.data["interval"]["end_ns"] for record in told.predictions()] == [days_ns, days_ns + SECOND]


@pytest.mark.parametrize(("open_at_once", "cuts"), [(1, 60), (24, 60), (25, 1), (1024, 1)])
def test_the_more_are_open_the_fewer_cuts_are_made_up_for_at_once(open_at_once: int, cuts: int) -> None:
    """An hour without a word of an orphan leads to no more than a day's records of one prediction, or one of each."""
    starts = [start(0, f"p{number}") for number in range(open_at_once)]
    alive = Alive(60 * MINUTE, clock(60 * MINUTE))
    told = tell(Options(worker=True), [spawned(0), ready(0), *starts, alive], silent=True)
    assert len(told.predictions()) == cuts * open_at_once
    assert told.predictions()[-1].data["interval"]["end_ns"] == 60 * MINUTE


def test_boot_ends_when_a_notifying_command_is_ready() -> None:
    told = tell(Options(prediction="p1", ready="notify"), [spawned(0), ready(SECOND, "notify"), exited(3 * SECOND)])
    assert told.instances()[0].data["time"]["boot_ns"] == SECOND
    assert told.predictions()[0].data["interval"]["start_ns"] == SECOND


def test_a_ready_mark_makes_a_one_shot_ready() -> None:
    options = Options(prediction="p1", ready="notify")
    told = tell(options, [spawned(0), Marked(SECOND, ReadyMark()), exited(3 * SECOND)])
    assert told.predictions()[0].data["time"]["active_ns"] == 2 * SECOND


def test_a_command_that_never_became_ready_is_told_and_billed_nothing() -> None:
    options = Options(prediction="p1", ready="notify")
    told = tell(options, [spawned(0), ReadyTimedOut(SECOND), exited(3 * SECOND, code=1)])
    assert told.predictions()[0].data["time"]["wall_ns"] == 0
    assert told.amount() == 0
    assert told.instances()[0].data["time"]["boot_ns"] == 3 * SECOND
    assert told.instances()[0].data["exit"].ready is False


def test_who_became_ready_after_its_timeout_is_ready_all_the_same() -> None:
    facts = [spawned(0), ReadyTimedOut(SECOND), BecameReady(2 * SECOND, "http", MS), exited(3 * SECOND)]
    told = tell(Options(prediction="p1", ready="http://localhost/"), facts)
    assert told.predictions()[0].data["time"]["active_ns"] == SECOND
    assert told.instances()[0].data["exit"].ready is True


def test_a_long_boot_that_fails_is_told_too() -> None:
    options = Options(prediction="p1", ready="notify")
    told = tell(options, [spawned(0), beat(90 * SECOND), exited(91 * SECOND, code=1)])
    assert [record.data["status"] for record in told.predictions()] == [Status.FAILED]


def test_a_command_that_never_started_has_two_records_without_time() -> None:
    told = tell(None, [Exited(SECOND, 127, None, False, None, error="not found")])
    assert [record.data["time"]["wall_ns"] for record in told.records] == [0, 0]
    assert told.instances()[0].data["exit"].reason == "not_started"


@pytest.mark.parametrize(("took_ns", "within_ns"), [(300_000, PIDFD_NS), (30 * MS, 30 * MS)])
def test_a_start_is_as_far_off_as_the_spawn_took_or_as_a_process_waits_for_a_core(took_ns: int, within_ns: int) -> None:
    (record,) = tell(None, [spawned(SECOND, took_ns), ready(SECOND), exited(3 * SECOND)]).predictions()
    assert record.data["timing"]["start"].uncertainty_ns == within_ns


def test_units_of_a_one_shot_need_no_name() -> None:
    told = tell(None, one_shot(Marked(2 * SECOND, UnitsMark(None, {"token_output": "128"}))))
    assert told.predictions()[0].data["units"] == {"token_output": "128"}


def test_what_a_finish_says_of_units_is_counted() -> None:
    done = Marked(2 * SECOND, FinishMark("a", Status.SUCCEEDED, {"image": "2"}))
    told = tell(WORKER, [spawned(0), ready(0), start(SECOND, "a"), done, exited(3 * SECOND)])
    assert told.predictions("a")[-1].data["units"] == {"image": "2"}


def test_units_add_up_exactly() -> None:
    marks = [Marked(2 * SECOND + n, UnitsMark("p1", {"second": "0.1"})) for n in range(3)]
    assert tell(None, one_shot(*marks)).predictions()[0].data["units"] == {"second": "0.3"}


def test_a_prediction_keeps_a_bounded_number_of_units() -> None:
    mark = Marked(2 * SECOND, UnitsMark(None, {f"u{n}": "1" for n in range(65)}))
    assert tell(None, one_shot(mark)).rejected == ["too_many_units"]


@pytest.mark.parametrize(
    "mark",
    [FinishMark("p1", Status.SUCCEEDED), ActiveMark("p1"), StoppingMark(StopReason.CANCELED)],
)
def test_a_one_shot_cannot_end_its_own_bill_by_a_mark(mark: Any) -> None:
    told = tell(None, one_shot(Marked(2 * SECOND, mark)))
    assert told.rejected == ["not_a_worker"]
    assert told.predictions()[0].data["time"]["active_ns"] == 2 * SECOND


def test_units_before_anything_runs_are_refused() -> None:
    told = tell(Options(prediction="p1", ready="notify"), [spawned(0), Marked(1, UnitsMark(None, {"image": "1"}))])
    assert told.rejected == ["no_such_prediction"]


def test_a_finish_without_units_counts_none() -> None:
    told = tell(WORKER, [spawned(0), ready(0), start(SECOND, "a"), finish(2 * SECOND, "a")])
    assert told.predictions()[0].data["units"] == {}


def test_what_a_command_used_is_in_its_record() -> None:
    (record,) = tell(None, one_shot()).predictions()
    assert record.data["resources"]["cpu_ns"] == 5 * MS


# --- workers ---


def test_overlapping_predictions_share_their_time() -> None:
    """The worked example of cog's pull request 1643: 3 s overlapped by 1 s."""
    told = tell(
        WORKER,
        [
            spawned(0),
            ready(0),
            start(0, "long"),
            start(SECOND, "short"),
            finish(2 * SECOND, "short"),
            finish(3 * SECOND, "long"),
        ],
    )
    assert told.predictions("long")[0].data["time"]["share_ns"] == 2_500 * MS
    assert told.predictions("short")[0].data["time"]["share_ns"] == 500 * MS


def test_concurrency_is_told_with_its_mean_and_its_maximum() -> None:
    told = tell(
        WORKER,
        [spawned(0), ready(0), start(0, "a"), start(SECOND, "b"), finish(2 * SECOND, "b"), finish(4 * SECOND, "a")],
    )
    assert told.predictions("a")[0].data["concurrency"]["mean"] == "1.25"
    assert told.predictions("a")[0].data["concurrency"]["max"] == 2


def test_a_start_implies_ready() -> None:
    told = tell(WORKER, [spawned(0), start(SECOND, "a"), finish(2 * SECOND, "a"), exited(3 * SECOND)])
    time = told.instances()[0].data["time"]
    assert (time["boot_ns"], time["active_ns"], time["idle_ns"]) == (SECOND, SECOND, SECOND)


def test_a_fast_boot_pays_only_for_being_active() -> None:
    told = tell(
        WORKER,
        [
            spawned(0),
            ready(0),
            start(SECOND, "a", service_class=ServiceClass.FAST_BOOT),
            Marked(3 * SECOND, ActiveMark("a")),
            finish(5 * SECOND, "a"),
        ],
    )
    (record,) = told.predictions("a")
    assert (record.data["time"]["load_ns"], record.data["time"]["active_ns"]) == (2 * SECOND, 2 * SECOND)
    assert amount_of(record) == Decimal("0.0002")


def test_an_active_mark_for_what_is_active_is_refused() -> None:
    told = tell(WORKER, [spawned(0), start(0, "a"), Marked(1, ActiveMark("a")), Marked(2, ActiveMark("b"))])
    assert told.rejected == ["active_without_load", "no_such_prediction"]


def test_a_prediction_cannot_start_twice() -> None:
    assert tell(WORKER, [spawned(0), start(0, "a"), start(1, "a")]).rejected == ["already_started"]


def test_a_finish_without_a_start_is_refused() -> None:
    assert tell(WORKER, [spawned(0), ready(0), finish(1, "a")]).rejected == ["no_such_prediction"]


def test_what_run_fixed_no_mark_can_change() -> None:
    options = Options(worker=True, account="cus_1")
    assert tell(options, [spawned(0), start(0, "a", account="cus_2")]).rejected == ["fixed_by_run"]


def test_what_run_left_open_marks_set() -> None:
    told = tell(WORKER, [spawned(0), start(0, "a", account="cus_2", model="m"), finish(1, "a")])
    assert (told.predictions()[0].subject, told.predictions()[0].data["model"]) == ("cus_2", "m")


def test_a_worker_keeps_a_bounded_number_of_open_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taximeter.predictions.MOST_OPEN", 2)
    assert tell(WORKER, [spawned(0), start(0, "a"), start(0, "b"), start(0, "c")]).rejected == ["too_many_open"]


def test_a_mark_before_the_spawn_is_refused() -> None:
    assert tell(WORKER, [start(0, "a"), ready(0)]).rejected == ["busy_in_pending", "ready_in_pending"]


def test_nothing_loads_before_the_spawn() -> None:
    story = [start(0, "a", service_class=ServiceClass.FAST_BOOT), spawned(SECOND), exited(2 * SECOND)]
    told = tell(WORKER, story)
    assert (told.rejected, told.predictions()) == (["busy_in_pending"], [])


def test_a_start_is_believed_a_little_before_its_receipt() -> None:
    told = tell(WORKER, [spawned(0), ready(0), start(SECOND, "a", said_ns=SECOND - 20 * MS), finish(2 * SECOND, "a")])
    assert told.predictions()[0].data["interval"]["start_ns"] == SECOND - 20 * MS
    assert told.predictions()[0].data["timing"]["start"].uncertainty_ns == 20 * MS


def test_an_old_start_begins_at_its_receipt() -> None:
    told = tell(WORKER, [spawned(0), ready(0), start(SECOND, "a", said_ns=0), finish(2 * SECOND, "a")])
    assert told.predictions()[0].data["interval"]["start_ns"] == SECOND


def test_an_old_finish_ends_the_bill_when_it_says() -> None:
    told = tell(WORKER, [spawned(0), ready(0), start(0, "a"), finish(2 * SECOND, "a", said_ns=SECOND)])
    assert told.predictions()[0].data["time"]["active_ns"] == SECOND


def test_an_old_finish_ends_no_earlier_than_what_was_told_already() -> None:
    told = tell(WORKER, [spawned(0), start(0, "a"), finish(70 * SECOND, "a", said_ns=30 * SECOND), exited(80 * SECOND)])
    assert [record.data["interval"]["end_ns"] for record in told.predictions()] == [MINUTE, MINUTE]


def test_a_finish_from_the_future_ends_at_its_receipt() -> None:
    told = tell(WORKER, [spawned(0), ready(0), start(0, "a"), finish(SECOND, "a", said_ns=9 * SECOND)])
    assert told.predictions()[0].data["time"]["active_ns"] == SECOND


def test_an_end_read_late_bills_to_the_last_sign_of_life() -> None:
    told = tell(WORKER, [spawned(0), ready(0), start(0, "a"), beat(SECOND), finish(30 * SECOND, "a")], silent=True)
    assert told.predictions()[0].data["time"]["active_ns"] == SECOND


def test_a_crash_fails_what_was_open() -> None:
    told = tell(WORKER, [spawned(0), start(0, "a"), exited(SECOND, code=None, signal=11)])
    assert told.predictions()[0].data["status"] is Status.FAILED


def test_a_worker_that_exits_0_with_a_prediction_open_fails_it_and_has_itself_succeeded() -> None:
    told = tell(WORKER, [spawned(0), start(0, "a"), exited(SECOND)])
    assert told.predictions()[0].data["status"] is Status.FAILED
    assert told.instances()[0].data["status"] is Status.SUCCEEDED


def test_a_worker_that_drained_and_exits_0_with_a_prediction_open_is_aborted_as_that_is() -> None:
    term = Signaled(SECOND, 15, by_kernel=False, outside=True)
    told = tell(replace(WORKER, on_term=StopReason.DRAIN), [spawned(0), start(0, "a"), term, exited(2 * SECOND)])
    statuses = [told.predictions()[0].data["status"], told.instances()[0].data["status"]]
    assert statuses == [Status.ABORTED, Status.ABORTED]


def test_a_worker_that_exits_0_with_nothing_open_succeeded() -> None:
    told = tell(WORKER, [spawned(0), ready(0), exited(SECOND)])
    assert told.instances()[0].data["status"] is Status.SUCCEEDED


def test_a_worker_that_exits_1_with_nothing_open_failed() -> None:
    told = tell(WORKER, [spawned(0), ready(0), exited(SECOND, code=1)])
    assert told.instances()[0].data["status"] is Status.FAILED


@pytest.mark.parametrize(
    ("reason", "status"), [(StopReason.CANCELED, Status.CANCELED), (StopReason.ABORTED, Status.ABORTED)]
)
def test_a_stopping_worker_ends_its_predictions(reason: StopReason, status: Status) -> None:
    told = tell(WORKER, [spawned(0), start(0, "a"), Marked(SECOND, StoppingMark(reason)), exited(2 * SECOND)])
    assert told.predictions()[0].data["status"] is status
    assert told.instances()[0].data["time"]["teardown_ns"] == SECOND


def test_a_draining_worker_lets_predictions_go_on_and_aborts_what_is_left() -> None:
    told = tell(
        WORKER,
        [
            spawned(0),
            start(0, "a"),
            start(0, "b"),
            Stopping(SECOND, StopReason.DRAIN),
            finish(2 * SECOND, "a"),
            exited(3 * SECOND),
        ],
    )
    assert told.predictions("a")[0].data["status"] is Status.SUCCEEDED
    assert told.predictions("b")[0].data["status"] is Status.ABORTED


def test_a_prediction_that_starts_while_the_worker_stops_is_timed() -> None:
    events = [spawned(0), ready(0), Stopping(SECOND, StopReason.DRAIN), start(2 * SECOND, "a"), finish(3 * SECOND, "a")]
    told = tell(WORKER, [*events, exited(4 * SECOND)])
    time = told.instances()[0].data["time"]
    assert (time["idle_ns"], time["teardown_ns"], time["active_ns"]) == (SECOND, 2 * SECOND, SECOND)


def test_canceling_a_loading_prediction_bills_nothing() -> None:
    loading = start(0, "a", service_class=ServiceClass.FAST_BOOT)
    told = tell(WORKER, [spawned(0), ready(0), loading, Stopping(SECOND, StopReason.CANCELED)])
    assert told.amount() == 0
    assert told.predictions("a")[0].data["time"]["load_ns"] == SECOND


def test_a_bad_mark_is_counted_and_harms_nothing() -> None:
    told = tell(None, one_shot(BadMark(2 * SECOND, "not_json")))
    assert told.rejected == ["not_json"]
    assert told.predictions()[0].data["time"]["active_ns"] == 2 * SECOND


# --- interim records ---


def test_interim_records_are_cut_at_multiples_of_the_interim() -> None:
    told = tell(None, [spawned(0), ready(0), *(beat(n * SECOND) for n in range(1, 150)), exited(150 * SECOND)])
    assert [record.data["interval"]["end_ns"] for record in told.predictions()] == [MINUTE, 2 * MINUTE, 150 * SECOND]
    assert [record.data["final"] for record in told.predictions()] == [False, False, True]


def test_interim_records_carry_totals_to_date() -> None:
    told = tell(None, [spawned(0), ready(0), beat(61 * SECOND), exited(62 * SECOND)])
    assert [record.data["to_date"]["active_ns"] for record in told.predictions()] == [MINUTE, 62 * SECOND]


def test_an_aborted_run_corrects_what_its_interim_records_billed() -> None:
    options = Options(prediction="p1", on_term=StopReason.ABORTED)
    events = [spawned(0), ready(0), Signaled(62 * SECOND, 15, False, True), exited(63 * SECOND, code=None, signal=15)]
    told = tell(options, events)
    (correction,) = told.of(RecordType.CORRECTION)
    assert amount_of(correction) == Decimal("-0.006")
    assert correction.data["corrects"] == {"source": "/nodes/test", "id": told.predictions()[0].id}
    assert told.amount() == 0


def test_record_ids_count_without_a_gap() -> None:
    options = Options(prediction="p1", on_term=StopReason.ABORTED)
    events = [spawned(0), ready(0), beat(61 * SECOND), Signaled(62 * SECOND, 15, False, True), exited(63 * SECOND)]
    assert [int(record.id[-8:]) for record in tell(options, events).records] == list(range(5))


# --- classes ---


def test_a_private_instance_pays_for_being_online() -> None:
    options = Options(worker=True, service_class=ServiceClass.PRIVATE, account="cus_9")
    told = tell(
        options, [spawned(0), ready(SECOND), start(2 * SECOND, "a"), finish(3 * SECOND, "a"), exited(4 * SECOND)]
    )
    (instance,) = told.instances()
    assert instance.subject == "cus_9"
    assert [line.meter for line in instance.data["billing"].lines] == ["boot", "idle", "active"]
    assert amount_of(instance) == Decimal("0.0004")
    assert told.predictions("a")[0].data["billing"].status == "informative"


def test_a_private_boot_that_failed_bills_nothing() -> None:
    options = Options(worker=True, service_class=ServiceClass.PRIVATE)
    assert tell(options, [spawned(0), beat(61 * SECOND), exited(62 * SECOND, code=1)]).amount() == 0


def test_a_private_boot_is_billed_once_it_became_ready() -> None:
    options = Options(worker=True, service_class=ServiceClass.PRIVATE)
    told = tell(options, [spawned(0), beat(61 * SECOND), ready(90 * SECOND), beat(99 * SECOND), exited(100 * SECOND)])
    assert told.amount() == Decimal("0.01")


@pytest.mark.parametrize("by", ["http", "tcp", "log"])
def test_who_is_asked_whether_it_is_ready_began_at_most_so_long_before(by: str) -> None:
    facts = [spawned(0), BecameReady(SECOND, by, 100 * MS), exited(2 * SECOND)]
    (record,) = tell(Options(prediction="p1", ready=by), facts).predictions()
    start = record.data["timing"]["start"]
    assert (start.source, start.uncertainty_ns, record.data["time"]["active_ns"]) == ("wrapper", 100 * MS, SECOND)


@pytest.mark.parametrize("said", [BecameReady(SECOND, "notify"), Marked(SECOND, ReadyMark())])
def test_who_says_that_it_is_ready_may_have_been_so_for_any_time(said: Event) -> None:
    (record,) = tell(Options(prediction="p1", ready="notify"), [spawned(0), said, exited(2 * SECOND)]).predictions()
    assert record.data["timing"]["start"].uncertainty_ns is None


def test_boot_at_half_price_is_billed_to_whoever_the_class_says() -> None:
    rules = book(public={"boot": "0.5"})
    told = tell(Options(prediction="p1", ready="notify"), [spawned(0), ready(SECOND), exited(2 * SECOND)], rules)
    assert told.amount() == Decimal("0.00015")


def test_the_time_of_a_shared_pool_is_the_platforms() -> None:
    told = tell(WORKER, [spawned(0), ready(0), exited(SECOND)])
    assert told.instances()[0].subject == PLATFORM
    assert told.amount() == 0


def test_a_worker_that_drains_and_exits_0_with_nothing_open_succeeded() -> None:
    told = tell(WORKER, [spawned(0), ready(0), Stopping(SECOND, StopReason.DRAIN), exited(2 * SECOND)])
    assert told.instances()[0].data["status"] is Status.SUCCEEDED


def test_how_far_off_a_mark_is_whose_word_is_not_taken_nobody_knows() -> None:
    told = tell(
        WORKER, [spawned(0), start(5 * SECOND, "a", said_ns=SECOND), finish(6 * SECOND, "a", said_ns=9 * SECOND)]
    )
    timing: Any = told.predictions()[0].data["timing"]
    assert (timing["start"].uncertainty_ns, timing["end"].uncertainty_ns) == (None, None)


def test_an_end_by_a_signal_is_as_far_off_as_who_saw_it() -> None:
    term = Signaled(2 * SECOND, 15, by_kernel=False, outside=True)
    timing: Any = tell(WORKER, [spawned(0), start(SECOND, "a"), term]).predictions()[0].data["timing"]
    assert timing["end"].uncertainty_ns == PIDFD_NS


def test_how_far_off_a_mark_is_that_does_not_say_when_nobody_knows() -> None:
    told = tell(WORKER, [spawned(0), start(0, "a"), finish(SECOND, "a")])
    timing = told.predictions()[0].data["timing"]
    assert (timing["start"].uncertainty_ns, timing["end"].uncertainty_ns) == (None, None)


def test_a_prediction_without_an_account_is_rated_all_the_same() -> None:
    (record,) = tell(None, one_shot()).predictions()
    assert (record.subject, amount_of(record)) == (UNATTRIBUTED, Decimal("0.0002"))


def test_active_may_be_the_quantity_instead_of_share() -> None:
    rules = book(public={"quantity": "active"})
    told = tell(WORKER, [spawned(0), start(0, "a"), start(0, "b"), finish(SECOND, "a"), finish(SECOND, "b")], rules)
    assert told.amount() == Decimal("0.0002")


def test_training_is_told_as_training() -> None:
    told = tell(Options(prediction="p1", service_class=ServiceClass.TRAINING), one_shot())
    assert told.predictions()[0].data["kind"] == "training"


def test_a_tier_without_a_price_is_unrated_and_never_zero() -> None:
    billing: Any = tell(None, one_shot(), tier="gpu-unheard-of").predictions()[0].data["billing"]
    assert (billing.status, billing.amount) == ("unrated", None)
    assert "gpu-unheard-of" in billing.reason


def test_a_run_before_any_card_is_unrated() -> None:
    rules = book(rates=(card(effective="2027-01-01T00:00:00Z"),))
    billing: Any = tell(None, one_shot(), rules).predictions()[0].data["billing"]
    assert (billing.status, billing.reason) == ("unrated", "no rate card was in force")


def test_a_prediction_keeps_the_card_of_its_start() -> None:
    cards = (card("0.0001"), card("9", effective="2026-11-22T10:00:02Z"))
    assert tell(None, one_shot(), book(rates=cards)).amount() == Decimal("0.0002")


def test_a_later_prediction_takes_the_later_card() -> None:
    cards = (card("0.0001"), card("9", effective="2026-11-22T10:00:02Z"))
    told = tell(WORKER, [spawned(0), start(3 * SECOND, "a"), finish(4 * SECOND, "a")], book(rates=cards))
    assert told.amount() == 9


# --- ends that nobody saw ---


def test_a_lost_instance_is_billed_to_its_last_sign_of_life() -> None:
    told = tell(None, [spawned(0), ready(0), beat(SECOND), Lost(5 * SECOND, "wrapper_lost")], silent=True)
    time = told.predictions()[0].data["time"]
    assert (time["active_ns"], time["unknown_ns"]) == (SECOND, 4 * SECOND)
    assert told.amount() == Decimal("0.0001")


def test_the_witness_of_a_lost_end_is_the_heartbeat() -> None:
    told = tell(None, [spawned(0), ready(0), beat(SECOND), Lost(5 * SECOND, "wrapper_lost")], silent=True)
    assert told.instances()[0].data["timing"]["end"].source == "heartbeat"
    assert told.instances()[0].data["timing"]["end"].uncertainty_ns == 4 * SECOND


def test_a_reboot_ends_at_the_last_sign_and_is_the_platforms() -> None:
    told = tell(None, [spawned(0), ready(0), beat(SECOND), Lost(None, "rebooted")], silent=True)
    assert told.instances()[0].data["time"]["wall_ns"] == SECOND
    assert told.predictions()[0].data["status"] is Status.ABORTED


@pytest.mark.parametrize("options", [None, WORKER], ids=["one_shot", "worker"])
def test_an_instance_that_is_lost_before_anybody_said_that_it_started_is_unknown_since_its_opening(
    options: Options | None,
) -> None:
    told = tell(options, [beat(SECOND), Lost(5 * SECOND, "wrapper_lost")], silent=True)
    (instance,) = told.instances()
    time, timing = data_of(instance)["time"], data_of(instance)["timing"]
    assert (time["unknown_ns"], time["wall_ns"]) == (5 * SECOND, 5 * SECOND)
    assert (data_of(instance)["exit"].reason, instance.data["status"]) == ("wrapper_lost", "failed")
    assert (timing["start"], timing["end"]) == (Witness("wrapper", None), Witness("heartbeat", 4 * SECOND))
    assert told.amount() == 0


def test_a_command_whose_start_found_no_room_on_the_disk_is_unknown_until_it_ended() -> None:
    told = tell(None, [replace(exited(3 * SECOND), dropped=2)], silent=True)
    (instance,), (prediction,) = told.instances(), told.predictions()
    time = data_of(instance)["time"]
    assert (time["unknown_ns"], time["wall_ns"]) == (3 * SECOND, 3 * SECOND)
    assert (instance.data["status"], data_of(prediction)["time"]["wall_ns"]) == ("succeeded", 0)
    assert told.amount() == 0


def test_a_node_that_rebooted_before_anybody_said_that_the_command_started_leaves_no_time() -> None:
    told = tell(None, [Lost(None, "rebooted")])
    assert told.instances()[0].data["time"]["wall_ns"] == 0
    assert told.instances()[0].data["status"] is Status.ABORTED


def test_a_command_that_could_not_be_started_has_no_time() -> None:
    told = tell(None, [Exited(SECOND, 127, None, False, None, error="not found")])
    assert told.instances()[0].data["time"]["wall_ns"] == 0


def test_a_stop_before_the_loss_decides_the_status() -> None:
    events = [spawned(0), start(0, "a"), Stopping(SECOND, StopReason.CANCELED), Lost(2 * SECOND, "wrapper_lost")]
    told = tell(WORKER, events, silent=True)
    assert told.instances()[0].data["status"] is Status.CANCELED


def test_an_exit_seen_after_a_long_silence_is_unknown_behind_the_last_sign() -> None:
    told = tell(None, [spawned(0), ready(0), beat(SECOND), exited(SECOND + LATE_NS + 1)], silent=True)
    assert told.predictions()[0].data["time"]["unknown_ns"] == LATE_NS + 1


def test_an_exit_within_the_silence_of_a_heartbeat_or_two_is_billed_whole() -> None:
    told = tell(None, [spawned(0), ready(0), beat(SECOND), exited(SECOND + LATE_NS)], silent=True)
    assert told.predictions()[0].data["time"]["unknown_ns"] == 0


def test_a_silence_is_one_stretch_and_the_cuts_go_on_behind_it() -> None:
    events = [spawned(0), ready(0), beat(SECOND), beat(150 * SECOND), beat(151 * SECOND), exited(152 * SECOND)]
    told = tell(None, events, silent=True)
    (record,) = told.predictions()
    assert (record.data["time"]["unknown_ns"], record.data["time"]["active_ns"]) == (149 * SECOND, 3 * SECOND)
    assert told.instance.next_cut_ns == 0


def test_behind_a_silence_the_next_cut_lies_where_it_always_lay() -> None:
    events = [spawned(0), ready(0), beat(SECOND), *(beat(n * SECOND) for n in range(150, 185)), exited(185 * SECOND)]
    told = tell(None, events, silent=True)
    assert [record.data["interval"]["end_ns"] for record in told.predictions()] == [3 * MINUTE, 185 * SECOND]


def test_a_clock_that_jumps_by_a_year_makes_no_flood_of_records() -> None:
    year_ns = 365 * 24 * 60 * MINUTE
    assert len(tell(None, [spawned(0), ready(0), exited(year_ns)], silent=True).records) == 2


def test_a_wrapper_that_was_stopped_bills_nothing_of_its_silence() -> None:
    """Stopped at 1 s, woken at 7 s: nobody knows when in between the command ended."""
    events = [spawned(0), ready(0), beat(SECOND), Signaled(7 * SECOND, 18, False, True), exited(7 * SECOND + MS)]
    told = tell(None, events, silent=True)
    time = told.predictions()[0].data["time"]
    assert (time["active_ns"], time["unknown_ns"]) == (SECOND + MS, 6 * SECOND)


def test_an_exit_without_usage_leaves_the_last_usage_known() -> None:
    exit_ = Exited(2 * SECOND, 0, None, False, None)
    told = tell(None, [spawned(0), ready(0), beat(SECOND, cpu_ns=7), exit_])
    assert told.instances()[0].data["resources"]["cpu_ns"] == 7


# --- clocks ---


def test_suspended_time_is_apart_and_unbilled() -> None:
    told = tell(None, [spawned(0), ready(0), beat(SECOND, slept_ns=MINUTE), exited(2 * SECOND, slept_ns=MINUTE)])
    time = told.predictions()[0].data["time"]
    assert (time["wall_ns"], time["active_ns"], time["suspended_ns"]) == (MINUTE + 2 * SECOND, 2 * SECOND, MINUTE)
    assert told.amount() == Decimal("0.0002")


def test_the_noise_of_reading_two_clocks_is_no_suspension() -> None:
    told = tell(None, [spawned(0), ready(0), beat(SECOND, slept_ns=9 * MS), exited(2 * SECOND)])
    assert told.predictions()[0].data["time"]["suspended_ns"] == 0


def test_no_event_goes_back_in_time() -> None:
    told = tell(None, [spawned(5 * SECOND), ready(3 * SECOND), exited(SECOND)])
    assert told.instances()[0].data["time"]["wall_ns"] == 0


# --- the end is the end ---


def test_nothing_counts_after_the_end() -> None:
    told = tell(None, [*one_shot(), beat(3 * SECOND)])
    assert told.rejected == ["after_the_end"]
    assert told.instance.stage is Stage.CLOSED


@pytest.mark.parametrize("now", [None, replace(clock(SECOND), utc_error_ns=5)], ids=["unsure", "sure"])
def test_each_of_many_comes_to_what_it_comes_to_alone_also_beside_one_of_which_something_is_refused(
    now: Clock | None,
) -> None:
    by = book()
    histories = (one_shot(), [*one_shot(), beat(3 * SECOND)], [spawned(0), *one_shot()])
    told = [(open_instance(opened(), by), events) for events in histories]
    together = fold_all(told, by, now)
    assert [len(step.rejected) for step in together] == [0, 1, 1]
    assert together == [fold(instance, events, by, now) for instance, events in told]


def test_a_segment_that_repeats_the_opening_changes_nothing() -> None:
    told = tell(None, [spawned(0), ready(0), opened(), exited(SECOND)])
    assert told.predictions()[0].data["time"]["active_ns"] == SECOND


def test_a_private_instance_that_failed_at_half_price_corrects_its_interims() -> None:
    rules = book(private={"failed": "0.5"})
    options = Options(worker=True, service_class=ServiceClass.PRIVATE, account="cus_9")
    told = tell(options, [spawned(0), ready(0), beat(61 * SECOND), exited(62 * SECOND, code=1)], rules)
    (correction,) = told.of(RecordType.CORRECTION)
    assert (correction.subject, correction.data["corrects"]) == (
        "cus_9",
        {"source": "/nodes/test", "id": told.instances()[0].id},
    )
    assert told.amount() == Decimal("0.0031")
