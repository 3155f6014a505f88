"""Bytes of a journal in, records out: the worked example of cog's pull request 1643, the whole way through."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.agent.desks import start, write
from tests.core.stories import MS, SECOND, book

HERE = Path(__file__).parent
#: A prediction of 3 s is overlapped for 1 s by one of 1 s.
JOURNAL = HERE / "overlap.0.ndjson"
#: What that comes to, record by record.
GOLDEN = HERE / "overlap.records.json"


def records_of(path: Path, interim_ns: int = 60 * SECOND) -> list[dict[str, Any]]:
    """What billing sees of the journal."""
    node = start(path / "node", rules=book(interim_ns))
    write(node.journal, JOURNAL.read_bytes().splitlines())
    node.read()
    node.commit()
    return node.usage()


def test_a_journal_leads_to_the_records_that_it_always_led_to(tmp_path: Path) -> None:
    records = records_of(tmp_path)
    if os.environ.get("WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(records, indent=1) + "\n")
    assert records == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("interim_ns", [60 * SECOND, SECOND, 700 * MS, 333 * MS + 1])
def test_three_seconds_overlapped_by_one_are_two_and_a_half_and_a_half_wherever_it_is_cut(
    tmp_path: Path, interim_ns: int
) -> None:
    shares: Counter[str] = Counter()
    for record in records_of(tmp_path, interim_ns):
        if record["data"]["prediction"]:
            shares[record["data"]["prediction"]] += record["data"]["time"]["share_ns"]
    assert shares == {"long": 2_500 * MS, "short": 500 * MS}
