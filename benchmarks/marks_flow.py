"""What a worker's marks cost on their way into the ledger, and how long they take: a real wrapper, a real agent.

1. A worker begins and finishes so many predictions a second, several at once, for a minute: processor time of wrapper
   and agent, their memory after ten seconds and at the end, and the lag from the finish to the committed record. The
   worker says with each finish when that was (`at`), and the record repeats it (`end_ns`); when it was committed is
   seen by a reader that asks the ledger for its head every few milliseconds: rather too late than too early.
2. A worker writes so many marks a second for twenty seconds: none may be lost on the way into the journal.

The worker is a loop of Python that writes prepared bytes; it waits by the clock, and says how often the FIFO was full.
It exits with 1 if a goal is missed.

    python benchmarks/marks_flow.py [--seconds 60] [--rate 1000] [--flood-seconds 20] [--flood-rate 10000]
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from interpreter import describe
from wrapper_cost import program

from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.records import RecordType

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LOOK_S = 0.002
LAG_GOAL_MS, FLAT_MB = 250, 2.0
WORKER = """
import os, sys, time
rate, seconds, at_once = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
fd = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR | os.O_NONBLOCK)
start = (b'{"mark":"start","prediction":"%08d-7f3c","model":"acme/sdxl-lora","version":"3f2a9c","account":"cus_%d",'
         b'"attributes":{"resolution":"1080p"},"pid":%d,"at":%d}\\n')
finish = (b'{"mark":"finish","prediction":"%08d-7f3c","status":"succeeded","units":{"image":2,"token_output":1280},'
          b'"at":%d}\\n')
pid, full, begun, now = os.getpid(), 0, 0, time.monotonic_ns
def say(mark):
    global full
    while True:
        try:
            return os.write(fd, mark)
        except BlockingIOError:
            full += 1
            time.sleep(0.001)
began = now()
count = int(rate * seconds)
for n in range(count + at_once):
    due = began + n * 1_000_000_000 // rate
    while (wait := due - now()) > 0:
        time.sleep(wait / 1e9)
    if n < count:
        say(start % (n, n % 50, pid, now()))
    if n >= at_once:
        say(finish % (n - at_once, now()))
print(count, full, (now() - began) / 1e9)
"""


class Used(NamedTuple):
    """What a process had used at one moment."""

    at_s: float
    cpu_s: float
    rss_mb: float


class Outcome(NamedTuple):
    """What one run of the worker led to."""

    said: int  #: predictions that were begun and finished
    full: int
    took_s: float
    wrapper: list[Used]
    agent: list[Used]
    lags_ms: list[float]
    marks: int  #: in the journal
    records: int
    agent_us: float  #: its processor time for a prediction, shipping and catching up included


def used(pid: int) -> Used:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    rss_mb = int(status.partition("VmRSS:")[2].split()[0]) / 1000
    return Used(time.monotonic(), (int(fields[11]) + int(fields[12])) / TICKS_PER_S, rss_mb)


@contextlib.contextmanager
def agent(state: Path) -> Iterator[int]:
    """A real agent on `state`, as it is configured by default but for its port; gives its pid."""
    state.mkdir(parents=True, exist_ok=True)
    config = state / "agent.toml"
    config.write_text('[listen]\naddress = "127.0.0.1:0"\n')
    with (state / "agent.log").open("wb") as log:
        process = subprocess.Popen([str(program()), "agent", "--config", str(config)], stderr=log)
    try:
        while not (state / "run" / "agent").exists():
            time.sleep(0.01)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def watch(ledger: Path, seen: list[tuple[int, int]], stop: threading.Event) -> None:
    """Note when the ledger's head has grown (CLOCK_MONOTONIC, ns), and to which number."""
    with LedgerReader(ledger) as reader:
        while not stop.wait(LOOK_S):
            seq = reader.head.seq
            if not seen or seq != seen[-1][1]:
                seen.append((time.monotonic_ns(), seq))


def lags_ms(seen: list[tuple[int, int]], ends: list[tuple[int, int]]) -> list[float]:
    """From each end (seq, ns) to when a head at least as high was first seen."""
    found, at = [], 0
    for seq, end_ns in ends:
        while seen[at][1] < seq:
            at += 1
        found.append((seen[at][0] - end_ns) / 1e6)
    return sorted(found)


def finals(ledger: Path) -> list[tuple[int, int]]:
    """The number and the end of every prediction's last record."""
    with LedgerReader(ledger) as reader:
        bodies = (json.loads(body)["data"] for body in reader.records(RecordFilter(type=RecordType.PREDICTION)))
        return [(data["ledger"]["seq"], data["interval"]["end_ns"]) for data in bodies if data["final"]]


def measure(rate: int, seconds: float, at_once: int) -> Outcome:
    """A worker under a wrapper beside an agent; all that is to be known of it."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        os.environ["TAXIMETER_STATE_DIR"], os.environ["TAXIMETER_RUN_DIR"] = str(state), str(state / "run")
        with agent(state) as agent_pid:
            time.sleep(1)
            idle = used(agent_pid)
            seen: list[tuple[int, int]] = []
            stop = threading.Event()
            onlooker = threading.Thread(target=watch, args=(state / "ledger.db", seen, stop), daemon=True)
            onlooker.start()
            words = [str(program()), "run", "--worker", "--", sys.executable, "-c", WORKER]
            words += [str(rate), str(seconds), str(at_once)]
            with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as wrapper:
                looks = look(wrapper, agent_pid)
                assert wrapper.stdout is not None
                count, full, took_s = wrapper.stdout.read().split()
            keep = list((state / "journal").glob("*.ndjson"))  # they go once the sinks have all of it
            marks = sum(path.read_bytes().count(b'"f":"mark"') for path in keep)
            ends = wait_for(state / "ledger.db", int(count))
            stop.set()
            onlooker.join()
            agent_us = 1e6 * (used(agent_pid).cpu_s - idle.cpu_s) / max(1, len(ends))
        return Outcome(int(count), int(full), float(took_s), *looks, lags_ms(seen, ends), marks, len(ends), agent_us)


def look(wrapper: "subprocess.Popen[str]", agent_pid: int) -> tuple[list[Used], list[Used]]:
    """What both had used each second, as long as the wrapper lived."""
    of_wrapper, of_agent = [], []
    while wrapper.poll() is None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError):
            of_wrapper.append(used(wrapper.pid))
            of_agent.append(used(agent_pid))
        with contextlib.suppress(subprocess.TimeoutExpired):
            wrapper.wait(1)
    return of_wrapper, of_agent


def wait_for(ledger: Path, count: int) -> list[tuple[int, int]]:
    """The ends, once as many are in the ledger as there should be, or none has come for some seconds."""
    before, quiet_s = -1, time.monotonic()
    while time.monotonic() - quiet_s < 10:
        with LedgerReader(ledger) as reader:
            seq = reader.head.seq
        if seq != before:
            before, quiet_s = seq, time.monotonic()
        if seq > count and len(ends := finals(ledger)) >= count:
            return ends
        time.sleep(0.5)
    return finals(ledger)


def of_a_core(looks: list[Used]) -> float:
    """Part of a core, between the first look after a second and the last."""
    first, last = looks[1], looks[-1]
    return (last.cpu_s - first.cpu_s) / (last.at_s - first.at_s)


def memory(looks: list[Used]) -> tuple[float, float]:
    """Megabytes after ten seconds (of a short run: in the middle), and at the end."""
    early = looks[min(10, len(looks) // 2)]
    return early.rss_mb, looks[-1].rss_mb


def tell(title: str, outcome: Outcome) -> None:
    print(f"\n{title}: {outcome.said:,} predictions in {outcome.took_s:.1f} s; the FIFO was full {outcome.full} times")
    for name, looks in (("wrapper", outcome.wrapper), ("agent", outcome.agent)):
        early_mb, late_mb = memory(looks)
        print(f"  {name:8}{of_a_core(looks):7.1%} of a core   {early_mb:6.1f} MB early, {late_mb:6.1f} MB at the end")
    lags = outcome.lags_ms
    if lags:
        p50, p99 = lags[len(lags) // 2], lags[len(lags) * 99 // 100]
        print(f"  from finish to committed record: p50 {p50:.1f} ms, p99 {p99:.1f} ms, at most {lags[-1]:.1f} ms")
    print(f"  the agent took {outcome.agent_us:.0f} µs of processor time for a prediction")
    sent = 2 * outcome.said
    print(f"  marks sent {sent:,}, in the journal {outcome.marks:,}; predictions in the ledger {outcome.records:,}")


def goals(paced: Outcome, flood: Outcome | None) -> Iterator[tuple[str, bool]]:
    p99 = paced.lags_ms[len(paced.lags_ms) * 99 // 100]
    yield f"p99 from finish to committed record under {LAG_GOAL_MS} ms", p99 < LAG_GOAL_MS
    for name, looks in (("wrapper", paced.wrapper), ("agent", paced.agent)):
        early_mb, late_mb = memory(looks)
        yield f"the {name}'s memory grows by less than {FLAT_MB:g} MB", late_mb - early_mb < FLAT_MB
    for outcome in (paced, flood) if flood else (paced,):
        yield "no mark is lost", outcome.marks == 2 * outcome.said and outcome.records == outcome.said
    if flood:
        yield "the FIFO never was full", not flood.full


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=int, default=1_000, help="predictions a second")
    parser.add_argument("--at-once", type=int, default=20, help="predictions that are open together")
    parser.add_argument("--flood-seconds", type=float, default=20, help="0: no flood")
    parser.add_argument("--flood-rate", type=int, default=10_000, help="marks a second")
    asked = parser.parse_args()
    print(describe())
    paced = measure(asked.rate, asked.seconds, asked.at_once)
    tell(f"{asked.rate:,} predictions a second", paced)
    flood = None
    if asked.flood_seconds:
        flood = measure(asked.flood_rate // 2, asked.flood_seconds, asked.at_once)
        tell(f"{asked.flood_rate:,} marks a second", flood)
    print()
    met = list(goals(paced, flood))
    for goal, holds in met:
        print(f"  {'met   ' if holds else 'MISSED'} {goal}")
    sys.exit(0 if all(holds for _, holds in met) else 1)


if __name__ == "__main__":
    main()
