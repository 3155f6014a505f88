"""The audit names every fault of a ledger, by record, whoever made it and however well it was hidden."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from taximeter.ledger import chain
from taximeter.ledger.audit import Fault, audit
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch
from taximeter.records import InstanceTime, PredictionTime, RecordType, UsageRecord
from taximeter.values import replace
from tests.ledger.samples import (
    RATE,
    SECOND_NS,
    billed,
    changed,
    instance_id,
    instance_record,
    interval,
    opened,
    prediction_record,
    record,
    run,
    run_batch,
)

pytestmark = pytest.mark.forged

ONE = instance_id(1)


@pytest.fixture
def audited(tmp_path: Path) -> Callable[..., list[str]]:
    """Audits a ledger of these records; says `number: what` of each fault."""

    def faults(*records: UsageRecord) -> list[str]:
        ledger = opened(tmp_path)
        ledger.commit(Batch(records, ()))
        ledger.close()
        return said(tmp_path)

    return faults


@pytest.fixture
def forged(tmp_path: Path) -> Iterator[Callable[..., list[str]]]:
    """Changes a sound ledger of three one-shots behind its back, by SQL, and audits it."""
    ledger = opened(tmp_path)
    ledger.commit(run_batch(1, 2, 3))
    ledger.close()
    connection = apsw.Connection(str(tmp_path / "ledger.db"))

    def faults(sql: str, *values: Any) -> list[str]:
        connection.execute(sql, values)
        return said(tmp_path)

    yield faults
    connection.close()


def said(directory: Path) -> list[str]:
    with LedgerReader(directory / "ledger.db") as reader:
        return [f"{fault.seq}: {fault.what}" for fault in audit(reader).faults]


def body_of(directory: Path, seq: int) -> bytes:
    with LedgerReader(directory / "ledger.db") as reader:
        return next(reader.walk(seq - 1)).body


# --- The chain ------------------------------------------------------------------------------------------------------


def test_a_sound_ledger_has_no_fault_and_is_counted(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.commit(run_batch(*range(700)))
    ledger.close()
    with LedgerReader(tmp_path / "ledger.db") as reader:
        report = audit(reader)
    assert (report.records, report.faults) == (1_400, ())


def test_whoever_watches_is_told_how_far_it_is(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.commit(run_batch(*range(1_100)))
    ledger.close()
    passed: list[int] = []
    with LedgerReader(tmp_path / "ledger.db") as reader:
        audit(reader, passed.append)
    assert passed == [1, 501, 1_001, 1_501, 2_001]


def test_an_empty_ledger_is_sound(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert said(tmp_path) == []


def test_a_changed_byte_is_named_where_it_is_and_nowhere_else(tmp_path: Path, forged: Callable[..., list[str]]) -> None:
    edited = body_of(tmp_path, 3).replace(b"cus_7", b"cus_8", 1)
    assert forged("UPDATE records SET body = ? WHERE seq = 3", edited) == [
        "3: its bytes do not fit its hash: it was changed after it was written"
    ]


def test_a_change_that_renews_its_own_hash_is_betrayed_by_the_next_record(
    tmp_path: Path, forged: Callable[..., list[str]]
) -> None:
    edited = body_of(tmp_path, 3).replace(b"cus_7", b"cus_8", 1)
    faults = forged("UPDATE records SET body = ?, hash = ? WHERE seq = 3", edited, chain.digest_of(edited))
    assert faults == ["4: does not follow number 3 as that is now: one of both was replaced"]


def test_a_removed_record_is_a_hole(forged: Callable[..., list[str]]) -> None:
    faults = forged("DELETE FROM records WHERE seq = 3")
    assert faults[0] == "4: follows number 2: 1 record is missing before it"
    assert faults[1].startswith("4: is out of its instance's order: expected ")


def test_a_removed_beginning_is_a_hole(forged: Callable[..., list[str]]) -> None:
    assert forged("DELETE FROM records WHERE seq <= 2")[0] == "3: follows number 0: 2 records are missing before it"


def test_two_swapped_records_are_both_named(forged: Callable[..., list[str]]) -> None:
    faults = forged(
        "UPDATE records SET seq = -1 WHERE seq = 2; UPDATE records SET seq = 2 WHERE seq = 3;"
        "UPDATE records SET seq = 3 WHERE seq = -1"
    )
    assert "2: says that it is number 3: it was moved, or repeated" in faults
    assert "3: says that it is number 2: it was moved, or repeated" in faults


def test_a_record_that_is_appended_again_is_a_repeat(forged: Callable[..., list[str]]) -> None:
    faults = forged("INSERT INTO records SELECT 7, hash, body FROM records WHERE seq = 2")
    assert faults[0] == "7: says that it is number 2: it was moved, or repeated"
    assert "7: does not follow number 6 as that is now: one of both was replaced" in faults


def test_a_record_of_another_ledger_is_foreign(tmp_path: Path, forged: Callable[..., list[str]]) -> None:
    ledger_id = json.loads(body_of(tmp_path, 6))["data"]["ledger"]["id"]
    body = body_of(tmp_path, 6).replace(ledger_id.encode(), b"another ledger")
    faults = forged("UPDATE records SET body = ?, hash = ? WHERE seq = 6", body, chain.digest_of(body))
    assert faults == [f"6: belongs to ledger another ledger, expected {ledger_id}"]


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b"[" * 99_999, "text", 7])
def test_what_is_no_record_is_named(forged: Callable[..., list[str]], body: object) -> None:
    faults = forged("UPDATE records SET body = ? WHERE seq = 5", body)
    assert faults[0].startswith("5: is no usage record: ")


def test_a_record_that_is_filed_under_another_id_is_named(forged: Callable[..., list[str]]) -> None:
    faults = forged("UPDATE lookups SET id = 'x' WHERE seq = 5")
    assert faults == [f"5: is filed under id x, not {instance_id(3)}-00000000: it is not found by what it says"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("type = 'taximeter.usage.instance.v1'", "type taximeter.usage.instance.v1, not taximeter.usage.prediction.v1"),
        ("time_utc_ns = 0", "time 1970-01-01T00:00:00.000000000Z, not 2026-"),
        ("time_utc_ns = 9223372036854775807", "time 2262-"),
        ("time_utc_ns = 'noon'", "time noon, not 2026-"),
        ("prediction = NULL", "prediction None, not p-"),
        ("root = 'other'", "root other, not None"),
        ("account = 'cus_8'", "account cus_8, not cus_7"),
        ("model = x'00'", "model b'\\x00', not acme/sdxl-lora"),
    ],
)
def test_a_record_that_is_found_by_what_it_does_not_say_is_named(
    forged: Callable[..., list[str]], change: str, what: str
) -> None:
    faults = forged(f"UPDATE lookups SET {change} WHERE seq = 5")
    assert faults[0].startswith(f"5: is filed under {what}")
    assert faults[0].endswith(": it is not found by what it says")


def test_a_record_that_is_filed_nowhere_is_named(forged: Callable[..., list[str]]) -> None:
    faults = forged("DELETE FROM lookups WHERE seq = 5")
    assert faults == ["5: is filed nowhere, so that it is not found by what it says"]


def test_what_is_filed_and_is_no_record_is_named(forged: Callable[..., list[str]]) -> None:
    faults = forged("INSERT INTO lookups (seq, id, type, time_utc_ns) VALUES (-3, 'a', 't', 0), (9, 'x', 't', 0)")
    assert faults == [
        f"{seq}: is no record, and is filed as {name}: the lookups have a row too many"
        for seq, name in ((-3, "a"), (9, "x"))
    ]


def test_a_page_that_cannot_be_read_is_a_fault_and_no_crash(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    for number in range(100):
        ledger.commit(run_batch(number))
    ledger.close()
    path = tmp_path / "ledger.db"
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2 // 16_384 * 16_384
    whole[middle : middle + 16_384] = b"\xff" * 16_384
    path.write_bytes(whole)
    assert any("cannot be read" in what for what in said(tmp_path))


def test_a_fault_carries_the_id_of_its_record(tmp_path: Path, forged: Callable[..., list[str]]) -> None:
    forged("UPDATE records SET hash = zeroblob(32) WHERE seq = 4")
    with LedgerReader(tmp_path / "ledger.db") as reader:
        (fault,) = audit(reader).faults
    assert fault == Fault(
        4, f"{instance_id(2)}-00000001", "its bytes do not fit its hash: it was changed after it was written"
    )


# --- Time -----------------------------------------------------------------------------------------------------------


def cut_run() -> list[UsageRecord]:
    """A one-shot cut once: a second of each part, then the rest; as the meter writes it."""
    first = {"wall_ns": SECOND_NS, "load_ns": 0, "active_ns": SECOND_NS, "share_ns": SECOND_NS}
    both = {name: 2 * value for name, value in first.items()}
    times = {
        "time": PredictionTime(
            wall_ns=SECOND_NS, load_ns=0, active_ns=SECOND_NS, share_ns=SECOND_NS, suspended_ns=0, unknown_ns=0
        )
    }
    own = {
        "time": InstanceTime(
            wall_ns=SECOND_NS, boot_ns=0, idle_ns=0, active_ns=SECOND_NS, teardown_ns=0, suspended_ns=0, unknown_ns=0
        )
    }
    begin, cut, end = 6 * SECOND_NS, 7 * SECOND_NS, 8 * SECOND_NS
    return [
        prediction_record(ONE, 0, final=False, status="processing", to_date=first, **times),
        instance_record(ONE, 1, final=False, interval=interval(begin, cut), to_date={"active_ns": SECOND_NS}, **own),
        prediction_record(ONE, 2, cut, end, to_date=both, **times),
        instance_record(ONE, 3, interval=interval(cut, end), to_date={"active_ns": 2 * SECOND_NS}, **own),
    ]


def test_a_run_that_was_cut_is_sound(audited: Callable[..., list[str]]) -> None:
    assert audited(*cut_run()) == []


@pytest.mark.parametrize(("shift_ns", "kind"), [(3, "gap"), (-3, "overlap")])
def test_a_gap_or_an_overlap_between_two_intervals_is_named_in_nanoseconds(
    audited: Callable[..., list[str]], shift_ns: int, kind: str
) -> None:
    records = cut_run()
    begin, end = 7 * SECOND_NS + shift_ns, 8 * SECOND_NS + shift_ns
    records[2] = changed(records[2], interval=interval(begin, end))
    assert audited(*records) == [f"3: interval: {kind} of 3 ns: begins at {begin}, expected {7 * SECOND_NS}"]


def test_the_intervals_of_an_instance_tile_too(audited: Callable[..., list[str]]) -> None:
    records = cut_run()
    records[3] = changed(records[3], interval=interval(7 * SECOND_NS + 1, 8 * SECOND_NS + 1))
    assert audited(*records)[0].startswith("4: interval: gap of 1 ns")


def test_an_interval_of_another_boot_is_named(audited: Callable[..., list[str]]) -> None:
    records = cut_run()
    other = interval(7 * SECOND_NS, 8 * SECOND_NS) | {"boot_id": "another boot"}
    records[2] = changed(records[2], interval=other)
    assert audited(*records)[0].startswith("3: interval: of boot another boot, expected ")


def test_totals_to_date_are_the_sum_of_the_records(audited: Callable[..., list[str]]) -> None:
    records = cut_run()
    records[2] = changed(records[2], to_date={"active_ns": 5})
    assert audited(*records) == [f"3: to_date: active_ns is 5, expected {SECOND_NS} before and {SECOND_NS} now"]


def test_phases_that_do_not_add_up_to_wall_are_named(audited: Callable[..., list[str]]) -> None:
    time = InstanceTime(
        wall_ns=3 * SECOND_NS,
        boot_ns=SECOND_NS,
        idle_ns=1,
        active_ns=SECOND_NS,
        teardown_ns=SECOND_NS,
        suspended_ns=0,
        unknown_ns=0,
    )
    assert audited(run(1)[0], instance_record(ONE, 1, time=time)) == [
        f"2: time: the phases add up to {3 * SECOND_NS + 1} ns, expected wall, {3 * SECOND_NS} ns"
    ]


def test_a_wall_that_is_not_its_interval_is_named(audited: Callable[..., list[str]]) -> None:
    time = PredictionTime(
        wall_ns=SECOND_NS + 1, load_ns=0, active_ns=SECOND_NS, share_ns=SECOND_NS, suspended_ns=0, unknown_ns=0
    )
    faults = audited(prediction_record(ONE, 0, time=time, to_date={}), instance_record(ONE, 1))
    assert faults == [f"1: time: wall is {SECOND_NS + 1} ns, expected its interval and what was suspended"]


def test_a_negative_duration_is_named(audited: Callable[..., list[str]]) -> None:
    time = InstanceTime(
        wall_ns=3 * SECOND_NS,
        boot_ns=SECOND_NS,
        idle_ns=-1,
        active_ns=SECOND_NS,
        teardown_ns=SECOND_NS,
        suspended_ns=0,
        unknown_ns=1,
    )
    assert audited(run(1)[0], instance_record(ONE, 1, time=time)) == [
        "2: time: idle_ns is -1, expected no negative duration"
    ]


def test_parts_that_exceed_wall_are_named(audited: Callable[..., list[str]]) -> None:
    time = PredictionTime(
        wall_ns=SECOND_NS, load_ns=1, active_ns=SECOND_NS, share_ns=SECOND_NS, suspended_ns=0, unknown_ns=0
    )
    faults = audited(prediction_record(ONE, 0, time=time, to_date={}), instance_record(ONE, 1))
    assert faults == ["1: time: load, active, suspended and unknown exceed wall, or the share exceeds active"]


def test_shares_that_are_not_the_active_time_are_named_at_the_instances_end(
    audited: Callable[..., list[str]],
) -> None:
    time = PredictionTime(
        wall_ns=SECOND_NS, load_ns=0, active_ns=SECOND_NS, share_ns=SECOND_NS - 1, suspended_ns=0, unknown_ns=0
    )
    first = prediction_record(ONE, 0, time=time, to_date={}, billing=billed("0.999999999", "0.001524999998475"))
    assert audited(first, instance_record(ONE, 1)) == [
        f"2: time: the predictions' shares add up to {SECOND_NS - 1} ns, expected {SECOND_NS} ns active"
    ]


def test_a_prediction_without_a_final_record_is_named_at_the_instances_end(
    audited: Callable[..., list[str]],
) -> None:
    faults = audited(prediction_record(ONE, 0, final=False), instance_record(ONE, 1))
    assert faults == [f"2: ends its instance, but prediction p-{ONE} has no final record"]


def test_a_record_after_its_instances_end_is_named(audited: Callable[..., list[str]]) -> None:
    assert audited(*run(1), prediction_record(ONE, 2)) == [
        f"3: is out of its instance's order: expected {ONE}-00000000"
    ]


def test_a_skipped_count_is_named(audited: Callable[..., list[str]]) -> None:
    assert audited(prediction_record(ONE, 0), instance_record(ONE, 2)) == [
        f"2: is out of its instance's order: expected {ONE}-00000001"
    ]


def test_a_record_that_lacks_what_its_type_must_say_is_named(audited: Callable[..., list[str]]) -> None:
    first, last = run(1)
    assert audited(changed(first, interval=None), last)[0] == "1: lacks interval, which its type must say"


# --- Money ----------------------------------------------------------------------------------------------------------


def priced(quantity: str, amount: str, **line: str) -> UsageRecord:
    return prediction_record(ONE, 0, billing=billed(quantity, amount, **line))


def test_an_amount_that_is_not_quantity_times_rate_is_named(audited: Callable[..., list[str]]) -> None:
    faults = audited(priced("1", "0.001526"), instance_record(ONE, 1))
    assert faults == [
        f"1: billing: share costs 0.001526, expected 1 × {RATE} × 1",
        f"1: billing: share adds up to 0.001526 so far, expected {RATE}, rounded once",
    ]


def test_an_amount_may_be_rounded_at_the_18th_place(audited: Callable[..., list[str]]) -> None:
    rate, exact = "0.0000000000000000015", "0.000000000000000002"
    assert audited(priced("1", exact, rate=rate), instance_record(ONE, 1)) == []


def test_rounding_that_adds_up_over_the_records_is_named(audited: Callable[..., list[str]]) -> None:
    rate, each = "0.0000000000000000016", "0.000000000000000002"
    records = cut_run()
    records[0] = changed(records[0], billing=billed("1", each, rate=rate))
    records[2] = changed(records[2], billing=billed("1", each, rate=rate))
    assert audited(*records) == []  # 4e-18 of 3.2e-18: the difference of two roundings
    third = "0.000000000000000003"
    records[2] = changed(records[2], billing=billed("1", third, rate=rate))
    more = [changed(told, instance=instance_id(2)) for told in records]
    renamed = [replace(told, id=told.id.replace(ONE, instance_id(2))) for told in more]
    assert any("adds up to" in what or "costs" in what for what in audited(*renamed))


def test_a_sum_that_is_not_that_of_its_lines_is_named(audited: Callable[..., list[str]]) -> None:
    billing = billed("1", RATE)
    wrong = type(billing)(billing.status, billing.lines, "0.1", billing.currency, billing.rate_card)
    assert audited(prediction_record(ONE, 0, billing=wrong), instance_record(ONE, 1)) == [
        f"1: billing: the amount is 0.1, expected {RATE}, the sum of its lines"
    ]


def test_a_billed_quantity_that_was_not_measured_is_named(audited: Callable[..., list[str]]) -> None:
    assert audited(priced("2", "0.00305"), instance_record(ONE, 1)) == [
        f"1: billing: share bills 2 s, expected the {SECOND_NS} ns that were measured"
    ]


def test_a_billed_quantity_of_nothing_is_named(audited: Callable[..., list[str]]) -> None:
    assert "1: billing: share bills a quantity of 0, expected more than nothing" in audited(
        priced("0", "0"), instance_record(ONE, 1)
    )


def test_an_amount_that_is_no_number_is_named(audited: Callable[..., list[str]]) -> None:
    (first, *_) = audited(priced("1", "much"), instance_record(ONE, 1))
    assert first == "1: billing: expected numbers written as decimal strings"


def test_an_amount_that_no_sum_can_hold_is_named(audited: Callable[..., list[str]]) -> None:
    faults = audited(priced("1E999999", "0.1", rate="1E999999"), instance_record(ONE, 1))
    assert faults[0] == "1: billing: expected numbers written as decimal strings"


def test_a_count_that_is_no_number_a_machine_reads_is_named(audited: Callable[..., list[str]]) -> None:
    endless = replace(prediction_record(ONE, 0), id=f"{ONE}-{'9' * 5_000}")
    assert audited(endless, instance_record(ONE, 1)) == [f"1: is out of its instance's order: expected {ONE}-00000000"]


def test_a_correction_is_checked_as_a_price_and_tiles_nothing(audited: Callable[..., list[str]]) -> None:
    data = {"instance": ONE, "prediction": f"p-{ONE}", "billing": billed("1", "-0.001525")}
    correction = record(ONE, 1, RecordType.CORRECTION, data, prediction=data["prediction"])
    assert audited(prediction_record(ONE, 0), correction, instance_record(ONE, 2)) == [
        f"2: billing: share costs -0.001525, expected 1 × {RATE} × 1"
    ]


def test_a_fact_of_the_ledger_has_no_instance_and_is_only_chained(audited: Callable[..., list[str]]) -> None:
    fact = UsageRecord("0198-00000000", RecordType.FACT, "platform", 5, {"fact": "begun"})
    assert audited(fact, *run(1)) == []
