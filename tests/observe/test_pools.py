"""Pools: what was booted, idled and ran of their time, what of it was sold, and under how many names at most."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given

from taximeter.billing.rates import parse_card
from taximeter.events import ActiveMark, Event, Marked, Options, ServiceClass, Status, Stopping, StopReason, UnitsMark
from taximeter.hardware.inventory import Hardware
from taximeter.ledger.values import PoolTime
from taximeter.observe.pools import OTHER, POOLS_MAX, Pools
from taximeter.records import PLATFORM, RecordType, UsageRecord
from taximeter.rulebook import Rulebook
from taximeter.values import replace
from tests.core.stories import (
    REALTIME_AT_ZERO,
    SECOND,
    Told,
    beat,
    book,
    card,
    exited,
    finish,
    ready,
    spawned,
    start,
    tell,
)
from tests.core.test_laws import histories as any_history
from tests.observe import histories

HOUR_AT_ZERO = REALTIME_AT_ZERO // (3600 * SECOND)


def used(records: Iterable[UsageRecord]) -> PoolTime:
    """How the time of the one pool was used."""
    total = PoolTime()
    for hour in Pools().of(records):
        total = total.plus(hour.time)
    return total


def seconds(time: PoolTime) -> dict[str, float]:
    """What there is of it."""
    return {part: ns / SECOND for part, ns in time._asdict().items() if ns}


def on_pool(*marks: Event, until_s: int = 20, rules: Rulebook | None = None, **told: Any) -> Told:
    """A worker of a pool: boot 3 s, then what the marks say; it stops for its last second."""
    stop = Stopping((until_s - 1) * SECOND, StopReason.DRAIN)
    facts = [spawned(0), ready(3 * SECOND), *marks, stop, exited(until_s * SECOND)]
    return tell(Options(worker=True, pool="sdxl", **told), facts, rules)


def two_customers() -> list[Event]:
    """`a` loads 4 s to 6 s and runs to 10 s, `b` loads 5 s to 8 s and runs to 12 s."""
    fast = ServiceClass.FAST_BOOT
    return [
        *(start(4 * SECOND, "a", service_class=fast), start(5 * SECOND, "b", service_class=fast)),
        *(Marked(6 * SECOND, ActiveMark("a")), Marked(8 * SECOND, ActiveMark("b"))),
        *(finish(10 * SECOND, "a"), finish(12 * SECOND, "b")),
    ]


@pytest.mark.parametrize("interim_ns", [60 * SECOND, SECOND])
def test_of_a_pool_the_phases_are_told_the_loads_and_what_was_sold(interim_ns: int) -> None:
    time = used(on_pool(*two_customers(), rules=book(interim_ns)).records)
    assert seconds(time) == {"boot": 3, "idle": 10, "active": 6, "teardown": 1, "load": 5, "sold": 6}
    assert time.wall == 20 * SECOND


def test_what_an_aborted_run_was_billed_for_is_returned() -> None:
    stop = Stopping(10 * SECOND, StopReason.ABORTED)
    time = used(on_pool(start(4 * SECOND, "a"), stop, rules=book(SECOND)).records)
    assert seconds(time) == {"boot": 3, "idle": 1, "active": 6, "teardown": 10, "sold": 6, "returned": 6}


def test_what_is_taken_back_is_of_the_hour_in_which_it_was() -> None:
    facts = [spawned(0), ready(0), start(0, "a"), Stopping(9000 * SECOND, StopReason.ABORTED), exited(9000 * SECOND)]
    told = tell(Options(worker=True, pool="sdxl"), list(_beating(facts)), book(60 * SECOND), silent=True)
    by_hour = {hour.hour - HOUR_AT_ZERO: seconds(hour.time) for hour in Pools().of(told.records)}
    assert by_hour == {
        0: {"active": 3600, "sold": 3600},
        1: {"active": 3600, "sold": 3600},
        2: {"active": 1800, "sold": 1800, "returned": 9000},
    }


def _beating(facts: list[Event]) -> Iterable[Event]:
    yield from facts[:3]
    yield from (beat(at * SECOND) for at in range(1, 9000))
    yield from facts[3:]


def test_a_private_instance_on_a_pool_is_sold_while_it_is_up() -> None:
    time = used(on_pool(start(5 * SECOND, "a"), service_class=ServiceClass.PRIVATE).records)
    assert seconds(time) == {"boot": 3, "idle": 2, "active": 15, "sold": 20}


def test_half_a_price_is_half_sold_and_what_is_billed_beside_counts_too() -> None:
    rules = book(fast_boot={"active": "0.5", "load": "0.25"})
    assert seconds(used(on_pool(*two_customers(), rules=rules).records))["sold"] == 6 * 0.5 + 5 * 0.25


def test_active_time_as_the_quantity_may_sell_more_than_ran() -> None:
    rules = book(fast_boot={"quantity": "active"})
    assert seconds(used(on_pool(*two_customers(), rules=rules).records))["sold"] == 8


IMAGES: dict[str, object] = {"name": "acme/image", "amount": "0.03", "unit": "image"}
RUNS: dict[str, object] = {
    "name": "acme/run",
    "prices": [
        {"unit": "prediction", "amount": "0.1"},
        {"unit": "computing_second", "amount": "0.002", "above": "4"},
    ],
}
GPUS: dict[str, object] = {"name": "acme/gpu", "amount": "0.1", "unit": "gpu"}


def priced(*models: dict[str, object], interim_ns: int = 60 * SECOND) -> Rulebook:
    return book(interim_ns, (parse_card(card().content() | {"models": list(models)}, "test"),))


def of_model(name: str, *marks: Event, rules: Rulebook, status: Status = Status.SUCCEEDED) -> PoolTime:
    """A run from 4 s to 10 s."""
    return used(
        on_pool(start(4 * SECOND, "a", model=name), *marks, finish(10 * SECOND, "a", status), rules=rules).records
    )


@pytest.mark.parametrize("interim_ns", [60 * SECOND, SECOND])
@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELED])
def test_a_run_that_is_priced_by_what_it_counts_is_sold_for_its_time(interim_ns: int, status: Status) -> None:
    counted = Marked(6 * SECOND, UnitsMark("a", {"image": "1"}))
    time = of_model("acme/image", counted, rules=priced(IMAGES, interim_ns=interim_ns), status=status)
    assert (time.sold - time.returned) / SECOND == 6


@pytest.mark.parametrize("interim_ns", [60 * SECOND, SECOND])
def test_a_run_that_has_a_price_as_a_whole_is_sold_for_all_its_time(interim_ns: int) -> None:
    assert of_model("acme/run", rules=priced(RUNS, interim_ns=interim_ns)).sold == 6 * SECOND


def test_of_two_gpus_the_time_is_sold_once() -> None:
    options = Options(worker=True, pool="sdxl")
    facts = [spawned(0), ready(0), start(0, "a", model="acme/gpu"), finish(6 * SECOND, "a"), exited(6 * SECOND)]
    told = tell(options, facts, priced(GPUS), on=Hardware("cpu", 2))
    assert used(told.records).sold == 6 * SECOND


@pytest.mark.parametrize("interim_ns", [60 * SECOND, SECOND])
def test_an_aborted_run_that_is_priced_by_what_it_counts_returns_its_time(interim_ns: int) -> None:
    marks = [start(4 * SECOND, "a", model="acme/image"), Marked(6 * SECOND, UnitsMark("a", {"image": "1"}))]
    stop = Stopping(10 * SECOND, StopReason.ABORTED)
    time = used(on_pool(*marks, stop, rules=priced(IMAGES, interim_ns=interim_ns)).records)
    assert time.sold == time.returned


def test_a_run_of_which_nothing_was_counted_is_not_sold() -> None:
    assert of_model("acme/image", rules=priced(IMAGES)).sold == 0


def test_what_has_no_price_is_not_sold() -> None:
    told = tell(Options(prediction="p1", pool="sdxl"), [spawned(0), ready(0), exited(SECOND)], tier="gpu-odd")
    assert seconds(used(told.records)) == {"active": 1}


def test_another_tier_that_bills_changes_nothing_of_what_was_sold() -> None:
    records = [replace(record, data={**record.data, "pool": "sdxl"}) for record in histories.mismatched_run()]
    assert RecordType.CORRECTION in {record.type for record in records}
    time = used(records)
    assert (time.sold, time.returned) == (time.active, 0)


def test_unknown_and_suspended_time_is_no_bodys_but_the_pools() -> None:
    facts = [spawned(0), ready(0), start(0, "a"), beat(SECOND, slept_ns=5 * SECOND), beat(9 * SECOND, 5 * SECOND)]
    told = tell(Options(worker=True, pool="sdxl"), [*facts, exited(9 * SECOND, slept_ns=5 * SECOND)], silent=True)
    assert seconds(used(told.records)) == {"active": 1, "suspended": 5, "unknown": 8, "sold": 1}


def test_what_is_on_no_pool_is_not_counted() -> None:
    assert Pools().of(histories.one_shot()) == ()
    assert Pools().of([UsageRecord("L-0", RecordType.FACT, PLATFORM, 0, {"fact": "config"})]) == ()


def test_a_pool_that_only_a_mark_names_has_sold_time_and_no_wall() -> None:
    told = tell(Options(worker=True), [spawned(0), start(0, "a", pool="llama"), exited(SECOND)])
    ((_, pool, time),) = Pools().of(told.records)
    assert (pool, time.wall, time.sold) == ("llama", 0, SECOND)


def test_pools_beyond_the_bound_are_one() -> None:
    summed = Pools()
    (first,) = summed.of(histories.one_shot(pool="pool-0"))
    for number in range(1, POOLS_MAX + 5):
        ((_, pool, _),) = summed.of(histories.one_shot(pool=f"pool-{number}"))
        assert pool == (f"pool-{number}" if number < POOLS_MAX else OTHER)
    assert summed.of(histories.one_shot(pool="pool-0")) == (first,)


def test_records_of_one_pool_in_one_hour_are_one_sum() -> None:
    told = on_pool(*two_customers(), rules=book(SECOND))
    ((hour, pool, _),) = Pools().of(told.records)
    assert (hour, pool) == (HOUR_AT_ZERO, "sdxl")


@given(any_history())
def test_whatever_happens_a_pools_parts_are_those_of_its_records(history: tuple[Options, list[Event]]) -> None:
    """And never is more sold than ran, where shares are the quantity."""
    options, facts = history
    told = tell(replace(options, pool="sdxl"), facts, book(3 * SECOND), silent=True)
    time = used(told.records)
    data: list[Any] = [record.data for record in told.instances()]
    assert time.wall == sum(one["time"]["wall_ns"] for one in data)
    assert time.load == sum(one.data["time"]["load_ns"] for one in told.predictions())  # type: ignore[index]
    if told.instance.stage == "closed":
        assert 0 <= time.sold - time.returned <= time.wall
