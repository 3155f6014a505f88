"""One mark: the line that a worker wrote, to an event.

Owns the shape of marks and what makes one unreadable. Refuses to know whether a mark is allowed here (that needs the
instance's state: lifecycle) and never raises: a worker can write anything, and none of it may harm the instance.
"""

from typing import Annotated, TypeVar

import msgspec

from taximeter import events, wire
from taximeter.journal import text

_Ns = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Pid = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Raws = dict[str, msgspec.Raw]
_T = TypeVar("_T")

#: By mark, what of a service class a worker may choose: the others bill the whole instance, so only `run` can.
_CLASSES = {word: events.ServiceClass(word) for word in wire.CLASSES if word not in ("private", "deployment")}
_STATUSES = {word: events.Status(word) for word in ("succeeded", "failed", "canceled")}
_REASONS = {reason.value: reason for reason in events.StopReason}


class _Said(msgspec.Struct, tag_field="mark"):
    at: _Ns | None = None


class _Ready(_Said, tag=wire.MARK_READY):
    pass


class _Start(_Said, tag=wire.MARK_START, kw_only=True):
    prediction: str
    model: str | None = None
    version: str | None = None
    account: str | None = None
    service_class: str | None = msgspec.field(name="class", default=None)
    pool: str | None = None
    parent: str | None = None
    root: str | None = None
    attributes: _Raws = {}
    pid: _Pid | None = None
    detached: bool = False
    traceparent: str | None = None


class _Active(_Said, tag=wire.MARK_ACTIVE, kw_only=True):
    prediction: str


class _Units(_Said, tag=wire.MARK_UNITS, kw_only=True):
    prediction: str | None = None
    units: _Raws


class _Finish(_Said, tag=wire.MARK_FINISH, kw_only=True):
    prediction: str
    status: str
    units: _Raws = {}


class _Stopping(_Said, tag=wire.MARK_STOPPING, kw_only=True):
    reason: str = events.StopReason.DRAIN.value


_decode = msgspec.json.Decoder(_Ready | _Start | _Active | _Units | _Finish | _Stopping).decode


def parse_mark(raw: bytes, at_ns: int) -> events.Marked | events.BadMark:
    """Read the line `raw` (without its newline) that was received at `at_ns`; what cannot be read is a BadMark."""
    if len(raw) >= wire.MARK_MAX_BYTES:
        return events.BadMark(at_ns, "too_long")
    try:
        said = _decode(raw)
        return events.Marked(at_ns, _mark(said), said.at)
    except UnicodeDecodeError:
        return events.BadMark(at_ns, "not_utf8")
    except msgspec.ValidationError as error:
        return events.BadMark(at_ns, "unknown_mark" if str(error).endswith("`$.mark`") else "bad_shape")
    except (msgspec.DecodeError, RecursionError):
        return events.BadMark(at_ns, "not_json")
    except ValueError as error:  # the bounded words of taximeter.journal.text
        return events.BadMark(at_ns, str(error))


def _mark(said: _Said) -> events.Mark:
    match said:
        case _Units():
            return events.UnitsMark(text.optional_name(said.prediction), text.units(said.units))
        case _Start():
            return _start(said)
        case _Finish():
            return events.FinishMark(
                text.name(said.prediction), _known(_STATUSES, said.status, "bad_status"), text.units(said.units)
            )
        case _Active():
            return events.ActiveMark(text.name(said.prediction))
        case _Stopping():
            return events.StoppingMark(_known(_REASONS, said.reason, "bad_reason"))
        case _:
            return events.ReadyMark()


def _start(said: _Start) -> events.StartMark:
    service_class = said.service_class
    return events.StartMark(
        prediction=text.name(said.prediction),
        model=text.optional_name(said.model),
        version=text.optional_name(said.version),
        account=text.optional_name(said.account),
        service_class=None if service_class is None else _known(_CLASSES, service_class, "bad_class"),
        pool=text.optional_name(said.pool),
        parent=text.optional_name(said.parent),
        root=text.optional_name(said.root),
        attributes=text.attributes(said.attributes),
        pid=said.pid,
        detached=said.detached,
        traceparent=text.traceparent(said.traceparent),
    )


def _known(table: dict[str, _T], word: str, reason: str) -> _T:
    found = table.get(word)
    if found is None:
        raise ValueError(reason)
    return found
