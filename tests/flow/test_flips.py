"""Bits that turn, and sectors that are lost, anywhere in journals: what can be read is booked, and every law holds.

In lines of older wrappers, without a checksum, what turned may be another fact; never is it a crash, a record that does
not add up, or a fault of any other instance. In those of today nobody pays more for it, and mostly nobody less.
TAXIMETER_SWEEP=all tries many more.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taximeter.events import Clock
from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader
from tests.agent.desks import SECOND, long_run, start
from tests.core.stories import book
from tests.journal_samples import BOOT_ID, INSTANCE, sealed_anew
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


def garbled(content: bytes, dice: random.Random) -> bytes:
    """A sector of anything at all."""
    at = dice.randrange(len(content)) // SECTOR_BYTES * SECTOR_BYTES
    return content[:at] + dice.randbytes(SECTOR_BYTES) + content[at + SECTOR_BYTES :]


def bills(events: list[Any]) -> Mapping[tuple[str, str], Decimal]:
    """What each prediction of each instance costs."""
    found: Counter[tuple[str, str]] = Counter()
    for event in events:
        data = event["data"]
        found[data["instance"], data["prediction"]] += Decimal(data["billing"]["amount"] or 0)  # type: ignore[assignment]
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("damage", [turned, garbled])
def test_law_whatever_is_damaged_in_a_journal_nobody_pays_more(
    tmp_path: Path, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    dice = random.Random(8)
    lines = [line[:-1] for line in [*long_run()[:20], *long_run()[-2:]]]
    whole = sealed_anew(b"".join(line + b"\n" for line in lines))
    node, spared = start(tmp_path / "node", rules=book(60 * SECOND)), 0
    ids = [f"{INSTANCE[:-6]}{number:06x}" for number in range(TRIES)]
    for number, instance in enumerate(ids):
        content = sealed_anew(whole.replace(INSTANCE.encode(), instance.encode()))
        path = node.path / f"{instance}.0.ndjson"
        path.write_bytes(damage(content, dice) if number else content)
        path.chmod(0o640)
        node.read(instance)
    for instance in [*node.books.accounts]:
        node.telling.lose(instance, Clock(200 * SECOND, 200 * SECOND, 200 * SECOND, 0, BOOT_ID))
    node.commit()
    due = bills(node.usage())
    for instance in ids:
        for name in ("a", "b"):
            assert due.get((instance, name), 0) <= due[ids[0], name] > 0
            spared += due.get((instance, name), 0) < due[ids[0], name]
    assert (spared < TRIES // 10) is (damage is turned)  # one that joins two lines, or opens a quote, costs them
    node.ledger.close()
