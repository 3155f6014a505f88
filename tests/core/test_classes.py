"""Who pays how much, worked by hand: every class, every phase, every end, whole and cut, alone and overlapped.

At 1 USD a second an amount is a number of seconds. The multipliers are the shipped ones, or such that each cell shows.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from taximeter.config import files
from taximeter.events import (
    ActiveMark,
    Event,
    Lost,
    Marked,
    Options,
    ServiceClass,
    Signaled,
    Status,
    Stopping,
    StopReason,
)
from taximeter.records import PLATFORM, RecordType
from taximeter.rulebook import Rulebook
from tests.core.stories import SECOND, Told, amount_of, beat, book, card, exited, finish, ready, spawned, start, tell

SHIPPED: Mapping[str, Mapping[str, str]] = files.read_shipped("agent.toml")["billing"]["classes"]
CLASSES = ("public", "fast_boot", "training", "private", "deployment")
ONLINE = ("private", "deployment")
INTERIMS = (60 * SECOND, SECOND, SECOND * 7 // 10)
RATES = (card("1"),)


def shipped(interim_ns: int = 60 * SECOND) -> Rulebook:
    return book(interim_ns, RATES, **SHIPPED)


def beats(since_s: int, until_s: int) -> list[Event]:
    return [beat(at * SECOND) for at in range(since_s, until_s)]


# --- a worker: boot 3 s, idle 2 s, then `a`, of which 2 s are load where it is a fast boot, until 9 s ---

ENDS: Mapping[str, list[Event]] = {
    "succeeded": [finish(9 * SECOND, "a"), exited(12 * SECOND)],
    "failed": [exited(9 * SECOND, code=1)],
    "canceled": [Stopping(9 * SECOND, StopReason.CANCELED), exited(12 * SECOND)],
    "aborted": [Stopping(9 * SECOND, StopReason.ABORTED), exited(12 * SECOND)],
    "lost": [Lost(20 * SECOND, "wrapper_lost")],  # its last sign of life is at 8 s
    "rebooted": [Lost(None, "rebooted")],
}
#: Active 5 s to 9 s, or until the last sign; a fast boot from 7 s. Online: boot and all that follows until it stops.
WORKER_COSTS = {
    "succeeded": (4, 2, 4, 12, 12),
    "failed": (4, 2, 4, 9, 9),
    "canceled": (4, 2, 4, 9, 9),
    "aborted": (0, 0, 0, 9, 9),
    "lost": (3, 1, 3, 8, 8),
    "rebooted": (0, 0, 0, 8, 8),
}
CELLS = [(kind, end, cost) for end, costs in WORKER_COSTS.items() for kind, cost in zip(CLASSES, costs, strict=True)]


def worker(kind: str, end: str, rules: Rulebook, *, by_mark: bool = False) -> Told:
    service_class = ServiceClass(kind)
    options = Options(worker=True, account="cus_1", service_class=None if by_mark else service_class)
    begun = [spawned(0), *beats(1, 3), ready(3 * SECOND), *beats(3, 5)]
    begun.append(start(5 * SECOND, "a", service_class=service_class if by_mark else None))
    loaded = [Marked(7 * SECOND, ActiveMark("a"))] if kind == "fast_boot" else []
    events = [*begun, beat(6 * SECOND), *loaded, *beats(7, 9), *ENDS[end]]
    return tell(options, events, rules, silent=end in ("lost", "rebooted"))


@pytest.mark.parametrize("interim_ns", INTERIMS)
@pytest.mark.parametrize(("kind", "end", "cost"), CELLS)
def test_what_a_worker_and_its_prediction_cost_together(kind: str, end: str, cost: int, interim_ns: int) -> None:
    assert worker(kind, end, shipped(interim_ns)).amount() == cost


@pytest.mark.parametrize(("kind", "end", "cost"), [cell for cell in CELLS if cell[0] not in ONLINE])
def test_a_class_that_a_mark_gives_costs_what_one_of_run_does(kind: str, end: str, cost: int) -> None:
    told = worker(kind, end, shipped(SECOND), by_mark=True)
    assert told.amount() == cost
    assert {record.data["class"] for record in told.predictions()} == {kind}
    assert {record.data["class"] for record in told.instances()} == {"public"}


@pytest.mark.parametrize(("kind", "end"), [cell[:2] for cell in CELLS])
def test_no_time_is_billed_to_two(kind: str, end: str) -> None:
    """Where the instance is sold its predictions inform; else they are sold, and it informs."""
    told = worker(kind, end, shipped(SECOND))
    informs = told.predictions() if kind in ONLINE else told.instances()
    sold = told.instances() if kind in ONLINE else told.predictions()
    assert {bill_of(record).status for record in informs} == {"informative"}
    assert {bill_of(record).amount for record in informs} == {None}
    assert {record.subject for record in sold} == {"cus_1"}
    assert {record.subject for record in told.instances()} == {"cus_1" if kind in ONLINE else PLATFORM}


def bill_of(record: Any) -> Any:
    return record.data["billing"]


@pytest.mark.parametrize("kind", CLASSES)
def test_what_interim_records_billed_of_an_aborted_run_is_taken_back_unless_it_was_online_time(kind: str) -> None:
    corrections = worker(kind, "aborted", shipped(SECOND)).of(RecordType.CORRECTION)
    taken_back = {"public": [-4], "training": [-4], "fast_boot": [-2]}.get(kind, [])
    # The cut at 9 s told of all of it; the stop came then.
    assert [amount_of(record) for record in corrections] == taken_back


# --- a one-shot: boot 3 s, active until 9 s ---

ONE_SHOT_COSTS = {
    "succeeded": (6, 6, 6, 9, 9),
    "failed": (6, 6, 6, 9, 9),
    "canceled": (6, 6, 6, 9, 9),
    "aborted": (0, 0, 0, 9, 9),
    "never_ready": (0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("interim_ns", INTERIMS)
@pytest.mark.parametrize(
    ("kind", "end", "cost"),
    [(kind, end, cost) for end, costs in ONE_SHOT_COSTS.items() for kind, cost in zip(CLASSES, costs, strict=True)],
)
def test_what_a_one_shot_costs(kind: str, end: str, cost: int, interim_ns: int) -> None:
    on_term = StopReason.ABORTED if end == "aborted" else StopReason.CANCELED
    options = Options(prediction="p1", service_class=ServiceClass(kind), ready="notify", on_term=on_term)
    begun = [spawned(0)] if end == "never_ready" else [spawned(0), ready(3 * SECOND, "notify")]
    stopped = [Signaled(9 * SECOND, 15, by_kernel=False, outside=True)] if end in ("canceled", "aborted") else []
    told = tell(options, [*begun, *stopped, exited(9 * SECOND, code=int(end == "failed"))], shipped(interim_ns))
    assert told.amount() == cost


# --- overlap: `a` from 5 s to 9 s and `b` from 6 s to 8 s, each of another customer ---


@pytest.mark.parametrize("interim_ns", INTERIMS)
@pytest.mark.parametrize(("kind", "costs"), [("public", (3, 1)), ("training", (3, 1)), ("fast_boot", (3, 1))])
def test_customers_who_overlap_pay_for_what_the_instance_ran_and_no_more(
    kind: str, costs: tuple[int, int], interim_ns: int
) -> None:
    told = overlapped(None, ServiceClass(kind), shipped(interim_ns))
    assert (told.amount("a"), told.amount("b"), told.amount()) == (*costs, sum(costs))


@pytest.mark.parametrize("kind", ONLINE)
@pytest.mark.parametrize("interim_ns", INTERIMS)
def test_an_online_instance_costs_the_same_however_many_predictions_it_serves(kind: str, interim_ns: int) -> None:
    told = overlapped(ServiceClass(kind), None, shipped(interim_ns))
    assert told.amount() == 12
    assert {bill_of(record).status for record in told.predictions()} == {"informative"}


def test_who_is_billed_by_active_time_pays_for_all_of_it() -> None:
    rules = book(SECOND, RATES, **{**SHIPPED, "public": {**SHIPPED["public"], "quantity": "active"}})
    told = overlapped(None, None, rules)
    assert (told.amount("a"), told.amount("b")) == (4, 2)


def overlapped(on: ServiceClass | None, by: ServiceClass | None, rules: Rulebook) -> Told:
    def begun(at_ns: int, name: str) -> list[Event]:
        active = [Marked(at_ns, ActiveMark(name))] if by is ServiceClass.FAST_BOOT else []
        return [start(at_ns, name, service_class=by), *active]

    marks = [*begun(5 * SECOND, "a"), *begun(6 * SECOND, "b"), finish(8 * SECOND, "b"), finish(9 * SECOND, "a")]
    told = [spawned(0), ready(3 * SECOND), *marks, exited(12 * SECOND)]
    return tell(Options(worker=True, account="cus_1" if on else None, service_class=on), told, rules)


# --- every cell of the matrix shows ---

#: What each phase of `worker` costs is a digit of its own: boot 3 s, load 2 s, idle 2 s, active, teardown 3 s.
EACH = {"boot": "1000", "load": "100", "idle": "10", "active": "1", "teardown": "0.1"}
HALF = {"failed": "0.5", "canceled": "0.25", "aborted": "0"}


@pytest.mark.parametrize("interim_ns", INTERIMS)
@pytest.mark.parametrize(
    ("kind", "end", "cost"),
    [
        # Not online: load and active are the prediction's, times what its end says; the rest is the instance's, always.
        ("public", "canceled", "3021.3"),  # active 4 × 0.25 + boot 3000 + idle 20 + teardown 0.3
        ("training", "failed", "3022"),  # active 4 × 0.5 + boot 3000 + idle 20
        ("fast_boot", "canceled", "3090.8"),  # (load 200 + active 2) × 0.25 + boot 3000 + idle 40 + teardown 0.3
        ("fast_boot", "aborted", "3040.3"),  # nothing of it + boot 3000 + idle 40 + teardown 0.3
        # Online: all phases, times what the end says.
        ("private", "failed", "1512"),  # (boot 3000 + idle 20 + active 4) × 0.5
        ("deployment", "canceled", "756.075"),  # (boot 3000 + idle 20 + active 4 + teardown 0.3) × 0.25
        ("private", "aborted", "0"),
    ],
)
def test_each_phase_is_multiplied_by_its_own_cell(kind: str, end: str, cost: str, interim_ns: int) -> None:
    rules = book(interim_ns, RATES, **{name: {**row, **EACH, **HALF} for name, row in SHIPPED.items()})
    assert worker(kind, end, rules).amount() == Decimal(cost)


# --- what run fixed, what a mark may say ---

TOLD: list[tuple[str, Any, Any]] = [
    ("account", "cus_1", "cus_2"),
    ("model", "acme/base", "acme/other"),
    ("version", "1", "2"),
    ("pool", "sdxl", "llama"),
    ("service_class", ServiceClass.FAST_BOOT, ServiceClass.PUBLIC),
]


@pytest.mark.parametrize(("key", "value", "other"), TOLD)
def test_what_run_fixed_is_every_predictions_and_no_mark_says_otherwise(key: str, value: Any, other: Any) -> None:
    options = Options(worker=True, **{key: value})
    said = "class" if key == "service_class" else key
    silent = start(0, "silent")
    same, contrary = start(1, "same", **{key: value}), start(2, "contrary", **{key: other})
    told = tell(options, [spawned(0), ready(0), silent, same, contrary, exited(SECOND)])
    assert told.rejected == ["fixed_by_run"]
    assert [(record.prediction, record.data[said]) for record in told.predictions()] == [
        ("silent", value),
        ("same", value),
    ]


@pytest.mark.parametrize(("key", "value", "other"), TOLD)
def test_what_run_left_open_each_mark_says_for_itself(key: str, value: Any, other: Any) -> None:
    said = "class" if key == "service_class" else key
    marks = [start(0, "a", **{key: value}), start(1, "b", **{key: other}), start(2, "c")]
    told = tell(Options(worker=True), [spawned(0), ready(0), *marks, exited(SECOND)])
    nothing = "public" if said == "class" else None
    assert [record.data[said] for record in told.predictions()] == [value, other, nothing]


# --- a pool ---


def test_on_a_pool_customers_load_and_run_one_after_another_and_at_once() -> None:
    """Boot 3 s; `a` loads 4 s to 6 s and runs to 10 s; `b` loads 7 s to 8 s beside it and runs to 12 s; exit: 15 s."""
    of_a: dict[str, Any] = {"account": "cus_a", "service_class": ServiceClass.FAST_BOOT, "version": "a1"}
    marks = [
        *(start(4 * SECOND, "a", **of_a), Marked(6 * SECOND, ActiveMark("a"))),
        *(start(7 * SECOND, "b", **of_a | {"account": "cus_b"}), Marked(8 * SECOND, ActiveMark("b"))),
        *(finish(10 * SECOND, "a"), finish(12 * SECOND, "b", Status.FAILED), exited(15 * SECOND)),
    ]
    told = tell(Options(worker=True, pool="sdxl"), [spawned(0), ready(3 * SECOND), *marks], shipped())
    time_a, time_b = (told.predictions(name)[0].data["time"] for name in "ab")
    assert (time_a["load_ns"], time_a["active_ns"], time_a["share_ns"]) == (2 * SECOND, 4 * SECOND, 3 * SECOND)
    assert (time_b["load_ns"], time_b["active_ns"], time_b["share_ns"]) == (SECOND, 4 * SECOND, 3 * SECOND)
    assert (told.amount("a"), told.amount("b")) == (3, 3)
    own = told.instances()[0]
    assert (own.data["time"]["boot_ns"], own.data["time"]["idle_ns"], own.data["time"]["active_ns"]) == (
        3 * SECOND,
        6 * SECOND,
        6 * SECOND,
    )
    assert (own.subject, own.data["pool"], amount_of(own)) == (PLATFORM, "sdxl", 0)


def test_while_a_prediction_only_loads_its_instance_is_idle() -> None:
    loads = start(SECOND, "a", service_class=ServiceClass.FAST_BOOT)
    told = tell(Options(worker=True), [spawned(0), ready(0), loads, finish(4 * SECOND, "a"), exited(4 * SECOND)])
    time: Any = told.instances()[0].data["time"]
    assert (time["idle_ns"], time["active_ns"]) == (4 * SECOND, 0)


def test_a_load_beside_somebody_elses_active_time_is_free_and_takes_none_of_it() -> None:
    loads = start(SECOND, "b", service_class=ServiceClass.FAST_BOOT)
    marks = [start(0, "a"), loads, finish(3 * SECOND, "b"), finish(4 * SECOND, "a")]
    told = tell(Options(worker=True), [spawned(0), ready(0), *marks, exited(4 * SECOND)], shipped())
    assert (told.amount("a"), told.amount("b")) == (4, 0)


def test_a_load_may_have_a_price() -> None:
    rules = book(SECOND, RATES, **{**SHIPPED, "fast_boot": {**SHIPPED["fast_boot"], "load": "0.5"}})
    assert worker("fast_boot", "succeeded", rules).amount() == 3


@pytest.mark.parametrize("service_class", ONLINE)
def test_a_prediction_that_starts_after_a_stop_in_boot_says_that_the_instance_was_ready(service_class: str) -> None:
    """Boot 3 s, teardown 1 s, then a prediction of 2 s: whatever works was ready, so its boot is paid."""
    events = [spawned(0), Stopping(3 * SECOND, StopReason.DRAIN), *beats(1, 4), start(4 * SECOND, "a")]
    told = tell(
        Options(worker=True, service_class=ServiceClass(service_class)),
        [*events, finish(6 * SECOND, "a"), exited(7 * SECOND)],
        shipped(),
    )
    assert told.amount() == 5
