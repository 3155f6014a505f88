"""One journal line: the fact that a wrapper wrote, to an event.

Owns the shape of journal lines, version 1 (docs: the journal). Types are strict: true is no number, 1.0 no integer,
an integer fits 64 bits; unknown keys are ignored, so that an older agent reads what a younger wrapper added. Refuses to
know files, order and what a fact means.
"""

import binascii
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from taximeter import events, wire
from taximeter.errors import JournalFault
from taximeter.journal import text
from taximeter.journal.marks import parse_mark

# A machine that was up for 36 years, the year 2116: sums and differences of these still fit 64 bits and a calendar.
_Ns = Annotated[int, msgspec.Meta(ge=0, le=2**60 - 1)]
_Utc = Annotated[int, msgspec.Meta(ge=0, le=2**62 - 1)]
_Offset = Annotated[int, msgspec.Meta(ge=-(2**60), le=2**60)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]

_CLASSES = {word: events.ServiceClass(word) for word in wire.CLASSES}
_OOM: dict[str | None, str] = {word: events.Oom(word) for word in wire.OOM}
_ON_TERM = {word: events.StopReason(word) for word in wire.ON_TERM}


class _Clock(msgspec.Struct):
    monotonic: _Ns
    boottime: _Ns
    raw: _Ns
    realtime: _Utc
    boot_id: str
    took: _Ns = events.UNTOLD_NS
    utc_error: _Ns | None = None


class _TimeOffsets(msgspec.Struct):
    monotonic: _Offset
    boottime: _Offset


class _Usage(msgspec.Struct):
    cpu_ns: _Count | None = None  # of all cores together, so no point in time
    rss_peak_bytes: _Count | None = None


class _Options(msgspec.Struct):
    worker: bool = False
    model: str | None = None
    version: str | None = None
    account: str | None = None
    service_class: str | None = msgspec.field(name="class", default=None)
    pool: str | None = None
    prediction: str | None = None
    parent: str | None = None
    root: str | None = None
    labels: dict[str, str] = {}
    units: dict[str, msgspec.Raw] = {}
    on_term: str = "canceled"
    ready: str = "exec"


class _Fact(msgspec.Struct, tag_field="f"):
    v: _Number
    t: _Ns


class _Open(_Fact, tag=wire.FACT_OPEN, kw_only=True):
    instance: str
    segment: _Number
    argv: list[str]
    options: _Options
    clock: _Clock
    uid: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
    pid: _Number
    env: dict[str, str] = {}
    traceparent: str | None = None
    timens: _TimeOffsets | None = None
    sid: _Number | None = None
    pidns: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class _Spawn(_Fact, tag=wire.FACT_SPAWN, kw_only=True):
    before: _Ns
    pid: _Number
    start: _Count | None = None


class _Ready(_Fact, tag=wire.FACT_READY, kw_only=True):
    by: str
    within: _Ns = 0


class _ReadyTimeout(_Fact, tag=wire.FACT_READY_TIMEOUT):
    pass


class _Mark(_Fact, tag=wire.FACT_MARK, kw_only=True):
    raw: str


class _Stopping(_Fact, tag=wire.FACT_STOPPING):
    pass


class _Signal(_Fact, tag=wire.FACT_SIGNAL, kw_only=True):
    signal: _Number
    kernel: bool
    outside: bool
    sender: _Number = 0


class _Heartbeat(_Fact, tag=wire.FACT_HEARTBEAT, kw_only=True):
    clock: _Clock
    usage: _Usage | None = None


class _Exit(_Fact, tag=wire.FACT_EXIT, kw_only=True):
    code: _Number | None
    signal: _Number | None
    core: bool = False
    clock: _Clock | None = None
    usage: _Usage | None = None
    error: str | None = None
    dropped: _Count = 0
    oom: str | None = None
    left: _Number | None = None


class _Version(msgspec.Struct):
    v: int


_AnyFact = _Open | _Spawn | _Ready | _ReadyTimeout | _Mark | _Stopping | _Signal | _Heartbeat | _Exit
_decode = msgspec.json.Decoder(_AnyFact).decode
_decode_version = msgspec.json.Decoder(_Version).decode
_NO_USAGE = events.Usage()
#: How a line ends: a CRC-32 of all that is before, which lines of older wrappers do not have.
_SEAL, _SUM_BYTES = b',"c":"', len('01234567"}')
_SEAL_BYTES = len(_SEAL) + _SUM_BYTES


def parse_line(line: bytes) -> events.Event:
    """Read one journal line, without its newline.

    Raises JournalFault, whose reason is one of: too_long, damaged, not_json, newer_version, not_a_fact, bad_fact, or a
    bounded word of what made a name, quantity or label unfit.
    """
    if len(line) >= wire.LINE_MAX_BYTES:
        raise _fault("too_long", line, f"fewer than {wire.LINE_MAX_BYTES} bytes, got {len(line)}")
    if line[-_SEAL_BYTES:-_SUM_BYTES] == _SEAL and line[-_SUM_BYTES:] != b'%08x"}' % binascii.crc32(
        line[:-_SEAL_BYTES]
    ):
        raise _fault("damaged", line, "what its checksum is of")
    try:
        fact = _decode(line)
        if fact.v != wire.JOURNAL_VERSION:
            raise _fault(*_unlike(line))
        return _EVENTS[type(fact)](fact)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _fault(*_unlike(line)) from error
    except ValueError as error:  # the bounded words of taximeter.journal.text
        raise _fault(str(error), line, "fit names and quantities") from error


def _unlike(line: bytes) -> tuple[str, bytes, str]:
    """Why a line is no fact of this version; the slow path: only damaged and younger journals take it."""
    try:
        version = _decode_version(line).v
    except msgspec.ValidationError:
        return "not_a_fact", line, 'an object with an integer "v"'
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return "not_json", line, "one JSON object"
    if version > wire.JOURNAL_VERSION:
        return "newer_version", line, f"journal version {wire.JOURNAL_VERSION}; upgrade the agent"
    if version < wire.JOURNAL_VERSION:
        return "not_a_fact", line, f"journal version {wire.JOURNAL_VERSION}"
    return "bad_fact", line, "a fact of journal version 1 with all its keys"


def _fault(reason: str, line: bytes, expected: str) -> JournalFault:
    shown = line[:80] + b"..." if len(line) > 80 else line
    return JournalFault(reason, f"cannot read journal line {shown!r}: expected {expected}")


def _opened(fact: _Open) -> events.Opened:
    return events.Opened(
        at_ns=fact.t,
        instance=text.name(fact.instance),
        segment=fact.segment,
        argv=tuple(fact.argv),
        options=_options(fact.options),
        clock=_clock(fact.clock),
        uid=fact.uid,
        wrapper_pid=fact.pid,
        visible=fact.env,
        traceparent=text.traceparent(fact.traceparent),
        timens=None if fact.timens is None else events.TimeOffsets(fact.timens.monotonic, fact.timens.boottime),
        session=fact.sid,
        pid_namespace=fact.pidns,
    )


def _options(said: _Options) -> events.Options:
    service_class = said.service_class
    if said.on_term not in _ON_TERM or not (service_class is None or service_class in _CLASSES):
        raise ValueError("bad_option")
    return events.Options(
        said.worker,
        text.optional_common_name(said.model),
        text.optional_common_name(said.version),
        text.optional_common_name(said.account),
        None if service_class is None else _CLASSES[service_class],
        text.optional_common_name(said.pool),
        text.optional_name(said.prediction),
        text.optional_name(said.parent),
        text.optional_name(said.root),
        text.strings(said.labels) if said.labels else {},
        text.units(said.units) if said.units else {},
        _ON_TERM[said.on_term],
        text.common_name(said.ready),
    )


def _marked(fact: _Mark) -> events.Marked | events.BadMark:
    try:
        raw = binascii.a2b_base64(fact.raw, strict_mode=True)
    except ValueError as error:
        raise ValueError("bad_base64") from error
    return parse_mark(raw, fact.t)


def _exited(fact: _Exit) -> events.Exited:
    clock = None if fact.clock is None else _clock(fact.clock)
    usage = _usage(fact.usage)
    return events.Exited(
        at_ns=fact.t,
        code=fact.code,
        signal=fact.signal,
        core_dumped=fact.core,
        clock=clock,
        usage=usage,
        error=fact.error,
        dropped=fact.dropped,
        oom=_OOM.get(fact.oom),  # a word that a younger wrapper may know is none
        left=fact.left,
    )


def _clock(said: _Clock) -> events.Clock:
    boot_id = text.common_name(said.boot_id)
    return events.Clock(said.monotonic, said.boottime, said.raw, said.realtime, boot_id, said.took, said.utc_error)


def _usage(said: _Usage | None) -> events.Usage:
    return _NO_USAGE if said is None else events.Usage(said.cpu_ns, said.rss_peak_bytes)


def _spawned(fact: _Spawn) -> events.Spawned:
    return events.Spawned(fact.t, fact.before, fact.pid, fact.start)


def _became_ready(fact: _Ready) -> events.BecameReady:
    return events.BecameReady(fact.t, text.common_name(fact.by), fact.within)


def _ready_timed_out(fact: _ReadyTimeout) -> events.ReadyTimedOut:
    return events.ReadyTimedOut(fact.t)


def _stopping(fact: _Stopping) -> events.Stopping:
    return events.Stopping(fact.t, events.StopReason.DRAIN)


def _signaled(fact: _Signal) -> events.Signaled:
    return events.Signaled(fact.t, fact.signal, fact.kernel, fact.outside, fact.sender or None)


def _heartbeat(fact: _Heartbeat) -> events.Heartbeat:
    return events.Heartbeat(fact.t, _clock(fact.clock), _usage(fact.usage))


_EVENTS: dict[type[_Fact], Callable[[Any], events.Event]] = {
    _Open: _opened,
    _Spawn: _spawned,
    _Ready: _became_ready,
    _ReadyTimeout: _ready_timed_out,
    _Mark: _marked,
    _Stopping: _stopping,
    _Signal: _signaled,
    _Heartbeat: _heartbeat,
    _Exit: _exited,
}
