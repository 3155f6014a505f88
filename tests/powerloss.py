"""What may be on a disk after the power fails: system calls as strace wrote them down, replayed up to any moment.

Owns the model of the disk. What was synced is there. Of what was written since then anything may be: nothing, all of
it, or some of its sectors and not others; what was appended to a file, which grows as it is written, is cut. A sync
that failed has made nothing safe, and what it was asked to make safe never will be by another, for the kernel then
takes it for clean. Names are as safe as their directory's last sync, or, where `names_follow` (as ext4, XFS and btrfs
have it), as the last sync of any file there. Refuses to know what is in the files.
"""

import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "openat,pwrite64,write,fdatasync,fsync,ftruncate,fallocate,unlink,unlinkat,rename,renameat,renameat2,link,linkat"
)
#: A disk writes these whole or not at all.
SECTOR_BYTES = 512

_HEX = r"((?:\\x[0-9a-f]{2})*)"
_PATH = r"<([^>]*)>(?:\(deleted\))?"
_FD = rf"(-?\d+|AT_FDCWD){_PATH}"
_CALLS = {
    name: re.compile(pattern)
    for name, pattern in {
        "openat": rf'.*?, "{_HEX}", ([A-Z_|0-9]+)(?:, \d+)?\)\s+= \d+{_PATH}',
        "pwrite64": rf'{_FD}, "{_HEX}", \d+, (\d+)\)\s+= (\d+)',
        "write": rf'{_FD}, "{_HEX}", \d+\)\s+= (\d+)',
        "fdatasync": rf"{_FD}\)\s+= (0|-1)",
        "fsync": rf"{_FD}\)\s+= (0|-1)",
        "ftruncate": rf"{_FD}, (\d+)\)\s+= 0",
        "fallocate": rf"{_FD}, 0, (\d+), (\d+)\)\s+= 0",
        "unlink": rf'"{_HEX}"\)\s+= 0',
        "unlinkat": rf'{_FD}, "{_HEX}", 0\)\s+= 0',
        "rename": rf'"{_HEX}", "{_HEX}"\)\s+= 0',
    }.items()
}
_FAILED = re.compile(r"\)\s+= (-1 |\?)")


def recorded(trace: Path) -> list[str]:
    """What to put before a command so that its writes, and those of its children, are noted in `trace`."""
    return ["strace", "-f", "-qq", "-o", str(trace), "-xx", "-y", "-s", "1000000", "-e", f"trace={CALLS}"]


@dataclass
class _File:
    """What is safe of a file, and what was done to it since: bytes at an offset, or a length."""

    safe: bytes = b""
    since: list[tuple[int, bytes] | int] = field(default_factory=list)
    end: int = 0  #: where an append goes
    is_appended: bool = False  #: only ever written at its end, in order

    def do(self, change: tuple[int, bytes] | int) -> None:
        self.since.append(change)
        self.end = change if isinstance(change, int) else max(self.end, change[0] + len(change[1]))

    def synced(self, *, failed: bool) -> None:
        if not failed:
            self.safe = _changed(self.safe, self.since)
        self.since = []


_Survives = Callable[[_File], Sequence[tuple[int, bytes] | int]]


class Disk:
    """A directory's files, and those below it, as far as its trace was replayed."""

    def __init__(self, root: Path, *, names_follow: bool) -> None:
        self._root = f"{root}{os.sep}"
        self._names_follow = names_follow
        self._names: dict[str, _File] = {}
        self._safe_names: dict[str, _File] = {}
        self._since: list[tuple[str, _File | None]] = []  # names that were given, or taken away
        self.said = b""  #: what was written to standard output

    def replay(self, trace: Path) -> Iterator[str]:
        """Do what was done, call by call; yields the name of each that changed anything."""
        for call, words in _calls(trace.read_text()):
            found = _CALLS[call].match(words) if call in _CALLS else None
            if found is None:
                assert "<unfinished" in words or _FAILED.search(words), f"cannot replay {call}({words[:500]}"
            elif getattr(self, f"_{call}")(*found.groups()):
                yield call

    def after_power_loss(self, dice: random.Random | None, *, all_survives: bool = False) -> dict[str, bytes]:
        """What is found then: only what is safe, all that was ever written, or, by `dice`, anything in between."""
        if dice is None:
            survives: _Survives = (lambda file: file.since) if all_survives else (lambda _: ())
            kept = len(self._since) if all_survives else 0
        else:
            survives, kept = _torn_by(dice), dice.randint(0, len(self._since))
        names = _named(self._safe_names, self._since[:kept])
        return {name: _changed(file.safe, survives(file)) for name, file in names.items()}

    # --- What was done -----------------------------------------------------------------------------------------------

    def _openat(self, _asked: str, flags: str, path: str) -> bool:
        name = self._name(path)
        if name is None or "O_DIRECTORY" in flags:
            return False
        if name not in self._names and "O_CREAT" in flags:
            self._call(name, _File())
            return True
        if "O_TRUNC" in flags and name in self._names:
            self._names[name].do(0)
            return True
        return False

    def _pwrite64(self, _fd: str, path: str, data: str, offset: str, count: str) -> bool:
        return self._change(path, lambda _: (int(offset), _bytes(data)[: int(count)]))

    def _write(self, fd: str, path: str, data: str, count: str) -> bool:
        written = _bytes(data)[: int(count)]
        if fd == "1" and self._name(path) is None:
            self.said += written
        return self._change(path, lambda file: (file.end, written), appends=True)

    def _fdatasync(self, _fd: str, path: str, result: str) -> bool:
        name, failed = self._name(path), result != "0"
        if name in self._names:
            self._names[name].synced(failed=failed)
            if self._names_follow and not failed:
                self._sync_names()
            return True
        if not failed and _bytes(path).decode().startswith(self._root.rstrip(os.sep)):
            self._sync_names()  # a directory
        return True

    _fsync = _fdatasync

    def _ftruncate(self, _fd: str, path: str, size: str) -> bool:
        return self._change(path, lambda _: int(size))

    def _fallocate(self, _fd: str, path: str, offset: str, size: str) -> bool:
        return self._change(path, lambda file: max(file.end, int(offset) + int(size)))

    def _unlink(self, path: str) -> bool:
        return self._call(self._name(path), None)

    def _unlinkat(self, _fd: str, directory: str, name: str) -> bool:
        path = _bytes(name).decode()
        inside = path if path.startswith(os.sep) else f"{_bytes(directory).decode()}{os.sep}{path}"
        return self._call(self._inside(inside), None)

    def _rename(self, old: str, new: str) -> bool:
        name, other = self._name(old), self._name(new)
        if name is None or other is None or name not in self._names:
            return False
        # One step for the disk, too: nobody finds neither.
        file = self._names.pop(name)
        self._names[other] = file
        self._since.append((f"{name}\0{other}", file))
        return True

    def _change(self, path: str, change: Callable[[_File], tuple[int, bytes] | int], *, appends: bool = False) -> bool:
        file = self._names.get(self._name(path) or "")
        if file is None:
            return False
        file.is_appended = appends
        file.do(change(file))
        return True

    def _call(self, name: str | None, file: _File | None) -> bool:
        if name is None or (file is None and name not in self._names):
            return False
        self._since.append((name, file))
        _name(self._names, name, file)
        return True

    def _sync_names(self) -> None:
        self._safe_names = dict(self._names)
        self._since = []

    def _name(self, path: str) -> str | None:
        return self._inside(_bytes(path).decode())

    def _inside(self, path: str) -> str | None:
        # The index beside a log is made anew by whoever opens it first.
        return path.removeprefix(self._root) if path.startswith(self._root) and not path.endswith("-shm") else None


def laid_out(files: dict[str, bytes], where: Path) -> Path:
    """Those files, in a directory of their own."""
    where.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)
    return where


def _torn_by(dice: random.Random) -> _Survives:
    """Some changes reach the disk and some do not; of a write, some sectors."""

    def survives(file: _File) -> Sequence[tuple[int, bytes] | int]:
        if file.is_appended:
            return [*file.since, dice.randint(len(file.safe), max(len(file.safe), file.end))] if file.since else ()
        kept: list[tuple[int, bytes] | int] = []
        for change in file.since:
            if isinstance(change, int):
                kept += [change] * dice.randint(0, 1)
                continue
            fate = dice.randrange(3)
            if fate == 1:
                kept.append(change)
            elif fate == 2:
                kept += [sector for sector in _sectors(*change) if dice.randrange(2)]
        return kept

    return survives


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        size = SECTOR_BYTES - (offset + at) % SECTOR_BYTES
        yield offset + at, data[at : at + size]
        at += size


def _changed(content: bytes, changes: Sequence[tuple[int, bytes] | int]) -> bytes:
    if not changes:
        return content
    now = bytearray(content)
    for change in changes:
        if isinstance(change, int):
            now = now[:change] + bytes(max(0, change - len(now)))
            continue
        offset, data = change
        now += bytes(max(0, offset - len(now)))
        now[offset : offset + len(data)] = data
    return bytes(now)


def _named(names: dict[str, _File], since: Sequence[tuple[str, _File | None]]) -> dict[str, _File]:
    now = dict(names)
    for name, file in since:
        old, renamed, new = name.partition("\0")
        if renamed:
            now.pop(old, None)
        _name(now, new if renamed else old, file)
    return now


def _name(names: dict[str, _File], name: str, file: _File | None) -> None:
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file


def _calls(trace: str) -> Iterator[tuple[str, str]]:
    """Each call's name, and the rest of it, where it was over."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        thread, _, rest = line.partition(" ")
        text = rest.strip()
        if text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if text.startswith("<... "):
            text = begun.pop(thread, "") + text.partition(" resumed>")[2]
        call, bracket, words = text.partition("(")
        if bracket and call.isidentifier():
            yield call, words


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()
