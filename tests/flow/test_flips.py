"""Bits that turn, and sectors that are lost, anywhere in journals: what can be read is booked, and every law holds.

These are lines of older wrappers, without a checksum, so what turned may be another fact; never is it a crash, a record
that does not add up, or a fault of any other instance. TAXIMETER_SWEEP=all tries many more.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from tests.agent.desks import SECOND, long_run, start
from tests.core.stories import book
from tests.journal_samples import INSTANCE
from tests.system.faults import SWEEP_ALL

TRIES = 4_000 if SWEEP_ALL else 300
SECTOR_BYTES = 512


def turned(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << dice.randrange(8)]) + content[at + 1 :]


def lost(content: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(content)) // SECTOR_BYTES * SECTOR_BYTES
    fate = dice.choice([bytes(SECTOR_BYTES), dice.randbytes(SECTOR_BYTES), b""])
    return content[:at] + fate + content[at + SECTOR_BYTES :]


def swapped(content: bytes, dice: random.Random) -> bytes:
    """A line in the place of another."""
    lines = content.splitlines(keepends=True)
    one, other = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[one] = lines[other]
    return b"".join(lines)


@pytest.mark.parametrize("damage", [turned, lost, swapped])
def test_law_whatever_is_damaged_in_a_journal_what_is_booked_adds_up(
    tmp_path: Path, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    dice, whole = random.Random(7), b"".join(line + b"\n" for line in [*long_run()[:20], *long_run()[-2:]])
    node = start(tmp_path / "node", rules=book(60 * SECOND))
    ids = [f"{INSTANCE[:-6]}{number:06x}" for number in range(TRIES)]
    for number, instance in enumerate(ids):
        content = whole.replace(INSTANCE.encode(), instance.encode())
        is_sound = number == TRIES - 1
        path = node.path / f"{instance}.0.ndjson"
        path.write_bytes(content if is_sound else damage(content, dice))
        path.chmod(0o640)
        node.read(instance)
        if number % 50 == 0:
            node.commit()
    node.commit()
    with LedgerReader(node.path / "ledger.db") as reader:
        assert audit(reader).faults == ()
    sound = [one for one in node.usage() if one["data"]["instance"] == ids[-1]]
    assert [one["data"]["status"] for one in sound if one["data"]["final"]] == ["succeeded", "failed", "succeeded"]
    node.ledger.close()
