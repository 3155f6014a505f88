"""Rerating of what an instance is billed for itself: online time that had no price, once its card has come. Pure.

Owns which stretches of its time those are, and by which card each is billed. A stretch is what lies under one rate card
by its records, for the instance was cut where a card took effect that was known then. It is billed whole, by the card
that was in force at its start, as the ledger knows the cards now; only where there was none then, or that one has no
price for its tier, by the first later one that has. Refuses to know whose records are read, and when.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from taximeter.billing.dues import Dues
from taximeter.billing.rates import RateCard, card_in_force
from taximeter.charging import due_of_stretch, truly
from taximeter.events import ServiceClass, Status
from taximeter.instance import Freed, Phases
from taximeter.recall import realtime_ns
from taximeter.records import FREED, BillingStatus, RecordType
from taximeter.rulebook import Rules
from taximeter.values import replace

Json = Mapping[str, Any]


class Stretch(NamedTuple):
    """An instance's records under one card, with the corrections of them; and its phases to date at either end."""

    records: Sequence[Json]
    since: Phases
    until: Phases
    freed: Freed = Freed()

    @property
    def own(self) -> Sequence[Json]:
        """The records themselves."""
        return [event for event in self.records if event["type"] == RecordType.INSTANCE]

    @property
    def unrated(self) -> bool:
        """Whether any of it had no price."""
        return any(event["data"]["billing"]["status"] == BillingStatus.UNRATED for event in self.own)


def stretches(events: Iterable[Json]) -> Iterator[Stretch]:
    """Those of an instance that is over, in order; of what nobody was ready for, the boot is of the next one."""
    groups: list[list[Json]] = []
    by_record: dict[str, list[Json]] = {}
    card: object = None
    for event in events:
        data = event["data"]
        if event["type"] == RecordType.INSTANCE:
            if not groups or data["billing"]["rate_card"] != card:
                groups.append([])
                card = data["billing"]["rate_card"]
            by_record[event["id"]] = groups[-1]
            groups[-1].append(event)
        elif event["type"] == RecordType.CORRECTION and data["corrects"]["id"] in by_record:
            by_record[data["corrects"]["id"]].append(event)
    since = Phases()
    for group in groups:
        until = _until(next(event["data"] for event in reversed(group) if event["type"] == RecordType.INSTANCE), since)
        yield Stretch(group, since, until, _freed(group))
        since = until


def due_of(stretch: Stretch, end: Json, cards: Sequence[RateCard], rules: Rules) -> Iterator[tuple[RateCard, Dues]]:
    """What a stretch costs by each card that may count, the first of them first; `end`: the instance's last record."""
    start_utc_ns = realtime_ns(stretch.own[0]["data"]["interval"]["start_utc"])
    own = card_in_force(tuple(cards), start_utc_ns)
    later = sorted(
        (card for card in cards if card.effective_utc_ns > start_utc_ns), key=lambda card: card.effective_utc_ns
    )
    how = ServiceClass(end["data"]["class"]), Status(end["data"]["status"])
    spent = stretch.since, truly(stretch.until, stretch.freed)
    for card in later if own is None else (own, *later):
        yield card, due_of_stretch(spent, how, (end["data"]["hardware"]["tier"], card), rules)


def _freed(events: Iterable[Json]) -> Freed:
    """What of its active time was taken back, for it had been something else."""
    times = [event["data"]["time"] for event in events if event["data"].get("reason") == FREED]
    return Freed(sum(time["idle_ns"] for time in times), sum(time["teardown_ns"] for time in times))


def _until(data: Json, since: Phases) -> Phases:
    """Its phases to date; a boot counts from when it became ready."""
    said = data["to_date"]
    until = Phases(said["boot_ns"], said["idle_ns"], said["active_ns"], said["teardown_ns"])
    ready = data.get("exit", {}).get("ready")
    if ready is None:
        ready = until.idle + until.active > 0 or any(line["meter"] == "boot" for line in data["billing"]["lines"])
    return until if ready else replace(until, boot=since.boot)
