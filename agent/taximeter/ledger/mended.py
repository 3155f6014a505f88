"""A copy of a damaged ledger with the header that every ledger has, where the file's own cannot be used.

What SQLite keeps in the first hundred bytes is the same in all of our files, but for a few counters, and where the
tables begin is kept beside it: so a wound there, or the loss of all of the first page, need not cost what lies behind
it. Refuses to touch the damaged file.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw

from taximeter.ledger import layout

#: Of ledgers of today, and of those before.
_PAGE_BYTES = (16_384, 8_192)
_SIDES = ("", "-wal", "-shm")


@contextlib.contextmanager
def readable(path: Path) -> Iterator[Path]:
    """The ledger at `path` itself, if SQLite can find its tables; else a copy where it can, gone afterwards."""
    copy = path.with_name(f"{path.name}.mended")
    try:
        yield _found(path, copy, layout.kept(path)) or _found(path, copy, None) or path
    finally:
        _remove(copy)


def _found(path: Path, copy: Path, kept: layout.Layout | None) -> Path | None:
    """Which of both has the tables, once something is done for the copy: those that were kept, where that is known."""
    if _has_tables(path, kept):
        return path
    if any(_mend(path, copy, page_bytes, kept) for page_bytes in _PAGE_BYTES):
        return copy
    return copy if kept is not None and _lay_out(path, copy, kept) else None


def _mend(path: Path, copy: Path, page_bytes: int, kept: layout.Layout | None) -> bool:
    """Make the copy, with a header of that page size; whether tables are found in it."""
    _copy(path, copy)
    with copy.open("r+b") as file:
        for offset, value in _header(copy.stat().st_size // page_bytes, page_bytes):
            file.seek(offset)
            file.write(value)
    return _has_tables(copy, kept)


def _lay_out(path: Path, copy: Path, kept: layout.Layout) -> bool:
    """Make the copy, with a first page as it was kept; whether tables are found in it."""
    _copy(path, copy)
    header = bytearray(100)
    for offset, value in _header(copy.stat().st_size // kept.page_bytes, kept.page_bytes):
        header[offset : offset + len(value)] = value
    try:
        layout.write_first_page(copy, kept, bytes(header))
    except apsw.Error:
        return False
    return _has_tables(copy, kept)


def _header(pages: int, page_bytes: int) -> tuple[tuple[int, bytes], ...]:
    """What SQLite has to find in the first hundred bytes, and where."""
    return (
        (0, b"SQLite format 3\0" + page_bytes.to_bytes(2) + bytes((2, 2, 0, 64, 32, 32))),
        (28, pages.to_bytes(4)),
        (44, (4).to_bytes(4)),  # the format of the schema
        (52, bytes(4) + (1).to_bytes(4)),  # no vacuuming; UTF-8
    )


def _copy(path: Path, copy: Path) -> None:
    _remove(copy)
    for side in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(f"{path}{side}", f"{copy}{side}")


def _has_tables(path: Path, kept: layout.Layout | None) -> bool:
    """Whether the tables are found: those that were kept, where that is known."""
    try:
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
        with contextlib.closing(connection):
            rows = layout.rows_of(connection)
    except (apsw.Error, UnicodeDecodeError):
        return False
    return any(row[:2] == ("table", "records") for row in rows) if kept is None else set(kept.rows).issubset(rows)


def _remove(copy: Path) -> None:
    for side in _SIDES:
        copy.with_name(copy.name + side).unlink(missing_ok=True)
