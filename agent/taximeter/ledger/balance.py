"""The balance: what records say about time and money, added up as they pass by.

Owns the laws that hold from record to record of one instance: intervals tile, phases add up to wall, shares to active
time, amounts to price. Pure; keeps only what is open, and forgets an instance with its last record. Refuses to know the
chain.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal, InvalidOperation
from typing import Any, NamedTuple

import msgspec

from taximeter.ledger import metered
from taximeter.ledger.base import Elsewhere
from taximeter.records import RecordType

#: Each amount is the difference of two totals that were rounded once, to 18 places.
_SLACK = Decimal("1e-18")
_EXACT = Context(prec=250)
_GIGA = Decimal(1_000_000_000)
_PHASES = ("boot_ns", "idle_ns", "active_ns", "teardown_ns", "suspended_ns", "unknown_ns")
_PARTS = ("load_ns", "active_ns", "suspended_ns", "unknown_ns")


class Place(msgspec.Struct):
    """Where a record says it stands."""

    id: str
    seq: int
    previous: str


class Interval(msgspec.Struct):
    """The stretch of monotonic time that a record covers."""

    start_ns: int
    end_ns: int
    boot_id: str


class Line(msgspec.Struct):
    """A priced line."""

    meter: str
    quantity: str
    unit: str
    rate: str
    multiplier: str
    amount: str


class Billing(msgspec.Struct):
    """What a record costs."""

    lines: list[Line]
    amount: str | None
    status: str = ""
    currency: str | None = None


class Hardware(msgspec.Struct):
    """How many devices bill."""

    count: int = 0


class Data(msgspec.Struct):
    """What the audit reads of a record; the rest is chained, and needs no sum."""

    ledger: Place
    instance: str | None = None
    prediction: str | None = None
    root: str | None = None
    account: str | None = None
    model: str | None = None
    final: bool | None = None
    interval: Interval | None = None
    time: dict[str, int] = {}
    to_date: dict[str, int] = {}
    billing: Billing | None = None
    fact: str | None = None
    content: Any = None
    grant: str | None = None
    amount: str | None = None
    currency: str | None = None
    expires_utc: str | None = None
    period: str | None = None
    threshold: str | None = None
    spend: str | None = None
    units: dict[str, str] = {}
    units_to_date: dict[str, str] | None = None
    hardware: Hardware | None = None
    key: str | None = None
    note: str | None = None


class Event(msgspec.Struct):
    """A record in its envelope."""

    id: str
    type: str
    data: Data
    time: str = ""
    subject: str = ""


class _Sum(NamedTuple):
    """What one meter's lines add up to, as long as neither its rate nor its multiplier changes."""

    rate: str = ""
    multiplier: str = ""
    quantity: Decimal = Decimal(0)
    due: Decimal = Decimal(0)
    billed: Decimal = Decimal(0)


_NO_SUM = _Sum()


@dataclass(slots=True)
class _Tiles:
    """The intervals of one prediction or instance, so far."""

    end_ns: int | None = None
    to_date: dict[str, int] = field(default_factory=dict)
    runs: dict[str, _Sum] = field(default_factory=dict)  # by meter
    units: dict[str, Decimal] = field(default_factory=dict)  # counted


@dataclass(slots=True)
class _Instance:
    """What is open of one instance."""

    number: int = 0  # of its next record
    boot_id: str | None = None
    active_ns: int = 0
    share_ns: int = 0
    own: _Tiles = field(default_factory=_Tiles)
    predictions: dict[str, _Tiles] = field(default_factory=dict)
    is_guessed: bool = False  # its first records are elsewhere, and what they said is not known


_state_of = msgspec.json.Decoder(_Instance).decode


class Balance:
    """The running sums of a ledger that is walked in order."""

    def __init__(self) -> None:
        self._open: dict[str, _Instance] = {}

    def resume(self, elsewhere: Mapping[str, Elsewhere]) -> None:
        """Go on with instances of which there are older records elsewhere."""
        for name, known in elsewhere.items():
            self._open[name] = (
                _Instance(known.number, is_guessed=True) if known.state is None else _state_of(known.state)
            )

    def carried(self) -> dict[str, Elsewhere]:
        """What is open now, to be gone on with where its records are not there any more."""
        return {name: Elsewhere(one.number, msgspec.json.encode(one)) for name, one in self._open.items()}

    def enter(self, event: Event) -> Iterator[str]:
        """Add a record; says what does not add up."""
        name = event.data.instance
        if name is None:
            return
        if event.type == RecordType.CORRECTION and name not in self._open:
            instance = _Instance()  # it comes after the end: what had ended turned out to be billed by another tier
        else:
            instance = self._open.setdefault(name, _Instance())
            yield from _counted(instance, event.id, name)
        try:
            if event.type == RecordType.PREDICTION:
                yield from _prediction(instance, event.data)
            elif event.type == RecordType.INSTANCE:
                yield from _own(instance, event.data)
            elif event.type == RecordType.CORRECTION and event.data.billing is not None:
                yield from _priced(event.data.billing)
        except KeyError as error:
            yield f"lacks {error.args[0]}, which its type must say"
        except InvalidOperation:
            yield "billing: expected numbers written as decimal strings"
        if event.type == RecordType.INSTANCE and event.data.final:
            del self._open[name]


def _counted(instance: _Instance, record_id: str, name: str) -> Iterator[str]:
    expected = f"{name}-{instance.number:08d}"
    if record_id != expected:
        yield f"is out of its instance's order: expected {expected}"
    count = record_id.rpartition("-")[2]
    instance.number = int(count) + 1 if count.isascii() and count.isdigit() else instance.number + 1


def _prediction(instance: _Instance, data: Data) -> Iterator[str]:
    name = data.prediction or ""
    tiles = instance.predictions.setdefault(name, _Tiles())
    time = data.time
    yield from _tiled(instance, tiles, data)
    if sum(time[part] for part in _PARTS) > time["wall_ns"] or time["share_ns"] > time["active_ns"]:
        yield "time: load, active, suspended and unknown exceed wall, or the share exceeds active"
    yield from _billed(tiles, data)
    instance.share_ns += time["share_ns"]
    if data.final:
        del instance.predictions[name]


def _own(instance: _Instance, data: Data) -> Iterator[str]:
    time = data.time
    yield from _tiled(instance, instance.own, data)
    phases_ns = sum(time[phase] for phase in _PHASES)
    if phases_ns != time["wall_ns"]:
        yield f"time: the phases add up to {phases_ns} ns, expected wall, {time['wall_ns']} ns"
    yield from _billed(instance.own, data)
    instance.active_ns += time["active_ns"]
    if not data.final:
        return
    for name in instance.predictions:
        yield f"ends its instance, but prediction {name} has no final record"
    if instance.share_ns != instance.active_ns and not instance.is_guessed:
        yield f"time: the predictions' shares add up to {instance.share_ns} ns, expected {instance.active_ns} ns active"


def _tiled(instance: _Instance, tiles: _Tiles, data: Data) -> Iterator[str]:
    """The interval begins where the last one ended, and is as long as it says."""
    interval, time = data.interval, data.time
    if interval is None:
        raise KeyError("interval")
    if tiles.end_ns is not None and interval.start_ns != tiles.end_ns:
        kind = "gap" if interval.start_ns > tiles.end_ns else "overlap"
        difference_ns = abs(interval.start_ns - tiles.end_ns)
        yield f"interval: {kind} of {difference_ns} ns: begins at {interval.start_ns}, expected {tiles.end_ns}"
    if instance.boot_id not in (None, interval.boot_id):
        yield f"interval: of boot {interval.boot_id}, expected {instance.boot_id}"
    if time["wall_ns"] != interval.end_ns - interval.start_ns + time["suspended_ns"]:
        yield f"time: wall is {time['wall_ns']} ns, expected its interval and what was suspended"
    for part, value_ns in time.items():
        if value_ns < 0:
            yield f"time: {part} is {value_ns}, expected no negative duration"
    if instance.is_guessed and tiles.end_ns is None:
        _adopt(tiles, data)
    for part, total_ns in data.to_date.items():
        if total_ns != tiles.to_date.get(part, 0) + time[part]:
            yield f"to_date: {part} is {total_ns}, expected {tiles.to_date.get(part, 0)} before and {time[part]} now"
    tiles.end_ns, tiles.to_date, instance.boot_id = interval.end_ns, data.to_date, interval.boot_id


def _adopt(tiles: _Tiles, data: Data) -> None:
    """Believe what a record says of those before it, which are elsewhere: as far as it can be."""
    tiles.to_date = {part: max(0, total_ns - data.time.get(part, 0)) for part, total_ns in data.to_date.items()}
    for name, total in (data.units_to_date or {}).items():
        before = _EXACT.subtract(Decimal(total), Decimal(data.units.get(name, 0)))
        tiles.units[name] = max(Decimal(0), before)


def _billed(tiles: _Tiles, data: Data) -> Iterator[str]:
    """Each line is its quantity at its price, also summed over all records; its quantity was measured."""
    if data.billing is None:
        raise KeyError("billing")
    metered.add(tiles.units, data.units)
    yield from metered.miscounted(tiles.units, data.units_to_date)
    yield from _priced(data.billing)
    for line in data.billing.lines:
        yield from _measured(line, data)
        before = tiles.runs.get(line.meter, _NO_SUM)
        if (before.rate, before.multiplier) != (line.rate, line.multiplier):
            before = _NO_SUM
        quantity = _EXACT.add(before.quantity, Decimal(line.quantity))
        due, billed = _EXACT.add(before.due, _due(line)), _EXACT.add(before.billed, Decimal(line.amount))
        tiles.runs[line.meter] = _Sum(line.rate, line.multiplier, quantity, due, billed)
        if abs(_EXACT.subtract(due, billed)) > _SLACK:
            yield f"billing: {line.meter} adds up to {billed} so far, expected {due:f}, rounded once"
        yield from metered.overbilled(line.meter, line.unit, quantity, tiles.units)


def _priced(billing: Billing) -> Iterator[str]:
    """Each line's arithmetic, and their sum."""
    total = Decimal(0)
    for line in billing.lines:
        amount = Decimal(line.amount)
        total = _EXACT.add(total, amount)
        if abs(_EXACT.subtract(amount, _due(line))) > _SLACK:
            due = f"{line.quantity} × {line.rate} × {line.multiplier}"
            yield f"billing: {line.meter} costs {line.amount}, expected {due}"
    if billing.amount is not None and Decimal(billing.amount) != total:
        yield f"billing: the amount is {billing.amount}, expected {total:f}, the sum of its lines"


def _measured(line: Line, data: Data) -> Iterator[str]:
    quantity = Decimal(line.quantity)
    if quantity <= 0:
        yield f"billing: {line.meter} bills a quantity of {line.quantity}, expected more than nothing"
    part = f"{line.meter}_ns"
    # A boot is billed once it has led to ready, then with all that earlier records left unbilled.
    known = [times[part] for times in (data.time, data.to_date) if part in times]
    if line.unit == "computing_second" and known and _EXACT.multiply(quantity, _GIGA) not in known:
        yield f"billing: {line.meter} bills {line.quantity} s, expected the {data.time[part]} ns that were measured"
    most_ns = max(data.time.get("active_ns", 0), data.to_date.get("active_ns", 0))
    yield from metered.overtimed(line.meter, line.unit, quantity, most_ns, data.hardware.count if data.hardware else 0)


def _due(line: Line) -> Decimal:
    return _EXACT.multiply(_EXACT.multiply(Decimal(line.quantity), Decimal(line.rate)), Decimal(line.multiplier))
