"""The last good copy of a price list: one file, replaced as a whole and synced, so that it is there after any crash.

Refuses to know what a list says.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

#: A copy is not much larger than the list that was let in.
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Copy:
    """A list as it came."""

    url: str  #: whom it is from, without the query
    body: str
    since_utc_ns: int  #: when this very body was first seen
    etag: str | None = None
    modified: str | None = None  #: Last-Modified, as it came

    @property
    def tag(self) -> str:
        """What this body is called: the beginning of its SHA-256."""
        return hashlib.sha256(self.body.encode()).hexdigest()[:12]


def read_copy(path: Path) -> Copy | None:
    """What is kept; None where there is nothing. Raises ValueError in words where it is damaged."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(_MOST_BYTES))
        sound = [type(said[key]) for key in ("url", "body", "since_utc_ns")] == [str, str, int]
        copy = Copy(**said)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"cannot read {path}: {type(error).__name__}: expected the copy of a price list") from error
    if not sound:
        raise ValueError(f"cannot read {path}: expected the copy of a price list")
    return copy


def write_copy(path: Path, copy: Copy) -> None:
    """Keep a copy for good, instead of the one before. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(asdict(copy), file)
        file.flush()
        os.fsync(fd)
    fresh.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
