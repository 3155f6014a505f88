"""The power fails while a file sink rotates: what it acknowledged is there, and the next agent writes nothing twice."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taximeter.shipping.sinks.file import FileSink
from taximeter.shipping.sinks.filled import numbered
from tests.powerloss import Disk, laid_out, recorded
from tests.require import require_program
from tests.shipping.receiver import event, events

NAME = "usage.ndjson"
LIMIT_BYTES = 2 * (len(event(1)) + 1)
COUNT = 7
#: Appends a record at a time, until it is taken, and says how many it has acknowledged.
LIFE = """
import os, sys
from pathlib import Path
from taximeter.errors import SinkError
from taximeter.shipping.sinks.file import FileSink
from tests.shipping.receiver import events

if sys.argv[4:]:  # dies instead of its so many-eth sync
    syncs, sync = [int(sys.argv[4])], os.fdatasync

    def fdatasync(descriptor):
        syncs[0] -= 1
        return sync(descriptor) if syncs[0] else os._exit(9)

    os.fdatasync = fdatasync

def done(what, *words):
    while True:
        try:
            return what(*words)
        except (SinkError, OSError):
            pass

sink = FileSink("usage", Path(sys.argv[1]), int(sys.argv[2]))
for count, body in enumerate(events(int(sys.argv[3])), 1):
    done(sink._append, [body])
    done(os.write, 1, b"%d\\n" % count)
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("", id="well"),
        pytest.param("fdatasync:error=EIO:when=2+3", id="syncs-fail"),
        pytest.param("fsync:error=EIO:when=2+2", id="directories-fail"),
        pytest.param("write:error=ENOSPC:when=2+3", id="writes-fail"),
        pytest.param("rename:error=EIO:when=1+2", id="renames-fail"),
        pytest.param("fdatasync:error=EIO:when=3+3 ftruncate:error=EIO:when=1+2", id="nothing-can-be-taken-back"),
        pytest.param("2 3 5 8", id="killed-before-syncs"),
    ],
)
def trace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What was done to a directory by a sink's life, and the directory."""
    require_program("strace")
    path, state = tmp_path_factory.mktemp("trace") / "trace", tmp_path_factory.mktemp("state")
    faults = [word for fault in request.param.split() if ":" in fault for word in ("-e", f"inject={fault}")]
    kills = [fault for fault in request.param.split() if ":" not in fault]
    lives = 'for at in $4; do "$0" -c "$1" "$2" $3 $at; done; "$0" -c "$1" "$2" $3'
    told = [sys.executable, LIFE, str(state / NAME), f"{LIMIT_BYTES} {COUNT}", " ".join(kills)]
    words = [*recorded(path), *faults, "sh", "-c", lives, *told]
    done = subprocess.run(words, cwd=Path(__file__).parent.parent.parent, capture_output=True, text=True, timeout=60)
    assert done.stdout.split()[-COUNT:] == [str(count) for count in range(1, COUNT + 1)], done.stderr
    assert len(numbered(state / NAME)) == COUNT // 2
    return path, state


def found(disk: Disk) -> Iterator[dict[str, bytes]]:
    dice = random.Random(7)
    yield disk.after_power_loss(None)
    yield disk.after_power_loss(None, all_survives=True)
    for _ in range(4):
        yield disk.after_power_loss(dice)


@pytest.mark.parametrize("names_follow", [True, False])
def test_after_a_power_loss_at_any_moment_the_files_have_each_record_once(
    trace: tuple[Path, Path], tmp_path: Path, names_follow: bool
) -> None:
    disk, moments = Disk(trace[1], names_follow=names_follow), 0
    for _ in disk.replay(trace[0]):
        acknowledged = max([0, *map(int, disk.said.split())])
        for files in found(disk):
            moments += 1
            path = laid_out(files, tmp_path / str(moments)) / NAME
            there = [line for file in (*numbered(path), path) for line in lines(file)]
            assert there[:acknowledged] == events(acknowledged)
            noted = max(0, acknowledged - moments % 3)  # the ledger may not have heard of the last ones
            sink = FileSink("usage", path, LIMIT_BYTES)
            try:
                sink._append(events(COUNT + 1)[noted:])
            finally:
                sink._close()
            assert [line for file in (*numbered(path), path) for line in lines(file)] == events(COUNT + 1)
    assert moments > 6 * 2 * COUNT


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []
