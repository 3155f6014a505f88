"""How soon an agent is ready again after kill -9: a large ledger, and many instances that run on meanwhile.

A ledger is written as million_records.py writes it. Every open instance is a command that sleeps and a journal of real
shape, locked as by its wrapper; this process is the wrapper of all. The agent, held to one core, books them, is killed,
and is started again, several times; told is the time from its start until /readyz answers 200 and every instance is in
its books.

    python benchmarks/ledger_recovery.py [--records 1000000] [--open 500] [--rounds 5] [--keep LEDGER]
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from agent_throughput import agent, cpu_s, journal_of, rss_mb
from interpreter import describe
from million_records import write

GOAL_S = 2.0
PATIENCE_S = 60.0
#: Of the facts of journal_of: opened, spawned, ready and a heartbeat, and no end.
STILL_OPEN = 4


@contextlib.contextmanager
def commands(count: int) -> Iterator[list[int]]:
    """So many commands that do nothing."""
    running = [subprocess.Popen(["sleep", "infinity"]) for _ in range(count)]
    try:
        yield [one.pid for one in running]
    finally:
        for one in running:
            one.kill()
        for one in running:
            one.wait()


def start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@contextlib.contextmanager
def open_journals(directory: Path, pids: list[int]) -> Iterator[None]:
    """A journal for each command, locked as long as this lasts."""
    directory.mkdir(parents=True)
    at_ns = time.monotonic_ns() - 2_000_000_000
    with contextlib.ExitStack() as held:
        for number, pid in enumerate(pids):
            instance = f"0198c2bb-0000-7000-8000-{number:012x}"
            facts = [json.loads(line) for line in journal_of(instance, at_ns, f"cus_{number % 50}").splitlines()]
            facts[0]["pid"] = os.getpid()
            facts[1] |= {"pid": pid, "start": start_ticks(pid)}
            file = held.enter_context((directory / f"{instance}.0.ndjson").open("wb"))
            fcntl.lockf(file, fcntl.LOCK_EX)
            file.writelines(json.dumps(fact).encode() + b"\n" for fact in facts[:STILL_OPEN])
            file.flush()
        yield


def ask(state: Path, pid: int, path: str) -> object:
    """What the agent of that pid answers; None while it does not, or is not ready."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        said = json.loads((state / "run" / "agent").read_bytes())
        if said["pid"] == pid:
            request = urllib.request.Request(said["url"] + path, headers={"Authorization": f"Bearer {said['token']}"})
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.load(answer)
    return None


def recover(state: Path, count: int) -> tuple[float, float, float]:
    """Start an agent, and kill it once it is ready: seconds, CPU seconds and megabytes until then."""
    began_s = time.monotonic()
    with agent(state, ship=False) as process:
        while ask(state, process.pid, "/readyz") is None:
            if process.poll() is not None or time.monotonic() > began_s + PATIENCE_S:
                raise SystemExit("cannot measure: expected an agent that becomes ready")
            time.sleep(0.005)
        found = time.monotonic() - began_s, cpu_s(process.pid), rss_mb(process.pid)
        instances = ask(state, process.pid, "/v1/instances")
        process.kill()
        process.wait()
    if instances is None or len(open_of(instances)) != count:
        raise SystemExit(f"cannot measure: expected {count} instances in the books, got {str(instances)[:200]}")
    return found


def open_of(answer: object) -> list[object]:
    """The instances in an answer."""
    listed = answer["instances"] if isinstance(answer, dict) else answer
    assert isinstance(listed, list)
    return listed


def main() -> None:
    """Print the figures; exit with 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--open", type=int, default=500, help="so many instances run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="where such a ledger is already; it is copied")
    asked = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        state.mkdir()
        if asked.keep:
            shutil.copy(asked.keep, state / "ledger.db")
        else:
            write(state / "ledger.db", asked.records)
        with commands(asked.open) as pids, open_journals(state / "journal", pids):
            first_s, _, _ = recover(state, asked.open)
            took = [recover(state, asked.open) for _ in range(asked.rounds)]
    times = [seconds for seconds, _, _ in took]
    print(f"{asked.records:,} records, {asked.open:,} open instances; first start {first_s:.2f} s")
    print(f"ready after kill -9: median {statistics.median(times):.2f} s, at most {max(times):.2f} s (goal {GOAL_S:g})")
    print(f"CPU until then: median {statistics.median(cpu for _, cpu, _ in took):.2f} s; {took[-1][2]:.1f} MB")
    raise SystemExit(statistics.median(times) > GOAL_S)


if __name__ == "__main__":
    main()
