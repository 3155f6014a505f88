"""A copy of a damaged ledger with the header that every ledger has, where the file's own cannot be used.

What SQLite keeps in the first hundred bytes is the same in all of our files, but for a few counters: so a wound there
need not cost what lies behind it. Refuses to touch the damaged file.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw

#: Of ledgers of today, and of those before.
_PAGE_BYTES = (16_384, 8_192)
_SIDES = ("", "-wal", "-shm")


@contextlib.contextmanager
def readable(path: Path) -> Iterator[Path]:
    """The ledger at `path` itself, if SQLite can find its tables; else a copy where it can, gone afterwards."""
    if _has_tables(path):
        yield path
        return
    copy = path.with_name(f"{path.name}.mended")
    try:
        yield next((copy for page_bytes in _PAGE_BYTES if _mend(path, copy, page_bytes)), path)
    finally:
        _remove(copy)


def _mend(path: Path, copy: Path, page_bytes: int) -> bool:
    """Make the copy, with a header of that page size; whether tables are found in it."""
    _remove(copy)
    for side in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(f"{path}{side}", f"{copy}{side}")
    pages = copy.stat().st_size // page_bytes
    with copy.open("r+b") as file:
        for offset, value in (
            (0, b"SQLite format 3\0" + page_bytes.to_bytes(2) + bytes((2, 2, 0, 64, 32, 32))),
            (28, pages.to_bytes(4)),
            (44, (4).to_bytes(4)),  # the format of the schema
            (52, bytes(4) + (1).to_bytes(4)),  # no vacuuming; UTF-8
        ):
            file.seek(offset)
            file.write(value)
    return _has_tables(copy)


def _has_tables(path: Path) -> bool:
    try:
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
        with contextlib.closing(connection):
            return ("records",) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    except (apsw.Error, UnicodeDecodeError):
        return False


def _remove(copy: Path) -> None:
    for side in _SIDES:
        copy.with_name(copy.name + side).unlink(missing_ok=True)
