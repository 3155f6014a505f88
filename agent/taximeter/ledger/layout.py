"""Where each table of a ledger begins, kept beside the file: without that, what SQLite keeps on its first page is all.

Owns the copy (`ledger.db.layout`), and a first page made of it, for whoever reads a ledger that has lost its own.
Refuses to touch the ledger itself.
"""

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import apsw

logger = logging.getLogger(__name__)

_MOST_BYTES = 1 << 20
_ROWS = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rootpage, name"
_PRAGMAS = ("page_size", "application_id", "user_version")
#: A page of a table without a row, behind the header that the first page has.
_EMPTY = bytes((13, 0, 0, 0, 0))
_HEADER_BYTES = 100

_KINDS = ((str, str, str, int, str), (str, str, str, int, type(None)))
Rows = tuple[tuple[str, str, str, int, str | None], ...]


class Layout(NamedTuple):
    """What the first page says."""

    page_bytes: int
    application_id: int
    user_version: int
    rows: Rows


def keep(path: Path) -> None:
    """Keep the layout of the ledger at `path` beside it, unless it is there; where that fails, the next start does."""
    try:
        with contextlib.closing(apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            page_bytes, application_id, user_version = map(connection.pragma, _PRAGMAS)
            layout = Layout(page_bytes, application_id, user_version, rows_of(connection))
        if kept(path) != layout:
            _write(_place(path), layout)
    except (OSError, apsw.Error) as error:
        logger.warning("ledger.layout_unkept: %s", error)


def kept(path: Path) -> Layout | None:
    """What is kept of the ledger at `path`; None where that is nothing, or no sense."""
    try:
        with _place(path).open("rb") as file:
            page_bytes, application_id, user_version, rows = json.loads(file.read(_MOST_BYTES))
        layout = Layout(page_bytes, application_id, user_version, tuple(tuple(row) for row in rows))
    except (OSError, ValueError, TypeError):
        return None
    is_sound = all(type(number) is int and 0 < number < 1 << 31 for number in layout[:3])
    is_sound = is_sound and all(tuple(map(type, row)) in _KINDS for row in layout.rows)
    return layout if is_sound and page_bytes.bit_count() == 1 and 512 <= page_bytes < 65_536 else None


def rows_of(connection: apsw.Connection) -> Rows:
    """What a ledger's own first page says of where what begins."""
    rows: list[Any] = connection.execute(_ROWS).fetchall()
    return tuple(rows)


def write_first_page(copy: Path, layout: Layout, header: bytes) -> None:
    """Give a copy of a ledger a first page of this layout, behind such a header. Raises OSError, apsw.Error."""
    page = header[:_HEADER_BYTES].ljust(_HEADER_BYTES, b"\0") + _EMPTY + layout.page_bytes.to_bytes(2) + b"\0"
    with copy.open("r+b") as file:
        file.write(page.ljust(layout.page_bytes, b"\0"))
    with contextlib.closing(apsw.Connection(os.fspath(copy), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        connection.pragma("writable_schema", True)
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", layout.rows)
        connection.pragma("application_id", layout.application_id)
        connection.pragma("user_version", layout.user_version)
        connection.execute("COMMIT")


def _write(place: Path, layout: Layout) -> None:
    fresh = place.with_name(f"{place.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(layout, file)
        file.flush()
        os.fsync(fd)
    fresh.rename(place)


def _place(path: Path) -> Path:
    return path.with_name(f"{path.name}.layout")
