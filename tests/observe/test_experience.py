"""What records teach of models: times, costs and units of what succeeded, however it was cut; and who calls whom."""

from decimal import Decimal
from typing import Any

from taximeter.events import Status
from taximeter.ledger.runs import Call, Kind, Runs
from taximeter.observe import experience
from taximeter.observe.experience import Experience
from taximeter.records import RecordType, UsageRecord
from taximeter.values import replace
from tests.core.stories import MS, SECOND, Options, beat, book, exited, finish, ready, spawned, start, tell
from tests.ledger.samples import INFORMATIVE, billed, instance_id, prediction_record, record
from tests.observe import histories


def learnt(*records: UsageRecord) -> dict[Kind, Runs]:
    return {one.kind: one for one in Experience().of(records)[0]}


def only(*records: UsageRecord) -> Runs:
    (found,) = learnt(*records).values()
    return found


def ended(number: int = 1, **changes: Any) -> UsageRecord:
    return prediction_record(instance_id(number), 0, **changes)


def test_time_cost_and_units_of_a_prediction_are_taken() -> None:
    found = only(ended(units={"image": "2", "token_output": "0.5"}))
    assert (found.kind, found.ended, found.succeeded) == (Kind("acme/sdxl-lora", "3f2a", "gpu-h100"), 1, 1)
    assert {name: spread.total for name, spread in found.measures.items()} == {
        "active": SECOND,
        "share": SECOND,
        "cost USD": Decimal("1525e12"),
        "units image": Decimal("2e9"),
        "units token_output": Decimal("5e8"),
    }


def test_versions_and_tiers_are_kinds_of_their_own() -> None:
    other = ended(2, version=None)
    assert {kind.version for kind in learnt(ended(1), other)} == {"3f2a", ""}


def test_what_failed_is_counted_and_not_measured() -> None:
    found = only(ended(1), ended(2, status="failed"))
    assert (found.ended, found.succeeded, found.measures["active"].n) == (2, 1, 1)


def test_of_no_model_nothing_is_learnt() -> None:
    assert learnt(ended(model=None)) == {}


def test_what_its_instance_pays_for_has_a_time_and_no_cost() -> None:
    assert set(only(ended(billing=INFORMATIVE, units={})).measures) == {"active", "share"}


def test_the_whole_of_a_run_is_one_number_however_it_was_cut() -> None:
    events = [spawned(0), ready(0), *[beat(at * SECOND) for at in range(1, 10)], exited(9 * SECOND)]
    options = Options(prediction="p1", model="m", units={"image": Decimal(3)})
    cut, whole = (tell(options, events, book(interim_ns=every * SECOND)).records for every in (2, 60))
    assert len(cut) > len(whole)
    assert learnt(*cut) == learnt(*whole)


def test_records_may_come_in_any_number_of_batches() -> None:
    events = [spawned(0), ready(0), *[beat(at * SECOND) for at in range(1, 10)], exited(9 * SECOND)]
    records = tell(Options(prediction="p1", model="m"), events, book(interim_ns=2 * SECOND)).records
    taught = Experience()
    told = [runs for one in records for runs in taught.of([one])[0]]
    assert told == list(learnt(*records).values())


def test_what_was_open_when_an_agent_ended_has_a_time_and_no_cost() -> None:
    events = [spawned(0), ready(0), *[beat(at * SECOND) for at in range(1, 4)], exited(3 * SECOND)]
    options = Options(prediction="p1", model="m", units={"image": Decimal(3)})
    records = tell(options, events, book(interim_ns=2 * SECOND)).records
    last = [one for one in records if one.data.get("final")]
    assert set(only(*last).measures) == {"active", "share", "units image"}


def test_a_correction_of_what_ended_changes_its_cost() -> None:
    told = histories.mismatched_run()
    renamed = [replace(one, model="m", data={**one.data, "model": "m"}) for one in told]
    assert any(one.type is RecordType.CORRECTION for one in renamed)
    total = sum(Decimal(one.data["billing"].amount or 0) for one in renamed if one.prediction)  # type: ignore[attr-defined]
    assert only(*renamed).measures["cost USD"].total == total.scaleb(18)


def test_a_correction_of_what_is_open_changes_its_cost_too() -> None:
    interim = ended(final=False, status="processing")
    taken_back = record(
        instance_id(1),
        1,
        RecordType.CORRECTION,
        {"billing": billed("1", "-0.0005")},
        prediction=interim.prediction,
    )
    last = ended(to_date={"wall_ns": 2 * SECOND, "active_ns": 2 * SECOND, "share_ns": 2 * SECOND})
    assert only(interim, taken_back, last).measures["cost USD"].total == Decimal("2550e12")


def test_time_that_turns_out_to_be_nobodys_is_not_learnt() -> None:
    last = ended()
    taken_back = record(
        instance_id(1),
        1,
        RecordType.CORRECTION,
        {"billing": billed("0.25", "-0.00038125"), "to_date": {"active_ns": 750 * MS, "share_ns": 750 * MS}},
        prediction=last.prediction,
    )
    measures = only(last, taken_back).measures
    assert (measures["active"].total, measures["share"].total) == (750 * MS, 750 * MS)
    assert measures["cost USD"].total == Decimal(1143750000000000)


def test_numbers_that_are_no_measurement_are_left_out() -> None:
    assert "units image" not in only(ended(units={"image": "9" * 39})).measures


def test_memory_of_open_predictions_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(experience, "_OPEN_MAX", 3)
    taught = Experience()
    taught.of([ended(at, final=False, status="processing") for at in range(10)])
    assert len(taught._open) == 3


# --- Who calls whom --------------------------------------------------------------------------------------------------


def call(prediction: str, model: str | None, parent: str | None = None, **changes: Any) -> UsageRecord:
    return ended(prediction=prediction, model=model, parent=parent, root="p-root", **changes)


def pairs(taught: Experience, *records: UsageRecord) -> dict[tuple[str, str], int]:
    return {(one.caller, one.called): one.times for one in taught.of(records)[1]}


def test_a_call_that_ends_before_its_caller_is_found() -> None:
    taught = Experience()
    assert pairs(taught, call("c1", "llm", "p"), call("c2", "llm", "p"), call("c3", "sdxl", "p")) == {}
    assert pairs(taught, call("p", "agent")) == {("agent", "llm"): 2, ("agent", "sdxl"): 1}


def test_a_call_that_outlives_its_caller_is_found() -> None:
    assert pairs(Experience(), call("p", "agent"), call("c1", "llm", "p")) == {("agent", "llm"): 1}


def test_a_caller_that_still_runs_is_known_by_its_interim_record() -> None:
    taught = Experience()
    pairs(taught, call("p", "agent", final=False, status="processing"))
    assert pairs(taught, call("c1", "llm", "p")) == {("agent", "llm"): 1}


def test_a_call_counts_once_however_often_it_was_cut() -> None:
    cut = [call("c1", "llm", "p", final=False, status="processing")] * 3
    assert pairs(Experience(), call("p", "agent"), *cut, call("c1", "llm", "p")) == {("agent", "llm"): 1}


def test_a_call_that_failed_was_a_call() -> None:
    found = pairs(Experience(), call("p", "agent"), call("c", "llm", "p", status=Status.FAILED))
    assert found == {("agent", "llm"): 1}


def test_who_has_no_model_or_calls_itself_calls_nobody() -> None:
    assert pairs(Experience(), call("p", None), call("c", "llm", "p"), call("q", "x", "q"), call("r", None, "q")) == {}


def test_a_call_knows_when_it_was() -> None:
    (found,) = Experience().of([call("p", "agent"), call("c", "llm", "p")])[1]
    assert found == Call("agent", "llm", 1, ended().time_utc_ns)


def test_memory_of_callers_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(experience, "_SEEN_MAX", 5)
    monkeypatch.setattr(experience, "_WAITING_MAX", 4)
    monkeypatch.setattr(experience, "_CALLED_MAX", 2)
    taught = Experience()
    taught.of([call(f"p{at}", f"m{at % 7}", f"parent-{at // 9}") for at in range(100)])
    callers = taught._callers
    assert (len(callers._models), len(callers._waiting)) == (5, 4)
    assert {len(models) for models in callers._waiting.values()} <= {1, 2}


def test_a_workers_predictions_are_told_apart() -> None:
    events = [
        spawned(0),
        ready(0),
        start(0, "p1", model="a"),
        start(100 * MS, "p2", model="b", parent="p1", root="p1"),
        finish(200 * MS, "p2"),
        finish(400 * MS, "p1"),
        exited(500 * MS),
    ]
    runs, calls = Experience().of(tell(Options(worker=True), events).records)
    assert {one.kind.model: one.measures["active"].total for one in runs} == {"b": 100 * MS, "a": 400 * MS}
    assert [(one.caller, one.called) for one in calls] == [("a", "b")]
