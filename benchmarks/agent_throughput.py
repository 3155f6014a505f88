"""How many one-shot runs a second the agent books on one core, and what it costs in memory and idle.

Journals of real shape are written first; then a real agent, held to one core, reads, folds, rates, chains and commits
them (and ships them to its file sink, where --ship is given). Beside it, in the same run, the floor: a loop that reads,
decodes and removes the same journals and inserts as many records of the same size into a bare SQLite file with the same
durability (WAL, synchronous=FULL), in batches of 100, without lifecycle, prices, chain or state.

Each is told by the wall clock, from the first journal to the last commit, and by its own CPU time, until the journals
are removed: who shares the machine, and how long its disk takes to sync, is in the one and not in the other.

    python benchmarks/agent_throughput.py [--runs 10000] [--rounds 3] [--memory]
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import orjson
from interpreter import describe

from taximeter.ledger.reader import LedgerReader

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
RECORDS_PER_RUN = 2
FACTS_AT_START = 5
BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def clock(at_ns: int) -> dict[str, object]:
    realtime_ns = time.time_ns() - time.monotonic_ns() + at_ns
    return {"monotonic": at_ns, "boottime": at_ns, "raw": at_ns, "realtime": realtime_ns, "boot_id": BOOT_ID}


def journal_of(instance: str, at_ns: int, account: str) -> bytes:
    """A run of 1.8 s as the wrapper writes it: five facts."""
    options = {
        "worker": False, "model": "acme/sdxl", "version": "3f2a", "account": account, "class": None, "pool": None,
        "prediction": f"p-{instance}", "parent": None, "root": None, "labels": {}, "units": {}, "on_term": "canceled",
        "ready": "exec", "ready_timeout_ns": None,
    }  # fmt: skip
    usage = {"cpu_ns": 1_700_000_000, "rss_peak_bytes": 52_428_800}
    facts: list[dict[str, object]] = [
        {"f": "open", "t": at_ns, "instance": instance, "segment": 0, "argv": ["python3", "predict.py"],
         "options": options, "clock": clock(at_ns), "uid": os.geteuid(), "pid": 4710, "env": {}, "traceparent": None,
         "software": "benchmark"},
        {"f": "spawn", "t": at_ns + 700_000, "before": at_ns + 300_000, "pid": 4711, "start": 12345},
        {"f": "ready", "t": at_ns + 700_000, "by": "exec"},
        {"f": "heartbeat", "t": at_ns + 1_000_700_000, "clock": clock(at_ns + 1_000_700_000), "usage": usage},
        {"f": "exit", "t": at_ns + 1_800_700_000, "code": 0, "signal": None, "core": False,
         "clock": clock(at_ns + 1_800_700_000), "usage": usage, "error": None},
    ]  # fmt: skip
    return b"".join(json.dumps({"v": 1, **fact}).encode() + b"\n" for fact in facts)


def write_journals(directory: Path, count: int, first: int = 0) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    at_ns = time.monotonic_ns() - 10_000_000_000
    for number in range(first, first + count):
        instance = f"0198c2aa-0000-7000-8000-{number:012x}"
        (directory / f"{instance}.0.ndjson").write_bytes(journal_of(instance, at_ns + number, f"cus_{number % 50}"))


#: A journal goes once what it led to is sealed: soon, so that its removal is counted, too.
SETTINGS = '[listen]\naddress = "127.0.0.1:0"\n[ledger]\ncheckpoint_s = 1\n'


@contextlib.contextmanager
def agent(state: Path, *, ship: bool, more: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A real agent on `state`, held to one core; `more` are further tables of its settings."""
    state.mkdir(parents=True, exist_ok=True)
    config = state / "agent.toml"
    config.write_text(("" if ship else "sinks = []\n") + SETTINGS + more)
    environment = {**os.environ, "TAXIMETER_STATE_DIR": str(state), "TAXIMETER_RUN_DIR": str(state / "run")}
    code = "import sys; from taximeter.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "agent", "--config", str(config)],
        env=environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}),  # noqa: PLW1509 -- one thread
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def wait_for(state: Path, records: int) -> float:
    """Seconds (monotonic) at which the ledger was first seen with so many records."""
    path = state / "ledger.db"
    while not (state / "run" / "agent").exists() and not path.exists():
        time.sleep(0.01)
    while True:
        with contextlib.suppress(Exception), LedgerReader(path) as reader:
            while reader.head.seq < records:
                time.sleep(0.005)
            return time.monotonic()
        time.sleep(0.005)


def wait_until_removed(directory: Path) -> None:
    """Return once every journal is gone: the agent removes what is booked and shipped."""
    while any(name.endswith(".ndjson") for name in os.listdir(directory)):
        time.sleep(0.05)


def booked_per_s(runs: int, *, ship: bool) -> tuple[float, float]:
    """Runs a second by the wall clock, and by the agent's own CPU time; start-up is apart."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        with agent(state, ship=ship) as process:
            wait_for(state, FACTS_AT_START)
            time.sleep(1)
            spare = Path(folder) / "journal"
            write_journals(spare, runs)
            before_cpu_s, began_s = cpu_s(process.pid), time.monotonic()
            # The directory is not watched while it fills: they all are there at once, as after an outage.
            subprocess.run(
                ["find", str(spare), "-name", "*.ndjson", "-exec", "mv", "-t", str(state / "journal"), "{}", "+"],
                check=True,
            )
            ended_s = wait_for(state, FACTS_AT_START + runs * RECORDS_PER_RUN)
            wait_until_removed(state / "journal")
            used_s = cpu_s(process.pid) - before_cpu_s
        return runs / (ended_s - began_s), runs / used_s


def floor_per_s(runs: int) -> tuple[float, float]:
    """The bare loop, likewise."""
    with tempfile.TemporaryDirectory() as folder:
        journals = Path(folder) / "journal"
        write_journals(journals, runs)
        connection = apsw.Connection(str(Path(folder) / "bare.db"))
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, body BLOB)")
        body = b"x" * 1500
        began_s, before_cpu_s = time.monotonic(), time.process_time()
        names = os.listdir(journals)
        for start in range(0, len(names), 100):
            for name in names[start : start + 100]:
                content = (journals / name).read_bytes()
                for line in content.splitlines():
                    orjson.loads(line)
            with connection:
                count = len(names[start : start + 100]) * RECORDS_PER_RUN
                connection.executemany("INSERT INTO records (body) VALUES (?)", [(body,)] * count)
            for name in names[start : start + 100]:
                (journals / name).unlink()
        return runs / (time.monotonic() - began_s), runs / (time.process_time() - before_cpu_s)


def memory() -> None:
    """Idle, and after 100,000 records; and what idling costs."""
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        with agent(state, ship=True) as process:
            wait_for(state, FACTS_AT_START)
            time.sleep(3)
            idle_mb, before_s = rss_mb(process.pid), cpu_s(process.pid)
            time.sleep(20)
            share = (cpu_s(process.pid) - before_s) / 20
            print(f"idle: {idle_mb:.1f} MB, {share:.2%} of a core")
            for batch in range(10):
                write_journals(state / "journal", 5_000, batch * 5_000)
                wait_for(state, FACTS_AT_START + (batch + 1) * 10_000)
                print(f"after {(batch + 1) * 10_000:,} records: {rss_mb(process.pid):.1f} MB", flush=True)
            time.sleep(3)
            print(f"then, at rest: {rss_mb(process.pid):.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="also: memory idle and after 100,000 records")
    asked = parser.parse_args()
    print(describe())
    rows: dict[str, list[tuple[float, float]]] = {"agent": [], "agent, shipping too": [], "bare floor": []}
    for _ in range(asked.rounds):
        rows["agent"].append(booked_per_s(asked.runs, ship=False))
        rows["agent, shipping too"].append(booked_per_s(asked.runs, ship=True))
        rows["bare floor"].append(floor_per_s(asked.runs))
    print(f"{asked.runs:,} one-shot runs ({RECORDS_PER_RUN} records each), one core, {asked.rounds} rounds interleaved")
    for at, clock_name in enumerate(("runs a second", "runs a second of its CPU time")):
        floor = statistics.median(rates[at] for rates in rows["bare floor"])
        for name, pairs in rows.items():
            rates = [pair[at] for pair in pairs]
            median = statistics.median(rates)
            print(
                f"{name:20} {median:8,.0f} {clock_name:30}{median / floor:5.2f} x floor "
                f"  (min {min(rates):,.0f}, max {max(rates):,.0f})"
            )
    if asked.memory:
        memory()


if __name__ == "__main__":
    shutil.which("find") or sys.exit("needs find")
    main()
