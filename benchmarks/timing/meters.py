"""Taximeter's own rows: an agent with the kernel's process events, one without, and what their records say.

Owns the agents and how a record is read. The records are those that any reader of the ledger gets.
"""

import contextlib
import json
import os
import subprocess
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from timing.timers import Reading, Witness

KERNEL, PIDFD = "Taximeter, kernel", "Taximeter, pidfd"
#: What the agent is told.
SETTINGS = {KERNEL: "", PIDFD: "[witness]\nkernel = false\n"}
PATIENCE_S = 60.0


def program() -> Path:
    """The installed `taximeter`: $TAXIMETER_BIN, else the one beside this interpreter."""
    return Path(os.environ.get("TAXIMETER_BIN") or Path(sysconfig.get_path("scripts")) / "taximeter")


@dataclass(frozen=True, slots=True)
class Meter:
    """`taximeter run`, and the records of an agent with a state directory of its own."""

    name: str
    state: Path

    @property
    def environment(self) -> dict[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith("TAXIMETER_")}
        return {**others, "TAXIMETER_STATE_DIR": str(self.state), "TAXIMETER_RUN_DIR": str(self.state / "run")}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.state.mkdir()
        config, said = self.state / "agent.toml", self.state / "log"
        config.write_text(f'sinks = []\n[listen]\naddress = "127.0.0.1:0"\n{SETTINGS[self.name]}')
        words = [str(program()), "agent", "--config", str(config)]
        with said.open("w") as log:
            process = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log)
        try:
            deadline_s = time.monotonic() + PATIENCE_S
            while not (self.state / "run" / "agent").exists():
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise SystemExit(
                        f"cannot start {self.name}: expected a ready agent, and it said: {said.read_text()}"
                    )
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait()

    def words(self, nap: Path, ms: int) -> list[str]:
        return [str(program()), "run", "--prediction", nap.name, "--", str(nap), str(ms)]

    def readings(self, naps: Sequence[Path]) -> Mapping[str, Reading]:
        """What the ledger says, once it says something of each."""
        deadline_s = time.monotonic() + PATIENCE_S
        words = [str(program()), "records", "--type", "prediction", "--format", "ndjson"]
        while True:
            done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True)
            found = parse(json.loads(line)["data"] for line in done.stdout.splitlines())
            if len(found) >= len(naps):
                return found
            if time.monotonic() > deadline_s:
                raise SystemExit(f"cannot read all of {self.name}: expected {len(naps)} runs booked, got {len(found)}")
            time.sleep(1)


def parse(records: Iterable[Mapping[str, Any]]) -> dict[str, Reading]:
    """Every prediction that is over: its records added up."""
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for data in records:
        parts.setdefault(data["prediction"], []).append(data)
    return {name: _sum(several) for name, several in parts.items() if several[-1]["final"]}


def _sum(parts: Sequence[Mapping[str, Any]]) -> Reading:
    first, last = parts[0], parts[-1]
    lines = [line for data in parts for line in data["billing"]["lines"] if line["unit"] == "computing_second"]
    billed_s = sum((Decimal(line["quantity"]) * Decimal(line["multiplier"]) for line in lines), Decimal(0))
    start, end = first["timing"]["start"], last["timing"]["end"]
    return Reading(
        wall_ns=sum(data["time"]["wall_ns"] for data in parts),
        billed_ns=int(billed_s * 10**9),
        start=Witness(first["interval"]["start_ns"], start["source"], start["uncertainty_ns"]),
        end=Witness(last["interval"]["end_ns"], end["source"], end["uncertainty_ns"]),
    )
