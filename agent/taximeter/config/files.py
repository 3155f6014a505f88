"""Where Taximeter's files lie, and how a TOML or JSON file is read: to a mapping, or to a list of faults.

Owns the rule of the directories (the wrapper has the same one), the search for a config file, the shipped
defaults and what makes a file fit to be believed. Refuses to know what is in them.
"""

import os
import pwd
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from taximeter import wire
from taximeter.billing import exact
from taximeter.errors import ConfigError

_MOST_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
#: An instant with more than microseconds: in a file, or in a text or a comment of it.
_FINER = re.compile(r"(?<=:\d\d)\.(\d{6})\d*[1-9]\d*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Directories:
    """Where this Taximeter lives."""

    state: Path
    run: Path
    journal: Path

    @property
    def ledger(self) -> Path:
        """The node's records."""
        return self.state / "ledger.db"

    @property
    def lock(self) -> Path:
        """Held by the one agent of this state directory."""
        return self.state / "agent.lock"

    @property
    def agent_file(self) -> Path:
        """Where a living agent says its URL and token."""
        return self.run / wire.AGENT_FILE


def directories(environ: Mapping[str, str]) -> Directories:
    """Return the directories that this environment means; touches nothing."""
    state, is_system = _state(environ)
    run = environ.get(wire.ENV_RUN_DIR) or (wire.SYSTEM_RUN_DIR if is_system else state / "run")
    return Directories(state, Path(run), state / wire.JOURNAL_DIR)


def _state(environ: Mapping[str, str]) -> tuple[Path, bool]:
    if said := environ.get(wire.ENV_STATE_DIR):
        return Path(said), False
    system = Path(wire.SYSTEM_STATE_DIR)
    if os.access(system / wire.JOURNAL_DIR, os.W_OK):
        return system, True
    states = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or _passwd_home()) / ".local/state"
    return Path(states) / "taximeter", False


def _passwd_home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a container may give a uid that nobody has
        return "/"


def find(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the config file in force: the one named, else the first that is there, else None for the shipped one."""
    if path is not None:
        return path
    if said := environ.get(wire.ENV_CONFIG):
        return Path(said)
    candidates = (Path(wire.SYSTEM_CONFIG), directories(environ).state / "agent.toml")
    return next((candidate for candidate in candidates if os.path.lexists(candidate)), None)


def shipped(name: str) -> Traversable:
    """Return a default file as installed; in a checkout, the one it will be installed from."""
    installed = files("taximeter") / "defaults" / name
    return installed if installed.is_file() else Path(__file__).parents[3] / "config" / name


def read_shipped(name: str) -> dict[str, object]:
    """Return the content of a shipped file, which is well-formed: a test says so."""
    return parse(shipped(name).read_bytes(), name)


def read(path: Path) -> dict[str, object]:
    """Return the content of a TOML file, or of a JSON one by its name; ConfigError if it cannot be read or believed."""
    content = read_any(path)
    if not isinstance(content, dict):
        raise _fault(str(path), f"a {type(content).__name__}", "an object")
    return content


def read_any(path: Path) -> object:
    """Return the content of a TOML file, or of a JSON one, which may be a list."""
    content = _bytes(path)
    return parse_json(content, str(path)) if path.suffix == ".json" else parse(content, str(path))


def parse_json(content: bytes, source: str) -> object:
    """Return what JSON says, its numbers exact."""
    try:
        return exact.loads(content.decode("utf-8"), source)
    except UnicodeDecodeError as error:
        raise _fault(source, f"byte {error.start} is not UTF-8", "plain UTF-8") from error


def parse(content: bytes, source: str) -> dict[str, object]:
    """Return what TOML says, numbers with a point as Decimal, so that nothing passes through a float unseen."""
    if content.startswith(_BOM):
        raise _fault(source, "begins with a byte order mark", "plain UTF-8; save it without a BOM")
    try:
        text = content.decode("utf-8")
        said = tomllib.loads(text, parse_float=Decimal)
        finer = tuple(_finer(said, text))
    except UnicodeDecodeError as error:
        raise _fault(source, f"byte {error.start} is not UTF-8", "plain UTF-8") from error
    except RecursionError as error:
        raise _fault(source, "nested too deeply", "the few levels that the shipped file has") from error
    except ValueError as error:  # TOMLDecodeError, dates that do not exist, numbers without end
        raise _fault(source, f"{error}", "TOML") from error
    if finer:
        expected = "expected at most six digits behind the point of an instant"
        raise ConfigError(tuple(f"{source}: {key}: finer than a microsecond: {expected}" for key in finer))
    return said


def _finer(said: Mapping[str, object], text: str) -> Iterator[str]:
    """The keys of instants that are finer than a microsecond: what is beyond it tomllib leaves out in silence."""
    if _FINER.search(text):
        yield from _changed(said, tomllib.loads(_FINER.sub(_another, text), parse_float=Decimal))


def _another(instant: re.Match[str]) -> str:
    """What is read instead, to see which values are such instants: they become others."""
    return ".000002" if instant[1] == "000001" else ".000001"


def _changed(said: object, other: object, key: str = "") -> Iterator[str]:
    """The keys of instants that are others in another reading of the same file."""
    if isinstance(said, Mapping) and isinstance(other, Mapping):
        for name, value in said.items():
            yield from _changed(value, other.get(name), f"{key}.{name}" if key else name)
    elif isinstance(said, list) and isinstance(other, list):
        for at, (value, also) in enumerate(zip(said, other, strict=True)):
            yield from _changed(value, also, f"{key}[{at}]")
    elif isinstance(said, datetime | time) and said != other:
        yield key


def _bytes(path: Path) -> bytes:
    """Read a file that nobody else can change: a regular one, not world-writable, of a sensible size."""
    kind = "a JSON file" if path.suffix == ".json" else "a TOML file"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _fault(str(path), error.strerror or str(error), kind.replace("a ", "a readable ", 1)) from error
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):  # of which open() would only say that it is one, and not which
        os.close(descriptor)
        raise _fault(str(path), "a directory", kind)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(status.st_mode):
            raise _fault(str(path), "not a regular file", kind)
        if status.st_mode & stat.S_IWOTH:
            raise _fault(
                str(path), f"mode {status.st_mode & 0o7777:04o}", "a file that not everybody may write (chmod o-w)"
            )
        if status.st_size > _MOST_BYTES:
            raise _fault(str(path), f"{status.st_size} bytes", f"at most {_MOST_BYTES}")
        return file.read(_MOST_BYTES)


def _fault(source: str, what: str, expected: str) -> ConfigError:
    return ConfigError((f"{source}: {what}: expected {expected}",))
