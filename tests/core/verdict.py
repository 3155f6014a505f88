"""Whether one instance's records keep the laws, and agree with the second opinion (stopwatch)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from taximeter.records import RecordType, UsageRecord
from tests.core.stopwatch import ONLINE, PARTS, Guest, Life, Row, price_of
from tests.core.stories import amount_of

Run = tuple[str, int]  #: a prediction's id may be used again after its end: which time it was


def check(records: Sequence[UsageRecord], life: Life, matrix: Mapping[str, Row], price: str) -> None:
    """Everything that is always true of the records of an instance that has ended."""
    assert [int(record.id[-8:]) for record in records] == list(range(len(records)))
    told = [record for record in records if record.type is RecordType.INSTANCE]
    runs, guests = runs_of(records), guests_of(life)
    assert runs.keys() == guests.keys()
    check_instance(told, life)
    for run, guest in guests.items():
        check_prediction(runs[run], guest, life)
    shared_ns = sum(total(run, "share_ns") for run in runs.values())
    assert shared_ns == total(told, "active_ns")
    parts = {run: {**life.parts_of(guest), "share": total(runs[run], "share_ns")} for run, guest in guests.items()}
    back = {run: taken_back(guest, {part: int(ns) for part, ns in parts[run].items()}) for run, guest in guests.items()}
    check_taken_back(records, [*back.values(), freed(life, matrix)])
    left = {run: {part: int(parts[run][part]) - back[run][part] for part in back[run]} for run in guests}
    owed = {run: cost_of(guest, left[run], life, matrix, price) for run, guest in guests.items()}
    assert billed(records) == sum(owed.values(), instance_cost(life, matrix, price))
    check_lines(records)


def data_of(record: UsageRecord) -> Any:
    return record.data


def total(records: Iterable[UsageRecord], part: str) -> int:
    return sum(data_of(record)["time"][part] for record in records)


def billed(records: Iterable[UsageRecord]) -> Decimal:
    return sum((amount_of(record) for record in records), Decimal(0))


def runs_of(records: Iterable[UsageRecord]) -> dict[Run, list[UsageRecord]]:
    """Each prediction's records, up to its final one."""
    runs: dict[Run, list[UsageRecord]] = {}
    ended: Counter[str] = Counter()
    for record in records:
        if record.type is RecordType.PREDICTION:
            name = str(record.prediction)
            runs.setdefault((name, ended[name]), []).append(record)
            ended[name] += data_of(record)["final"]
    return runs


def guests_of(life: Life) -> dict[Run, Guest]:
    guests: dict[Run, Guest] = {}
    seen: Counter[str] = Counter()
    for guest in life.guests:
        guests[guest.name, seen[guest.name]] = guest
        seen[guest.name] += 1
    return guests


def check_tiles(records: Sequence[UsageRecord], since: int | None, until: int | None) -> None:
    intervals = [data_of(record)["interval"] for record in records]
    assert all(interval["start_ns"] <= interval["end_ns"] for interval in intervals)
    assert all(before["end_ns"] == after["start_ns"] for before, after in pairwise(intervals))
    assert (intervals[0]["start_ns"], intervals[-1]["end_ns"]) == (since, until)
    assert [data_of(record)["final"] for record in records] == [False] * (len(records) - 1) + [True]
    for record in records:
        time, interval = data_of(record)["time"], data_of(record)["interval"]
        assert time["wall_ns"] == interval["end_ns"] - interval["start_ns"] + time["suspended_ns"]
        assert min(time.values()) >= 0
        assert time["wall_ns"] == sum(ns for part, ns in time.items() if part not in ("wall_ns", "share_ns"))


def check_instance(records: Sequence[UsageRecord], life: Life) -> None:
    check_tiles(records, life.exec, life.end)
    expected = life.parts()
    assert {part: total(records, f"{part}_ns") for part in (*PARTS, "suspended")} == expected
    assert data_of(records[-1])["status"] == life.status
    for record in records[:-1]:
        since_exec = data_of(record)["interval"]["end_ns"] - life.exec
        assert since_exec % life.interim == 0
    check_company(records, None, life)
    check_sums(records)


def check_prediction(records: Sequence[UsageRecord], guest: Guest, life: Life) -> None:
    check_tiles(records, guest.begins, guest.ends)
    expected = life.parts_of(guest)
    assert {part: total(records, f"{part}_ns") for part in expected if part != "share"} == {
        part: length for part, length in expected.items() if part != "share"
    }
    assert abs(total(records, "share_ns") - expected["share"]) <= life.changes
    assert data_of(records[-1])["status"] == guest.status
    counted: Counter[str] = Counter()
    for record in records:
        counted.update({unit: int(amount) for unit, amount in data_of(record)["units"].items()})
    assert counted == guest.units
    check_company(records, guest, life)
    check_sums(records)


def check_company(records: Iterable[UsageRecord], guest: Guest | None, life: Life) -> None:
    """Each record tells of its own interval how many were active together."""
    for record in records:
        interval, told = data_of(record)["interval"], data_of(record)["concurrency"]
        mean, most = life.company(guest, interval["start_ns"], interval["end_ns"])
        assert abs(Fraction(told["mean"]) - mean) <= Fraction(1, 200)
        assert told["max"] == most


def check_sums(records: Iterable[UsageRecord]) -> None:
    """What a receiver may hold each record against: its own records so far add up to its totals to date."""
    so_far: Counter[str] = Counter()
    for record in records:
        so_far.update(data_of(record)["time"])
        assert {part: so_far[part] for part in data_of(record)["to_date"]} == data_of(record)["to_date"]


def taken_back(guest: Guest, parts: Mapping[str, int]) -> dict[str, int]:
    """Of each part as much as can lie beyond its true end: it loads before it is active."""
    since, told = guest.over or (0, 0)
    beyond = told - max(since, guest.begins) if guest.over else 0
    active = min(parts["active"], beyond)
    return {"load": min(parts["load"], beyond - active), "active": active, "share": min(parts["share"], beyond)}


def freed(life: Life, matrix: Mapping[str, Row]) -> dict[str, int]:
    """By how much which of an instance's parts is less than was told, where it is billed at all."""
    row = matrix[life.kind]
    if life.kind not in ONLINE and not any(Decimal(row[part]) for part in ("boot", "idle", "teardown")):
        return {}
    told, truly = life.parts(), life.truly_spent()
    return {part: told[part] - truly[part] for part in told}


def check_taken_back(records: Iterable[UsageRecord], less: Iterable[Mapping[str, int]]) -> None:
    """Corrections say by how much which time is less."""
    expected: Counter[str] = Counter()
    for parts in less:
        expected.update(parts)
    changed: Counter[str] = Counter()
    for record in records:
        if record.type is RecordType.CORRECTION:
            changed.update({part: -ns for part, ns in data_of(record)["time"].items()})
    assert {part: ns for part, ns in changed.items() if ns} == {f"{part}_ns": ns for part, ns in expected.items() if ns}


def cost_of(guest: Guest, left: Mapping[str, int], life: Life, matrix: Mapping[str, Row], price: str) -> Decimal:
    """What a prediction's whole run costs, priced at once, without what is taken back."""
    if life.kind in ONLINE or guest.kind in ONLINE:
        return Decimal(0)
    row = matrix[guest.kind]
    active_ns = left["share"] if row["quantity"] == "share" else left["active"]
    return price_of({"load": left["load"], "active": active_ns}, guest.status, row, price)


def instance_cost(life: Life, matrix: Mapping[str, Row], price: str) -> Decimal:
    """What being online costs: an end matters only to whom all of it is billed."""
    online = life.kind in ONLINE
    meters = ["boot"] * life.readied + ["idle"] + ["active"] * online + ["teardown"]
    parts = life.truly_spent()
    return price_of({meter: parts[meter] for meter in meters}, life.status if online else "", matrix[life.kind], price)


def check_lines(records: Iterable[UsageRecord]) -> None:
    for record in records:
        assert amount_of(record) >= 0 or record.type is RecordType.CORRECTION
        assert all(Decimal(line.quantity) > 0 for line in data_of(record)["billing"].lines)
