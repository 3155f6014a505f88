"""Where things lie: state, run and journal directories; and what is read there before a run may start.

Owns the rule for the directories, which config.files has in the agent's terms (a test compares them), instance ids, and
admission. Refuses to know what is written into a journal.
"""

import posix
import time

from taximeter import wire
from taximeter.wrap.entry import read_file

_PRIVATE = 0o700
_MIB_DIGITS = 10


def directories(environment: dict[str, str]) -> tuple[str, str]:
    """The state and the run directory that this environment means; touches nothing."""
    state, own_run = _state(environment)
    return state, environment.get(wire.ENV_RUN_DIR) or own_run


def make_journal_directory(state: str) -> str:
    """The journal directory, made if it is not there, as an absolute path. Raises OSError."""
    directory = f"{state}/{wire.JOURNAL_DIR}"
    if not directory.startswith("/"):
        directory = f"{posix.getcwd()}/{directory}"
    if not posix.access(directory, posix.X_OK):
        _make(directory)
    return directory


def journal_bytes(environment: dict[str, str]) -> int:
    """An instance's part of the disk; what is no whole number of MiB says nothing."""
    said = environment.get(wire.ENV_JOURNAL_MIB, "")
    if said.isascii() and said.isdigit() and len(said) < _MIB_DIGITS and int(said) > 0:
        return int(said) << 20
    return wire.JOURNAL_MAX_BYTES


def make_id() -> str:
    """A UUIDv7: the time in milliseconds, then 74 random bits."""
    bits = time.time_ns() // 1_000_000 << 80 | int.from_bytes(posix.urandom(10), "big")
    bits = bits & ~(0xF000 << 64 | 0xC000 << 48) | 0x7000 << 64 | 0x8000 << 48
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def refusal(run: str, account: str | None, model: str | None = None) -> str | None:
    """Why no run may start now, or None; costs two or three access(2) where nothing is denied."""
    if account is not None:
        if posix.access(f"{run}/{wire.DENIED_DIR}/{denied_name(account)}", posix.F_OK):
            return f"account {account!a} is denied on this node: expected credit (see {run}/{wire.DENIED_DIR})"
        if model is not None and posix.access(f"{run}/{wire.DENIED_DIR}/{denied_name(account, model)}", posix.F_OK):
            return f"model {model!a} is denied to account {account!a} on this node: expected room within its limit"
    if posix.access(f"{run}/{wire.REFUSE_FILE}", posix.F_OK) and not _agent_lives(run):
        return "this node runs nothing without its agent, and there is none: expected `taximeter agent` to run"
    return None


def no_room(run: str, state: str) -> str | None:
    """Why no run may start on a disk that is full, or None; costs one access(2) where nobody wants that."""
    if not posix.access(f"{run}/{wire.FULL_FILE}", posix.F_OK):
        return None
    directory = f"{state}/{wire.JOURNAL_DIR}"
    try:
        if has_spare(posix.statvfs(directory)):
            return None
    except OSError:  # it is not there yet
        return None
    return f"this node runs nothing that it has no room to measure: expected more room on the disk of {directory}"


def has_spare(disk: posix.statvfs_result) -> bool:
    """Whether so much of a disk is free as is left to what matters more than marks."""
    spare = min(wire.SPARE_BYTES, disk.f_blocks * disk.f_frsize // wire.SPARE_PART)
    return disk.f_bavail * disk.f_frsize >= spare


def denied_name(account: str, model: str | None = None) -> str:
    """An account, or a model of it, as a file name: percent-encoded, so that none leaves its directory.

    `@` parts them, which stands for nothing else there. What would be long is `=` and its SHA-256.
    """
    return _encoded(account) if model is None else f"{_encoded(account)}@{_encoded(model)}"


def _encoded(name: str) -> str:
    raw = name.encode("utf-8", "surrogateescape")
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-~."
    encoded = "".join([chr(byte) if byte in plain else f"%{byte:02X}" for byte in raw])
    if len(encoded) > wire.DENIED_MAX_BYTES:
        import hashlib

        return f"={hashlib.sha256(raw).hexdigest()}"
    return f"%2E{encoded[1:]}" if encoded.startswith(".") else encoded


def _state(environment: dict[str, str]) -> tuple[str, str]:
    said = environment.get(wire.ENV_STATE_DIR)
    if said:
        return said, f"{said}/run"
    if posix.access(f"{wire.SYSTEM_STATE_DIR}/{wire.JOURNAL_DIR}", posix.W_OK):
        return wire.SYSTEM_STATE_DIR, wire.SYSTEM_RUN_DIR
    state = f"{environment.get('XDG_STATE_HOME') or _home(environment) + '/.local/state'}/taximeter"
    return state, f"{state}/run"


def _home(environment: dict[str, str]) -> str:
    home = environment.get("HOME")
    if home:
        return home
    import pwd  # almost nobody is without a HOME

    try:
        return pwd.getpwuid(posix.getuid()).pw_dir
    except KeyError:
        return "/"


def _make(directory: str) -> None:
    try:
        posix.mkdir(directory, _PRIVATE)
    except FileExistsError:
        pass
    except FileNotFoundError:
        _make(directory.rpartition("/")[0])
        _make_last(directory)


def _make_last(directory: str) -> None:
    """Make a directory whose parent was made; one that is missing all the same is a link to nowhere."""
    try:
        posix.mkdir(directory, _PRIVATE)
    except FileExistsError:
        pass


def _agent_lives(run: str) -> bool:
    try:
        pid = read_file(f"{run}/{wire.AGENT_FILE}").partition(b'"pid":')[2].lstrip()
        digits = pid[: len(pid) - len(pid.lstrip(b"0123456789"))]
        posix.kill(int(digits), 0)
    except PermissionError:
        return True  # of the agent's user, and so alive; or an unreadable agent file, whose agent gets the benefit
    except (OSError, ValueError):
        return False
    return True
