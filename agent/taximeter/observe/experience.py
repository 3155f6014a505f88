"""What models take, by what records say: how long predictions run, what they cost and count, and whom they call.

Owns what is measured of a prediction that succeeded, and in which steps, and the memory of what is not over yet: what
an open prediction has cost so far, and who waits for whom. That memory is bounded and not kept: what was open when an
agent ended counts for its time, and not for its cost. Refuses to know where sums are kept.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from taximeter.billing.money import EXACT
from taximeter.events import Status
from taximeter.ledger.distribution import Spread
from taximeter.ledger.runs import Call, Kind, Runs
from taximeter.records import RecordType, UsageRecord

#: What is measured, each in its step: time in nanoseconds, money to 18 places, units in billionths.
ACTIVE, SHARE, COST, UNITS = "active", "share", "cost ", "units "
COST_PLACES, UNIT_PLACES = 18, 9

#: Open predictions whose cost so far is remembered.
_OPEN_MAX = 10_000
#: Predictions whose model is remembered for those that they call, and callers that were not heard of yet.
_SEEN_MAX = 4_096
_WAITING_MAX = 1_024
_CALLED_MAX = 16
#: Numbers from here on are no measurement of anything.
_MOST = 10**30

_ZERO = Decimal(0)
_Key = tuple[str | None, str | None]


class _SoFar(NamedTuple):
    """What an open prediction came to with its records until now; None: that is not known."""

    cost: Decimal | None
    units: Mapping[str, Decimal] | None

    def with_more(self, amount: str | None) -> "_SoFar":
        """With an amount on top, positive or not."""
        known = self.cost is not None and amount is not None
        return self._replace(cost=EXACT.add(self.cost, Decimal(amount)) if known else None)  # type: ignore[arg-type]


_NOTHING = _SoFar(Decimal(0), {})
_UNKNOWN = _SoFar(None, None)


class Experience:
    """Adds up what records say of models' runs."""

    def __init__(self) -> None:
        self._open: dict[_Key, _SoFar] = {}
        self._callers = _Callers()

    def of(self, records: Iterable[UsageRecord]) -> tuple[tuple[Runs, ...], tuple[Call, ...]]:
        """What `records` add to what is known of each kind of run, and of who calls whom."""
        ended: dict[_Key, tuple[UsageRecord, _SoFar]] = {}
        for record in records:
            if record.type is RecordType.PREDICTION:
                self._callers.take(record)
                self._take(record, ended)
            elif record.type is RecordType.CORRECTION and record.prediction is not None:
                self._correct(record, ended)
        kinds: dict[Kind, _Sums] = {}
        for record, so_far in ended.values():
            kind = _kind_of(record)
            if kind not in kinds:
                kinds[kind] = _Sums(kind)
            kinds[kind].add(record, so_far)
        return tuple(sums.done() for sums in kinds.values()), self._callers.calls()

    def _take(self, record: UsageRecord, ended: dict[_Key, tuple[UsageRecord, _SoFar]]) -> None:
        data: Mapping[str, Any] = record.data
        key, before = (record.instance, record.prediction), _NOTHING
        if data["time"]["wall_ns"] != data["to_date"]["wall_ns"]:  # it has records before this one
            before = self._open.pop(key, _UNKNOWN)
        so_far = before.with_more(data["billing"].amount)._replace(units=_sum(before.units, data["units"]))
        if not data["final"]:
            if len(self._open) < _OPEN_MAX:
                self._open[key] = so_far
        elif record.model is not None:
            ended[key] = record, so_far

    def _correct(self, record: UsageRecord, ended: dict[_Key, tuple[UsageRecord, _SoFar]]) -> None:
        """Put right what was billed; of what ended in another batch it is too late for that."""
        billing: Any = record.data["billing"]
        key = record.instance, record.prediction
        if key in ended:
            last, so_far = ended[key]
            ended[key] = last, so_far.with_more(billing.amount)
        elif key in self._open:
            self._open[key] = self._open[key].with_more(billing.amount)


def _sum(before: Mapping[str, Decimal] | None, units: Mapping[str, str]) -> Mapping[str, Decimal] | None:
    if before is None:
        return None
    more = {unit: Decimal(count) for unit, count in units.items()}
    return {**before, **{unit: EXACT.add(before.get(unit, _ZERO), count) for unit, count in more.items()}}


def _kind_of(record: UsageRecord) -> Kind:
    data: Mapping[str, Any] = record.data
    return Kind(record.model or "", data["version"] or "", data["hardware"].tier)


class _Sums:
    """What is added to one kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._ended = 0
        self._succeeded = 0
        self._began: list[int] = []
        self._spreads: dict[str, Spread] = {}

    def add(self, record: UsageRecord, so_far: _SoFar) -> None:
        data: Mapping[str, Any] = record.data
        self._ended += 1
        self._began.append(record.time_utc_ns - (data["to_date"]["wall_ns"] - data["time"]["wall_ns"]))
        if data["status"] != Status.SUCCEEDED:
            return
        self._succeeded += 1
        for measure, number in _measured(data, so_far):
            if 0 <= number < _MOST:
                if measure not in self._spreads:
                    self._spreads[measure] = Spread()
                self._spreads[measure].add(number)

    def done(self) -> Runs:
        measures = {measure: spread.done() for measure, spread in self._spreads.items()}
        return Runs(self._kind, self._ended, self._succeeded, min(self._began), max(self._began), measures)


def _measured(data: Mapping[str, Any], so_far: _SoFar) -> Iterator[tuple[str, int]]:
    to_date, currency = data["to_date"], data["billing"].currency
    yield ACTIVE, to_date["active_ns"]
    yield SHARE, to_date["share_ns"]
    if so_far.cost is not None and currency is not None:
        yield COST + currency, int(EXACT.scaleb(so_far.cost, COST_PLACES))
    for unit, count in (so_far.units or {}).items():
        yield UNITS + unit, int(EXACT.scaleb(count, UNIT_PLACES))


class _Callers:
    """Finds the model of who called: it may have been heard of before its call, or only after it."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, str] = OrderedDict()  # of predictions, the latest
        self._waiting: OrderedDict[str, dict[str, tuple[int, int]]] = OrderedDict()  # parent -> what it called
        self._found: dict[tuple[str, str], tuple[int, int]] = {}

    def take(self, record: UsageRecord) -> None:
        """Take in one record of a prediction."""
        parent: Any = record.data["parent"]
        if record.model is None or record.prediction is None:
            return
        self._models[record.prediction] = record.model
        if len(self._models) > _SEEN_MAX:
            self._models.popitem(last=False)
        for called, (count, at_utc_ns) in self._waiting.pop(record.prediction, {}).items():
            self._call(record.model, called, count, at_utc_ns)
        if parent is not None and parent != record.prediction and record.data["final"]:
            self._called_by(parent, record.model, record.time_utc_ns)

    def calls(self) -> tuple[Call, ...]:
        """What was found since this was asked last."""
        found, self._found = self._found, {}
        return tuple(Call(*pair, count, at_utc_ns) for pair, (count, at_utc_ns) in found.items())

    def _called_by(self, parent: str, model: str, at_utc_ns: int) -> None:
        caller = self._models.get(parent)
        if caller is not None:
            self._call(caller, model, 1, at_utc_ns)
            return
        waiting = self._waiting.setdefault(parent, {})
        if model in waiting or len(waiting) < _CALLED_MAX:
            waiting[model] = waiting.get(model, (0, 0))[0] + 1, at_utc_ns
        if len(self._waiting) > _WAITING_MAX:
            self._waiting.popitem(last=False)

    def _call(self, caller: str, called: str, count: int, at_utc_ns: int) -> None:
        before, latest_utc_ns = self._found.get((caller, called), (0, 0))
        self._found[caller, called] = before + count, max(latest_utc_ns, at_utc_ns)
