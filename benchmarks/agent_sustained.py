"""An agent and a million records without a pause: journals, ledger, sink; its memory, and how long each of them waits.

Journals of real shape are put into a real agent's directory, so many at a time that a bounded number of runs is under
way; each is seen again as lines of the agent's file sink, which counts as delivered. The first of them, as many as may
be under way, wait for an agent that is held: its memory has then met the most that it meets later, whenever others take
its core. Told are the runs a second, the time from a journal's appearance to the last of its records in the sink, the
agent's memory as the records grow, and the bytes that ledger and sink take up for each. The agent is held to one core;
this process has the others.

    python benchmarks/agent_sustained.py [--records 1000000] [--under-way 1000]
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from agent_throughput import FACTS_AT_START, RECORDS_PER_RUN, agent, cpu_s, journal_of, rss_mb, wait_for
from interpreter import describe

#: Memory is compared with what it is after so many records.
FIRST = 10_000
GROWTH_GOAL = 1.1
PATIENCE_S = 120.0
#: What the kernel tells of processes is remembered of so many (16 MB), whoever starts them: not what is looked at here.
DEAF = "[witness]\nkernel = false\n"
_LAST_RECORD = re.compile(rb'"id":"([0-9a-f-]{36})-%08d"' % (RECORDS_PER_RUN - 1))


class Feeder:
    """Puts journals into the directory, and sees them again in the sink."""

    def __init__(self, state: Path) -> None:
        self.put = self.seen = 0
        self.lags_s: list[float] = []
        self._state = state
        self._spare = state / "spare"
        self._spare.mkdir()
        self._since_s: dict[bytes, float] = {}
        self._read_bytes = 0
        self._rest = b""

    @property
    def under_way(self) -> int:
        """How many runs are not in the sink yet."""
        return len(self._since_s)

    def feed(self, count: int) -> None:
        """Put so many more."""
        for _ in range(count):
            instance = f"0198c2cc-0000-7000-8000-{self.put:012x}"
            name = f"{instance}.0.ndjson"
            content = journal_of(instance, time.monotonic_ns() - 2_000_000_000, f"cus_{self.put % 50}")
            (self._spare / name).write_bytes(content)
            (self._spare / name).chmod(0o640)
            self._since_s[instance.encode()] = time.monotonic()
            (self._spare / name).rename(self._state / "journal" / name)
            self.put += 1

    def look(self) -> None:
        """Take in what is new in the sink."""
        with (self._state / "usage.ndjson").open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read()
        self._read_bytes += len(data)
        whole, _, self._rest = (self._rest + data).rpartition(b"\n")
        now_s = time.monotonic()
        for found in _LAST_RECORD.finditer(whole):
            since_s = self._since_s.pop(found[1], None)
            if since_s is not None:
                self.lags_s.append(now_s - since_s)
                self.seen += 1


def stages(records: int) -> Iterator[int]:
    """How many records there are to be when memory is looked at."""
    stage = FIRST
    while stage < records:
        yield from (one for one in (stage, 2 * stage, 5 * stage) if one < records)
        stage *= 10
    yield records


def sustained(process: "subprocess.Popen[bytes]", feeder: Feeder, runs: int, under_way: int) -> None:
    """Go on until so many runs are in the sink."""
    last_s = time.monotonic()
    while feeder.seen < runs:
        before = feeder.seen
        feeder.feed(min(under_way - feeder.under_way, runs - feeder.put, 100))
        feeder.look()
        if feeder.seen > before:
            last_s = time.monotonic()
        elif process.poll() is not None or time.monotonic() > last_s + PATIENCE_S:
            raise SystemExit(f"cannot measure: expected {runs:,} runs in the sink, got {feeder.seen:,}")
        else:
            time.sleep(0.002)


def main() -> None:
    """Print the figures; exit with 1 where memory grows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--under-way", type=int, default=1_000, help="so many runs wait at most")
    asked = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        with agent(state, ship=True, more=DEAF) as process:
            wait_for(state, FACTS_AT_START)
            time.sleep(1)
            feeder, memory_mb = Feeder(state), dict[int, float]()
            began_s, before_cpu_s = time.monotonic(), cpu_s(process.pid)
            process.send_signal(signal.SIGSTOP)
            feeder.feed(min(asked.under_way, asked.records // RECORDS_PER_RUN))
            process.send_signal(signal.SIGCONT)
            for records in stages(asked.records):
                sustained(process, feeder, records // RECORDS_PER_RUN, asked.under_way)
                memory_mb[records] = rss_mb(process.pid)
                print(f"after {records:,} records: {memory_mb[records]:.1f} MB", flush=True)
            took_s, used_s = time.monotonic() - began_s, cpu_s(process.pid) - before_cpu_s
        sizes = {name: os.stat(state / name).st_size / asked.records for name in ("ledger.db", "usage.ndjson")}
    made = f"{feeder.seen:,} runs, {asked.records:,} records in {took_s:,.0f} s"
    print(f"{made}: {feeder.seen / took_s:,.0f} runs a second, {feeder.seen / used_s:,.0f} a second of the agent's CPU")
    p99_s = statistics.quantiles(feeder.lags_s, n=100)[98]
    print(
        f"from journal to sink, with {asked.under_way:,} under way: median {statistics.median(feeder.lags_s):.2f} s, "
        f"p99 {p99_s:.2f} s, at most {max(feeder.lags_s):.2f} s"
    )
    print(f"bytes a record: ledger {sizes['ledger.db']:,.0f}, sink {sizes['usage.ndjson']:,.0f}")
    growth = memory_mb[asked.records] / memory_mb[min(memory_mb)]
    print(f"memory: {growth:.2f} of what it is after {min(memory_mb):,} records (goal: at most {GROWTH_GOAL:g})")
    raise SystemExit(growth > GROWTH_GOAL)


if __name__ == "__main__":
    main()
