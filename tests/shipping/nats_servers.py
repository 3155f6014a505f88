"""A real nats-server with JetStream in a directory of the test's, and what its stream holds, as a stranger reads it."""

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from nats.aio.client import Client
from nats.js import JetStreamContext

from tests.require import require_program

STREAM = "usage"
SUBJECT = "taximeter.usage"


@dataclass
class NatsServer:
    """It may be killed and started again, at the same port and with the same streams."""

    directory: Path
    config: str = ""  #: what else stands in its configuration
    secret: str = ""  #: how the test itself is let in: `token@` or `user:password@`
    scheme: str = "nats"
    login: Mapping[str, Any] = field(default_factory=dict)  #: or so
    nkey: str | None = None
    port: int = -1
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        program, ports = require_program("nats-server"), self.directory / "ports"
        ports.mkdir(exist_ok=True)
        for old in ports.iterdir():
            old.unlink()
        config = self.directory / "nats.conf"
        config.write_text(
            f'host: "127.0.0.1"\nport: {self.port}\nports_file_dir: "{ports}"\n'
            f'jetstream {{ store_dir: "{self.directory}/js" }}\n{self.config}\n'
        )
        with (self.directory / "log").open("ab") as log:
            self.processes.append(subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log))  # noqa: ASYNC220
        with anyio.fail_after(20):
            while not (written := [file.read_text() for file in ports.glob("*.ports")]) or not written[0]:
                assert self.processes[-1].poll() is None, (self.directory / "log").read_text()
                await anyio.sleep(0.005)
        self.port = int(json.loads(written[0])["nats"][0].rpartition(":")[2])

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    def hang(self) -> None:
        self.processes[-1].send_signal(signal.SIGSTOP)
        os.waitpid(self.processes[-1].pid, os.WUNTRACED)  # its last thread stands

    def go_on(self) -> None:
        self.processes[-1].send_signal(signal.SIGCONT)

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[JetStreamContext]:
        """Its streams, for a client that is not ours."""
        client = Client()
        client._public_nkey = self.nkey
        try:
            await client.connect(f"nats://{self.secret}127.0.0.1:{self.port}", allow_reconnect=False, **self.login)
            yield client.jetstream()
        finally:
            await client.close()

    async def make_stream(self, *subjects: str, **others: object) -> None:
        async with self.asked() as streams:
            await streams.add_stream(name=STREAM, subjects=list(subjects or [SUBJECT]), **others)

    async def messages(self) -> list[bytes]:
        """What the stream holds, in its order."""
        async with self.asked() as streams:
            state = (await streams.stream_info(STREAM)).state
            return [(await streams.get_msg(STREAM, seq)).data or b"" for seq in range(1, state.last_seq + 1)]


@contextmanager
def kept(server: NatsServer) -> Iterator[NatsServer]:
    """Whatever becomes of the test, no server stays."""
    try:
        yield server
    finally:
        server.kill()


@asynccontextmanager
async def serving(directory: Path, *subjects: str, **how: Any) -> AsyncIterator[NatsServer]:
    """A server with a stream."""
    with kept(NatsServer(directory, **how)) as server:
        await server.start()
        await server.make_stream(*subjects)
        yield server
