"""A node in miniature: a journal directory, a real ledger and the books between them, restarted at will."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taximeter.agent.belief import Attest
from taximeter.agent.books import Books, Place
from taximeter.agent.halves import Halves
from taximeter.agent.reading import Reading
from taximeter.agent.telling import Telling
from taximeter.agent.unsettled import Unsettled
from taximeter.hardware.inventory import Hardware
from taximeter.journal import open_directory
from taximeter.ledger.reader import LedgerReader, RecordFilter
from taximeter.ledger.store import Ledger, NodeInfo
from taximeter.records import RecordType
from taximeter.rulebook import Rulebook
from tests.core.stories import book
from tests.journal_samples import INSTANCE, clock, fact, mark_line, open_line, options

SECOND = 1_000_000_000
NODE = NodeInfo("test", None, "taximeter test", "sha256:" + "0" * 64)


def place(visible: Mapping[str, str]) -> Hardware:
    return Hardware("cpu", 0, rule="test")


def long_run(instance: str = INSTANCE) -> list[bytes]:
    """A worker of two minutes and a half: overlapping predictions, interim records, a refused mark."""
    lines = [
        open_line(instance, options=options(worker=True, account=None, model=None, prediction=None, units={})),
        fact("spawn", SECOND, before=SECOND - 5, pid=4712, start=987),
        mark_line(2 * SECOND, {"mark": "ready"}),
        mark_line(3 * SECOND, {"mark": "start", "prediction": "a", "account": "cus_1"}),
        mark_line(5 * SECOND, {"mark": "start", "prediction": "b", "account": "cus_2"}),
        mark_line(6 * SECOND, {"mark": "start", "prediction": "b"}),
        mark_line(9 * SECOND, {"mark": "finish", "prediction": "a", "status": "succeeded", "units": {"image": 1}}),
    ]
    usage = {"cpu_ns": 812, "rss_peak_bytes": 4096}
    lines.extend(fact("heartbeat", s * SECOND, clock=clock(s * SECOND), usage=usage) for s in range(10, 150))
    lines.append(mark_line(149 * SECOND + 5, {"mark": "finish", "prediction": "b", "status": "failed"}))
    end = 150 * SECOND
    lines.append(fact("exit", end, code=0, signal=None, core=False, clock=clock(end), usage=usage, error=None))
    return lines


@dataclass
class Node:
    """One state directory, and whatever of an agent is running on it."""

    path: Path
    ledger: Ledger
    directory_fd: int
    reading: Reading

    @property
    def books(self) -> Books:
        return self.reading.books

    @property
    def halves(self) -> Halves:
        return self.reading.halves

    @property
    def telling(self) -> Telling:
        return Telling(self.halves)

    @property
    def unsettled(self) -> Unsettled:
        return Unsettled(self.halves)

    @property
    def journal(self) -> Path:
        return self.path / f"{INSTANCE}.0.ndjson"

    def read(self, instance: str = INSTANCE) -> None:
        """Read as the agent does: never what was closed before."""
        if not self.ledger.closed_at([instance]):
            while self.reading.read(instance):
                pass

    def commit(self) -> None:
        batch = self.books.take_batch()
        if batch is not None:
            self.ledger.commit(batch)

    def crash(self) -> "Node":
        """The same node after kill -9 and a restart: only what was committed is left."""
        self.ledger.close()
        return start(self.path)

    def records(self) -> list[dict[str, Any]]:
        with LedgerReader(self.path / "ledger.db") as reader:
            return [json.loads(body) for body in reader.records(RecordFilter())]

    def told(self) -> list[dict[str, Any]]:
        """What billing sees, less the place in the ledger."""
        events = self.records()
        for event in events:
            del event["data"]["ledger"]
        return events

    def usage(self) -> list[dict[str, Any]]:
        return [event for event in self.told() if event["type"] != RecordType.FACT]


def start(
    path: Path,
    owners: frozenset[int] | None = None,
    rules: Rulebook | None = None,
    where: Place = place,
    attest: Attest | None = None,
) -> Node:
    """An agent's books on `path`, resumed from the ledger."""
    path.mkdir(exist_ok=True)
    ledger, directory_fd = Ledger.open(path / "ledger.db", NODE), open_directory(path)
    books = Books(rules or book(), where)
    books.resume(ledger.journals())
    return Node(path, ledger, directory_fd, Reading(directory_fd, owners, Halves(books), attest))


def write(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    os.chmod(path, 0o640)
    return path
