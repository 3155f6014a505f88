"""The power fails at any moment: what was acknowledged is in the ledger, whole and chained, and it goes on.

Injects the loss by replaying what the ledger's process really wrote and synced, up to each of its system calls, onto a
disk that keeps of what was not synced nothing, all, or some sectors. Also where syncs fail meanwhile, after which a
disk no longer knows what it lost. TAXIMETER_SWEEP=all looks at every such disk.
"""

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from taximeter.ledger.audit import audit
from taximeter.ledger.damage import damage_of
from taximeter.ledger.reader import LedgerReader
from tests.ledger.samples import opened, run_batch
from tests.powerloss import Disk, laid_out, recorded
from tests.require import require_program
from tests.system.faults import sample

pytestmark = [pytest.mark.system, pytest.mark.forged]

COMMITTER = Path(__file__).with_name("committer.py")
COMMITS, PAGES = 5, 24  # the log is copied every second commit or so
FIRST, MOST = 30, 90  #: so many disks are looked at of each history, of some hundred: while it begins, and later
AFTER = 9_999  #: what is committed once the power is back


@dataclass(frozen=True)
class Moment:
    """What is on the disk after the power failed, and what its owner had been told by then."""

    call: int
    files: dict[str, bytes]
    is_open: bool
    acknowledged: int


def moments(trace: Path, root: Path) -> Iterator[Moment]:
    """Every moment, and what may be there then, each disk once."""
    disk, dice, seen = Disk(root, names_follow=False), random.Random(7), set[int]()
    for number, _ in enumerate(disk.replay(trace)):
        said = disk.said.decode().split("\n")
        for files in (
            disk.after_power_loss(None),
            disk.after_power_loss(None, all_survives=True),
            disk.after_power_loss(dice),
        ):
            key = hash((tuple(sorted(files.items())), len(said)))
            if key not in seen:
                seen.add(key)
                yield Moment(number, files, "open" in said, sum(line.isdigit() for line in said))


def commits(path: Path) -> int:
    with LedgerReader(path) as reader:
        report = audit(reader)
    assert report.faults == ()
    assert report.records % 2 == 0
    return report.records // 2


@pytest.mark.parametrize(
    "inject",
    [
        pytest.param((), id="well"),
        pytest.param(("-e", "inject=fdatasync:error=EIO:when=9+5"), id="syncs-fail"),
        pytest.param(("-e", "inject=pwrite64:error=ENOSPC:when=70+41"), id="writes-fail"),
    ],
)
def test_whatever_was_acknowledged_before_the_power_failed_is_there_after_it(
    tmp_path: Path, inject: tuple[str, ...]
) -> None:
    require_program("strace")
    node, trace = tmp_path / "node", tmp_path / "trace"
    node.mkdir()
    words = [*recorded(trace), *inject, sys.executable, str(COMMITTER), str(node / "ledger.db"), "0", str(COMMITS)]
    done = subprocess.run([*words, str(PAGES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("failed" in done.stdout) == bool(inject), done.stdout
    found_so = [*moments(trace, node)]
    for number, moment in enumerate([*found_so[:FIRST], *sample(found_so[FIRST:], MOST)]):
        where = laid_out(moment.files, tmp_path / str(number))
        assert damage_of(where / "ledger.db") is None
        ledger = opened(where)
        found = commits(where / "ledger.db")
        assert moment.acknowledged <= found <= moment.acknowledged + moment.is_open, f"call {moment.call}"
        head = ledger.commit(run_batch(AFTER))
        ledger.close()
        assert (head.seq, commits(where / "ledger.db")) == (2 * found + 2, found + 1)
