"""Committed usage records a second, in batches of 1, 10, 100 and 1,000, against two floors in the same run.

The floors keep the same bytes with less: `append` writes them to a flat file and calls fdatasync; `sqlite` inserts them
into one table of a bare SQLite file (WAL, synchronous=FULL), without chain, look-ups and positions. The ledger
numbers, serialises, hashes, files and inserts them, and books a journal for every two. Rounds are interleaved; medians
are shown.

    python benchmarks/ledger_rate.py [--records 20000] [--rounds 3] [--directory DIR]
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import apsw
from interpreter import describe

from taximeter.ledger import chain
from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.seal import Author, seal
from taximeter.ledger.store import Batch, JournalState, Ledger, NodeInfo
from taximeter.records import (
    Billing,
    Concurrency,
    HardwareUse,
    InstanceTime,
    Interval,
    Line,
    PredictionTime,
    RecordType,
    Resources,
    Timing,
    UsageRecord,
    Witness,
    utc_text,
)

BATCHES = (1, 10, 100, 1_000)
SMALL_BATCH_LEAST = 500
SECOND_NS = 1_000_000_000
BEGAN_NS = 1_795_341_603_123_456_789
NODE = NodeInfo("benchmark", None, "taximeter", "sha256:" + "0" * 64)
RATE = "0.001525"
PREDICTION_TIME = PredictionTime(
    wall_ns=SECOND_NS, load_ns=0, active_ns=SECOND_NS, share_ns=SECOND_NS, suspended_ns=0, unknown_ns=0
)
INSTANCE_TIME = InstanceTime(
    wall_ns=SECOND_NS, boot_ns=0, idle_ns=0, active_ns=SECOND_NS, teardown_ns=0, suspended_ns=0, unknown_ns=0
)
HASH = "sha256:" + "a" * 64
BOOT_ID = "5f0c3c1e-3a51-4f7e-9c52-7b1f3d8a9e10"


def make_record(number: int) -> UsageRecord:
    """A record of a one-shot, as large as the meter makes them: its prediction's, and then its instance's."""
    own = number % 2 == 1
    instance = f"0198c2f4-7b11-7cc0-9d4f-{number // 2:012x}"
    began_ns = BEGAN_NS + number * 1_000_000
    line = Line("share", "1", "computing_second", RATE, "1", RATE)
    data = {
        "account": f"cus_{number % 100}",
        "model": "acme/sdxl-lora",
        "version": "3f2a",
        "class": "public",
        "pool": None,
        "kind": "inference",
        "instance": instance,
        "prediction": None if own else instance,
        "parent": None,
        "root": instance,
        "status": "succeeded",
        "interval": Interval(
            start_utc=utc_text(began_ns),
            end_utc=utc_text(began_ns + SECOND_NS),
            start_ns=5,
            end_ns=SECOND_NS + 5,
            boot_id=BOOT_ID,
        ),
        "time": INSTANCE_TIME if own else PREDICTION_TIME,
        "to_date": {"wall_ns": SECOND_NS, "active_ns": SECOND_NS},
        "concurrency": Concurrency(mean="1", max=1),
        "units": {"image": "2"},
        "attributes": {},
        "labels": {},
        "hardware": HardwareUse("cpu", 1, (), "declared", "the default tier of a node without devices"),
        "resources": Resources(
            cpu_ns=812_000_000, rss_peak_bytes=1_234_567, gpu_memory_peak_bytes=None, energy_mj=None, energy_source=None
        ),
        "billing": Billing("informative", (), None, "USD", HASH)
        if own
        else Billing("rated", (line,), RATE, "USD", HASH),
        "timing": Timing(
            start=Witness("wrapper", 41_000), end=Witness("wrapper", 10_000_000), clock="ok", utc_uncertainty_ns=None
        ),
        "traceparent": None,
        "final": True,
    }
    kind = RecordType.INSTANCE if own else RecordType.PREDICTION
    filed = (instance, None if own else instance, instance, data["account"], data["model"])
    return UsageRecord(f"{instance}-{number % 2:08d}", kind, "cus_7", began_ns, data, *filed)  # type: ignore[arg-type]


def batched(records: list[UsageRecord], size: int) -> list[list[UsageRecord]]:
    """Cut into batches of `size`."""
    return [list(islice(records, begin, begin + size)) for begin in range(0, len(records), size)]


def by_ledger(path: Path, batches: list[list[UsageRecord]]) -> float:
    """Seconds to commit all batches to a ledger."""
    made = [
        Batch(tuple(batch), tuple(JournalState(told.instance or "", 0, 1_352, None) for told in batch[1::2]))
        for batch in batches
    ]
    ledger = Ledger.open(path, NODE)
    begin = time.perf_counter()
    for batch in made:
        ledger.commit(batch)
    took = time.perf_counter() - begin
    ledger.close()
    return took


def by_sqlite(path: Path, batches: list[list[bytes]]) -> float:
    """Seconds to insert all batches into a bare table."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, body BLOB)")
    begin = time.perf_counter()
    for batch in batches:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO records (body) VALUES (?)", [(body,) for body in batch])
        connection.execute("COMMIT")
    took = time.perf_counter() - begin
    connection.close()
    return took


def by_append(path: Path, batches: list[list[bytes]]) -> float:
    """Seconds to append all batches to a flat file."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    begin = time.perf_counter()
    for batch in batches:
        os.write(fd, b"\n".join(batch) + b"\n")
        os.fdatasync(fd)
    took = time.perf_counter() - begin
    os.close(fd)
    return took


def rates(directory: Path, size: int, most: int, rounds: int) -> dict[str, float]:
    """Median records a second of each, for batches of `size`."""
    count = min(most, max(size * SMALL_BATCH_LEAST, 2 * size))
    records = [make_record(number) for number in range(count)]
    rows = seal(records, Author.of("0198c2f4-0000-7000-8000-000000000000", NODE), 0, chain.GENESIS).rows
    bodies = [body for _, _, body in rows]
    of_records = batched(records, size)
    of_bodies = [bodies[begin : begin + size] for begin in range(0, count, size)]
    runs: dict[str, Callable[[Path], float]] = {
        "ledger": lambda path: by_ledger(path, of_records),
        "sqlite": lambda path: by_sqlite(path, of_bodies),
        "append": lambda path: by_append(path, of_bodies),
    }
    seen: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            seen[name].append(count / run(directory / f"{name}-{size}-{number}"))
    return {name: statistics.median(values) for name, values in seen.items()}


def audit_rate(directory: Path, count: int) -> float:
    """Microseconds for each record of a walk of the audit."""
    path = directory / "audited"
    by_ledger(path, batched([make_record(number) for number in range(count)], 1_000))
    with LedgerReader(path) as reader:
        begin = time.perf_counter()
        report = audit(reader)
        if report.faults:
            raise SystemExit(f"cannot measure the audit: expected sound records, got {report.faults[0]}")
        return (time.perf_counter() - begin) / report.records * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=20_000, help="at most so many in each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="a directory on the disk to measure")
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(dir=asked.directory))
    print(describe())
    print(f"a record has {len(seal([make_record(0)], Author.of('x', NODE), 0, chain.GENESIS).rows[0][2])} bytes")
    print(f"{'batch':>6} {'ledger/s':>10} {'sqlite/s':>10} {'append/s':>10} {'of sqlite':>10} {'of append':>10}")
    try:
        for size in BATCHES:
            found = rates(directory, size, asked.records, asked.rounds)
            ledger, sqlite, append = found["ledger"], found["sqlite"], found["append"]
            ratios = f"{ledger / sqlite:>10.2f} {ledger / append:>10.2f}"
            print(f"{size:>6,} {ledger:>10,.0f} {sqlite:>10,.0f} {append:>10,.0f} {ratios}", flush=True)
        print(f"the audit walks {1e6 / audit_rate(directory, asked.records):,.0f} records a second")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
