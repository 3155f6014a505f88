"""From records, as the ledger has them, back to what they tell of predictions that have ended: pure.

Owns which of a record's words a correction of it needs. Refuses to read records, and to know what is corrected.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from taximeter.clockwork import utc_ns
from taximeter.events import NOTHING, Opened, ServiceClass, Source, Status
from taximeter.instance import Ended, Prediction, Times
from taximeter.records import TAKEN_BACK, RecordType, Witness
from taximeter.values import replace

_UNTOLD = Witness(Source.MARK, None)
_SECOND = 1_000_000_000


def number_of(record_id: str) -> int:
    """Which of its instance's records that is, from 0 on."""
    return int(record_id.rpartition("-")[2])


def ended(opened: Opened, records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Ended]]:
    """What has ended, by those of an instance's records that say so, each with the record's number.

    What was taken back of it stands for itself: it is priced anew as what it was taken from is.
    """
    for record in records:
        data = record["data"]
        if record["type"] == RecordType.PREDICTION and data["final"]:
            yield number_of(record["id"]), _ended(opened, record["id"], data)
        elif record["type"] == RecordType.CORRECTION and data["reason"] in TAKEN_BACK:
            yield number_of(record["id"]), _taken_back(opened, record["id"], data)


def ended_as_told(record: Mapping[str, Any]) -> Ended:
    """What a final record says has ended, or, of what was taken back of it, what is left; when, by UTC, is not told."""
    data = record["data"]
    if record["type"] == RecordType.PREDICTION:
        return _ended(None, record["id"], data)
    return replace(_taken_back(None, record["id"], data), less=None)


def _ended(opened: Opened | None, record_id: str, data: Mapping[str, Any]) -> Ended:
    interval, to_date, start = data["interval"], data["to_date"], data["timing"]["start"]
    end_ns, suspended_ns = interval["end_ns"], data["time"]["suspended_ns"]
    prediction = replace(
        _prediction(record_id, data),
        # Where the machine slept before its last interim record, it began that much later by this clock; not by UTC.
        start_ns=end_ns - to_date["wall_ns"] + suspended_ns,
        start=Witness(start["source"], start["uncertainty_ns"]),
        cut_times=Times(to_date["load_ns"], to_date["active_ns"], to_date["share_ns"], suspended_ns),
    )
    return Ended(prediction, Status(data["status"]), _slept_ns(opened, interval))


def _taken_back(opened: Opened | None, record_id: str, data: Mapping[str, Any]) -> Ended:
    left, time = data["to_date"], data["time"]
    prediction = replace(
        _prediction(record_id, data),
        cut_times=Times(left["load_ns"], left["active_ns"], left["share_ns"]),
    )
    less = Times(-time["load_ns"], -time["active_ns"], -time["share_ns"])
    return Ended(prediction, Status(data["status"]), _slept_ns(opened, data["interval"]), less)


def _slept_ns(opened: Opened | None, interval: Mapping[str, Any]) -> int:
    if opened is None:
        return 0
    return realtime_ns(interval["end_utc"]) - utc_ns(opened, interval["end_ns"])


def _prediction(record_id: str, data: Mapping[str, Any]) -> Prediction:
    return Prediction(
        id=data["prediction"],
        model=data["model"],
        version=data["version"],
        account=data["account"],
        service_class=ServiceClass(data["class"]),
        pool=data["pool"],
        parent=data["parent"],
        root=data["root"],
        attributes=data.get("attributes", NOTHING),
        traceparent=None,
        card=data["billing"]["rate_card"],
        start_ns=data["interval"]["start_ns"],
        start=_UNTOLD,
        active=True,
        cut_ns=data["interval"]["end_ns"],
        last_interim=record_id,
        tier=data["hardware"]["tier"],
        units_total=data.get("units_to_date") or data.get("units", NOTHING),
        devices=data["hardware"]["count"],
    )


def realtime_ns(text: str) -> int:
    """The inverse of records.utc_text."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * _SECOND + int(fraction)
