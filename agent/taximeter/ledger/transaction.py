"""Several statements as one: all of it is on the disk, or nothing.

Owns why this is not `with connection`: APSW holds the interpreter's lock while that commits, so that a disk which takes
two seconds for a sync would stop the whole agent for so long. Statements that are executed let others run.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import apsw

_NAME = "taximeter"


@contextlib.contextmanager
def transaction(connection: "apsw.Connection") -> Iterator[None]:
    """Commit at the end, or, where anything is raised, take all of it back; within another it is a part of that."""
    connection.execute(f"SAVEPOINT {_NAME}")
    try:
        yield
        connection.execute(f"RELEASE {_NAME}")
    except BaseException:
        # A disk that failed may have ended the transaction by itself.
        if connection.in_transaction:
            connection.execute(f"ROLLBACK TO {_NAME}")
            connection.execute(f"RELEASE {_NAME}")
        raise
