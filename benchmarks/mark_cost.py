"""What metering one prediction costs a worker: start and finish, in microseconds, cold and hot, beside other ways.

All run in one process under `taximeter run --worker`, whose wrapper really reads the marks, in interleaved rounds and
an order that changes: cold is once after a pause, as in a worker that was busy with something else; hot is one of many
in a row.

| row | is |
| --- | --- |
| two bare writes | the bytes that taximeter.client says, written into the same FIFO, one after the other: the floor |
| ..., apart | the same with half of what the client takes in between, uncounted: who reads may sleep again by then |
| ..., in a block | these from a `with` block that reads the clock for each, and is the current one of its context |
| taximeter.client | `with client.prediction(model=..., account=...)`, with an id made for it |
| ..., id given | the same with an id that came with the request |
| ..., traced | the same with that, and the W3C traceparent that came with it |
| ..., no meter | the same in a process that is not wrapped |
| Histogram | prometheus_client's `histogram.labels(...).time()`: no ids, no accounts, nothing leaves the process |
| OpenTelemetry | a span with two attributes, BatchSpanProcessor, an exporter that throws away |
| HTTP POST | http.client, one kept-alive connection to a server on this machine, that answers 204 |
| openmeter | the openmeter SDK's `events.ingest_event` with the same server |

OpenTelemetry and openmeter are no dependencies: they are installed into a temporary folder (--packages DIR: are there,
or are kept there; --no-packages: these rows are left out).

    python benchmarks/mark_cost.py [--rounds 300]
"""

import argparse
import contextlib
import datetime as dt
import http.client
import http.server
import importlib.metadata
import json
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from interpreter import describe

from taximeter import client
from taximeter.client import marks, outlet

#: What is measured; it may say how many nanoseconds of it are not to be counted.
Once = Callable[[], int | None]

PEERS = ("opentelemetry-sdk", "openmeter==1.0.0b236")
WRITES, APART, BLOCK, CLIENT, GIVEN, TRACED, NONE = (
    "two bare writes",
    "two bare writes, apart",
    "two bare writes, in a block",
    "taximeter.client",
    "taximeter.client, id given",
    "taximeter.client, traced",
    "taximeter.client, no meter",
)
HISTOGRAM, OTEL, POST, OPENMETER = "Histogram", "OpenTelemetry", "HTTP POST", "openmeter"
PAUSE_S = 0.005
HOT = 30
WARM_UP = 5
MODEL, ACCOUNT, ID = "acme/sdxl", "cus_7", "01a21551-d1a5-73c5-8509-12d1e3d8b69a"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
#: Cold medians: at most this part of what the other takes.
GOALS = {OTEL: 1 / 4, OPENMETER: 1 / 50, WRITES: 2.0}


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes whatever is posted and answers 204."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # type: ignore[explicit-override] # noqa: A002
        pass


@contextlib.contextmanager
def receiver() -> Iterator[int]:
    """The port of a receiver in a process of its own."""
    code = "import mark_cost; mark_cost.receive()"
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def receive() -> None:
    """Be that process."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    print(server.server_port, flush=True)
    server.serve_forever()


class Block:
    """The least that a block can do which tells when it was entered and left, and is found by what runs in it."""

    __slots__ = ("_ends", "_fifo", "_starts", "_token")
    current: ContextVar["Block | None"] = ContextVar("current", default=None)

    def __init__(self, fifo: int, starts: bytes, ends: bytes) -> None:
        self._fifo, self._starts, self._ends = fifo, starts, ends

    def __enter__(self) -> None:
        os.write(self._fifo, self._starts % time.monotonic_ns())
        self._token = self.current.set(self)

    def __exit__(self, *_: object) -> None:
        self.current.reset(self._token)
        os.write(self._fifo, self._ends % time.monotonic_ns())


def ours() -> dict[str, Once]:
    """The rows of this project, and their floor."""
    fifo = os.open(os.environ["TAXIMETER_MARKS"], os.O_RDWR | os.O_NONBLOCK)
    now_ns, name = time.perf_counter_ns, b'"%b"' % ID.encode()
    head, _ = marks.head((marks.GIVEN, MODEL, None, None, None, ACCOUNT, None), os.getpid(), name)
    start = head % (name, b"", time.monotonic_ns())
    finish = marks.FINISH % (name, b"succeeded", time.monotonic_ns())
    write = os.write
    block = Block(fifo, head % (name, b"", 0), marks.FINISH % (name, b"succeeded", 0))
    block._starts, block._ends = (line.replace(b'"at":0', b'"at":%d') for line in (block._starts, block._ends))

    def bare() -> None:
        write(fifo, start)
        write(fifo, finish)

    def apart() -> int:
        write(fifo, start)
        began = now_ns()
        while now_ns() < began + gap_ns:
            pass
        between_ns = now_ns() - began
        write(fifo, finish)
        return between_ns

    def in_block() -> None:
        with block:
            pass

    def made() -> None:
        with client.prediction(model=MODEL, account=ACCOUNT):
            pass

    def given() -> None:
        with client.prediction(ID, model=MODEL, account=ACCOUNT):
            pass

    def traced() -> None:
        with client.prediction(ID, model=MODEL, account=ACCOUNT, traceparent=TRACEPARENT):
            pass

    gap_ns = statistics.median(measure({CLIENT: made}, 20)[CLIENT]["cold"]) / 2
    return {WRITES: bare, APART: apart, BLOCK: in_block, CLIENT: made, GIVEN: given, TRACED: traced}


def no_meter() -> Once:
    """As in a process that nobody wraps."""

    def nothing() -> None:
        outlet.OUTLET.off = True
        try:
            with client.prediction(model=MODEL, account=ACCOUNT):
                pass
        finally:
            outlet.OUTLET.off = False

    return nothing


def histogram() -> Once:
    """prometheus_client, as its documentation shows it."""
    from prometheus_client import CollectorRegistry, Histogram

    seconds = Histogram("prediction_seconds", "Duration.", ["model"], registry=CollectorRegistry())

    def timed() -> None:
        with seconds.labels(MODEL).time():
            pass

    return timed


def span() -> Once:
    """An OpenTelemetry span that is batched and thrown away."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):  # type: ignore[misc, unused-ignore]
        def export(self, spans: Any) -> Any:  # noqa: ARG002
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    tracer = provider.get_tracer("worker")

    def traced() -> None:
        with tracer.start_as_current_span("prediction", attributes={"model": MODEL, "account": ACCOUNT}):
            pass

    return traced


def post(port: int) -> Once:
    """One POST of a small JSON, on a connection that is kept."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": "application/json"}

    def posted() -> None:
        body = json.dumps(
            {"prediction": client.prediction().id, "model": MODEL, "account": ACCOUNT, "status": "succeeded"}
        )
        connection.request("POST", "/", body, headers)
        connection.getresponse().read()

    return posted


def ingest(port: int) -> Once:
    """The openmeter SDK, as its documentation shows it."""
    from openmeter import Client
    from openmeter.models import Event

    meter = Client(endpoint=f"http://127.0.0.1:{port}", token="token")

    def ingested() -> None:
        event = Event(
            id=client.prediction().id,
            source="worker",
            specversion="1.0",
            type="prediction",
            subject=ACCOUNT,
            time=dt.datetime.now(dt.UTC),
            data={"model": MODEL, "status": "succeeded"},
        )
        meter.events.ingest_event(event)

    return ingested


def measure(rows: dict[str, Once], rounds: int) -> dict[str, dict[str, list[int]]]:
    """Nanoseconds of every row, cold and hot, sorted."""
    took: dict[str, dict[str, list[int]]] = {name: {"cold": [], "hot": []} for name in rows}
    order, dice, now = list(rows), random.Random(0), time.perf_counter_ns
    for number in range(WARM_UP + rounds):
        dice.shuffle(order)
        for name in order:
            once = rows[name]
            time.sleep(PAUSE_S)
            before = now()
            besides = once()
            cold = now() - before - (besides or 0)
            hot = []
            for _ in range(HOT if number % 5 == 0 else 0):
                before = now()
                besides = once()
                hot.append(now() - before - (besides or 0))
            if number >= WARM_UP:
                took[name]["cold"].append(cold)
                took[name]["hot"] += hot[5:]
    return {name: {kind: sorted(values) for kind, values in both.items()} for name, both in took.items()}


def inside(port: int, rounds: int, peers: bool) -> None:
    """Be the worker: measure, and print what it took."""
    rows = {**ours(), NONE: no_meter(), HISTOGRAM: histogram(), POST: post(port)}
    if peers:
        rows |= {OTEL: span(), OPENMETER: ingest(port)}
    took = measure(rows, rounds)
    assert client.dropped() == 0, "the FIFO was full: what is measured is not what was meant"
    print(json.dumps(took))


def import_ms() -> float:
    """Milliseconds of importing the client, in an interpreter that has os and time: the least of some."""
    code = "import os, time\nat = time.perf_counter_ns()\nimport taximeter.client\nprint(time.perf_counter_ns() - at)"
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    argv = [sys.executable, "-c", code]
    return (
        min(int(subprocess.run(argv, env=compiled, stdout=subprocess.PIPE, check=True).stdout) for _ in range(15)) / 1e6
    )


def install(packages: Path) -> bool:
    """Put the peers there, if they are not; whether they are."""
    if not (packages / "openmeter").is_dir():
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--target",
            str(packages),
        ]
        done = subprocess.run([*pip, "--target", str(packages), *PEERS], check=False)
        if done.returncode != 0:
            print(f"left out: cannot install {', '.join(PEERS)}: expected a package index, or --packages DIR\n")
            return False
    return True


def run(rounds: int, packages: Path | None) -> dict[str, dict[str, list[int]]]:
    """What the worker measured, under a real wrapper."""
    program = os.environ.get("TAXIMETER_BIN") or Path(sysconfig.get_path("scripts")) / "taximeter"
    paths = [str(packages)] if packages else []
    with tempfile.TemporaryDirectory() as state, receiver() as port:
        words = [sys.executable, __file__, "--inside", str(port), "--rounds", str(rounds)]
        done = subprocess.run(
            [program, "run", "--worker", "--", *words, *(["--packages", *paths] if paths else [])],
            env=os.environ | {"TAXIMETER_STATE_DIR": state, "PYTHONPATH": os.pathsep.join([*paths, *sys.path[1:]])},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    took: dict[str, dict[str, list[int]]] = json.loads(done.stdout)
    return took


def report(took: dict[str, dict[str, list[int]]]) -> None:
    """Print the table, and which goals are met."""
    print("| one prediction, µs | cold median | cold p99 | hot median | hot p99 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    median = {}
    for name, both in took.items():
        cells = [values[len(values) * part // 100] / 1000 for values in both.values() for part in (50, 99)]
        median[name] = (cells[0], cells[2])
        print(f"| {name} | {cells[0]:.0f} | {cells[1]:.0f} | {cells[2]:.1f} | {cells[3]:.1f} |")
    print(f"\n`{CLIENT}`, of what the other takes (cold median; hot beside it):")
    for name, goal in GOALS.items():
        if name in median:
            cold, hot = (median[CLIENT][kind] / median[name][kind] for kind in (0, 1))
            verdict = "met" if cold <= goal else "NOT met"
            print(f"- {name}: {cold:.3f} cold, {hot:.3f} hot; goal at most {goal:.3f}: {verdict}")
    for name in (APART, BLOCK):
        cold, hot = (median[CLIENT][kind] / median[name][kind] for kind in (0, 1))
        print(f"- {name}: {cold:.3f} cold, {hot:.3f} hot")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--packages", type=Path, help="where the peers are, or are to be kept")
    parser.add_argument("--no-packages", action="store_true", help="leave out what would have to be installed")
    parser.add_argument("--inside", type=int, metavar="PORT", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.inside is not None:
        inside(said.inside, said.rounds, said.packages is not None)
        return
    with tempfile.TemporaryDirectory() as temporary:
        packages = None if said.no_packages else said.packages or Path(temporary)
        if packages and not install(packages):
            packages = None
        print(f"{describe()}; {said.rounds} interleaved rounds, {PAUSE_S * 1000:g} ms of pause; {versions(packages)}\n")
        report(run(said.rounds, packages))
        took_ms = import_ms()
        print(f"- to import it takes {took_ms:.2f} ms; goal at most 2: {'met' if took_ms <= 2 else 'NOT met'}")


def versions(packages: Path | None) -> str:
    """Which releases are compared."""
    found = {"prometheus-client": importlib.metadata.version("prometheus-client")}
    for made in importlib.metadata.distributions(path=[str(packages)]) if packages else ():
        if made.name in ("opentelemetry-sdk", "openmeter"):
            found[made.name] = made.version
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items()))


if __name__ == "__main__":
    main()
