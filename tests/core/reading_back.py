"""What the agent does with what it kept, in a test: reads records and instances back as the ledger has them."""

from typing import Any

import msgspec

from taximeter.agent.accounts import Account, kept_state, state_of
from taximeter.instance import Instance
from taximeter.journal import Position
from taximeter.late import review
from taximeter.recall import ended, number_of
from taximeter.records import UsageRecord
from taximeter.rulebook import Rulebook


def as_read(record: UsageRecord) -> dict[str, Any]:
    """A record as whoever reads the ledger has it."""
    said = {"id": record.id, "type": record.type, "data": record.data}
    read: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(said))
    return read


def taken_up(instance: Instance) -> Instance:
    """An instance as an agent takes it up that begins anew."""
    again = state_of(kept_state(instance.opened.instance, Account(Position(), instance)))
    assert again is not None
    return again


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
