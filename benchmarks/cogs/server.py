"""A real Cog server under the meter, for tests and for cog_times.py: started without Docker, asked over HTTP.

Owns the processes of one server; knows nothing of agents and records. A Cog server is two processes: the server, which
`taximeter run` starts, and its worker, which runs the predictor.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"
PREDICTOR = EXAMPLES / "cog" / "predict.py"
BOOK = EXAMPLES / "one_shot" / "persuasion.txt"
SCRIPTS = sysconfig.get_path("scripts")
PATIENCE_S = 30.0


@dataclass
class CogServer:
    """A server that was started; `process` is the wrapper that it runs under."""

    process: subprocess.Popen[bytes]
    port: int

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """What it answers, from JSON; raises OSError or HTTPException where it does not."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, json.dumps(body), {"content-type": "application/json", **headers})
            return json.loads(connection.getresponse().read() or b"null")
        finally:
            connection.close()

    def predict(self, prediction: str, account: str | None = None, **given: Any) -> Any:
        """One prediction, waited for; as a platform asks, with its id and its customer in `context` as well.

        Cog answers before it has let go of a prediction's slot: who then finds none asks again.
        """
        while True:
            answer = self.ask("POST", "/predictions", request(prediction, account, given))
            if "id" in answer or "capacity" not in str(answer.get("error")):
                return answer
            time.sleep(0.01)

    def begin(self, prediction: str, account: str | None = None, webhook: str | None = None, **given: Any) -> None:
        """One prediction that Cog tells the end of by webhook, or not at all."""
        more = {"webhook": webhook, "webhook_events_filter": ["start", "completed"]} if webhook else {}
        self.ask("POST", "/predictions", request(prediction, account, given) | more, prefer="respond-async")

    @contextlib.contextmanager
    def asking(self, prediction: str, account: str | None = None, **given: Any) -> Iterator[None]:
        """One prediction whose client hangs up at the end, without having waited for the answer."""
        body = json.dumps(request(prediction, account, given))
        head = (
            f"POST /predictions HTTP/1.1\r\nhost: cog\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        )
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as connection:
            connection.sendall(f"{head}\r\n\r\n{body}".encode())
            yield

    def health(self) -> dict[str, Any]:
        """Its health check; empty while nothing answers."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return dict(self.ask("GET", "/health-check"))
        return {}

    def server_pid(self) -> int:
        """The process that listens."""
        return children_of(self.process.pid)[0]

    def worker_pid(self) -> int:
        """The process that predicts."""
        return children_of(self.server_pid())[0]


def request(prediction: str, account: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request."""
    context = {"prediction": prediction} | ({"account": account} if account else {})
    return {"id": prediction, "input": dict(given), "context": context}


def children_of(pid: int) -> list[int]:
    """Children of a process, whichever of its threads started them."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in thread.read_text().split()]
    return sorted(found)


@contextlib.contextmanager
def serving(
    taximeter: str, environment: Mapping[str, str], *options: str, predictor: Path = PREDICTOR, slots: int = 4
) -> Iterator[CogServer]:
    """A server that is ready, under `taximeter run --worker OPTIONS`; whatever lives of it at the end is killed."""
    held = socket.socket()  # so that nobody else is given its port until the server listens there, who reuses it
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port: int = held.getsockname()[1]
    ready = ["--worker", "--ready", f"http://127.0.0.1:{port}/health-check", *options]
    said = {
        "PATH": f"{SCRIPTS}:{os.environ.get('PATH', '')}",  # Cog starts its worker as the `python` that it finds there
        "PORT": str(port),
        "COG_PREDICT_TYPE_STUB": f"{predictor}:Runner",
        "COG_MAX_CONCURRENCY": str(slots),
        "COG_WEIGHTS": str(BOOK),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [taximeter, "run", *ready, "--", "python", "-m", "cog.server.http", "--host", "127.0.0.1"]
    quiet = subprocess.DEVNULL
    with held, subprocess.Popen(command, env={**environment, **said}, stdout=quiet, stderr=quiet) as process:
        server = CogServer(process, port)
        family: list[int] = []  # as pidfds: a pid may be another's by the time it is killed
        try:
            deadline_s = time.monotonic() + PATIENCE_S
            while server.health().get("status") != "READY":
                if process.poll() is not None or time.monotonic() > deadline_s:
                    raise TimeoutError(f"cannot use {command}: expected Cog to be READY, got {server.health()}")
                time.sleep(0.01)  # between two looks
            family = [os.pidfd_open(pid) for pid in (server.server_pid(), server.worker_pid())]
            yield server
        finally:
            for pidfd in family:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
            process.kill()
