"""All faults at random, with real workers, for as long as one likes; then what is billed against the kernel's truth.

One-shots and servers run under a real agent that ships to a real receiver, on a small disk of its own. Commands,
wrappers and the agent are killed, stopped and replaced at random, the disk fills up, the receiver misbehaves. In the
end all is healed, and what the receiver then holds has to be what the ledger holds, each record once, the ledger
sound, and no run billed for more than the kernel saw of it. Everything but the scheduling comes from the seed.

    python -m tests.soak [--seconds 600] [--seed N]        (root: the kernel's word, a disk; a C compiler)
"""

import argparse
import contextlib
import json
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path

from timing import naps
from timing.tracing import Life, Trace, lives

from taximeter.ledger.audit import audit
from taximeter.ledger.reader import LedgerReader, RecordFilter
from tests.soak.ground import Ground, disk
from tests.soak.receiving import Holding, receiving, stored
from tests.soak.verdict import MS, SECOND, Truth, Verdict, judge, percentile
from tests.system.agents import Node, wait_until
from tests.system.rides import PROGRAM


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    given = parser.parse_args()
    print(f"soak: {given.seconds:g} s, seed {given.seed}", flush=True)
    faults = soak(given.seconds, given.seed)
    for fault in faults:
        print("FAULT", fault)
    print("soak: nothing lost, nothing twice" if not faults else f"soak: {len(faults)} faults; seed {given.seed}")
    return 1 if faults else 0


def soak(seconds: float, seed: int) -> list[str]:
    """Injure for so long, heal, and look; what is wrong then."""
    dice = random.Random(seed)
    with contextlib.ExitStack() as held:
        path = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="taximeter-soak-")))
        trace = held.enter_context(Trace())
        receiver = held.enter_context(receiving(random.Random(seed + 1)))
        held.enter_context(disk(path / "node"))
        ground = Ground(Node(PROGRAM, path / "node"), naps.build(path / "naps"), receiver, dice)
        held.callback(ground.close)
        ground.start_agent()
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            ground.act()
        ground.end()
        seen = {} if not ground.runs else lives(trace.read())
        faults = _converged(ground, receiver)
        verdict = judge(_truths(ground, seen), [json.loads(body) for body in receiver.held.values()])
        _tell(ground, receiver, verdict)
    return [*faults, *verdict.faults]


def _converged(ground: Ground, receiver: Holding) -> list[str]:
    """Wait until all is booked and shipped, and compare."""
    ledger = ground.node.state / "ledger.db"
    with contextlib.suppress(AssertionError):
        wait_until(lambda: _is_idle(ground.node), "everything booked and shipped", 120)
    with LedgerReader(ledger) as reader:
        kept = stored(reader.records(RecordFilter()))
        report = audit(reader)
    faults = [f"the ledger, record {fault.seq}: {fault.what}" for fault in report.faults]
    faults += [f"{event} came twice, and the second time it was another" for event in receiver.changed]
    faults += [f"{key[1]} never came to the receiver" for key in kept.keys() - receiver.held.keys()]
    faults += [f"{key[1]} is at the receiver, and in no ledger" for key in receiver.held.keys() - kept.keys()]
    both = kept.keys() & receiver.held.keys()
    faults += [f"{key[1]} is another at the receiver" for key in both if kept[key] != receiver.held[key]]
    sink = (ground.node.state / "usage.ndjson").read_bytes().splitlines()
    if len(sink) != len(kept):
        faults.append(f"the file has {len(sink)} records, and the ledger {len(kept)}")
    return faults


def _is_idle(node: Node) -> bool:
    done = node.taximeter("status", "--json")
    if done.returncode != 0:
        return False
    said = json.loads(done.stdout)
    return not said["instances"] and not any(sink["pending"] for sink in said["sinks"])


def _truths(ground: Ground, seen: dict[int, Life]) -> list[Truth]:
    found = []
    for run in ground.runs:
        life = seen.get(run.number)
        if life is None:
            continue  # its wrapper was killed before it started anything
        noted = run.notes.read_text().splitlines() if run.notes is not None and run.notes.exists() else []
        whole = [line.split() for line in noted if re.fullmatch(r"\S+ \d+ \d+", line)]
        predictions = {name: int(end) - int(start) for name, start, end in whole}
        found.append(Truth(run.number, life.ns, frozenset(run.harmed), run.is_loose, predictions))
    return found


def _tell(ground: Ground, receiver: Holding, verdict: Verdict) -> None:
    print("\nwhat was done     " + ", ".join(f"{name} {count}" for name, count in ground.done.most_common()))
    print("the receiver      " + ", ".join(f"{name} {count}" for name, count in receiver.answers.most_common()))
    print(f"records           {len(receiver.held)}, {receiver.repeats} of them came again")
    print(f"runs              {verdict.runs} booked, {verdict.predictions} predictions, of {len(ground.runs)} started")
    print(f"the kernel saw    {verdict.truth_ns / SECOND:.6f} s")
    print(f"billed            {verdict.billed_ns / SECOND:.6f} s; unknown {verdict.unknown_ns / SECOND:.6f} s")
    for witness, excess in verdict.excess_ns.items():
        at = [percentile(excess, part) / MS for part in (0.5, 0.99, 1.0)]
        told = "p50 {:+.3f}, p99 {:+.3f}, at most {:+.3f} ms".format(*at)
        print(f"beyond the truth  {told}   ({witness}: {len(excess)} runs)")


if __name__ == "__main__":
    sys.exit(main())
