"""Histories in a few words: builders of events, a rulebook, and sums over records, for tests of the core."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from taximeter.billing.classes import Classes, parse_classes
from taximeter.billing.rates import RateCard, parse_card
from taximeter.events import (
    BecameReady,
    Clock,
    Event,
    Exited,
    FinishMark,
    Heartbeat,
    Held,
    Marked,
    Measured,
    Observed,
    Oom,
    Opened,
    Options,
    Spawned,
    StartMark,
    Status,
    Usage,
)
from taximeter.hardware.inventory import Hardware
from taximeter.instance import Instance
from taximeter.meter import Step, fold, go_on, open_instance
from taximeter.records import RecordType, UsageRecord
from taximeter.rulebook import Rulebook, Rules, make_rules

MS = 1_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
BOOT_ID = "5f0c0c8e-0000-4000-8000-000000000001"
INSTANCE = "0198c2aa-0000-7000-8000-000000000001"
#: 2026-11-22T10:00:00Z at monotonic 0.
REALTIME_AT_ZERO = 1_795_341_600 * SECOND

_USUAL = {"boot": "0", "load": "0", "idle": "0", "active": "1", "teardown": "0"}
_ENDS = {"failed": "1", "canceled": "1", "aborted": "0", "quantity": "share"}
_ONLINE = {"boot": "1", "load": "0", "idle": "1", "active": "1", "teardown": "0"}
CLASSES_SHIPPED: Mapping[str, Mapping[str, str]] = {
    "public": {**_USUAL, **_ENDS},
    "fast_boot": {**_USUAL, **_ENDS},
    "training": {**_USUAL, **_ENDS},
    "private": {**_ONLINE, **_ENDS, "aborted": "1"},
    "deployment": {**_ONLINE, **_ENDS, "aborted": "1"},
}


def classes(**changes: Mapping[str, str]) -> Classes:
    """The shipped matrix with some rows changed."""
    rows = {name: {**row, **changes.get(name, {})} for name, row in CLASSES_SHIPPED.items()}
    return parse_classes(rows, "test")


def card(price: str = "0.0001", effective: str = "2026-01-01T00:00:00Z", **tiers: str) -> RateCard:
    """A card with a price for tier `cpu`."""
    content = {"version": "test", "effective": effective, "currency": "USD", "tiers": {"cpu": price, **tiers}}
    return parse_card(content, "test")


def book(interim_ns: int = MINUTE, rates: tuple[RateCard, ...] | None = None, **changes: Mapping[str, str]) -> Rulebook:
    """A rulebook with one set of rules in force."""
    rules: Rules = make_rules(interim_ns, 50 * MS, classes(**changes))
    return Rulebook({rules.hash: rules}, rules.hash, (card(),) if rates is None else rates, "/nodes/test")


def clock(at_ns: int, slept_ns: int = 0) -> Clock:
    """The clocks of a machine that slept for `slept_ns` so far."""
    return Clock(at_ns, at_ns + slept_ns, at_ns, REALTIME_AT_ZERO + at_ns + slept_ns, BOOT_ID)


def opened(options: Options | None = None, at_ns: int = 0) -> Opened:
    """A journal's first fact."""
    options = options or Options(prediction="p1")
    return Opened(at_ns, INSTANCE, 0, ("true",), options, clock(at_ns), 0, 4000)


def spawned(at_ns: int, took_ns: int = 300_000) -> Spawned:
    """The command started."""
    return Spawned(at_ns, at_ns - took_ns, 4711, 12345)


def ready(at_ns: int, by: str = "exec") -> BecameReady:
    """The instance became ready."""
    return BecameReady(at_ns, by)


def beat(at_ns: int, slept_ns: int = 0, cpu_ns: int | None = None) -> Heartbeat:
    """A heartbeat."""
    return Heartbeat(at_ns, clock(at_ns, slept_ns), Usage(cpu_ns, None))


def start(at_ns: int, prediction: str, said_ns: int | None = None, **told: Any) -> Marked:
    """A start mark."""
    return Marked(at_ns, StartMark(prediction, **told), said_ns)


def finish(at_ns: int, prediction: str, status: Status = Status.SUCCEEDED, said_ns: int | None = None) -> Marked:
    """A finish mark."""
    return Marked(at_ns, FinishMark(prediction, status), said_ns)


def exited(
    at_ns: int, code: int | None = 0, signal: int | None = None, slept_ns: int = 0, oom: Oom | None = None
) -> Exited:
    """The command ended."""
    return Exited(at_ns, code, signal, False, clock(at_ns, slept_ns), Usage(5 * MS, 1 << 20), oom=oom)


class Told:
    """What a history led to."""

    def __init__(self, instance: Instance, records: list[UsageRecord], rejected: list[str]) -> None:
        self.instance = instance
        self.records = records
        self.rejected = rejected

    def of(self, kind: RecordType, prediction: str | None = None) -> list[UsageRecord]:
        """The records of a type (and prediction), in order."""
        return [r for r in self.records if r.type is kind and prediction in (None, r.prediction)]

    def predictions(self, prediction: str | None = None) -> list[UsageRecord]:
        """The prediction records."""
        return self.of(RecordType.PREDICTION, prediction)

    def instances(self) -> list[UsageRecord]:
        """The instance records."""
        return self.of(RecordType.INSTANCE)

    def amount(self, *prediction: str) -> Decimal:
        """What was billed in all."""
        return sum((amount_of(r) for r in self.records if not prediction or r.prediction in prediction), Decimal(0))


def amount_of(record: UsageRecord) -> Decimal:
    """A record's amount; nothing where it has none."""
    billing: Any = record.data["billing"]
    return Decimal(billing.amount or "0")


def with_heartbeats(events: Iterable[Event], longest_ns: int) -> Iterator[Event]:
    """A history with the wrapper's heartbeat in each second of every gap that is not longer than `longest_ns`."""
    now_ns: int | None = None
    for event in events:
        if now_ns is not None and event.at_ns is not None and event.at_ns - now_ns <= longest_ns:
            yield from (beat(at_ns) for at_ns in range(now_ns + SECOND, event.at_ns, SECOND))
        yield event
        now_ns = event.at_ns


def with_looks(events: Iterable[Event], longest_ns: int) -> list[Event]:
    """A history with heartbeats; what the agent looked at lies between them, and is no sign of life."""
    events = list(events)
    looks = [event for event in events if isinstance(event, Observed | Measured | Held)]
    told = list(with_heartbeats((event for event in events if event not in looks), longest_ns))
    for look in looks:
        at = max(at for at, event in enumerate(told) if (event.at_ns or 0) <= look.at_ns)
        told.insert(at + 1, look)
    return told


def tell(
    options: Options | None,
    events: Iterable[Event],
    rules: Rulebook | None = None,
    tier: str = "cpu",
    silent: bool = False,
    on: Hardware | None = None,
) -> Told:
    """Fold a history from its opening on; `silent`: the wrapper's heartbeats are only those that are told."""
    if not silent:
        events = with_heartbeats(events, 10 * MINUTE)
    rules = rules or book()
    instance = open_instance(opened(options), rules, on or Hardware(tier, 1, rule="test"))
    step = fold(instance, events, rules)
    return Told(step.instance, list(step.records), [reason for _, reason in step.rejected])


def in_pieces(instance: Instance, events: Iterable[Event], rules: Rulebook, at_once: int) -> list[Step]:
    """Fold so that no more predictions than that are cut at once: where each piece got."""
    steps = [fold(instance, events, rules, most=at_once)]
    while steps[-1].pause is not None:
        steps.append(go_on(steps[-1], rules, most=at_once))
    return steps


WORKER = Options(worker=True)
