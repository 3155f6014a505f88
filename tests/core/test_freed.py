"""An instance is told to be active until a cut, and its last prediction turns out to have ended before that."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter.events import Event, Options, ServiceClass, Status, Stopping, StopReason
from taximeter.records import FREED, OWNER_UNSEEN, RecordType, UsageRecord
from taximeter.rulebook import Rulebook
from taximeter.values import replace
from tests import recomputing
from tests.core import test_evidence as evidence
from tests.core.stories import (
    INSTANCE,
    MINUTE,
    SECOND,
    WORKER,
    Told,
    book,
    card,
    exited,
    finish,
    ready,
    spawned,
    start,
    tell,
    with_looks,
)
from tests.core.test_card_changes import PRIVATE, card_from
from tests.core.test_evidence import ONE, TWO, seen
from tests.core.test_laws import PRICES, _ended, histories

CHILD, UNCUT = 12, 10**18
BEGUN = [spawned(0), ready(0)]
#: A second of each phase costs something else.
CHEAPER: Mapping[str, str] = {"idle": "0.25", "teardown": "0.0625"}
#: Nobody held whoever began it, and it was asked to drain: at 10 s.
UNHELD = [*BEGUN, Stopping(5 * SECOND, StopReason.DRAIN), start(10 * SECOND, "a", pid=CHILD), exited(100 * SECOND)]


def freed(told: Told) -> list[UsageRecord]:
    return [record for record in told.of(RecordType.CORRECTION) if record.data["reason"] == FREED]


def data_of(record: UsageRecord) -> Any:
    return record.data


@pytest.mark.parametrize("interim_ns", [7 * SECOND, MINUTE, UNCUT])
def test_a_private_instance_that_was_to_stop_pays_for_no_time_of_a_process_that_nobody_held(interim_ns: int) -> None:
    told = tell(PRIVATE, UNHELD, book(interim_ns))
    assert told.amount() == 5 * Decimal("0.0001")


def test_the_correction_says_which_time_it_was_and_names_the_record_that_told_of_it() -> None:
    told = tell(PRIVATE, UNHELD)
    (correction,) = freed(told)
    data = data_of(correction)
    assert data["time"] == {"idle_ns": 0, "active_ns": -50 * SECOND, "teardown_ns": 50 * SECOND}
    assert (data["interval"]["start_ns"], data["interval"]["end_ns"]) == (10 * SECOND, 60 * SECOND)
    assert (data["corrects"]["id"], data["status"]) == (f"{INSTANCE}-00000001", "processing")
    assert data["billing"].amount == "-0.005"


def test_it_follows_what_is_taken_back_of_the_prediction() -> None:
    reasons = [data_of(record)["reason"] for record in tell(PRIVATE, UNHELD).of(RecordType.CORRECTION)]
    assert reasons == [OWNER_UNSEEN, FREED]


def test_what_goes_on_is_idle_since_and_costs_what_that_costs() -> None:
    events = [*BEGUN, start(0, "a"), finish(70 * SECOND, "a", said_ns=40 * SECOND), exited(80 * SECOND)]
    told = tell(PRIVATE, events, book(private=CHEAPER))
    assert told.amount() == (40 + 40 * Decimal("0.25")) * Decimal("0.0001")
    assert data_of(freed(told)[0])["time"] == {"idle_ns": 20 * SECOND, "active_ns": -20 * SECOND, "teardown_ns": 0}


def test_while_another_is_active_nothing_is_freed() -> None:
    late = finish(70 * SECOND, "a", said_ns=40 * SECOND)
    told = tell(PRIVATE, [*BEGUN, start(0, "a"), start(0, "b"), late, finish(80 * SECOND, "b"), exited(90 * SECOND)])
    assert not freed(told)


def test_of_two_that_ended_before_a_cut_the_one_that_ended_last_counts() -> None:
    late = [finish(70 * SECOND, "a", said_ns=50 * SECOND), finish(70 * SECOND, "b", said_ns=20 * SECOND)]
    told = tell(PRIVATE, [*BEGUN, start(0, "a"), start(0, "b"), *late, exited(80 * SECOND)], book(private=CHEAPER))
    assert data_of(freed(told)[0])["time"]["idle_ns"] == 10 * SECOND
    assert told.amount() == (50 + 30 * Decimal("0.25")) * Decimal("0.0001")


def test_where_the_last_one_ends_in_time_nothing_is_freed() -> None:
    """One ended before the cut; the other at it, by its own word: nobody was idle before that."""
    ends = [finish(70 * SECOND, "a", said_ns=40 * SECOND), finish(70 * SECOND, "b", said_ns=60 * SECOND)]
    told = tell(PRIVATE, [*BEGUN, start(0, "a"), start(0, "b"), *ends, exited(80 * SECOND)], book(private=CHEAPER))
    assert told.amount() == (60 + 20 * Decimal("0.25")) * Decimal("0.0001")
    assert not freed(told)


def test_the_platforms_own_instance_says_nothing_where_nothing_of_it_is_billed() -> None:
    told = tell(WORKER, [*BEGUN, start(0, "a"), finish(70 * SECOND, "a", said_ns=40 * SECOND), exited(80 * SECOND)])
    assert [data_of(record)["reason"] for record in told.of(RecordType.CORRECTION)] == ["late_finish"]


def test_idle_time_that_a_platform_bills_is_billed_from_the_true_end_on() -> None:
    events = [*BEGUN, start(0, "a"), finish(70 * SECOND, "a", said_ns=40 * SECOND), exited(80 * SECOND)]
    told = tell(WORKER, events, book(public={"idle": "0.5"}))
    assert told.amount() == (40 + 40 * Decimal("0.5")) * Decimal("0.0001")


def test_what_was_told_under_an_earlier_card_is_corrected_under_that() -> None:
    new = card_from(90, "0.2")
    events = [*BEGUN, start(0, "a", pid=CHILD), Stopping(30 * SECOND, StopReason.DRAIN), exited(130 * SECOND)]
    by = book(MINUTE, (card("0.1"), new))
    told = tell(PRIVATE, events, by)
    assert told.amount() == 30 * Decimal("0.1")
    assert [data_of(record)["billing"].amount for record in freed(told)] == ["-6", "-6"]
    assert [data_of(record)["billing"].rate_card for record in freed(told)] == [card("0.1").hash, new.hash]
    agrees(told, by)


def test_what_was_told_before_it_ended_stays_as_it_is_under_its_card() -> None:
    by = book(MINUTE, (card("0.1"), card_from(50, "0.2")))
    events = [*BEGUN, start(0, "a", pid=CHILD), Stopping(55 * SECOND, StopReason.DRAIN), exited(100 * SECOND)]
    told = tell(PRIVATE, events, by)
    assert (told.amount(), len(freed(told))) == (50 * Decimal("0.1") + 5 * Decimal("0.2"), 1)
    agrees(told, by)


def test_an_end_that_is_found_out_after_it_changes_what_was_freed_with_it() -> None:
    """The multiplier of an end is put on what is left."""
    by = book(private={**CHEAPER, "failed": "0.5"})
    late = finish(70 * SECOND, "a", said_ns=40 * SECOND)
    told = tell(PRIVATE, [*BEGUN, start(0, "a"), late, exited(80 * SECOND, code=3)], by)
    assert told.instances()[-1].data["status"] is Status.FAILED
    assert told.amount() == (40 + 40 * Decimal("0.25")) * Decimal("0.00005")
    agrees(told, by)


def test_without_a_price_it_is_corrected_without_one() -> None:
    told = tell(PRIVATE, UNHELD, book(rates=()))
    assert data_of(freed(told)[0])["billing"].status == "unrated"


def test_it_is_corrected_on_the_tier_that_billed_it_and_what_evidence_changes_comes_after() -> None:
    by = evidence.rules()
    events = [*BEGUN, start(0, "a"), seen(ONE, 65, 2), finish(70 * SECOND, "a", said_ns=40 * SECOND)]
    told = tell(PRIVATE, with_looks([*events, exited(80 * SECOND)], MINUTE * 10), by, silent=True, on=TWO)
    assert data_of(freed(told)[0])["hardware"].tier == "two"
    assert told.amount() == 80 * Decimal("0.1")
    agrees(told, by)


def agrees(told: Told, by: Rulebook) -> None:
    made = recomputing.tool().recompute(recomputing.sealed([*recomputing.facts(by), *told.records]))
    assert (made.findings, made.not_checked) == ([], {})


@pytest.mark.parametrize("part", ["idle_ns", "teardown_ns"])
def test_the_recomputation_finds_one_that_frees_more_than_it_says(part: str) -> None:
    by = book()
    told = tell(PRIVATE, UNHELD, by)
    (correction,) = freed(told)
    time = {**data_of(correction)["time"], part: 51 * SECOND}
    forged = [
        replace(record, data={**data_of(record), "time": time}) if record is correction else record
        for record in told.records
    ]
    made = recomputing.tool().recompute(recomputing.sealed([*recomputing.facts(by), *forged]))
    assert made.findings


@given(histories(online=True), PRICES, st.integers(SECOND // 3, 30 * SECOND))
def test_no_cut_changes_what_is_sold_online_however_late_an_end_is_known(
    history: tuple[Options, list[Event]], price: str, interim_ns: int
) -> None:
    options, events = history
    rates = (card(price),)
    by = dict.fromkeys((ServiceClass.PRIVATE.value, ServiceClass.DEPLOYMENT.value), CHEAPER)
    whole = tell(options, events, book(UNCUT, rates, **by), silent=True)
    if _ended(whole):
        assert tell(options, events, book(interim_ns, rates, **by), silent=True).amount() == whole.amount()
