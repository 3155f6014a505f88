"""How long predictions took: Cog's own `predict_time`, Taximeter's record, and the truth, of the same ones in one run.

A real Cog server serves the example under the meter. The truth of a prediction is what its `run` saw of
`CLOCK_MONOTONIC` when it began and ended; that of the server's process is the kernel's, by its tracepoints. Prints the
table of docs/cog.md; `--write-docs` puts it there.

    python benchmarks/cog_times.py [--quick] [--write-docs]        (root, for the kernel's word)
"""

import argparse
import contextlib
import importlib.metadata
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from cogs.server import CogServer, serving
from cogs.web import Web, webhooks
from interpreter import describe_kind
from timing.meters import KERNEL, Meter, program
from timing.tracing import Trace, Unavailable

PAGE = Path(__file__).parent.parent / "docs" / "cog.md"
BLOCK = re.compile(r"(<!-- printed: cog_times -->\n).*?(<!-- end -->)", re.DOTALL)
STAMPED = Path(__file__).parent / "cogs" / "stamped.py"
PROMPT, WINDOW = "Sir Walter Elliot ", 4096
TRACED = {"sched/sched_process_exec": 'filename ~ "*/python*"', "signal/signal_generate": "sig == 17"}
DOWNLOAD_S = 1.0
CANCEL_AFTER_S = 0.5
TOGETHER = ("together-1", "together-2", "together-3")


Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; times in nanoseconds, None where nobody says."""

    name: str
    cog_ns: float | None
    active_ns: int | None
    share_ns: int | None
    truth_ns: int | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run left behind."""

    cog_s: Mapping[str, float]  #: `predict_time` of each prediction, and of `setup` what the health check says
    stamps: Mapping[str, tuple[int, int]]
    records: Mapping[str, Mapping[str, Any]]  #: the last of each prediction; of the instance, as `server`
    process: tuple[int, int] | None  #: exec and end of the server, as the kernel saw them


def run(words: int) -> Seen:
    """Every kind of prediction once, on one server."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cog-times-")))
        meter = Meter(KERNEL, home / "state")
        stack.enter_context(meter.running())
        trace = stack.enter_context(kernel_trace())
        web = stack.enter_context(webhooks(PROMPT.encode(), DOWNLOAD_S))
        stamps = home / "stamps"
        environment = {**meter.environment, "STAMPS": str(stamps)}
        options = ("--on-term", "drain")
        server = stack.enter_context(serving(str(program()), environment, *options, predictor=STAMPED))
        cog_s = {**predicted(server, web, words), "setup": setup_s(server)}
        pid = server.server_pid()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait()
        lines = [json.loads(line) for line in stamps.read_text().splitlines()]
        records = booked(meter, len(lines))
        process = life_of(pid, trace.read()) if trace else None
    return Seen(cog_s, {name: (began, ended) for name, began, ended in lines}, records, process)


def predicted(server: CogServer, web: Web, words: int) -> dict[str, float]:
    """What Cog says of each prediction."""
    answers = [server.predict("alone", text=PROMPT, words=words)]
    with ThreadPoolExecutor() as clients:
        answers += clients.map(lambda name: server.predict(name, text=PROMPT, words=words), TOGETHER)
    answers.append(server.predict("download", document=web.url, words=words))
    answers.append(server.predict("failed", text="Walter " * (WINDOW - words), words=WINDOW))
    server.begin("canceled", webhook=web.url, text=PROMPT, words=WINDOW // 2)
    time.sleep(CANCEL_AFTER_S)
    server.ask("POST", "/predictions/canceled/cancel")
    patiently("Cog's last word of what was canceled", lambda: len(web.said) >= 2)
    answers.append(web.said[-1])
    unlike = [answer for answer in answers if "metrics" not in answer]
    if unlike:
        raise RuntimeError(f"cannot compare times: expected an answer with metrics to each prediction, got {unlike}")
    return {answer["id"]: answer["metrics"]["predict_time"] for answer in answers}


def setup_s(server: CogServer) -> float:
    """How long Cog says that setup took: two labels of the calendar."""
    setup = server.health()["setup"]
    began, done = (datetime.fromisoformat(setup[name]) for name in ("started_at", "completed_at"))
    return (done - began).total_seconds()


def booked(meter: Meter, count: int) -> dict[str, Mapping[str, Any]]:
    """The last records of the instance and of its predictions, once all are there."""

    def found() -> dict[str, Mapping[str, Any]]:
        words = [str(program()), "records", "--json"]
        done = subprocess.run(words, env=meter.environment, capture_output=True, text=True, check=True)
        datas = [json.loads(line)["data"] for line in done.stdout.splitlines()]
        last = {data.get("prediction") or "server": data for data in datas if data.get("final")}
        return last if len(last) >= count else {}

    return patiently("every record", found)


def patiently(what: str, look: Callable[[], Found], patience_s: float = 30.0) -> Found:
    """What `look` returns once that is something."""
    deadline_s = time.monotonic() + patience_s
    while not (found := look()):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"cannot go on: expected {what} within {patience_s:g} s")
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def kernel_trace() -> Iterator[Trace | None]:
    """The kernel's tracepoints, where they are to be had."""
    try:
        trace = Trace(TRACED)
    except Unavailable as error:
        print(f"without the kernel's word: {error}", file=sys.stderr)
        yield None
        return
    with trace:
        yield trace


def life_of(pid: int, trace: str) -> tuple[int, int]:
    """From the exec of a process to the SIGCHLD of its end, nanoseconds of CLOCK_MONOTONIC."""
    event = re.compile(
        rf"-(\d+) +\[\d+\] +\S+ +(\d+)\.(\d{{6}}): (?:sched_process_exec: .* pid={pid} |signal_generate: )"
    )
    found = [match for line in trace.splitlines() if (match := event.search(line)) and int(match[1]) == pid]
    began, ended = (int(match[2]) * 10**9 + int(match[3]) * 1000 for match in (found[0], found[-1]))
    return began, ended


def rows(seen: Seen) -> list[Row]:
    """The table's lines, in its order."""
    apart = [("alone", "alone"), *((name, f"one of three at once ({name[-1]})") for name in TOGETHER)]
    others = [("download", f"input downloaded in {DOWNLOAD_S:g} s"), ("failed", "fails"), ("canceled", "canceled")]
    found = [row(seen, name, title) for name, title in apart]
    found.append(together(found[1:], [seen.stamps[name] for name in TOGETHER]))
    found += [row(seen, name, title) for name, title in others]
    server = seen.records["server"]["time"]
    process_ns = seen.process and seen.process[1] - seen.process[0]
    setup_ns = seen.process and seen.stamps["setup"][1] - seen.process[0]
    found.append(Row("boot of the server", seen.cog_s["setup"] * 1e9, server["boot_ns"], None, setup_ns))
    found.append(Row("the server, from exec to end", None, server["wall_ns"], None, process_ns))
    return found


def row(seen: Seen, name: str, title: str) -> Row:
    """The line of one prediction."""
    began_ns, ended_ns = seen.stamps[name]
    spent = seen.records[name]["time"]
    return Row(title, seen.cog_s[name] * 1e9, spent["active_ns"], spent["share_ns"], ended_ns - began_ns)


def together(parts: Sequence[Row], stamps: Iterable[tuple[int, int]]) -> Row:
    """The line of several that overlap: sums, and in truth the time in which any of them ran."""
    busy_ns, until_ns = 0, 0
    for began_ns, ended_ns in sorted(stamps):
        busy_ns += max(0, ended_ns - max(began_ns, until_ns))
        until_ns = max(until_ns, ended_ns)
    cog_ns = sum(part.cog_ns or 0 for part in parts)
    active_ns, share_ns = sum(part.active_ns or 0 for part in parts), sum(part.share_ns or 0 for part in parts)
    return Row("these three, added up", cog_ns, active_ns, share_ns, busy_ns)


def table(found: Iterable[Row]) -> str:
    """Milliseconds, as Markdown."""
    head = ("ms", "Cog's `predict_time`", "our `active_ns`", "our `share_ns`", "the truth")
    lines = [head, ("---", *["---:"] * 4)]
    lines += [(one.name, *map(ms, (one.cog_ns, one.active_ns, one.share_ns, one.truth_ns))) for one in found]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ms(ns: float | None) -> str:
    """Milliseconds, or that nobody says."""
    return "–" if ns is None else f"{ns / 1e6:.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="few words, to see that everything works")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/cog.md")
    asked = parser.parse_args()
    text = f"{describe_kind()}; {cog_version()}.\n\n{table(rows(run(words=20 if asked.quick else 100)))}"
    print(text)
    if asked.write_docs:
        PAGE.write_text(BLOCK.sub(lambda block: f"{block[1]}\n{text}\n\n{block[2]}", PAGE.read_text()))
    return 0


def cog_version() -> str:
    """Which Cog is compared with."""
    return f"Cog {importlib.metadata.version('cog')}"


if __name__ == "__main__":
    sys.exit(main())
