"""Where a ledger goes on: its newest record, and what it keeps of itself under a name.

Refuses to go on behind a record that is not what it says.
"""

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from taximeter.errors import LedgerError
from taximeter.ledger import base, chain

if TYPE_CHECKING:
    import apsw


def read_head(connection: "apsw.Connection", ledger_id: str, path: Path) -> tuple[int, bytes]:
    """The newest record's number and hash, if it is what it says; LedgerError otherwise."""
    newest: list[tuple[Any, ...]] = connection.execute(
        "SELECT seq, hash, body FROM records ORDER BY seq DESC LIMIT 2"
    ).fetchall()
    if not newest:
        return base.base_of(connection)
    seq, digest, body = newest[0]
    # A fact that was kept of what was pruned is not the one before.
    previous = newest[1][1] if len(newest) > 1 and newest[1][0] == seq - 1 else base.base_of(connection).hash
    # A forged row may hold text or a number where bytes belong.
    sound = isinstance(body, bytes) and isinstance(previous, bytes) and chain.digest_of(body) == digest
    if not sound or _place(body) != chain.place_of(ledger_id, seq, previous):
        expected = f"expected record {seq}, the newest, to fit its hash and its predecessor"
        raise LedgerError(f"cannot continue ledger {path}: {expected}; see `taximeter verify`, and keep the file")
    return seq, digest


def _place(body: bytes) -> object:
    try:
        return orjson.loads(body)["data"]["ledger"]
    except (ValueError, TypeError, KeyError):
        return None


def kept(connection: "apsw.Connection", key: str, make: Callable[[], str]) -> str:
    """What is kept under `key`; made and kept where there is nothing yet."""
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if found is not None:
        return str(found[0])
    made = make()
    connection.execute("INSERT INTO meta VALUES (?, ?)", (key, made))
    return made


def new_id() -> str:
    """A UUIDv7 (RFC 9562): ids of one kind throughout, and in order of their making."""
    stamp = (time.time_ns() // 1_000_000) << 80
    noise = int.from_bytes(os.urandom(10), "big") & ~(0xF << 76) & ~(0x3 << 62)
    return str(uuid.UUID(int=stamp | noise | 0x7 << 76 | 0x2 << 62))
