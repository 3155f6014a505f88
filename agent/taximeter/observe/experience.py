"""What models take, by what records say: how long predictions run, what they cost and count, and whom they call.

Owns what is measured of a prediction that succeeded, and in which steps, and the memory of what is not over yet: what
an open prediction has cost so far, and who waits for whom. That memory is bounded and not kept: what was open when an
agent ended counts for its time, and not for its cost. Refuses to know where sums are kept.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any

from taximeter.billing.money import EXACT
from taximeter.events import Status
from taximeter.ledger.distribution import spread_of
from taximeter.ledger.runs import Call, Kind, Runs
from taximeter.records import RecordType, UsageRecord
from taximeter.values import replace

#: What is measured, each in its step: time in nanoseconds, money to 18 places, units in billionths.
ACTIVE, SHARE, COST, UNITS = "active", "share", "cost ", "units "
COST_PLACES, UNIT_PLACES = 18, 9

#: Open predictions whose cost so far is remembered.
_OPEN_MAX = 10_000
#: Predictions whose model is remembered, at least, for those that they call; callers that were not heard of yet.
_SEEN_MAX = 4_096
_WAITING_MAX = 1_024
_CALLED_MAX = 16
#: Numbers from here on are no measurement of anything.
_MOST = 10**30

_Key = tuple[str | None, str | None]


_NOTHING = Decimal(0)
_PREDICTION, _CORRECTION = RecordType.PREDICTION, RecordType.CORRECTION
#: A prediction's last record, and what those before it had cost: nothing, mostly; None: that is not known.
_Last = tuple[UsageRecord, Decimal | None]


class Experience:
    """Adds up what records say of models' runs."""

    def __init__(self) -> None:
        self._open: dict[_Key, Decimal | None] = {}  # what each has cost so far
        self._callers = _Callers()

    def of(self, records: Iterable[UsageRecord]) -> tuple[tuple[Runs, ...], tuple[Call, ...]]:
        """What `records` add to what is known of each kind of run, and of who calls whom."""
        told: list[UsageRecord] = []
        ended = _Ended()
        for record in records:
            if record.type is _PREDICTION:
                told.append(record)
                self._take(record, ended)
            elif record.type is _CORRECTION and record.prediction is not None:
                self._correct(record, ended)
        kinds: dict[tuple[str, str, str], _Sums] = {}
        for record, before in ended.lasts:
            data: Mapping[str, Any] = record.data
            kind = (record.model or "", data["version"] or "", data["hardware"].tier)
            sums = kinds.get(kind)
            if sums is None:
                sums = kinds[kind] = _Sums(Kind(*kind))
            sums.add(record, before)
        self._callers.take(told)
        return tuple([sums.done() for sums in kinds.values()]), self._callers.calls()

    def _take(self, record: UsageRecord, ended: "_Ended") -> None:
        data: Mapping[str, Any] = record.data
        before: Decimal | None = _NOTHING
        if data["time"]["wall_ns"] != data["to_date"]["wall_ns"]:  # it has records before this one
            before = self._open.pop((record.instance, record.prediction), None)
        if data["final"]:
            if record.model is not None:
                ended.lasts.append((record, before))
        elif len(self._open) < _OPEN_MAX:
            self._open[record.instance, record.prediction] = _sum(before, data["billing"].amount)

    def _correct(self, record: UsageRecord, ended: "_Ended") -> None:
        """Put right what was billed, and told; of what ended in another batch it is too late for that."""
        data: Mapping[str, Any] = record.data
        key, amount = (record.instance, record.prediction), data["billing"].amount
        at = ended.find(key)
        if at is not None:
            last, before = ended.lasts[at]
            if "to_date" in data:  # it had ended before that
                last = replace(last, data={**last.data, "to_date": {**last.data["to_date"], **data["to_date"]}})  # type: ignore[dict-item]
            ended.lasts[at] = last, _sum(before, amount)
        elif key in self._open:
            self._open[key] = _sum(self._open[key], amount)


class _Ended:
    """Predictions that end in one batch; they are looked for by few, so it is noted where each is once one is."""

    __slots__ = ("_noted", "_places", "lasts")

    def __init__(self) -> None:
        self.lasts: list[_Last] = []
        self._places: dict[_Key, int] = {}
        self._noted = 0

    def find(self, key: _Key) -> int | None:
        """Where the latest of that instance and prediction is."""
        for at, (record, _) in enumerate(islice(self.lasts, self._noted, None), self._noted):
            self._places[record.instance, record.prediction] = at
        self._noted = len(self.lasts)
        return self._places.get(key)


def _sum(before: Decimal | None, amount: str | None) -> Decimal | None:
    if before is None or amount is None:
        return None
    return EXACT.add(before, Decimal(amount)) if before else Decimal(amount)


@lru_cache(maxsize=1024)
def _steps_of(count: str) -> int:
    return int(EXACT.scaleb(Decimal(count), UNIT_PLACES))


class _Sums:
    """What is added to one kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._ended = 0
        self._began: list[int] = []
        self._active: list[int] = []
        self._share: list[int] = []
        self._numbers: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, record: UsageRecord, before: Decimal | None) -> None:
        data: Mapping[str, Any] = record.data
        to_date = data["to_date"]
        self._ended += 1
        self._began.append(record.time_utc_ns - (to_date["wall_ns"] - data["time"]["wall_ns"]))
        if data["status"] != Status.SUCCEEDED:
            return
        self._active.append(to_date["active_ns"])
        self._share.append(to_date["share_ns"])
        numbers, billing = self._numbers, data["billing"]
        cost = _sum(before, billing.amount)
        if cost is not None and billing.currency is not None:
            numbers[COST + billing.currency].append(int(EXACT.scaleb(cost, COST_PLACES)))
        for unit, count in data.get("units_to_date", data["units"]).items():
            numbers[UNITS + unit].append(_steps_of(count))

    def done(self) -> Runs:
        measured = {ACTIVE: self._active, SHARE: self._share, **self._numbers}
        sound = ((measure, [one for one in numbers if 0 <= one < _MOST]) for measure, numbers in measured.items())
        measures = {measure: spread_of(numbers) for measure, numbers in sound if numbers}
        return Runs(self._kind, self._ended, len(self._active), min(self._began), max(self._began), measures)


class _Callers:
    """Finds the model of who called: it may have been heard of before its call, or only after it."""

    def __init__(self) -> None:
        self._models: dict[str, str] = {}  # of predictions, those that were heard of last
        self._waiting: OrderedDict[str, dict[str, tuple[int, int]]] = OrderedDict()  # parent -> what it called
        self._found: dict[tuple[str, str], tuple[int, int]] = {}

    def take(self, records: Sequence[UsageRecord]) -> None:
        """Take in records of predictions."""
        heard = [(one.prediction, one.model) for one in records if one.model is not None and one.prediction is not None]
        self._models.update(heard)
        if len(self._models) > 2 * _SEEN_MAX:  # many at once, and seldom
            self._models = dict(islice(self._models.items(), len(self._models) - _SEEN_MAX, None))
        if self._waiting:
            for prediction, model in heard:
                for called, (count, at_utc_ns) in self._waiting.pop(prediction, {}).items():
                    self._call(model, called, count, at_utc_ns)
        for record in records:
            parent: Any = record.data["parent"]
            if parent is not None and parent != record.prediction and record.data["final"] and record.model is not None:
                self._called_by(parent, record.model, record.time_utc_ns)

    def calls(self) -> tuple[Call, ...]:
        """What was found since this was asked last."""
        found, self._found = self._found, {}
        return tuple([Call(*pair, count, at_utc_ns) for pair, (count, at_utc_ns) in found.items()])

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
