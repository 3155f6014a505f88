"""A receiver that misbehaves on command: a real HTTP server on a real socket, which keeps what it accepts.

Each request takes the next answer of the script; after the script it accepts. What it holds is keyed by source
and id, as CloudEvents ask of a receiver.
"""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Request:
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """What came, what is kept, and what will be answered."""

    script: list["Answer"] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    held: dict[tuple[str, str], bytes] = field(default_factory=dict)
    connections: int = 0
    accepted: int = 0  #: events accepted, repeats included
    url: str = ""

    def keep(self, body: bytes) -> None:
        for event in json.loads(body):
            self.held[event["source"], event["id"]] = json.dumps(event, separators=(",", ":")).encode()
            self.accepted += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while request := await read_request(reader):
                self.requests.append(request)
                answer = self.script.pop(0) if self.script else list_ if request.line.startswith("GET ") else accept
                await answer(self, request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


Answer = Callable[[Receiver, Request, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    line = (await reader.readline()).decode().strip()
    if not line:
        return None
    headers = {}
    while text := (await reader.readline()).decode().strip():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(line, headers, body)


def respond(writer: asyncio.StreamWriter, status: int, headers: str = "", body: bytes = b"") -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    writer.write(head.encode() + body)


async def accept(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
    receiver.keep(request.body)
    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")


async def list_(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
    """List what is held of what is asked for, as OpenMeter does."""
    asked = dict(parse_qsl(urlsplit(request.line.split()[1]).query))
    found = [
        {"event": json.loads(body), "ingestedAt": "2026-11-22T10:00:00Z"}
        for (_, name), body in receiver.held.items()
        if asked["id"] in name and asked["from"] <= json.loads(body).get("time", asked["from"]) <= asked["to"]
    ]
    respond(writer, 200, "content-type: application/json\r\n", json.dumps(found).encode())


def say(status: int, headers: str = "", body: bytes = b"") -> Answer:
    async def answer(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
        respond(writer, status, headers, body)

    return answer


def too_large_beyond(most: int) -> Answer:
    async def answer(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
        if len(json.loads(request.body)) > most:
            respond(writer, 413)
        else:
            await accept(receiver, request, writer)

    return answer


async def hang(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
    """Never answer; the connection ends when the client gives up."""
    await asyncio.Event().wait()


async def reset(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionResetError


async def accept_then_reset(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
    """Take the batch and lose the answer: the cruellest of them."""
    receiver.keep(request.body)
    await reset(receiver, request, writer)


async def accept_then_hang(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
    receiver.keep(request.body)
    await hang(receiver, request, writer)


async def accept_with_endless_body(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
    receiver.keep(request.body)
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        await writer.drain()


async def garbage(receiver: Receiver, request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff no http at all\r\n\r\n")


@asynccontextmanager
async def receiving(*script: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver that listens on a free port while the block runs."""
    receiver = Receiver(list(script))
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await receiver.serve(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/api/v1/events"
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def events(count: int, source: str = "/nodes/n1") -> list[bytes]:
    """Bodies as the ledger holds them, numbered from 1."""
    return [event(seq, source) for seq in range(1, count + 1)]


def event(seq: int, source: str = "/nodes/n1", ledger: str = "L1") -> bytes:
    data = {"ledger": {"id": ledger, "seq": seq}}
    body = {"specversion": "1.0", "id": f"r-{seq:08d}", "source": source, "type": "t", "data": data}
    return json.dumps(body, separators=(",", ":")).encode()


def holds_exactly(receiver: Receiver, bodies: Sequence[bytes]) -> bool:
    return sorted(receiver.held.values()) == sorted(bodies)
