"""What a ledger of a million records answers, and how fast: account, estimate, a receipt, an audit; and its size.

A run is two records, its prediction's and its instance's, by a hundred accounts and ten models. Each question is asked
several times, of a new connection each; then the memory of this process after the first thousandth and after all of
the questions. The audit is that of `taximeter verify`, and streams the whole ledger once: in one process, and in one
for each core.

    python benchmarks/million_records.py [--records 1000000] [--keep LEDGER]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import apsw
from interpreter import describe
from ledger_rate import NODE, make_record

from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.runs import Kind
from taximeter.ledger.store import Batch, Ledger
from taximeter.observe.experience import Experience
from taximeter.observe.queries import Queries
from taximeter.records import UsageRecord
from taximeter.values import replace

ASKED = 5
GOAL_S = 1.0
AUDIT_GOAL_S = 20.0
TABLE_GOAL = 1.15


def records(count: int) -> Iterator[UsageRecord]:
    """Runs of several models for several accounts."""
    for number in range(count):
        made = make_record(number)
        model, account = f"acme/model-{number // 2 % 10}", f"cus_{number // 2 % 100}"
        data = {**made.data, "model": model, "account": account, "to_date": made.data["time"]}
        own = made.prediction is None
        yield replace(made, data=data, model=model, account=account, subject="platform" if own else account)


def write(path: Path, count: int) -> float:
    """Book them as an agent does; records a second."""
    ledger, experience, every = Ledger.open(path, NODE), Experience(), records(count)
    began_s = time.perf_counter()
    while batch := tuple(islice(every, 1_000)):
        runs, calls = experience.of(batch)
        ledger.commit(Batch(batch, (), (), (), runs, calls))
    ledger.close()
    return count / (time.perf_counter() - began_s)


def table_of_payload(path: Path) -> float:
    """Bytes of the table of records, of those that its records have."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    pages = connection.execute("SELECT sum(pgsize) FROM dbstat WHERE name = 'records'").get
    return float(pages / connection.execute("SELECT sum(length(body)) FROM records").get)


def rss_mb() -> float:
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) / 1000


def median_s(path: Path, ask: Callable[[Queries], object]) -> float:
    """Seconds to an answer, of a new connection."""
    took = []
    for _ in range(ASKED):
        began_s = time.perf_counter()
        with LedgerReader(path) as reader:
            assert ask(Queries(reader)) is not None
        took.append(time.perf_counter() - began_s)
    return statistics.median(took)


@dataclass(frozen=True)
class Audited:
    """An audit, and what it took."""

    records: int
    faults: list[object]
    took_s: float
    cpu_s: float  #: of all processes
    rss_mb: float

    def told(self) -> str:
        """As it is printed."""
        took = f"{self.took_s:,.1f} s, {self.cpu_s:,.1f} s of CPU"
        return f"{self.records:,} records in {took}, {len(self.faults)} faults; memory {self.rss_mb:,.1f} MB"


def audited(path: Path, jobs: int) -> Audited:
    """Audit the ledger as `taximeter verify --jobs` does."""
    began_s, cpu_s = time.perf_counter(), cpu_so_far_s()
    with LedgerReader(path) as reader:
        report = Queries(reader).verify(jobs=jobs)
    took_s, cpu_s = time.perf_counter() - began_s, cpu_so_far_s() - cpu_s
    return Audited(report["records"], report["faults"], took_s, cpu_s, rss_mb())


def cpu_so_far_s() -> float:
    """Of this process, and of those that it has started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Print the figures; exit with 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="where the ledger is, or is to be kept")
    asked = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        path = asked.keep or Path(folder) / "ledger.db"
        if not path.exists():
            print(f"written: {write(path, asked.records):,.0f} records a second, in batches of 1,000")
        ratio = f"{table_of_payload(path):.2f} of their payload (goal {TABLE_GOAL:g})"
        print(f"size: {path.stat().st_size / asked.records:,.0f} bytes a record; the table of records is {ratio}")
        last = make_record(asked.records - 2).prediction or ""
        questions: dict[str, Callable[[Queries], object]] = {
            "account": lambda queries: queries.account("cus_7"),
            "estimate": lambda queries: queries.estimate(Kind("acme/model-7", "3f2a", "cpu")),
            "models": lambda queries: queries.models(),
            "last receipt": lambda queries: queries.receipt(last),
        }
        before_mb, missed = 0.0, False
        for name, ask in questions.items():
            took_s = median_s(path, ask)
            before_mb = before_mb or rss_mb()
            is_goal = name in ("account", "estimate")
            missed |= is_goal and took_s > GOAL_S
            print(f"{name:14} {took_s * 1e3:10,.1f} ms{f'   (goal {GOAL_S * 1e3:,.0f})' if is_goal else ''}")
        print(f"memory after the first question {before_mb:,.1f} MB, after all {rss_mb():,.1f} MB")
        cores = len(os.sched_getaffinity(0))
        alone, shared = audited(path, 1), audited(path, cores)
        print(f"audit by one process: {alone.told()}")
        print(f"audit by {cores} beside it: {shared.told()}, {shared.took_s / alone.took_s:.2f} of that")
        goal_s = AUDIT_GOAL_S * asked.records / 1_000_000
        print(f"goal: {goal_s:,.1f} s")
        missed |= shared.took_s > goal_s or alone.faults != shared.faults
        for fault in shared.faults[:1]:
            print(fault)
    raise SystemExit(missed)


if __name__ == "__main__":
    main()
