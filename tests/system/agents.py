"""Real agents for tests: a process of the installed program, on directories and a port of its own."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.records import RecordType
from tests.system.rides import children_of

_PATIENCE_S = 20.0
#: A journal goes once what it led to is sealed: soon, where a test waits for that.
SEALED = "[ledger]\ncheckpoint_s = 1\n"


def wait_until(happened: Callable[[], Any], what: str, patience_s: float = _PATIENCE_S) -> Any:
    """What `happened` returns once it is true; fails the test after `patience_s`."""
    deadline_s = time.monotonic() + patience_s
    while True:
        result = happened()
        if result:
            return result
        assert time.monotonic() < deadline_s, f"waited {patience_s:g} s in vain for {what}"
        time.sleep(0.01)  # between two looks, not instead of one


@dataclass
class Node:
    """A state directory with everything that runs on it."""

    program: str
    path: Path
    config: str = ""  #: tables of agent.toml
    head: str = ""  #: what stands before its first table
    through: tuple[str, ...] = ()  #: what its agents are started by, and which makes them of itself (exec)

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def journal(self) -> Path:
        return self.state / "journal"

    def environment(self, **more: str) -> dict[str, str]:
        places = {"TAXIMETER_STATE_DIR": str(self.state), "TAXIMETER_RUN_DIR": str(self.path / "run")}
        return {**os.environ, **places, **more}

    def run(self, *words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """`taximeter run WORDS`, finished."""
        return self.taximeter("run", *words, **kwargs)

    def taximeter(self, *words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Any verb, finished."""
        return subprocess.run(
            [self.program, *words],
            env=self.environment(),
            text=True,
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
            **kwargs,
        )

    @contextlib.contextmanager
    def spawn(self, *words: str, **kwargs: Any) -> Iterator[subprocess.Popen[str]]:
        """`taximeter run WORDS`, under way; killed with its command where the test leaves it running."""
        command = [self.program, "run", *words]
        with subprocess.Popen(command, env=self.environment(), text=True, **kwargs) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    for pid in [*children_of(process.pid), process.pid]:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def agent(self, *, ready: bool = True, **environment: str) -> Iterator["Agent"]:
        """An agent on this node; killed at the end if the test has not stopped it."""
        self.path.mkdir(exist_ok=True)
        config = self.path / "agent.toml"
        config.write_text(f'{self.head}\n[listen]\naddress = "127.0.0.1:0"\n{self.config}')
        log = self.path / "agent.log"
        with log.open("a") as stderr:
            process = subprocess.Popen(
                [*self.through, self.program, "agent", "--config", str(config)],
                env=self.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )
        agent = Agent(self, process, log)
        try:
            if ready:
                wait_until(agent.is_ready, f"a ready agent; it said: {log.read_text()}")
            yield agent
        finally:
            process.kill()
            process.wait()

    def records(self, kind: RecordType | None = None, **wanted: Any) -> list[dict[str, Any]]:
        """The ledger's records, read beside the agent."""
        if not (self.state / "ledger.db").exists():
            return []
        with LedgerReader(self.state / "ledger.db") as reader:
            return [json.loads(body) for body in reader.records(RecordFilter(type=kind, **wanted))]

    def predictions(self) -> list[dict[str, Any]]:
        return self.records(RecordType.PREDICTION)


@dataclass
class Agent:
    """A living agent."""

    node: Node
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> dict[str, Any]:
        """What the run directory says of it."""
        said: dict[str, Any] = json.loads((self.node.path / "run" / "agent").read_text())
        return said

    def is_ready(self) -> bool:
        assert self.process.poll() is None, f"the agent ended: {self.log.read_text()}"
        with contextlib.suppress(FileNotFoundError, ValueError):
            return bool(self.said["pid"] == self.process.pid)
        return False

    def get(self, path: str, token: str | None = None) -> tuple[int, bytes]:
        """Status and body of a GET."""
        host = self.said["url"].removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=_PATIENCE_S)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def metric(self, sample: str) -> float:
        """The value of one sample of /metrics; 0 where it is not there (yet)."""
        _, body = self.get("/metrics")
        lines = [line for line in body.decode().splitlines() if line.startswith(sample + " ")]
        return float(lines[0].rpartition(" ")[2]) if lines else 0.0

    def stop(self, patience_s: float = _PATIENCE_S) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience_s)
