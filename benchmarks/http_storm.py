"""A storm at a real agent's HTTP door, seen from inside: how late its event loop is, what it holds, what it answers.

Clients who mean no good come all at once: some scrape without a pause, some connect and say nothing, some send what is
no HTTP, a header of a MiB, two lengths for one body, foreign hosts, guessed tokens, paths out of the root. Meanwhile
runs are booked. The loop is asked to wake after five milliseconds, again and again: what it is late is its lag, by the
clock, which counts whoever else shares the cores, and by the processor time that the loop's own thread took meanwhile.
Then the agent's memory, descriptors and series, before and after.

    python benchmarks/http_storm.py [--seconds 20] [--scrapers 2] [--silent 100]
"""

import argparse
import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from agent_throughput import FACTS_AT_START, RECORDS_PER_RUN, SETTINGS, rss_mb, wait_for, write_journals
from interpreter import describe

GOAL_S = 0.1
NAP_S = 0.005
RUNS = 2_000
LAGS = "BENCHMARK_LAGS"
#: The agent as it is, with somebody in its loop who looks at the clock.
WATCHED = f"""
import asyncio, json, os, sys, time
from taximeter.agent import service
from taximeter.cli import main
real, lags = service._main, []
async def watch():
    while True:
        began, used = time.monotonic(), time.thread_time()
        await asyncio.sleep({NAP_S})
        lags.append((began, time.monotonic() - began - {NAP_S}, time.thread_time() - used))
async def watched(*arguments):
    watching = asyncio.ensure_future(watch())
    try:
        await real(*arguments)
    finally:
        watching.cancel()
        with open(os.environ["{LAGS}"], "w") as file:
            json.dump(lags, file)
service._main = watched
sys.exit(main())
"""
WORST = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * (1 << 20),
    b"POST /v1/grants HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
    b"GET /v1/status HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer guessed\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /metrics HTT",
)


class Storm:
    """Whoever comes, and what they were answered."""

    def __init__(self, host: str, port: int, scrapers: int, silent: int) -> None:
        self.answers: Counter[str] = Counter()
        self._address = host, port
        self._silent = silent
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._scrape) for _ in range(scrapers)]
        self._threads.append(threading.Thread(target=self._insult))

    @contextlib.contextmanager
    def raging(self) -> Iterator[None]:
        """As long as this lasts."""
        silent = [socket.create_connection(self._address) for _ in range(self._silent)]
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()
            for connection in silent:
                connection.close()

    def _scrape(self) -> None:
        while not self._over.is_set():
            connection = http.client.HTTPConnection(*self._address, timeout=20)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
                while not self._over.is_set():
                    connection.request("GET", "/metrics")
                    answer = connection.getresponse()
                    answer.read()
                    self.answers[str(answer.status)] += 1

    def _insult(self) -> None:
        while not self._over.is_set():
            for text in WORST:
                with contextlib.suppress(OSError), socket.create_connection(self._address, timeout=0.1) as connection:
                    connection.sendall(text)
                    status = connection.recv(4096).split(b" ")[1:2]
                    self.answers[status[0].decode() if status else "closed"] += 1


@contextlib.contextmanager
def agent(state: Path, lags: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A real agent on `state`, which writes its lags at the end."""
    config = state / "agent.toml"
    config.write_text(f"{SETTINGS}[hardware]\nnvml = false\n")
    places = {"TAXIMETER_STATE_DIR": str(state), "TAXIMETER_RUN_DIR": str(state / "run"), LAGS: str(lags)}
    command = [sys.executable, "-c", WATCHED, "agent", "--config", str(config)]
    with subprocess.Popen(command, env={**os.environ, **places}, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def held(pid: int, host: str, port: int) -> tuple[float, int, int]:
    """Megabytes, descriptors and series."""
    connection = http.client.HTTPConnection(host, port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        series = sum(not line.startswith(b"#") for line in connection.getresponse().read().splitlines())
    return rss_mb(pid), len(os.listdir(f"/proc/{pid}/fd")), series


def percent(values: list[float], hundredths: int) -> float:
    return statistics.quantiles(values, n=100)[hundredths - 1]


def main() -> None:
    """Print the figures; exit with 1 where the loop itself was busy for longer than the goal."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--scrapers", type=int, default=2)
    parser.add_argument("--silent", type=int, default=100)
    asked = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        state, lags = Path(folder) / "state", Path(folder) / "lags"
        state.mkdir()
        with agent(state, lags) as process:
            wait_for(state, FACTS_AT_START)
            time.sleep(2)
            said = json.loads((state / "run" / "agent").read_bytes())
            host, _, port = said["url"].removeprefix("http://").partition(":")
            before, storm = held(process.pid, host, int(port)), Storm(host, int(port), asked.scrapers, asked.silent)
            began_s = time.monotonic()
            with storm.raging():
                write_journals(state / "journal", RUNS)
                wait_for(state, FACTS_AT_START + RUNS * RECORDS_PER_RUN)
                booked_s = time.monotonic() - began_s
                time.sleep(max(0.0, asked.seconds - booked_s))
                worst_mb, worst_fds = rss_mb(process.pid), len(os.listdir(f"/proc/{process.pid}/fd"))
            ended_s = time.monotonic()
            time.sleep(1)
            after = held(process.pid, host, int(port))
        told = [row for row in json.loads(lags.read_bytes()) if began_s <= row[0] <= ended_s]
    late, busy = [lag for _, lag, _ in told], [used for _, _, used in told]
    print(f"{asked.seconds:g} s, {sum(storm.answers.values()):,} answers: {dict(storm.answers.most_common())}")
    print(f"{RUNS:,} runs were booked meanwhile, in {booked_s:.1f} s")
    for name, values in (("late by the clock", late), ("busy, of its own processor time", busy)):
        print(
            f"loop {name:32} p50 {percent(values, 50) * 1e3:6.1f} ms   p99 {percent(values, 99) * 1e3:6.1f} ms   "
            f"at most {max(values) * 1e3:6.1f} ms"
        )
    print(f"memory {before[0]:.1f} MB before, {worst_mb:.1f} in the storm, {after[0]:.1f} after")
    print(f"descriptors {before[1]} before, {worst_fds} in the storm, {after[1]} after; series {before[2]}, {after[2]}")
    raise SystemExit(max(busy) > GOAL_S)


if __name__ == "__main__":
    main()
