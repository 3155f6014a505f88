"""Who saw the start and the end, and what that does to a bill: the ladder, one rung a test."""

from decimal import Decimal
from typing import Any

from taximeter.events import Alive, BadMark, Event, Exited, Lost, Marked, Source, Spawned, Status, UnitsMark, Usage
from taximeter.records import UsageRecord
from taximeter.turn import KERNEL_NS, PIDFD_NS
from taximeter.values import replace
from tests.core.stories import MINUTE, MS, SECOND, WORKER, beat, clock, exited, finish, ready, spawned, start, tell

EXEC_NS, SPAWNED_NS, KERNEL_END_NS, END_NS = 900 * MS, SECOND, 3 * SECOND - 2 * MS, 3 * SECOND


def seen_start(exec_ns: int = EXEC_NS, at_ns: int = SPAWNED_NS) -> Spawned:
    return replace(spawned(at_ns), host_pid=4711, exec_ns=exec_ns)


def seen_end(at_ns: int = END_NS, kernel_ns: int = KERNEL_END_NS) -> Exited:
    return replace(exited(at_ns), kernel_ns=kernel_ns)


def alive(at_ns: int, cpu_ns: int | None = None) -> Alive:
    return Alive(at_ns, clock(at_ns), Usage(cpu_ns, None))


def agents_end(at_ns: int, **changes: Any) -> Exited:
    return replace(exited(at_ns), source=Source.AGENT, **changes)


def one(events: list[Event]) -> UsageRecord:
    (record,) = tell(None, events, silent=True).predictions()
    return record


def test_the_kernels_stamps_bound_what_is_billed() -> None:
    record = one([seen_start(), ready(SPAWNED_NS), beat(2 * SECOND), seen_end()])
    assert record.data["time"]["active_ns"] == KERNEL_END_NS - EXEC_NS


def test_the_kernel_is_named_as_the_witness_of_both_ends() -> None:
    timing: Any = one([seen_start(), ready(SPAWNED_NS), beat(2 * SECOND), seen_end()]).data["timing"]
    assert (timing["start"].source, timing["end"].source) == ("kernel", "kernel")
    assert (timing["start"].uncertainty_ns, timing["end"].uncertainty_ns) == (KERNEL_NS, KERNEL_NS)


def test_an_exec_that_came_after_the_spawn_had_returned_begins_the_bill() -> None:
    late_ns = SPAWNED_NS + 4 * MS
    record = one([seen_start(late_ns), ready(SPAWNED_NS), beat(2 * SECOND), seen_end()])
    assert record.data["time"]["active_ns"] == KERNEL_END_NS - late_ns


def test_a_command_that_was_over_before_the_spawn_had_returned_is_billed_for_its_run() -> None:
    record = one([seen_start(), ready(SPAWNED_NS), seen_end(SPAWNED_NS + MS, SPAWNED_NS - 50 * MS)])
    assert record.data["time"]["active_ns"] == SPAWNED_NS - 50 * MS - EXEC_NS


def test_boot_runs_from_the_kernels_exec_where_readiness_comes_later() -> None:
    told = tell(None, [seen_start(), ready(2 * SECOND, "notify"), seen_end()], silent=True)
    time: Any = told.instances()[0].data["time"]
    assert (time["boot_ns"], time["active_ns"]) == (2 * SECOND - EXEC_NS, KERNEL_END_NS - 2 * SECOND)


def test_of_two_that_saw_the_end_the_earlier_is_nearer() -> None:
    record = one([seen_start(), ready(SPAWNED_NS), beat(2 * SECOND), seen_end(END_NS, END_NS + MS)])
    timing: Any = record.data["timing"]
    assert (record.data["interval"]["end_ns"], timing["end"].source) == (END_NS, "kernel")


def test_a_kernels_end_far_behind_the_wrappers_is_not_of_this_process() -> None:
    record = one([seen_start(), ready(SPAWNED_NS), beat(2 * SECOND), seen_end(END_NS, END_NS + PIDFD_NS + 1)])
    timing: Any = record.data["timing"]
    assert (timing["end"].source, timing["end"].uncertainty_ns) == ("wrapper", PIDFD_NS)


def test_a_mark_that_was_read_after_the_kernels_end_is_told_in_its_uncertainty() -> None:
    events = [seen_start(), beat(2 * SECOND), start(KERNEL_END_NS + MS, "a"), seen_end()]
    told = tell(WORKER, events, silent=True)
    timing: Any = told.instances()[0].data["timing"]
    assert (timing["end"].source, timing["end"].uncertainty_ns) == ("kernel", KERNEL_NS + MS)


def test_the_kernel_knows_the_end_that_a_stopped_wrapper_slept_through() -> None:
    """Stopped at 1 s, the command ended at 3 s, the wrapper woke at 30 s: what lies in between is unknown."""
    record = one([seen_start(), ready(SPAWNED_NS), seen_end(30 * SECOND)])
    assert record.data["interval"]["end_ns"] == KERNEL_END_NS
    assert record.data["time"]["unknown_ns"] == KERNEL_END_NS - SPAWNED_NS


def test_the_end_of_a_silence_has_the_kernels_certainty() -> None:
    timing: Any = one([seen_start(), ready(SPAWNED_NS), seen_end(30 * SECOND)]).data["timing"]
    assert (timing["end"].source, timing["end"].uncertainty_ns) == ("kernel", KERNEL_NS)


def test_an_adopted_command_is_billed_on() -> None:
    record = one([spawned(0), ready(0), beat(SECOND), alive(2 * SECOND), agents_end(3 * SECOND)])
    assert (record.data["time"]["active_ns"], record.data["time"]["unknown_ns"]) == (3 * SECOND, 0)


def test_a_command_that_was_held_all_the_time_leaves_no_silence_unknown() -> None:
    """The wrapper was killed, the agent was away for an hour, and the very same process lives."""
    record = one([spawned(0), ready(0), beat(SECOND), alive(50 * SECOND), agents_end(51 * SECOND)])
    assert (record.data["time"]["active_ns"], record.data["time"]["unknown_ns"]) == (51 * SECOND, 0)


def test_what_was_unknown_stays_unknown_when_a_command_is_adopted() -> None:
    events = [spawned(0), ready(0), beat(SECOND), beat(5 * SECOND), alive(6 * SECOND), agents_end(7 * SECOND)]
    record = one(events)
    assert (record.data["time"]["active_ns"], record.data["time"]["unknown_ns"]) == (3 * SECOND, 4 * SECOND)


def test_the_agents_own_pidfd_is_the_witness_of_an_adopted_end() -> None:
    timing: Any = one([spawned(0), ready(0), alive(SECOND), agents_end(2 * SECOND)]).data["timing"]
    assert (timing["start"].source, timing["end"].source) == ("wrapper", "agent")


def test_the_kernels_stamp_of_an_adopted_end_goes_before_the_agents() -> None:
    events = [spawned(0), ready(0), alive(SECOND), agents_end(2 * SECOND, kernel_ns=2 * SECOND - MS)]
    record = one(events)
    timing: Any = record.data["timing"]
    assert (timing["end"].source, record.data["interval"]["end_ns"]) == ("kernel", 2 * SECOND - MS)


def test_an_adopted_instance_is_cut_where_it_always_was() -> None:
    events = [spawned(0), ready(0), *(alive(n * SECOND) for n in range(1, 70)), agents_end(70 * SECOND)]
    ends = [record.data["interval"]["end_ns"] for record in tell(None, events, silent=True).predictions()]
    assert ends == [MINUTE, 70 * SECOND]


def test_an_adopted_instance_keeps_what_it_was_seen_to_use() -> None:
    events = [spawned(0), ready(0), alive(SECOND, cpu_ns=7), alive(2 * SECOND), Lost(3 * SECOND, "wrapper_lost")]
    resources: Any = one(events).data["resources"]
    assert resources["cpu_ns"] == 7


def test_marks_go_on_after_the_wrapper() -> None:
    events = [spawned(0), start(SECOND, "a"), alive(2 * SECOND), finish(2500 * MS, "a"), agents_end(3 * SECOND)]
    told = tell(WORKER, events, silent=True)
    (record,) = told.predictions()
    assert (record.data["status"], record.data["time"]["share_ns"]) == (Status.SUCCEEDED, 1500 * MS)


def test_what_is_said_to_nobody_for_a_while_by_a_command_that_is_held_leaves_no_silence_unknown() -> None:
    """The first that the agent reads was said at some time in 50 s; the very process lived all the while."""
    counted = Marked(50 * SECOND, UnitsMark("a", {"image": "2"}), held=True)
    events = [spawned(0), start(SECOND, "a"), counted, BadMark(51 * SECOND, "not_json", held=True)]
    told = tell(WORKER, [*events, alive(52 * SECOND), agents_end(53 * SECOND)], silent=True)
    (record,) = [record for record in told.predictions() if record.data["final"]]
    assert sum(r.data["time"]["unknown_ns"] for r in told.predictions()) == 0
    assert record.data["to_date"]["active_ns"] == 52 * SECOND


def test_an_end_without_a_time_that_waited_to_be_read_bills_to_the_last_sign_of_life_also_where_it_is_held() -> None:
    ended = replace(finish(50 * SECOND, "a"), held=True)
    told = tell(WORKER, [spawned(0), start(SECOND, "a"), beat(2 * SECOND), ended, alive(51 * SECOND)], silent=True)
    assert [record.data["time"]["share_ns"] for record in told.predictions()] == [SECOND]


def test_a_status_that_nobody_saw_is_told_as_unseen() -> None:
    told = tell(None, [spawned(0), ready(0), alive(SECOND), agents_end(2 * SECOND, code=None)], silent=True)
    left: Any = told.instances()[0].data["exit"]
    assert (left.reason, left.code, left.signal) == ("unseen", None, None)
    assert told.amount() == Decimal("0.0002")


def test_units_said_after_the_wrapper_count() -> None:
    counted = Marked(SECOND, UnitsMark(None, {"image": "2"}))
    assert one([spawned(0), ready(0), alive(SECOND), counted, agents_end(2 * SECOND)]).data["units"] == {"image": "2"}
