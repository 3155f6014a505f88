"""Receipts over a real ledger: everything a person needs to argue about a run, to the last digit."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from taximeter.billing.invoice import Rounding
from taximeter.events import Options, ServiceClass
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.observe.queries import Queries
from taximeter.observe.receipt import with_invoiced
from taximeter.observe.snapshot import Snapshot
from taximeter.observe.sums import LISTED_MAX, Item, Sum, _together, fold_each
from taximeter.records import Billing, UsageRecord
from taximeter.values import replace
from tests.core.stories import MS, SECOND, beat, book, exited, finish, ready, spawned, start, tell
from tests.observe import histories
from tests.observe.histories import ANOTHER, INSTANCE
from tests.observe.nodes import BUSY, IDLE, RUNNING, ledger_of

Ask = Callable[..., Queries]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """Make queries of a ledger with these records, and of an agent with this view."""
    readers: list[LedgerReader] = []

    def made(records: list[UsageRecord], view: Snapshot | None = None) -> Queries:
        readers.append(ledger_of(tmp_path, records))
        return Queries(readers[-1], None if view is None else lambda: view)

    yield made
    for reader in readers:
        reader.close()


def receipt(queries: Queries, asked: str) -> dict[str, Any]:
    found = queries.receipt(asked)
    assert found is not None, f"no receipt for {asked}"
    return found


def test_a_receipt_of_a_prediction_tells_its_time(ask: Ask) -> None:
    found = receipt(ask(histories.one_shot()), "p1")
    assert found["time"]["active_ns"] == 412 * MS


def test_a_price_line_shows_its_arithmetic(ask: Ask) -> None:
    (line,) = receipt(ask(histories.one_shot()), "p1")["billing"]["lines"]
    assert line["text"] == "0.412 s × 0.0001 USD/s × 1 = 0.0000412 USD"


def test_the_arithmetic_of_a_price_line_is_right(ask: Ask) -> None:
    (line,) = receipt(ask(histories.long_run()), "p1")["billing"]["lines"]
    product = Decimal(line["quantity"]) * Decimal(line["rate"]) * Decimal(line["multiplier"])
    assert product == Decimal(line["amount"])


def test_interim_records_are_one_run(ask: Ask) -> None:
    found = receipt(ask(histories.long_run(9)), "p1")
    assert (found["records_total"], found["time"]["wall_ns"]) == (5, 9 * SECOND)


@pytest.mark.parametrize("interim_ns", [60 * SECOND, SECOND])
def test_a_receipt_tells_the_concurrency_of_the_whole_run_however_it_was_cut(ask: Ask, interim_ns: int) -> None:
    """`a` for 4 s, `b` beside it from 1.5 s to 2.5 s."""
    marks = [start(0, "a"), start(1500 * MS, "b"), finish(2500 * MS, "b"), finish(4 * SECOND, "a")]
    told = tell(Options(worker=True), [spawned(0), ready(0), *marks, exited(6 * SECOND)], book(interim_ns))
    queries = ask(told.records)
    assert receipt(queries, "a")["concurrency"] == {"mean": "1.25", "max": 2}
    assert receipt(queries, INSTANCE)["concurrency"] == {"mean": "1.25", "max": 2}


def test_a_run_that_was_never_active_had_no_company(ask: Ask) -> None:
    loads = start(0, "a", service_class=ServiceClass.FAST_BOOT)
    told = tell(Options(worker=True), [spawned(0), loads, finish(SECOND, "a"), exited(SECOND)])
    assert receipt(ask(told.records), "a")["concurrency"] == {"mean": "0", "max": 0}


def test_amounts_of_interim_records_are_summed_exactly(ask: Ask) -> None:
    queries = ask(histories.long_run(9))
    parts = [orjson.loads(body)["data"]["billing"]["amount"] for body in queries.records(RecordFilter(prediction="p1"))]
    assert Decimal(receipt(queries, "p1")["total"]["amount"]) == sum(map(Decimal, parts))


def test_a_total_says_what_is_to_be_paid_where_its_currency_is_rounded(ask: Ask) -> None:
    total = receipt(ask(histories.long_run(9)), "p1")["total"]
    assert "invoiced" not in total
    assert with_invoiced(total, {"USD": Rounding(3, "up")})["invoiced"] == "0.001"
    assert with_invoiced({"amount": None}, {"USD": Rounding(3, "up")}) == {"amount": None}


def test_a_correction_is_told_and_is_in_the_amount(ask: Ask) -> None:
    found = receipt(ask(histories.aborted_run()), "p1")
    (correction,) = found["billing"]["corrections"]
    lines = sum((Decimal(line["amount"]) for line in found["billing"]["lines"]), Decimal(0))
    assert Decimal(found["total"]["amount"]) == lines + Decimal(correction["amount"])


def test_a_correction_shows_its_arithmetic_too(ask: Ask) -> None:
    (correction,) = receipt(ask(histories.aborted_run()), "p1")["billing"]["corrections"]
    assert correction["lines"][0]["text"] == "2 s × 0.0001 USD/s × -1 = -0.0002 USD"


def test_an_unrated_run_has_no_amount_and_says_why(ask: Ask) -> None:
    found = receipt(ask(histories.unpriced_run()), "p1")
    assert (found["billing"]["status"], found["total"]["amount"]) == ("unrated", None)
    assert "gpu-odd" in found["billing"]["reason"]


def test_what_another_record_bills_is_informative(ask: Ask) -> None:
    assert receipt(ask(histories.private_run()), "p1")["billing"]["status"] == "informative"


def test_a_private_instance_is_billed_by_phase(ask: Ask) -> None:
    lines = receipt(ask(histories.private_run()), INSTANCE)["billing"]["lines"]
    assert {line["meter"] for line in lines} == {"boot", "active"}


def test_a_receipt_of_a_prediction_has_its_instances_phases(ask: Ask) -> None:
    phases = receipt(ask(histories.shared_worker()), "p1")["phases"]
    assert phases["boot_ns"] == 200 * MS
    assert phases["wall_ns"] == sum(duration for name, duration in phases.items() if name != "wall_ns")


def test_a_receipt_names_hardware_and_why(ask: Ask) -> None:
    hardware = receipt(ask(histories.one_shot()), "p1")["hardware"]
    assert (hardware["tier"], hardware["rule"]) == ("cpu", "test")


def test_a_receipt_names_the_witness_of_both_ends(ask: Ask) -> None:
    timing = receipt(ask(histories.one_shot()), "p1")["timing"]
    assert (timing["start"]["source"], timing["end"]["source"]) == ("wrapper", "wrapper")


def test_the_witness_of_the_start_is_the_first_records(ask: Ask) -> None:
    timing = receipt(ask(histories.long_run()), "p1")["timing"]
    assert timing["start"]["uncertainty_ns"] == 10_000_000


def test_a_receipt_tells_the_signal_that_ended_it(ask: Ask) -> None:
    assert receipt(ask(histories.killed_run()), "p1")["exit"]["signal"] == 9


def test_records_are_listed_with_their_hashes(ask: Ask) -> None:
    queries = ask(histories.long_run())
    bodies = list(queries.records(RecordFilter()))
    successors = {orjson.loads(body)["data"]["ledger"]["previous"] for body in bodies}
    hashes = [entry["hash"] for entry in receipt(queries, "p1")["records"]]
    assert set(hashes) <= successors


def test_a_receipt_of_an_instance_lists_its_predictions(ask: Ask) -> None:
    found = receipt(ask(histories.shared_worker()), INSTANCE)
    assert {run["prediction"]: run["status"] for run in found["predictions"]} == {"p1": "succeeded", "p2": "failed"}


def test_the_total_of_an_instance_has_its_predictions_in_it(ask: Ask) -> None:
    queries = ask(histories.shared_worker())
    parts = [Decimal(receipt(queries, name)["total"]["amount"]) for name in ("p1", "p2")]
    assert Decimal(receipt(queries, INSTANCE)["total"]["amount"]) == sum(parts)


def test_downstream_predictions_are_told(ask: Ask) -> None:
    found = receipt(ask(histories.shared_worker()), "p1")
    assert [run["prediction"] for run in found["downstream"]] == ["p2"]


def test_a_prediction_that_called_nobody_has_no_downstream(ask: Ask) -> None:
    assert receipt(ask(histories.shared_worker()), "p2")["downstream"] == []


def test_a_records_id_leads_to_its_instance(ask: Ask) -> None:
    assert receipt(ask(histories.one_shot()), f"{INSTANCE}-00000000")["instance"] == INSTANCE


def test_no_workers_prediction_can_take_the_place_of_an_instance_by_bearing_its_id(ask: Ask) -> None:
    queries = ask(histories.namesake())
    found, last = receipt(queries, INSTANCE), queries.last_run(INSTANCE)
    assert (found["kind"], found["instances"], found["total"]["amount"]) == ("instance", [INSTANCE], "0.0001")
    assert last is not None
    assert last["instances"] == [INSTANCE]


def test_a_one_shot_that_has_its_instances_id_is_told_as_a_prediction(ask: Ask) -> None:
    found = receipt(ask(histories.namesake()[:2]), INSTANCE)
    assert (found["kind"], found["runs"], found["account"]) == ("prediction", 1, "cus_a")


def test_an_unknown_id_has_no_receipt(ask: Ask) -> None:
    assert ask(histories.one_shot(), IDLE).receipt("p-nobody") is None


def test_a_finished_run_is_not_pending(ask: Ask) -> None:
    assert receipt(ask(histories.one_shot()), "p1")["pending"] is False


def test_a_run_without_a_record_is_pending(ask: Ask) -> None:
    found = receipt(ask([], BUSY), "p-open")
    assert (found["pending"], found["kind"], found["account"]) == (True, "prediction", "cus_7")
    assert "still runs" in found["pending_why"]


def test_an_instance_without_a_record_is_pending(ask: Ask) -> None:
    found = receipt(ask([], BUSY), RUNNING.instance)
    assert (found["pending"], found["kind"], found["hardware"]["tier"]) == (True, "instance", "gpu-h100")


def test_a_pending_receipt_has_the_keys_of_a_finished_one(ask: Ask) -> None:
    pending = receipt(ask(histories.one_shot(), BUSY), "p-open")
    finished = receipt(ask([]), "p1")
    assert pending.keys() == finished.keys()
    assert pending["billing"].keys() == finished["billing"].keys()


def half_a_run() -> list[UsageRecord]:
    events = [spawned(0), ready(0), *(beat(at * SECOND) for at in range(1, 6))]
    return tell(Options(prediction="p1"), events, book(interim_ns=2 * SECOND)).records


def test_a_run_with_interim_records_only_is_pending_with_its_sums_so_far(ask: Ask) -> None:
    found = receipt(ask(half_a_run()), "p1")
    assert (found["pending"], found["status"], found["time"]["wall_ns"]) == (True, "processing", 4 * SECOND)


def test_without_an_agent_a_pending_receipt_says_that_nobody_writes_the_last_record(ask: Ask) -> None:
    assert "no agent runs" in receipt(ask(half_a_run()), "p1")["pending_why"]


def test_a_receipt_is_json(ask: Ask) -> None:
    queries = ask(histories.shared_worker(), BUSY)
    for asked in ("p1", "p2", INSTANCE, "p-open", RUNNING.instance):
        assert orjson.loads(orjson.dumps(receipt(queries, asked))) == receipt(queries, asked)


def test_unlike_currencies_are_never_added() -> None:
    total = Sum()
    total.add("1", "USD")
    total.add("1", "EUR")
    assert total.shown() == {"amount": None, "currency": None}


def test_more_predictions_than_are_listed_are_in_the_total_all_the_same() -> None:
    body = orjson.loads(histories.bodies(histories.one_shot())[0])
    items = (Item(body | {"data": body["data"] | {"prediction": f"p{n}"}}, "sha256:") for n in range(LISTED_MAX + 5))
    _, runs, total = fold_each(items)
    assert len(runs) == LISTED_MAX
    assert total.of["USD"] == (LISTED_MAX + 5) * Decimal("0.0000412")


def test_what_was_used_is_summed_over_all_records_and_peaks_are_of_all(ask: Ask) -> None:
    used = receipt(ask(histories.long_run()), "p1")["resources"]
    assert used == {
        "cpu_ns": 5_000_000,
        "rss_peak_bytes": 1 << 20,
        "gpu_memory_peak_bytes": None,
        "energy_mj": None,
        "energy_source": None,
    }


@pytest.mark.parametrize(
    ("before", "now", "together"),
    [
        ({}, {"cpu_ns": 1}, {"cpu_ns": 1}),
        ({"cpu_ns": 1}, {"cpu_ns": 2}, {"cpu_ns": 3}),
        ({"energy_mj": 5}, {"energy_mj": None}, {"energy_mj": 5}),
        ({"energy_mj": None}, {"energy_mj": 5}, {"energy_mj": 5}),
        ({"rss_peak_bytes": 7}, {"rss_peak_bytes": 5}, {"rss_peak_bytes": 7}),
        ({"energy_source": "power"}, {"energy_source": "counter"}, {"energy_source": "power"}),
    ],
)
def test_two_intervals_are_told_together(before: dict[str, Any], now: dict[str, Any], together: dict[str, Any]) -> None:
    assert _together(before, now) == together


def test_an_id_that_was_used_twice_names_every_account_and_instance(ask: Ask) -> None:
    found = receipt(ask(histories.twice()), "p1")
    assert (found["accounts"], found["instances"]) == (["cus_a", "cus_b"], [INSTANCE, ANOTHER])
    assert (found["runs"], found["time"]["active_ns"], found["total"]["amount"]) == (2, 912 * MS, "0.0000912")


def test_an_id_that_was_used_twice_is_final_only_when_both_runs_are(ask: Ask) -> None:
    interim = histories.long_run()[:1]
    found = receipt(ask([*interim, *(record for record in histories.twice() if record.instance == ANOTHER)]), "p1")
    assert (found["pending"], found["runs"]) == (True, 2)


def test_one_run_bears_its_id(ask: Ask) -> None:
    queries = ask(histories.long_run(9))
    assert [receipt(queries, asked)["runs"] for asked in ("p1", INSTANCE)] == [1, 1]
    assert receipt(queries, "p1")["instances"] == [INSTANCE]


@pytest.mark.parametrize("asked", [INSTANCE[:8], INSTANCE[:13], INSTANCE[:-1], f"{INSTANCE}-00000099", f"{INSTANCE}-"])
def test_only_an_id_in_full_has_a_receipt(ask: Ask, asked: str) -> None:
    assert ask(histories.one_shot()).receipt(asked) is None


def test_a_record_id_gives_the_receipt_of_its_instance(ask: Ask) -> None:
    assert receipt(ask(histories.one_shot()), f"{INSTANCE}-00000000")["id"] == INSTANCE


def test_the_one_that_was_meant_by_a_beginning_is_named(ask: Ask) -> None:
    assert ask(histories.one_shot()).unknown(INSTANCE[:8]).endswith(f"expected an id in full, as in {INSTANCE}")


def test_an_empty_question_is_told_what_was_expected(ask: Ask) -> None:
    assert "got an empty word" in ask(histories.one_shot()).unknown("")


@pytest.mark.forged
def test_evidence_that_finds_a_price_makes_a_run_rated(ask: Ask) -> None:
    records = histories.mismatched_run()
    unrated = Billing("unrated", (), None, None, None, "no tier")
    records[0] = replace(records[0], data={**records[0].data, "billing": unrated})
    billing = receipt(ask(records), "p1")["billing"]
    assert (billing["status"], billing["reason"]) == ("rated", None)
