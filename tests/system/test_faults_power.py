"""The power fails while a node works: what it delivered it has, everything is billed once, and the next boot goes on.

Injects the loss by replaying what an agent and its wrappers really wrote and synced, up to a moment, onto a disk that
keeps of what was not synced nothing, all, or some sectors; and then boots another agent on that (another boot id).
TAXIMETER_SWEEP=all looks at every moment that is told from the others.
"""

import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.powerloss import Disk, laid_out, recorded
from tests.require import require_program, require_root
from tests.system.agents import Node, wait_until
from tests.system.faults import LATE_NS, SECOND, SWEEP_ALL, billed_ns, check_ledger, finals, rebooted, sample

pytestmark = [pytest.mark.timeout(0)] * SWEEP_ALL

MOST = 5
#: What of a run may be lost with the power, where an agent runs.
LOST_NS = 2 * SECOND
CONFIG = """
[listen]
address = "127.0.0.1:0"
[hardware]
nvml = false
[billing]
interim_s = 1
[ledger]
checkpoint_records = 3
"""
#: Runs one after the other, and one beside them that does not end before the others.
LIFE = """
"$0" agent --config "$1" & agent=$!
until [ -e "$TAXIMETER_RUN_DIR/agent" ]; do sleep 0.02; done
"$0" run --prediction long -- sleep 2.2 & long=$!
for name in a b c; do "$0" run --prediction $name -- sleep 0.3; done
wait $long
until grep -q '"long".*"final":true' "$TAXIMETER_STATE_DIR/usage.ndjson"; do sleep 0.02; done
kill $agent
wait $agent
"""


@pytest.fixture
def node(taximeter_program: str, tmp_path: Path) -> Node:
    require_root()
    require_program("strace")
    require_program("unshare", "util-linux")
    return Node(taximeter_program, tmp_path / "node", "[hardware]\nnvml = false\n")


def lived(node: Node, trace: Path) -> None:
    """A life of this node, every write of which is noted."""
    node.path.mkdir()
    (node.path / "agent.toml").write_text(CONFIG)
    words = [*recorded(trace), "sh", "-c", LIFE, node.program, str(node.path / "agent.toml")]
    done = subprocess.run(words, env=node.environment(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Moment:
    """What may be on the disk after the power failed, and what was said by then."""

    files: dict[str, bytes]
    taken: list[dict[str, Any]]  #: what the sink had for good
    told_ns: dict[str, tuple[int, int]]  #: of each prediction, when the first and the last fact of it were written


def moments(node: Node, trace: Path) -> Iterator[Moment]:
    disk, dice = Disk(node.state, names_follow=True), random.Random(7)
    for number, call in enumerate(disk.replay(trace)):
        safe, written = disk.after_power_loss(None), disk.after_power_loss(None, all_survives=True)
        said = lines(safe.get("usage.ndjson", b"")), told(written)
        if call in ("fdatasync", "fsync"):
            yield Moment(safe, *said)
        elif number % 3 == 0:
            yield Moment(disk.after_power_loss(dice), *said)


def lines(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.partition(b"\0")[0].rpartition(b"\n")[0].splitlines()]


def told(files: dict[str, bytes]) -> dict[str, tuple[int, int]]:
    journals = [lines(content) for name, content in files.items() if name.endswith(".0.ndjson")]
    return {facts[0]["options"]["prediction"]: (facts[0]["t"], facts[-1]["t"]) for facts in journals if facts}


def test_after_a_power_loss_all_that_was_delivered_is_there_and_nothing_is_billed_twice(
    node: Node, tmp_path: Path
) -> None:
    lived(node, tmp_path / "trace")
    check_ledger(node)
    whole = finals(node)
    for number, moment in enumerate(sample([*moments(node, tmp_path / "trace")], MOST)):
        after = Node(node.program, tmp_path / str(number), node.config)
        laid_out(moment.files, after.state)
        with rebooted(after, number + 1).agent() as agent:
            wait_until(lambda agent=agent: agent.metric('taximeter_outbox_pending{sink="usage"}') == 0, "all shipped")
            assert agent.stop() == 0
        check_ledger(after)
        records = after.records()
        assert moment.taken == records[: len(moment.taken)]
        assert lines((after.state / "usage.ndjson").read_bytes()) == records
        found = finals(after)
        for name, data in found.items():
            assert billed_ns(data) <= billed_ns(whole[name]) + LATE_NS
        for name, (first_ns, last_ns) in moment.told_ns.items():  # what ran in the last two seconds may be unknown
            end_ns = found[name]["interval"]["end_ns"] if name in found else first_ns
            assert last_ns - end_ns <= LOST_NS + LATE_NS, name
