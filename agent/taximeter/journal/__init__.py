"""Bytes to events: what wrappers and workers wrote, read on from a position, believed as far as it is well formed.

Owns the shapes of journal lines and marks, and how a journal directory is read. Refuses to know what an event means
(lifecycle), who is billed (billing) and what is kept (ledger).
"""

from taximeter.journal.facts import parse_line
from taximeter.journal.files import (
    Unwritten,
    is_loose,
    journal_name,
    list_instances,
    open_directory,
    open_heard,
    open_marks,
    parse_name,
    remove,
    remove_before,
    sync,
    unwritten,
    writer_pid,
)
from taximeter.journal.marks import parse_mark
from taximeter.journal.orphans import remove_orphans
from taximeter.journal.reading import Chunk, Position, read_on

__all__ = [
    "Chunk",
    "Position",
    "Unwritten",
    "is_loose",
    "journal_name",
    "list_instances",
    "open_directory",
    "open_heard",
    "open_marks",
    "parse_line",
    "parse_mark",
    "parse_name",
    "read_on",
    "remove",
    "remove_before",
    "remove_orphans",
    "sync",
    "unwritten",
    "writer_pid",
]
