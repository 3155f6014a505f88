"""What the agent keeps in its directories beside the ledger: its lock, its token, and where it is to be found.

Owns who may read them: nothing here is ever readable for everybody, not even for a moment. Refuses to know their use.
"""

import fcntl
import os
import secrets
from pathlib import Path

from taximeter.config import Directories
from taximeter.errors import TaximeterError


def prepare(where: Directories) -> None:
    """Make the directories of a user's own agent; a system's come from tmpfiles and systemd."""
    try:
        for directory in (where.state, where.journal, where.run):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        expected = "a directory that the agent may make, or that exists; see TAXIMETER_STATE_DIR, TAXIMETER_RUN_DIR"
        raise TaximeterError(f"cannot make {error.filename}: {error.strerror}: expected {expected}") from error


class alone:  # noqa: N801 -- used as a function
    """Hold the state directory's lock: two agents would write one ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> None:
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise TaximeterError(unusable(error)) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            expected = "no other agent on this state directory; stop it, or set TAXIMETER_STATE_DIR"
            raise TaximeterError(
                f"cannot run an agent on {self._path.parent}: agent with pid {holder} does: expected {expected}"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def kept_token(path: Path) -> str:
    """The API's token: made at the first start, kept, readable to the agent's user only."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        token = ""
    if not token:
        token = secrets.token_urlsafe(32)
        write_private(path, token, 0o600)
    return token


def write_private(path: Path, content: str, mode: int = 0o640) -> None:
    """Replace a file as a whole, never readable for everybody, not even for a moment."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content + "\n")
    fresh.rename(path)


def unusable(error: OSError) -> str:
    """What to say of a file that the agent needs and cannot have."""
    what = error.filename or "its files"
    return f"cannot use {what}: {error.strerror}: expected a state directory and a disk that the agent may write to"
