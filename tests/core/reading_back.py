"""What the agent does with records that are to be reviewed, in a test: reads them back as the ledger has them."""

from typing import Any

import msgspec

from taximeter.instance import Instance
from taximeter.late import review
from taximeter.recall import ended, number_of
from taximeter.records import UsageRecord
from taximeter.rulebook import Rulebook


def as_read(record: UsageRecord) -> dict[str, Any]:
    """A record as whoever reads the ledger has it."""
    said = {"id": record.id, "type": record.type, "data": record.data}
    read: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(said))
    return read


def look_through(
    instance: Instance, records: list[UsageRecord], by: Rulebook, slices: int = 1_000_000, most: int = 7
) -> Instance:
    """Review what is to be, `slices` times `most` records; corrections go to the others."""
    while instance.review is not None and slices:
        work, slices = instance.review, slices - 1
        at = min(work.at + most, work.until)
        read = [as_read(record) for record in records if work.at <= number_of(record.id) < at]
        instance, more = review(instance, ended(instance.opened, read), at, by)
        records += more
    return instance
