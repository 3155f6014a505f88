"""How long a receipt takes whose prediction led to ten thousand others.

They are wide (all called by the root), deep (each by the one before), or deep and only the first knows the root. For
the root and for the last call: seconds until the receipt is JSON, and of the processor, its size, and milliseconds for
the receipt in one line, which asks for no tree. Then the seconds in which an audit looks through all trees.

    python benchmarks/call_trees.py [--calls 10000]
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import orjson
from interpreter import describe
from ledger_rate import NODE, make_record

from taximeter.ledger.reader import LedgerReader
from taximeter.ledger.store import Batch, Ledger
from taximeter.observe.calling import all_calls
from taximeter.observe.queries import Queries
from taximeter.records import UsageRecord
from taximeter.values import replace

SHAPES: dict[str, Callable[[int], tuple[int, int]]] = {
    "wide": lambda _: (0, 0),
    "deep": lambda number: (number - 1, 0),
    "deep, roots unknown": lambda number: (number - 1, number - 1),
}


def name_of(number: int) -> str:
    """The prediction of a run."""
    return f"0198c2f4-7b11-7cc0-9d4f-{number:012x}"


def records(calls: int, kin: Callable[[int], tuple[int, int]]) -> Iterator[UsageRecord]:
    """A root and its calls, each with the record of its prediction and that of its instance."""
    for number in range(calls + 1):
        parent, root = (name_of(other) if number else None for other in kin(number))
        for record in (make_record(2 * number), make_record(2 * number + 1)):
            named = record.prediction is not None
            root = root or (name_of(0) if named else None)
            yield replace(record, data={**record.data, "parent": parent, "root": root}, root=root)


def write(path: Path, calls: int, kin: Callable[[int], tuple[int, int]]) -> None:
    """Book them."""
    ledger = Ledger.open(path, NODE)
    every = records(calls, kin)
    while batch := tuple(islice(every, 1_000)):
        ledger.commit(Batch(batch, ()))
    ledger.close()


def measure(queries: Queries, asked: str) -> str:
    """Ask for a receipt with its tree, and in one line."""
    gc.collect()
    cpu_s, began_s = time.process_time(), time.perf_counter()
    receipt = queries.receipt(asked)
    body = orjson.dumps(receipt)
    cpu_s, told_s = time.process_time() - cpu_s, time.perf_counter()
    queries.last_run(asked)
    line_s = time.perf_counter() - told_s
    assert receipt is not None
    below = receipt["tree"]["downstream"]["predictions"]
    took = f"{told_s - began_s:7.3f} s {cpu_s:7.3f} s CPU"
    return f"{took} {len(body) / 1e6:6.2f} MB {line_s * 1e3:8.2f} ms   {below:,} downstream"


def main() -> None:
    """Measure each shape."""
    parser = argparse.ArgumentParser(description="Time receipts of large trees of calls.")
    parser.add_argument("--calls", type=int, default=10_000)
    calls = parser.parse_args().calls
    print(describe())
    for shape, kin in SHAPES.items():
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "ledger.db"
            write(path, calls, kin)
            with LedgerReader(path) as reader:
                for whose, asked in (("root", name_of(0)), ("last", name_of(calls))):
                    print(f"{shape:20} {whose}  {measure(Queries(reader), asked)}")
                began_s = time.perf_counter()
                trees = sum(1 for _ in all_calls(reader))
                print(f"{shape:20} audit {time.perf_counter() - began_s:7.3f} s for {trees} tree")


if __name__ == "__main__":
    main()
