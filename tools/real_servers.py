"""What the records say of requests to LitServe, BentoML, Ray Serve and vLLM, each of them run for real under the meter.

Each server is installed into an environment of its own in a temporary folder (`--environments DIR`: kept there, and
used if it is there). An agent runs beside it; every server is asked for an answer, a stream, an error and a stream
whose client leaves, several of each at once, and is stopped with a request open. Prints a line for each; exits 1 where
one is not as docs/metering-servers.md has it.

    python tools/real_servers.py [litserve] [bentoml] [ray] [vllm]        (all but vllm, which takes 10 GB)

Of vLLM it is the API server, with its own `--middleware`, over an answer from memory: its engine wants a device.
"""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parent.parent
APPS = Path(__file__).parent / "servers"
PROGRAM = Path(sys.executable).parent / "taximeter"
PATIENCE_S = 120.0
WORDS, LONG = 20, 400  #: a word takes 10 ms
AT_ONCE = 3
LARGE = "vllm"
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Kind:
    """A server: what is installed for it, how it is started and stopped, and what of it is unlike the others."""

    packages: tuple[str, ...]
    words: tuple[str, ...]  #: behind its Python; PORT is the port
    ready: str
    stop: signal.Signals
    counts_streams: bool  #: whether its streams say that they are events, in whose last one the Meter looks for counts
    stopped: tuple[str, ...]  #: what a request may end as that is open when the server is stopped
    completes: bool = False  #: it is asked as OpenAI's API is


KINDS: Mapping[str, Kind] = {
    "litserve": Kind(
        ("litserve==0.2.19",),
        (str(APPS / "litserve_app.py"), "PORT"),
        "/health",
        signal.SIGINT,  # of a SIGTERM its workers hear nothing
        False,
        ("succeeded",),
    ),
    "bentoml": Kind(
        ("bentoml==1.4.40",),
        ("-m", "bentoml", "serve", "bentoml_app:Words", "--host", "127.0.0.1", "--port", "PORT"),
        "/readyz",
        signal.SIGTERM,
        True,
        ("succeeded",),
    ),
    "ray": Kind(
        ("ray[serve]==2.60.0",),
        (str(APPS / "ray_app.py"), "PORT"),
        "/-/healthz",
        signal.SIGTERM,
        True,
        ("aborted",),  # its replicas are killed
    ),
    "vllm": Kind(
        ("vllm==0.33.0",),
        (str(APPS / "vllm_app.py"), "PORT"),
        "/health",
        signal.SIGTERM,
        True,
        ("succeeded",),
        completes=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Expected:
    """How a request is to end, and with which counts; None: whatever they are."""

    statuses: tuple[str, ...]
    units: Mapping[str, str] | None


def installed(name: str, kind: Kind, where: Path) -> Path:
    """The Python of an environment with that server, and with this project's wheel."""
    python = where / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", where / name], check=True)
        pip(python, *kind.packages)
    (wheel,) = (ROOT / "dist").glob("taximeter-*.whl")
    pip(python, "--force-reinstall", "--no-deps", str(wheel))
    return python


def pip(python: Path, *packages: str) -> None:
    """Install into an environment."""
    words = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *packages]
    if subprocess.run(words, check=False).returncode != 0:
        raise SystemExit(f"cannot install {', '.join(packages)}: expected a package index")


@contextlib.contextmanager
def agent(environment: Mapping[str, str]) -> Iterator[None]:
    """An agent of its own, ready."""
    state = Path(environment["TAXIMETER_STATE_DIR"])
    state.mkdir()
    config = state / "agent.toml"
    config.write_text('sinks = []\n[listen]\naddress = "127.0.0.1:0"\n')
    with (state / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "agent", "--config", config], env=environment, stdout=log, stderr=log)
    try:
        patiently("an agent", (state / "run" / "agent").exists)
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def serving(python: Path, kind: Kind, port: int, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The server, ready, under `taximeter run`; whatever lives of it at the end is killed."""
    command = [str(python), *(str(port) if word == "PORT" else word for word in kind.words)]
    ready = f"http://127.0.0.1:{port}{kind.ready}"
    words = [
        str(PROGRAM),
        "run",
        "--worker",
        "--model",
        "words",
        "--ready",
        ready,
        "--on-term",
        "drain",
        "--",
        *command,
    ]
    path = f"{python.parent}:{environment['PATH']}"
    with (Path(environment["TAXIMETER_STATE_DIR"]) / "server").open("wb") as log:
        process = subprocess.Popen(
            words, env={**environment, "PATH": path}, cwd=APPS, stdout=log, stderr=log, start_new_session=True
        )
    try:
        patiently("a server that is ready", lambda: is_ready(port, kind.ready))
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_ready(port: int, path: str) -> bool:
    """Whether its health check says so."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def request_of(kind: Kind, path: str, words: int) -> tuple[str, dict[str, Any]]:
    """Where a server is asked for that, and how; for -1 words it fails."""
    if not kind.completes:
        return path, {"words": words}
    prompt = "error" if words < 0 else "She was"
    body = {"model": "words", "prompt": prompt, "max_tokens": max(1, words), "stream": path == "/stream"}
    return "/v1/completions", body


def ask(port: int, asking: tuple[str, dict[str, Any]], prediction: str, leave_after: int | None = None) -> int:
    """One request, read to its end, or left after so many bytes; its status, 0 where the server hung up."""
    path, body = asking
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    headers = {
        "content-type": "application/json",
        "taximeter-prediction": prediction,
        "taximeter-account": "cus_of_" + prediction.partition("-")[0],
    }
    try:
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read(leave_after) if leave_after else answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    else:
        return answer.status
    finally:
        connection.close()


def asked(port: int, kind: Kind) -> dict[str, Expected]:
    """Ask for one of everything, several at once; how each is to end."""
    told = {"token_input": "2", "token_output": str(WORDS)}
    streamed = told if kind.counts_streams else {}
    expected: dict[str, Expected] = {}
    with ThreadPoolExecutor(4 * AT_ONCE) as clients:
        for number in range(AT_ONCE):
            for name, path, words, leave_after, means in (
                ("plain", "/predict", WORDS, None, Expected(("succeeded",), told)),
                ("stream", "/stream", WORDS, None, Expected(("succeeded",), streamed)),
                ("error", "/predict", -1, None, Expected(("failed",), {})),
                ("gone", "/stream", LONG, 20, Expected(("canceled",), None)),
            ):
                expected[f"{name}-{number}"] = means
                clients.submit(ask, port, request_of(kind, path, words), f"{name}-{number}", leave_after)
    return expected


def records(environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The last record of each prediction, and of the instance as `instance`."""
    words = [str(PROGRAM), "records", "--json"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    datas = [json.loads(line)["data"] for line in done.stdout.splitlines()]
    return {data["prediction"] or "instance": data for data in datas if data.get("final")}


def patiently(what: str, look: Callable[[], _Found]) -> _Found:
    """What `look` returns once that is something."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (found := look()):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"cannot go on: expected {what} within {PATIENCE_S:g} s")
        time.sleep(0.1)
    return found


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def tried(name: str, environments: Path) -> bool:
    """Run one server, print what its records say, and whether it is all as it should be."""
    kind, port = KINDS[name], free_port()
    python = installed(name, kind, environments)
    with tempfile.TemporaryDirectory(prefix="real-servers-") as folder:
        state = Path(folder) / "state"
        others = {key: value for key, value in os.environ.items() if not key.startswith("TAXIMETER_")}
        environment = {**others, "TAXIMETER_STATE_DIR": str(state), "TAXIMETER_RUN_DIR": str(state / "run")}
        with agent(environment):
            with serving(python, kind, port, environment) as server, ThreadPoolExecutor(1) as last:
                expected = asked(port, kind)
                patiently("a record of each", lambda: expected.keys() <= records(environment).keys())
                expected["stopped-0"] = Expected(kind.stopped, None)
                open_one = last.submit(ask, port, request_of(kind, "/stream", LONG), "stopped-0")
                time.sleep(0.5)
                server.send_signal(kind.stop)
                open_one.result()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(PATIENCE_S)
            found = patiently("the server's record", lambda: (made := records(environment)).get("instance") and made)
    return report(name, expected, found or {})


def report(name: str, expected: Mapping[str, Expected], found: Mapping[str, Mapping[str, Any]]) -> bool:
    """Print a line for each prediction; whether all of them are as expected."""
    sound = True
    for prediction, means in expected.items():
        data = found.get(prediction, {})
        units = data.get("units")
        fits = data.get("status") in means.statuses and (means.units is None or units == means.units)
        fits = fits and data.get("account") == "cus_of_" + prediction.partition("-")[0]
        sound = sound and fits
        active_s = data["time"]["active_ns"] / 1e9 if data else 0.0
        remark = "" if fits else "  <- not as expected"
        print(f"{name:9} {prediction:10} {data.get('status', 'none'):10} {active_s:6.2f} s  {units}{remark}")
    return sound


def main(arguments: Sequence[str] | None = None) -> int:
    """Try them all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("servers", nargs="*", help=f"of {', '.join(KINDS)} (default: all but {LARGE})")
    parser.add_argument("--environments", type=Path, help="a directory to keep them in")
    asked_for = parser.parse_args(arguments)
    unknown = set(asked_for.servers) - KINDS.keys()
    if unknown:
        parser.error(f"cannot try {', '.join(sorted(unknown))}: expected some of {', '.join(KINDS)}")
    where = asked_for.environments or Path(tempfile.mkdtemp(prefix="servers-"))
    try:
        sound = [tried(name, where) for name in asked_for.servers or [name for name in KINDS if name != LARGE]]
    finally:
        if asked_for.environments is None:
            shutil.rmtree(where)
    return 0 if all(sound) else 1


if __name__ == "__main__":
    sys.exit(main())
