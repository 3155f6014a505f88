"""What every usage record says, whatever it is of: who and what it is about, who pays, how it is called, how it ends.

Refuses to know what was used and what that costs (booking), and what was told before (corrections).
"""

from collections.abc import Mapping

from taximeter.billing.classes import ONLINE
from taximeter.clockwork import utc_ns
from taximeter.events import Options, ServiceClass, Status
from taximeter.hardware.inventory import Hardware
from taximeter.instance import Instance, Prediction
from taximeter.intervals import Moment
from taximeter.records import PLATFORM, UNATTRIBUTED, HardwareUse, RecordType, UsageRecord, Witness
from taximeter.rulebook import Rulebook
from taximeter.sold import as_published, hardware_use
from taximeter.values import Value


class Late(Value):
    """Where a prediction truly ended, which was found out when more of it had been told: that is taken back."""

    until_ns: int
    told_ns: int  #: so far its time is told as any other's
    reason: str


class End(Value):
    """Where and how an interval ends."""

    at_ns: int
    status: Status
    final: bool
    witness: Witness
    late: Late | None = None
    said: bool = False  #: by the prediction's own word
    told: bool = True  #: by whoever knows how: not by the last sign of life, or by who saw no more than that it ended


def record_id(instance: str, number: int) -> str:
    """The id of an instance's record: deterministic, so that a replay yields the same, and of fixed width."""
    return f"{instance}-{number:08d}"


def identity(instance: Instance, prediction: Prediction | None, end: End) -> dict[str, object]:
    """Who and what a record is about; of a prediction, or of the instance itself."""
    about: Options | Prediction = prediction or instance.opened.options
    service_class = prediction.service_class if prediction else instance.service_class
    return {
        "account": about.account,
        "model": about.model,
        "version": about.version,
        "class": service_class,
        "pool": about.pool,
        "kind": "training" if service_class is ServiceClass.TRAINING else "inference",
        "instance": instance.opened.instance,
        "prediction": prediction.id if prediction else None,
        "parent": about.parent,
        "root": about.root,
        "status": end.status,
        "final": end.final,
    }


def filed(
    instance: Instance,
    kind: RecordType,
    prediction: Prediction | None,
    began: Moment,
    data: Mapping[str, object],
    behind: int = 0,
) -> UsageRecord:
    """A record of such data, `behind` so many others that are made at the same time."""
    opened = instance.opened
    about: Options | Prediction = prediction or opened.options
    theirs = prediction is not None or instance.service_class in ONLINE
    return UsageRecord(
        record_id(opened.instance, instance.records + behind),
        kind,
        (about.account or UNATTRIBUTED) if theirs else PLATFORM,
        utc_ns(opened, began.at_ns, began.slept_ns),
        data,
        opened.instance,
        prediction.id if prediction else None,
        about.root,
        about.account,
        about.model,
    )


def use_of(instance: Instance, prediction: Prediction | None, hardware: Hardware, book: Rulebook) -> HardwareUse:
    """What a record says of the hardware, held against what its model is published with."""
    about, state = (prediction, prediction) if prediction else (instance.opened.options, instance)
    return as_published(hardware_use(instance, hardware), about.model, book.card_of(state.card))


def cut_of(instance: Instance) -> Moment:
    """Where the last interim records ended: whatever has one was cut there."""
    return Moment(instance.cut.at_ns, instance.cut.phases.suspended)
