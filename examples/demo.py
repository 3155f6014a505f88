"""The demo: an agent in a temporary folder, three real runs under the meter, and what is written on their receipts.

    make demo              everything, and nothing is left behind
    make demo KEEP=1       the agent stays until Enter is pressed, to look around

Owns nothing but the order of things: each step is a command that anybody can type, and is shown before it runs.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

TAXIMETER = Path(sysconfig.get_path("scripts")) / "taximeter"
PREDICTOR = Path(__file__).parent / "one_shot" / "predict.py"
WAIT_S = 15.0


class DemoError(Exception):
    """Something that the demo counts on did not happen."""


def title(text: str) -> None:
    """Announce a step."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}== {text}{plain}", flush=True)


def shown(argv: list[str]) -> list[str]:
    """Show a command as one would type it, and hand it on."""
    names = {str(TAXIMETER): "taximeter", sys.executable: "python3", str(PREDICTOR): "examples/one_shot/predict.py"}
    print("$", shlex.join(names.get(word, word) for word in argv), flush=True)
    return argv


def until(what: str, holds: Callable[[], bool]) -> None:
    """Look again and again until it holds."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise DemoError(f"cannot go on: expected {what} within {WAIT_S:g} s")
        time.sleep(0.05)


def start_agent(state: Path) -> subprocess.Popen[bytes]:
    """Start the agent on what it ships with, but for a free port, and wait until it answers."""
    config = state / "agent.toml"
    config.write_text('[node]\nid = "demo-node"\n\n[listen]\naddress = "127.0.0.1:0"\n')
    with (state / "agent.log").open("wb") as log:
        agent = subprocess.Popen(shown([str(TAXIMETER), "agent"]), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def answers() -> bool:
        if agent.poll() is not None:
            raise DemoError(f"cannot start the agent:\n{(state / 'agent.log').read_text(errors='replace')}")
        try:
            return fetch(state, "/readyz") is not None
        except OSError:
            return False

    until("an answer from the agent", answers)
    print(f"It listens on {url(state)} and keeps its ledger in {state}.")
    return agent


def url(state: Path) -> str:
    """Where the agent listens: it writes that into its run directory."""
    return str(json.loads((state / "run" / "agent").read_text())["url"])


def fetch(state: Path, path: str) -> bytes:
    """Ask the agent."""
    with urllib.request.urlopen(url(state) + path, timeout=5) as answer:
        return bytes(answer.read())


def metered(prediction: str, *command: str) -> list[str]:
    """The command line of a run under the meter."""
    options = ["--prediction", prediction, "--model", "examples/summary", "--account", "cus_demo"]
    return shown([str(TAXIMETER), "run", *options, "--", *command])


def killed_run(state: Path) -> None:
    """A run on five times as much text, whose process is killed after a second."""
    text = state / "long.txt"
    text.write_text((PREDICTOR.parent / "persuasion.txt").read_text() * 5)
    wrapper = subprocess.Popen(metered("demo-killed", sys.executable, str(PREDICTOR), str(text)))
    try:
        children = Path(f"/proc/{wrapper.pid}/task/{wrapper.pid}/children")
        until("a process under the wrapper", lambda: bool(children.read_text().split()))
        time.sleep(1)
        worker = int(children.read_text().split()[0])
        print(f"$ kill -KILL {worker}", flush=True)
        os.kill(worker, signal.SIGKILL)
        wrapper.wait()
    finally:
        if wrapper.poll() is None:
            wrapper.terminate()
            wrapper.wait()
    print(f"(ended by signal {-wrapper.returncode})")


def booked(predictions: set[str]) -> bool:
    """Whether each of these has its last record."""
    done = subprocess.run([TAXIMETER, "records", "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoError(f"cannot read the ledger: {done.stderr or done.stdout}")
    records = [json.loads(line)["data"] for line in done.stdout.splitlines()]
    return predictions <= {record.get("prediction") for record in records if record.get("final")}


def tour(state: Path) -> None:
    """The three runs, and all that is known of them afterwards."""
    title("1. A prediction: the sentences that tell most of a novel")
    subprocess.run(metered("demo-summary", sys.executable, str(PREDICTOR)), check=False)
    title("2. One that fails: there is no such text")
    failed = subprocess.run(metered("demo-failed", sys.executable, str(PREDICTOR), "no-such.txt"), check=False)
    print(f"(exit status {failed.returncode}: the command's own)")
    title("3. One that is killed at work")
    killed_run(state)
    runs = ("demo-summary", "demo-failed", "demo-killed")
    until("the three runs in the ledger", lambda: booked(set(runs)))
    for run in runs:
        title(f"The receipt of {run}")
        subprocess.run(shown([str(TAXIMETER), "receipt", run]), check=True)
    title("The node")
    subprocess.run(shown([str(TAXIMETER), "status"]), check=True)
    title("The ledger, audited")
    subprocess.run(shown([str(TAXIMETER), "verify"]), check=True)


def what_next(state: Path, keep: bool) -> None:
    """Where to look, and for how long there is something to see."""
    title("Where to look next")
    lines = len(fetch(state, "/metrics").splitlines())
    if keep:
        print(f"metrics       {url(state)}/metrics ({lines} lines for Prometheus)")
        print(f"ledger        {state}/ledger.db; shipped to {state}/usage.ndjson")
        print(f"your own run  TAXIMETER_STATE_DIR={state} {TAXIMETER} run -- COMMAND")
    print("commands      taximeter records | receipt ID | hardware | status | verify | config check")
    print("to read       docs/quick-start.md, docs/concepts.md")
    if keep:
        wait_for_enter()
    else:
        print(
            f"a longer look make demo KEEP=1 keeps this agent, its ledger and its {lines} lines of metrics until Enter"
        )


def wait_for_enter() -> None:
    """Until Enter or Ctrl-C, which is as good an end."""
    try:
        print("\nThe agent runs until you press Enter, or Ctrl-C. ", end="", flush=True)
        if not sys.stdin.readline():  # no terminal, so nobody can press it
            signal.pause()
    except KeyboardInterrupt:
        print()


def stop(agent: subprocess.Popen[bytes]) -> None:
    """Ask the agent to end; it drains first."""
    agent.terminate()
    try:
        agent.wait(10)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()


def main() -> int:
    """Whatever happens, no process and no file stays."""
    parser = argparse.ArgumentParser(description="Three real runs and their receipts.")
    parser.add_argument("--keep", action="store_true", help="leave the agent running until Enter is pressed")
    keep = parser.parse_args().keep
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="taximeter-demo-") as folder:
        state, agent = Path(folder), None
        for name in [name for name in os.environ if name.startswith("TAXIMETER_")]:
            del os.environ[name]
        os.environ["TAXIMETER_STATE_DIR"] = folder
        os.environ["TAXIMETER_RUN_DIR"] = f"{folder}/run"
        try:
            title("An agent, in a folder of its own")
            agent = start_agent(state)
            tour(state)
            print(f"\n{time.monotonic() - began:.0f} s in all.")
            what_next(state, keep)
        except (DemoError, OSError, subprocess.CalledProcessError) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nStopped; cleaning up.")
            return 130
        finally:
            if agent is not None:
                stop(agent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
