"""What a record of usage says of its bill, as far as it is needed to find what another card may bill.

Records are decoded no further: a ledger has millions of them. Refuses to know what anything costs.
"""

import msgspec

from taximeter.billing.classes import ONLINE
from taximeter.recall import realtime_ns
from taximeter.rerating import LateCards


class Billed(msgspec.Struct, gc=False):
    """How it was billed."""

    status: str
    rate_card: str | None


class _Interval(msgspec.Struct, gc=False):
    start_utc: str
    end_utc: str


class _Time(msgspec.Struct, gc=False):
    wall_ns: int


class Told(msgspec.Struct, gc=False):
    """Whose record it is, of when, and by which card."""

    instance: str
    account: str | None
    model: str | None
    billing: Billed
    interval: _Interval
    to_date: _Time
    prediction: str | None
    final: bool
    class_: str = msgspec.field(name="class")


class _Event(msgspec.Struct, gc=False):
    data: Told


decode = msgspec.json.Decoder(_Event).decode


def convert(event: object) -> _Event:
    """The same of a record that was decoded whole."""
    return msgspec.convert(event, _Event)


def is_late(data: Told, late: LateCards) -> bool:
    """Whether a card that came late may be that of a prediction which began there, or of online time."""
    since_utc = late.since(data.billing.rate_card)
    if since_utc is None or data.interval.end_utc <= since_utc:
        return False
    if data.prediction is None and data.class_ in ONLINE:
        return True
    return data.final and realtime_ns(data.interval.end_utc) - data.to_date.wall_ns >= realtime_ns(since_utc)
