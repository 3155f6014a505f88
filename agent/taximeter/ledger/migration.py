"""How an older ledger becomes one of today's: step by step, each in one transaction with the number it leads to.

Owns the steps, which are never changed once they were released. A ledger that a younger Taximeter wrote is refused:
what it means is not known here. Refuses to touch the records.
"""

from typing import TYPE_CHECKING

from taximeter.ledger import base, outbox
from taximeter.ledger.transaction import transaction

if TYPE_CHECKING:
    import apsw

#: What leads from each version to the next; the first is 1.
_STEPS = (outbox.TABLES + base.TABLES,)
SCHEMA_VERSION = 1 + len(_STEPS)


def migrate(connection: "apsw.Connection") -> None:
    """Bring a ledger up to date; returns at once where it is."""
    for version in range(connection.pragma("user_version"), SCHEMA_VERSION):
        with transaction(connection):
            connection.execute(_STEPS[version - 1])
            connection.pragma("user_version", version + 1)
