"""The correction of what was billed anew, as it is published. Pure.

Owns its shape, which is told as the records are that it corrects. Refuses to know why it is due, and which number it
has among its instance's (whoever books it numbers it).
"""

from collections.abc import Mapping
from typing import Any

from taximeter.about import record_id
from taximeter.events import ServiceClass
from taximeter.recall import realtime_ns
from taximeter.records import (
    RERATED,
    Billing,
    DeviceUse,
    HardwareElsewhere,
    HardwareUse,
    RecordType,
    UsageRecord,
)

Json = Mapping[str, Any]


def rerated(billing: Billing, whose: tuple[Json, Json], of: Json, counted: Mapping[str, object]) -> UsageRecord:
    """A correction of all from the first to the last of the records `whose` it is, told as `of` has it."""
    first, last = whose
    names = (
        "account",
        "model",
        "version",
        "class",
        "pool",
        "kind",
        "instance",
        "prediction",
        "parent",
        "root",
        "status",
    )
    data: dict[str, object] = {name: of[name] for name in names}
    began, ended = first["data"]["interval"], last["data"]["interval"]
    data |= {
        "class": ServiceClass(of["class"]),
        "corrects": {"source": last["source"], "id": last["id"]},
        "reason": RERATED,
        "interval": {**ended, "start_utc": began["start_utc"], "start_ns": began["start_ns"]},
        "time": {"active_ns": 0, "share_ns": 0},
        **counted,
        "hardware": _hardware(of["hardware"]),
        "billing": billing,
    }
    return UsageRecord(
        record_id(of["instance"], 0),
        RecordType.CORRECTION,
        last["subject"],
        realtime_ns(began["start_utc"]),
        data,
        of["instance"],
        of["prediction"],
        of["root"],
        of["account"],
        of["model"],
    )


def _hardware(said: Json) -> HardwareUse:
    """The inverse of how a record tells of its hardware."""
    devices = tuple(DeviceUse(**device) for device in said["devices"])
    texts = {name: tuple(said.get(name, ())) for name in ("declared", "observed", "shared_devices")}
    kind = HardwareElsewhere if "published" in said else HardwareUse
    return kind(**{**said, **texts, "devices": devices})
