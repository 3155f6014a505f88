"""The tally: what passed through the agent, counted, and never more series than a bound."""

from decimal import Decimal

import pytest

from taximeter.ledger.values import PoolHour, PoolTime
from taximeter.observe.snapshot import COMMIT_BUCKETS_S
from taximeter.observe.tally import LABELS_MAX, OTHER, Tally
from taximeter.records import PLATFORM, RecordType, UsageRecord
from taximeter.values import replace
from tests.observe import histories


def counted(records: list[UsageRecord], took_s: float = 0.001) -> Tally:
    tally = Tally()
    tally.committed(records, took_s)
    return tally


def test_records_are_counted_by_type_and_status() -> None:
    counters = counted(histories.shared_worker()).counters()
    assert counters.records["taximeter.usage.prediction.v1", "failed"] == 1


def test_billed_seconds_are_counted_by_tier_class_and_meter() -> None:
    assert counted(histories.one_shot()).counters().billed_s == {("cpu", "public", "share"): pytest.approx(0.412)}


def test_predictions_on_another_tier_than_is_published_are_counted_once_by_that_one() -> None:
    assert counted(histories.elsewhere_run()).counters().published_elsewhere == {"gpu-h100": 1}
    assert counted(histories.one_shot()).counters().published_elsewhere == {}


def test_amounts_stay_exact() -> None:
    assert counted(histories.one_shot()).counters().amounts == {"USD": Decimal("0.0000412")}


def test_what_is_taken_back_is_counted_apart_so_that_both_only_grow() -> None:
    counters = counted(histories.aborted_run()).counters()
    assert (counters.amounts["USD"], counters.corrected["USD"]) == (Decimal("0.0002"), Decimal("0.0002"))


def test_what_another_record_bills_is_not_counted_as_billed() -> None:
    meters = {meter for _, _, meter in counted(histories.private_run()).counters().billed_s}
    assert meters == {"boot", "active"}


def test_unrated_records_are_counted_by_tier() -> None:
    assert counted(histories.unpriced_run()).counters().unrated["gpu-odd"] == 1


def test_the_time_of_pools_adds_up_over_commits_and_hours() -> None:
    tally, time = Tally(), PoolTime(boot=1, active=2, sold=2)
    tally.committed([], 0.1, [PoolHour(1, "sdxl", time), PoolHour(2, "sdxl", time), PoolHour(2, "llama", time)])
    tally.committed([], 0.1, [PoolHour(2, "sdxl", time)])
    assert tally.counters().pools == {"sdxl": PoolTime(boot=3, active=6, sold=6), "llama": time}


def test_a_fact_is_a_record_and_nothing_else() -> None:
    fact = UsageRecord("L-00000000", RecordType.FACT, PLATFORM, 0, {"fact": "config"})
    counters = counted([fact]).counters()
    assert counters.records == {("taximeter.ledger.fact.v1", "none"): 1}


@pytest.mark.parametrize("took_s", [0.0, 0.0005, 0.00051, 0.7, 5.0, 60.0])
def test_a_commit_falls_into_the_bucket_that_it_fits(took_s: float) -> None:
    counts = counted([], took_s).counters().commits.counts
    fits = [bound for bound in (*COMMIT_BUCKETS_S, float("inf")) if took_s <= bound]
    assert counts.index(1) == len(COMMIT_BUCKETS_S) + 1 - len(fits)


def test_failed_commits_are_counted() -> None:
    tally = Tally()
    tally.commit_failed()
    assert tally.counters().commits.failures == 1


def test_troubles_are_counted_by_their_word() -> None:
    tally = Tally()
    tally.journal_fault("torn")
    tally.rejected_mark("too_late")
    tally.rejected_mark("too_late")
    tally.illegal_event("exited")
    tally.clock_fault("stepped")
    tally.call_fault("own_parent")
    tally.orphaned("seen")
    counters = tally.counters()
    assert counters.journal_faults == {"torn": 1}
    assert counters.rejected_marks == {"too_late": 2}
    assert counters.illegal_events == {"exited": 1}
    assert counters.clock_faults == {"stepped": 1}
    assert counters.call_faults == {"own_parent": 1}
    assert counters.orphaned == {"seen": 1}


def test_a_record_is_counted_for_each_fault_of_its_clocks() -> None:
    (record, *_) = histories.one_shot()
    timing = record.data["timing"] | {"clock": "stepped+suspended"}  # type: ignore[operator]
    tally = counted([replace(record, data={**record.data, "timing": timing})])
    assert tally.counters().clock_flags == {"stepped": 1, "suspended": 1}


def test_words_beyond_the_bound_are_other() -> None:
    tally = Tally()
    for number in range(LABELS_MAX + 7):
        tally.journal_fault(f"word{number}")
    faults = tally.counters().journal_faults
    assert (len(faults), faults[OTHER]) == (LABELS_MAX + 1, 7)


def test_counters_that_were_given_out_do_not_change() -> None:
    tally = Tally()
    before = tally.counters()
    tally.journal_fault("torn")
    assert before.journal_faults == {}
