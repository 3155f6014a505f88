"""Commits one-shots until it is stopped, and says each number once it is acknowledged.

`python committer.py LEDGER FIRST COUNT [PAGES]`. What fails is said, and tried again, as the agent does. The log is
copied into the ledger whenever it has PAGES pages.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parents[2]))

from taximeter.errors import LedgerError
from taximeter.ledger import database
from taximeter.ledger.store import Ledger
from tests.ledger.samples import NODE, run_batch

T = TypeVar("T")


def main(path: str, first: int, count: int) -> None:
    ledger = persistently(lambda: Ledger.open(Path(path), NODE))
    print("open", flush=True)
    for number in range(first, first + count):
        batch = run_batch(number)
        persistently(lambda batch=batch: ledger.commit(batch))
        print(number, flush=True)
    ledger.close()


def persistently(act: Callable[[], T]) -> T:
    while True:
        try:
            return act()
        except LedgerError as error:
            print("failed", error, flush=True)


if len(sys.argv) > 4:
    database._CHECKPOINT_PAGES = int(sys.argv[4])
main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
