"""Rerating of what an instance is billed for itself: online time that had no price, or whose card came late. Pure.

Owns which stretches of its time those are, and by which card each is billed. A stretch is what lies under one rate card
by its records, for the instance was cut where a card took effect that was known then. Where one took effect within it
that came later, it is cut there now (recutting). Each part is billed by the card that was in force at its start, as the
ledger knows the cards now; only where there was none then, or that one has no price for its tier, by the first later
one that has. Refuses to know whose records are read, and when.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from taximeter.billing.classes import ONLINE, Terms
from taximeter.billing.dues import Dues
from taximeter.billing.rates import RateCard, card_in_force
from taximeter.billing.settling import summed
from taximeter.charging import due_of_stretch, truly
from taximeter.events import ServiceClass, Status
from taximeter.instance import Freed, Phases
from taximeter.recall import realtime_ns
from taximeter.records import FREED, BillingStatus, Line, RecordType
from taximeter.recutting import freed_until, phases_until
from taximeter.rulebook import Rules
from taximeter.values import replace

Json = Mapping[str, Any]
#: So many records are taken as one at most.
_MOST_AS_ONE = 500


class Stretch(NamedTuple):
    """An instance's records under one card, with the corrections of them; and its phases to date at either end."""

    records: Sequence[Json]
    since: Phases
    until: Phases
    freed: Freed = Freed()
    whole: bool = True  #: all of its records are there

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
            by_record.update(dict.fromkeys(event.get("ids", (event["id"],)), groups[-1]))
            groups[-1].append(event)
        elif event["type"] == RecordType.CORRECTION and data["corrects"]["id"] in by_record:
            by_record[data["corrects"]["id"]].append(event)
    since, whole = Phases(), bool(groups) and is_whole(groups[0][0])
    for group in groups:
        until = _until(next(event["data"] for event in reversed(group) if event["type"] == RecordType.INSTANCE), since)
        yield Stretch(group, since, until, _freed(group), whole)
        since, whole = until, True


def as_one(one: Json, next_: Json, cards: Iterable[RateCard]) -> Json | None:
    """Two records of an instance, one after the other, as one (`ids`); None where it matters what each of them tells.

    There may be one for each minute of months, of which what follows needs no more than the sums.
    """
    was, data = one["data"], next_["data"]
    ids = (*one.get("ids", (one["id"],)), next_["id"])
    kinds = one["type"] == next_["type"] == RecordType.INSTANCE
    if not kinds or data["final"] or was["hardware"] != data["hardware"] or len(ids) > _MOST_AS_ONE:
        return None
    if any(was["billing"][key] != data["billing"][key] for key in ("status", "rate_card", "currency")):
        return None
    begun_ns, over_ns = realtime_ns(was["interval"]["start_utc"]), realtime_ns(data["interval"]["end_utc"])
    if any(begun_ns < card.effective_utc_ns < over_ns for card in cards):
        return None
    lines = summed([Line(**line) for told in (was, data) for line in told["billing"]["lines"]])
    interval = {**data["interval"], **{key: was["interval"][key] for key in ("start_utc", "start_ns")}}
    time = {part: ns + data["time"][part] for part, ns in was["time"].items()}
    both = {**data, "interval": interval, "time": time, "billing": {**data["billing"], "lines": lines}}
    return {**next_, "data": both, "ids": ids}


def is_whole(first: Json) -> bool:
    """Whether that is the first record of a run, or of an instance, of all: it tells all that there was by then."""
    data = first["data"]
    return bool(data["to_date"]["wall_ns"] == data["time"]["wall_ns"])


class Part(NamedTuple):
    """What of a stretch is under one card, as the cards are known now."""

    start_utc_ns: int
    card: RateCard | None
    since: Phases
    until: Phases


def parts_of(stretch: Stretch, end: Json, cards: tuple[RateCard, ...], rules: Rules) -> list[Part]:
    """The parts of a stretch, in order; none where nothing is to be billed anew. `end`: its instance's last record.

    What has its price keeps it, unless a card came late that was in force by then.
    """
    service_class, tier = ServiceClass(end["data"]["class"]), end["data"]["hardware"]["tier"]
    begun, over = stretch.own[0]["data"]["interval"], stretch.own[-1]["data"]["interval"]
    start_utc_ns, end_utc_ns = realtime_ns(begun["start_utc"]), realtime_ns(over["end_utc"])
    later = {card.effective_utc_ns for card in cards if start_utc_ns < card.effective_utc_ns < end_utc_ns}
    starts = (start_utc_ns, *sorted(later if service_class in ONLINE else ()))
    own = None if stretch.unrated else _named(stretch, cards)
    under = [in_force(cards, at_utc_ns, own) for at_utc_ns in starts]
    if not stretch.unrated and (own is None or all(card is own for card in under)):
        return []
    parts: list[Part] = []
    since, terms = stretch.since, rules.classes.terms[service_class]
    for at, start in enumerate(starts):
        until = truly(stretch.until, stretch.freed)
        if at + 1 < len(starts):
            least = not _is_cheaper(under[at], under[at + 1], tier)
            until = _until_instant(stretch, starts[at + 1], terms, least=least)
        parts.append(Part(start, under[at], since, until))
        since = until
    return parts


def in_force(cards: tuple[RateCard, ...], at_utc_ns: int, own: RateCard | None) -> RateCard | None:
    """The card in force at an instant; the `own` one of what has a price, unless one that takes effect later was."""
    card = card_in_force(cards, at_utc_ns)
    return card if own is None or (card and card.effective_utc_ns > own.effective_utc_ns) else own


def due_of(part: Part, end: Json, cards: Sequence[RateCard], rules: Rules) -> Iterator[tuple[RateCard, Dues]]:
    """What a part costs by each card that may count, the first of them first; `end`: the instance's last record."""
    later = sorted(
        (card for card in cards if card.effective_utc_ns > part.start_utc_ns), key=lambda card: card.effective_utc_ns
    )
    how = ServiceClass(end["data"]["class"]), Status(end["data"]["status"])
    for card in later if part.card is None else (part.card, *later):
        spent = part.since, part.until
        yield card, due_of_stretch(spent, how, (end["data"]["hardware"]["tier"], card), rules)


def _named(stretch: Stretch, cards: Iterable[RateCard]) -> RateCard | None:
    """The card that has billed it, if it is known; None, too, where another record bills its time."""
    billing = stretch.own[0]["data"]["billing"]
    if billing["status"] == BillingStatus.INFORMATIVE:
        return None
    return next((card for card in cards if card.hash == billing["rate_card"]), None)


def _is_cheaper(one: RateCard | None, other: RateCard | None, tier: str) -> bool:
    price, next_ = (card.tiers.get(tier) if card else None for card in (one, other))
    return price is not None and next_ is not None and price < next_


def _until_instant(stretch: Stretch, at_utc_ns: int, terms: Terms, *, least: bool) -> Phases:
    """Its phases to date at an instant within it; a boot counts once it led to ready, and something followed."""
    until = phases_until(stretch.own, at_utc_ns, terms, least=least)
    is_over = not least or until.idle + until.active + until.teardown > 0
    ready = is_over and until.boot >= stretch.own[-1]["data"]["to_date"]["boot_ns"]
    until = replace(until, boot=stretch.until.boot if ready else stretch.since.boot)
    return truly(until, freed_until(stretch.freed, stretch.until.active - until.active))


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
