"""The last checkpoint, kept apart from the ledger, so that an older copy of that is recognised and refused.

Owns the file, which is written before a checkpoint leaves the node. Refuses to sign.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from taximeter.errors import LedgerError
from taximeter.ledger import chain

_MOST_BYTES = 65_536
_MACHINE_ID = Path("/etc/machine-id")


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was signed last."""

    ledger: str
    size: int
    head: str  #: "sha256:…", of record number `size`
    machine: str | None  #: which machine signed it; None where that has no id
    note: str  #: empty where nothing is signed yet: it has only begun
    before: Mapping[str, object] | None = None  #: of one that has only begun: whose place it takes


def machine() -> str | None:
    """What this machine is called here: a hash, for its id is not to leave it."""
    try:
        said = _MACHINE_ID.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return hashlib.sha256(f"taximeter {said}".encode()).hexdigest()[:16] if said else None


def remember(path: Path, last: Remembered) -> None:
    """Keep it for good, instead of the one before. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(asdict(last), file)
        file.flush()
        os.fsync(fd)
    fresh.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def recall(path: Path) -> Remembered | None:
    """What is kept; None where nothing is. Raises LedgerError where it is damaged."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(_MOST_BYTES))
        last = Remembered(**said)
        kinds = [type(value) for value in (last.ledger, last.size, last.head, last.note)]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise LedgerError(f"cannot read {path}: {type(error).__name__}: {_WAY_OUT}") from error
    if kinds != [str, int, str, str]:
        raise LedgerError(f"cannot read {path}: {_WAY_OUT}")
    return last


_WAY_OUT = "expected the last checkpoint of this ledger; `Back up and move` of docs/operating.md says what to do"


def check(path: Path, ledger_id: str, size: int, hash_at: Callable[[int], bytes | None]) -> Mapping[str, object] | None:
    """Compare a ledger with what was signed last. Raises LedgerError where it is another, or an older one.

    Returns of one without records whose place it takes, and remembers that it does.
    """
    last = recall(path)
    if last is None:
        return None
    here = machine()
    if None not in (here, last.machine) and here != last.machine:
        what = f"ledger {ledger_id} was last sealed on another machine"
        raise LedgerError(f"cannot go on: {what}: {_ALONE.format(path=path)}")
    if size == 0 and last.ledger != ledger_id:
        before = {"ledger": last.ledger, "size": last.size, "head": last.head}
        remember(path, Remembered(ledger_id, 0, chain.digest_text(chain.GENESIS), here, "", before))
        return before
    if last.ledger != ledger_id:
        raise LedgerError(f"cannot go on with ledger {ledger_id}: {last.ledger} was sealed here: {_OLDER}")
    if size < last.size:
        what = f"it has {size} records, and {last.size} were sealed"
        raise LedgerError(f"cannot go on with ledger {ledger_id}: {what}: {_OLDER}")
    if last.size == 0:
        return last.before
    digest = hash_at(last.size)
    if digest is None or chain.digest_text(digest) != last.head:
        what = f"its record {last.size} is not the one that was sealed"
        raise LedgerError(f"cannot go on with ledger {ledger_id}: {what}: {_OLDER}")
    return None


_OLDER = (
    "expected the ledger itself, and not an older copy, whose numbers would be given twice; put it back, or move "
    "ledger.db and what is beside it (-wal, -shm) away: then a new ledger begins, which names the head of this one"
)
_ALONE = "expected one node alone to go on with a ledger; if the other has stopped for good, remove {path}"
