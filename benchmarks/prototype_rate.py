"""From two marks to a committed record, on one core: Taximeter against the least that could do it, in the same run.

The prototype parses the same two lines, multiplies seconds by a rate, fills in a record of the same bytes, hashes it
behind the one before and inserts it into one table of a bare SQLite file (WAL, synchronous=FULL), in batches of 100:
no rules, no shares of overlapping predictions, no checks of what was said, nothing to find a record by, no sums, no
state to go on from. Taximeter does what its agent does with them, up to the commit; its ledger alone is told, too: what
it takes of records that are made. Rounds are interleaved; told are medians, by the wall clock and by the processor's
time: how long the disk takes to sync is in the one alone.

    python benchmarks/prototype_rate.py [--predictions 20000] [--rounds 3] [--directory DIR]
"""

import argparse
import binascii
import contextlib
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from typing import Any

import apsw
import orjson
from interpreter import describe
from ledger_rate import BEGAN_NS, BOOT_ID, NODE, SECOND_NS

from taximeter.agent.accounts import kept
from taximeter.config import load
from taximeter.events import Clock, Opened, Options
from taximeter.hardware.inventory import Hardware
from taximeter.journal.facts import parse_line
from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch, JournalState, Ledger
from taximeter.meter import fold, open_instance
from taximeter.observe.experience import Experience
from taximeter.observe.pools import Pools
from taximeter.records import UsageRecord, utc_text
from taximeter.rulebook import Rulebook, make_rules

BATCH = 100
GOAL = 0.70
INSTANCE = "0198c2aa-0000-7000-8000-000000000001"
STEP_NS, TOOK_NS = 3 * SECOND_NS // 1_000, SECOND_NS // 1_000
CONFIG = load(None, {})
RULES = make_rules(3_600 * SECOND_NS, SECOND_NS, CONFIG.billing.classes)
BOOK = Rulebook({RULES.hash: RULES}, RULES.hash, (CONFIG.rate_card,), "/nodes/benchmark")
CLOCKS = attrgetter("wall_s"), attrgetter("cpu_s")
Lines = list[list[bytes]]  #: by batch


@dataclass(slots=True)
class Took:
    """Seconds by the wall clock, and of the processor."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextlib.contextmanager
def timed() -> Iterator[Took]:
    """Time what is done within."""
    took, began_s, cpu_s = Took(), time.perf_counter(), time.process_time()
    yield took
    took.wall_s, took.cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s


def lines_of(count: int) -> Lines:
    """What a worker's journal says of so many predictions, one after the other."""
    said = []
    for number in range(count):
        at_ns, name = SECOND_NS + number * STEP_NS, f"{number:08d}-7f3c"
        start = {"mark": "start", "prediction": name, "model": "acme/sdxl-lora", "account": f"cus_{number % 50}"}
        finish = {"mark": "finish", "prediction": name, "status": "succeeded", "units": {"image": 2}}
        said += [line(start, at_ns), line(finish, at_ns + TOOK_NS)]
    return [said[begin : begin + 2 * BATCH] for begin in range(0, len(said), 2 * BATCH)]


def line(mark: Mapping[str, object], at_ns: int) -> bytes:
    raw = binascii.b2a_base64(orjson.dumps(mark), newline=False).decode()
    return orjson.dumps({"v": 1, "f": "mark", "t": at_ns, "raw": raw})


def begun() -> tuple[list[bytes], Opened]:
    """The lines before the first mark, and the opening."""
    clock = Clock(0, 0, 0, BEGAN_NS, BOOT_ID)
    opened = Opened(0, INSTANCE, 0, ("serve",), Options(worker=True, ready="exec"), clock, 0, 4711)
    return [
        orjson.dumps({"v": 1, "f": "spawn", "t": 700_000, "before": 300_000, "pid": 4712, "start": 12345}),
        orjson.dumps({"v": 1, "f": "ready", "t": 700_000, "by": "exec"}),
    ], opened


def folded(lines: Lines) -> Iterator[tuple[Sequence[UsageRecord], JournalState]]:
    """Parse, fold and rate, as the agent does: what each batch leads to."""
    before, opened = begun()
    instance = fold(
        open_instance(opened, BOOK, Hardware("cpu", 1, rule="benchmark")), map(parse_line, before), BOOK
    ).instance
    offset = 0
    for batch in lines:
        step = fold(instance, map(parse_line, batch), BOOK)
        instance = step.instance
        offset += sum(map(len, batch)) + len(batch)
        yield step.records, JournalState(INSTANCE, 0, offset, kept(instance))


def commit(path: Path, made: Iterable[tuple[Sequence[UsageRecord], JournalState]]) -> Took:
    """Add up, chain and commit, as the agent does."""
    ledger, pools, experience = Ledger.open(path, NODE), Pools(), Experience()
    with timed() as took:
        for records, journal in made:
            runs, calls = experience.of(records)
            ledger.commit(Batch(tuple(records), (journal,), (), pools.of(records), runs, calls))
    ledger.close()
    return took


def by_prototype(path: Path, lines: Lines, pattern: dict[str, Any]) -> Took:
    """All of it by the prototype; `pattern` is a record of Taximeter's."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, hash BLOB, body BLOB)")
    data, price = pattern["data"], Decimal(pattern["data"]["billing"]["lines"][0]["rate"])
    open_marks: dict[str, tuple[int, dict[str, Any]]] = {}
    seq, digest = 0, bytes(32)

    def ended(raw: bytes) -> tuple[int, dict[str, Any], int] | None:
        """When a prediction began, what was said of it then, and when it ended; None as long as it runs."""
        fact = orjson.loads(raw)
        mark = orjson.loads(binascii.a2b_base64(fact["raw"]))
        if mark["mark"] == "start":
            open_marks[mark["prediction"]] = fact["t"], mark
            return None
        return *open_marks.pop(mark["prediction"]), fact["t"]

    with timed() as took:
        for batch in lines:
            rows = []
            for start_ns, said, end_ns in filter(None, map(ended, batch)):
                seconds = Decimal(end_ns - start_ns) / SECOND_NS
                quantity, amount = f"{seconds:f}", f"{seconds * price:f}"
                took_ns, began_utc = end_ns - start_ns, utc_text(BEGAN_NS + start_ns)
                utc = {"start_utc": began_utc, "end_utc": utc_text(BEGAN_NS + end_ns)}
                priced = {**data["billing"]["lines"][0], "quantity": quantity, "amount": amount}
                seq += 1
                told = {
                    "account": said["account"],
                    "model": said["model"],
                    "prediction": said["prediction"],
                    "root": said["prediction"],
                    "interval": {**data["interval"], **utc, "start_ns": start_ns, "end_ns": end_ns},
                    "time": {**data["time"], "wall_ns": took_ns, "active_ns": took_ns, "share_ns": took_ns},
                    "billing": {**data["billing"], "lines": [priced], "amount": amount},
                    "ledger": {**data["ledger"], "seq": seq, "previous": f"sha256:{digest.hex()}"},
                }
                about = {"id": f"{INSTANCE}-{seq:08d}", "subject": said["account"], "time": began_utc}
                body = orjson.dumps({**pattern, **about, "data": {**data, **told}})
                digest = hashlib.sha256(body).digest()
                rows.append((seq, digest, body))
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO records VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")
    connection.close()
    return took


def bodies(path: Path, *, ours: bool) -> Iterator[bytes]:
    """The records of a file, as bytes."""
    if ours:
        with LedgerReader(path) as reader:
            yield from reader.records()
    else:
        yield from (body for (body,) in apsw.Connection(str(path)).execute("SELECT body FROM records"))


def main() -> None:
    """Print the rates, and the goal."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--predictions", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, help="a directory on the disk to measure")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    lines = lines_of(asked.predictions)
    rows: dict[str, list[Took]] = {"Taximeter": [], "its ledger alone": [], "prototype": []}
    with tempfile.TemporaryDirectory(dir=asked.directory) as folder:
        place = Path(folder)
        commit(place / "first", folded(lines[:1]))
        pattern = orjson.loads(next(bodies(place / "first", ours=True)))
        made = list(folded(lines))
        for number in range(asked.rounds):
            rows["Taximeter"].append(commit(place / f"whole-{number}", folded(lines)))
            rows["its ledger alone"].append(commit(place / f"ledger-{number}", made))
            rows["prototype"].append(by_prototype(place / f"prototype-{number}", lines, pattern))
        whole, bare = (bodies(place / name, ours=name < "p") for name in ("ledger-0", "prototype-0"))
        sizes = f"Taximeter {statistics.mean(map(len, whole)):,.0f}, prototype {statistics.mean(map(len, bare)):,.0f}"
    print(f"{describe()}; {asked.predictions:,} predictions in batches of {BATCH}, median of {asked.rounds} rounds")
    print(f"bytes a record: {sizes}")
    print(f"{'records a second':20}{'wall clock':>12}{'of prototype':>14}{'CPU time':>12}{'of prototype':>14}")
    rates = {
        name: [asked.predictions / statistics.median(clock(one) for one in took) for clock in CLOCKS]
        for name, took in rows.items()
    }
    for name, (wall, cpu) in rates.items():
        of_wall, of_cpu = wall / rates["prototype"][0], cpu / rates["prototype"][1]
        print(f"{name:20}{wall:>12,.0f}{of_wall:>14.0%}{cpu:>12,.0f}{of_cpu:>14.0%}")
    print(f"goal: {GOAL:.0%} of the prototype's rate")


if __name__ == "__main__":
    main()
