"""The balance: what records say about time and money, added up as they pass by.

Owns the laws that hold from record to record of one instance: intervals tile, phases add up to wall, shares to active
time, amounts to price. Pure; keeps only what is open, and forgets an instance with its last record. Refuses to know the
chain.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Any

import msgspec

from taximeter.billing.units import COMPUTING_SECOND
from taximeter.ledger import metered
from taximeter.ledger.base import Elsewhere
from taximeter.ledger.metered import Say
from taximeter.records import RecordType

# Members of enums and methods of contexts are looked up once: these are asked of every record.
_PREDICTION, _INSTANCE, _CORRECTION = (
    kind.value for kind in (RecordType.PREDICTION, RecordType.INSTANCE, RecordType.CORRECTION)
)
#: Each amount is the difference of two totals that were rounded once, to 18 places.
_SLACK = Decimal("1e-18")
_EXACT = Context(prec=250)
_add, _subtract, _multiply = _EXACT.add, _EXACT.subtract, _EXACT.multiply
_NOTHING, _GIGA = Decimal(0), Decimal(1_000_000_000)
#: More digits than any count has, and fewer than Python reads as a number.
_COUNT_DIGITS = 1_000


class Place(msgspec.Struct, gc=False):
    """Where a record says it stands."""

    id: str
    seq: int
    previous: str


class Interval(msgspec.Struct, gc=False):
    """The stretch of monotonic time that a record covers."""

    start_ns: int
    end_ns: int
    boot_id: str


class Line(msgspec.Struct, gc=False):
    """A priced line."""

    meter: str
    quantity: str
    unit: str
    rate: str
    multiplier: str
    amount: str


class Billing(msgspec.Struct, gc=False):
    """What a record costs."""

    lines: list[Line]
    amount: str | None
    status: str = ""
    currency: str | None = None


class Hardware(msgspec.Struct, gc=False):
    """How many devices bill."""

    count: int = 0


class Data(msgspec.Struct, gc=False):
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


class Event(msgspec.Struct, gc=False):
    """A record in its envelope."""

    id: str
    type: str
    data: Data
    time: str = ""
    subject: str = ""


class _Sum(msgspec.Struct, array_like=True, gc=False):
    """What one meter's lines add up to, as long as neither its rate nor its multiplier changes."""

    rate: str = ""
    multiplier: str = ""
    quantity: Decimal = _NOTHING
    due: Decimal = _NOTHING
    billed: Decimal = _NOTHING


_NO_SUM = _Sum()


class _Tiles(msgspec.Struct, gc=False):
    """The intervals of one prediction or instance, so far."""

    end_ns: int | None = None
    to_date: dict[str, int] = {}
    runs: dict[str, _Sum] = {}  # by meter
    units: dict[str, Decimal] = {}  # counted


class Open(msgspec.Struct, gc=False):
    """What is open of one instance."""

    number: int = 0  # of its next record
    boot_id: str | None = None
    active_ns: int = 0
    share_ns: int = 0
    own: _Tiles = msgspec.field(default_factory=_Tiles)
    predictions: dict[str, _Tiles] = {}
    is_guessed: bool = False  # its first records are elsewhere, and what they said is not known


_state_of = msgspec.json.Decoder(Open).decode


class Balance:
    """The running sums of a ledger that is walked in order."""

    def __init__(self) -> None:
        self._open: dict[str, Open] = {}

    def resume(self, elsewhere: Mapping[str, Elsewhere]) -> None:
        """Go on with instances of which there are older records elsewhere."""
        for name, known in elsewhere.items():
            self._open[name] = Open(known.number, is_guessed=True) if known.state is None else _state_of(known.state)

    def carried(self) -> dict[str, Elsewhere]:
        """What is open now, to be gone on with where its records are not there any more."""
        return {name: Elsewhere(one.number, msgspec.json.encode(one)) for name, one in self._open.items()}

    def open(self) -> dict[str, Open]:
        """What is open now."""
        return self._open

    def has_any(self, names: Iterable[str]) -> bool:
        """Whether any of these instances is open."""
        return not self._open.keys().isdisjoint(names)

    def adopt(self, instances: Mapping[str, Open]) -> None:
        """Go on with instances that somebody else has walked from their first record on."""
        self._open.update(instances)

    def enter(self, event: Event, say: Say) -> None:
        """Add a record; says what does not add up."""
        kind, data = event.type, event.data
        name = data.instance
        if name is None:
            return
        instance = self._open.get(name)
        if instance is None:
            instance = Open()
            if kind != _CORRECTION:
                self._open[name] = instance
                _count(instance, event.id, name, say)
        else:
            _count(instance, event.id, name, say)
        try:
            if kind == _PREDICTION:
                _prediction(instance, data, say)
            elif kind == _INSTANCE:
                _own(instance, data, say)
            elif kind == _CORRECTION and data.billing is not None:
                _priced(data.billing, say)
        except KeyError as error:
            say(f"lacks {error.args[0]}, which its type must say")
        except ArithmeticError:
            say("billing: expected numbers written as decimal strings")
        if kind == _INSTANCE and data.final:
            del self._open[name]


def _count(instance: Open, record_id: str, name: str, say: Say) -> None:
    """Have the instance's records follow each other by their ids."""
    expected = f"{name}-{instance.number:08d}"
    instance.number += 1
    if record_id != expected:
        say(f"is out of its instance's order: expected {expected}")
        count = record_id.rpartition("-")[2]
        if count.isascii() and count.isdigit() and len(count) <= _COUNT_DIGITS:
            instance.number = int(count) + 1


def _prediction(instance: Open, data: Data, say: Say) -> None:
    name = data.prediction or ""
    tiles = instance.predictions.get(name)
    if tiles is None:
        tiles = instance.predictions[name] = _Tiles()
    time = data.time
    _tile(instance, tiles, data, say)
    parts_ns = time["load_ns"] + time["active_ns"] + time["suspended_ns"] + time["unknown_ns"]
    if parts_ns > time["wall_ns"] or time["share_ns"] > time["active_ns"]:
        say("time: load, active, suspended and unknown exceed wall, or the share exceeds active")
    _bill(tiles, data, say)
    instance.share_ns += time["share_ns"]
    if data.final:
        del instance.predictions[name]


def _own(instance: Open, data: Data, say: Say) -> None:
    time = data.time
    _tile(instance, instance.own, data, say)
    running_ns = time["boot_ns"] + time["idle_ns"] + time["active_ns"] + time["teardown_ns"]
    phases_ns = running_ns + time["suspended_ns"] + time["unknown_ns"]
    if phases_ns != time["wall_ns"]:
        say(f"time: the phases add up to {phases_ns} ns, expected wall, {time['wall_ns']} ns")
    _bill(instance.own, data, say)
    instance.active_ns += time["active_ns"]
    if not data.final:
        return
    for name in instance.predictions:
        say(f"ends its instance, but prediction {name} has no final record")
    if instance.share_ns != instance.active_ns and not instance.is_guessed:
        expected = f"expected {instance.active_ns} ns active"
        say(f"time: the predictions' shares add up to {instance.share_ns} ns, {expected}")


def _tile(instance: Open, tiles: _Tiles, data: Data, say: Say) -> None:
    """The interval begins where the last one ended, and is as long as it says."""
    interval, time = data.interval, data.time
    if interval is None:
        raise KeyError("interval")
    start_ns, end_ns, boot_id = interval.start_ns, interval.end_ns, interval.boot_id
    if tiles.end_ns is not None and start_ns != tiles.end_ns:
        kind = "gap" if start_ns > tiles.end_ns else "overlap"
        difference_ns = abs(start_ns - tiles.end_ns)
        say(f"interval: {kind} of {difference_ns} ns: begins at {start_ns}, expected {tiles.end_ns}")
    if boot_id != instance.boot_id and instance.boot_id is not None:
        say(f"interval: of boot {boot_id}, expected {instance.boot_id}")
    if time["wall_ns"] != end_ns - start_ns + time["suspended_ns"]:
        say(f"time: wall is {time['wall_ns']} ns, expected its interval and what was suspended")
    if min(time.values()) < 0:
        for part, value_ns in time.items():
            if value_ns < 0:
                say(f"time: {part} is {value_ns}, expected no negative duration")
    if instance.is_guessed and tiles.end_ns is None:
        _adopt(tiles, data)
    if tiles.to_date or not data.to_date.items() <= time.items():  # what came before is nothing in most cases
        _add_up(tiles.to_date, data, say)
    tiles.end_ns, tiles.to_date, instance.boot_id = end_ns, data.to_date, boot_id


def _adopt(tiles: _Tiles, data: Data) -> None:
    """Believe what a record says of those before it, which are elsewhere: as far as it can be."""
    tiles.to_date = {part: max(0, total_ns - data.time.get(part, 0)) for part, total_ns in data.to_date.items()}
    for name, total in (data.units_to_date or {}).items():
        before = _subtract(Decimal(total), Decimal(data.units.get(name, 0)))
        tiles.units[name] = max(_NOTHING, before)


def _add_up(before: dict[str, int], data: Data, say: Say) -> None:
    """Totals are those of the record before and what this one adds."""
    time = data.time
    for part, total_ns in data.to_date.items():
        if total_ns != before.get(part, 0) + time[part]:
            say(f"to_date: {part} is {total_ns}, expected {before.get(part, 0)} before and {time[part]} now")


def _bill(tiles: _Tiles, data: Data, say: Say) -> None:
    """Each line is its quantity at its price, also summed over all records; its quantity was measured."""
    if data.billing is None:
        raise KeyError("billing")
    if data.units:
        metered.add(tiles.units, data.units)
    if data.units_to_date:
        metered.compare(tiles.units, data.units_to_date, say)
    costs = _priced(data.billing, say)
    for line, (quantity, due, amount) in zip(data.billing.lines, costs, strict=True):
        _measured(line, quantity, data, say)
        before = tiles.runs.get(line.meter)
        if before is None or before.rate != line.rate or before.multiplier != line.multiplier:
            before = _NO_SUM
        whole, owed, billed = _add(before.quantity, quantity), _add(before.due, due), _add(before.billed, amount)
        tiles.runs[line.meter] = _Sum(line.rate, line.multiplier, whole, owed, billed)
        if abs(_subtract(owed, billed)) > _SLACK:
            say(f"billing: {line.meter} adds up to {billed} so far, expected {owed:f}, rounded once")
        metered.hold_to_counts(line.meter, line.unit, whole, tiles.units, say)


def _priced(billing: Billing, say: Say) -> Sequence[tuple[Decimal, Decimal, Decimal]]:
    """Each line's arithmetic, and their sum; gives what each line has: its quantity, its exact price, its amount."""
    costs = []
    total = _NOTHING
    for line in billing.lines:
        amount = Decimal(line.amount)
        total = _add(total, amount)
        quantity = Decimal(line.quantity)
        due = _multiply(_multiply(quantity, Decimal(line.rate)), Decimal(line.multiplier))
        if abs(_subtract(amount, due)) > _SLACK:
            say(
                f"billing: {line.meter} costs {line.amount}, expected {line.quantity} × {line.rate} × {line.multiplier}"
            )
        costs.append((quantity, due, amount))
    if billing.amount is not None and Decimal(billing.amount) != total:
        say(f"billing: the amount is {billing.amount}, expected {total:f}, the sum of its lines")
    return costs


def _measured(line: Line, quantity: Decimal, data: Data, say: Say) -> None:
    if quantity <= 0:
        say(f"billing: {line.meter} bills a quantity of {line.quantity}, expected more than nothing")
    time, to_date = data.time, data.to_date
    if line.unit == COMPUTING_SECOND:
        part = f"{line.meter}_ns"
        now_ns, whole_ns = time.get(part), to_date.get(part)
        is_known = now_ns is not None or whole_ns is not None
        # A boot is billed once it has led to ready, then with all that earlier records left unbilled.
        if is_known and _multiply(quantity, _GIGA) not in (now_ns, whole_ns):
            say(f"billing: {line.meter} bills {line.quantity} s, expected the {time[part]} ns that were measured")
    most_ns = max(time.get("active_ns", 0), to_date.get("active_ns", 0))
    active = most_ns, data.hardware.count if data.hardware else 0
    metered.hold_to_time(line.meter, line.unit, quantity, active, say)
