"""Rerating: what had no price when it ended, billed once its card or its units have come. Pure.

Owns which card that is, and what is due by it. That is worked out from an instance's records alone, those corrections
included, so doing it again changes nothing; where some of them are not here any more, nothing is worked out. Refuses to
know whose records are read, and when.

A prediction keeps the card that was in force at its start, as the ledger knows the cards now: where another has billed
it, for that one came late, it is billed anew. Only where there was none then, or that card has no price for its tier,
the first later one that has counts. Where units are missing that its model is priced by, they have to be told. What an
instance is billed for itself: online_rerating.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from taximeter.about import record_id
from taximeter.billing.classes import ONLINE, Quantity
from taximeter.billing.dues import Dues
from taximeter.billing.outcome import sold_ns
from taximeter.billing.rates import RateCard, card_in_force
from taximeter.billing.settling import settle_all
from taximeter.charging import due_of_ended
from taximeter.events import Status
from taximeter.instance import Ended
from taximeter.online_rerating import Stretch, due_of, in_force, is_whole, parts_of, stretches
from taximeter.predictions import added
from taximeter.recall import ended_as_told, number_of, realtime_ns
from taximeter.records import (
    RERATED,
    TAKEN_BACK,
    Billing,
    BillingStatus,
    Line,
    RecordType,
    UsageRecord,
    utc_text,
)
from taximeter.rerated import rerated
from taximeter.rulebook import Rulebook, Rules
from taximeter.values import replace

Json = Mapping[str, Any]
Units = Mapping[str, Mapping[str, str]]  #: by prediction: more of what was counted, as exact texts

#: Why one is left without a price.
OTHER_CURRENCY = "other_currency"
NO_CARD, NO_TIER, NO_UNITS = "no_rate_card", "no_price_for_its_tier", "no_units"
GONE = "records_gone"


class Outcome(NamedTuple):
    """What became of the unrated predictions of an instance, and of its own time."""

    records: tuple[UsageRecord, ...]
    left: tuple[str, ...]  #: why each of the others has no price still, a bounded word each


class LateCards:
    """By which cards something may have been billed for which another came late; `only`: for which that one did."""

    def __init__(self, cards: Sequence[RateCard], only: RateCard | None = None) -> None:
        self._since: dict[str | None, str] = {}
        for card in cards:
            later = [one.effective_utc_ns for one in cards if one.effective_utc_ns > card.effective_utc_ns]
            if only is not None:
                later = [only.effective_utc_ns] if only.effective_utc_ns in later else []
            if later:
                self._since[card.hash] = utc_text(min(later))
        if only is not None:
            self._since[None] = utc_text(only.effective_utc_ns)

    def since(self, known_as: str | None) -> str | None:
        """Since when, as records write it, another card is in force than the one of that hash; None: nothing has."""
        return self._since.get(known_as)


def rerate(events: Sequence[Json], book: Rulebook, rules: Rules, units: Units, *, late_cards: bool = False) -> Outcome:
    """Corrections of an instance that is over, by all of its records.

    `late_cards`: also of what has a price, where a card came late that was in force by then.
    """
    online = any(event["data"]["class"] in ONLINE for event in events if event["type"] == RecordType.INSTANCE)
    runs = [run for run in _runs(events) if _is_unrated(run) or (late_cards and _late_card(run, book.cards))]
    first = _of_runs(runs, (book, rules), units, online=online)
    own = [event for event in events if event["type"] == RecordType.INSTANCE]
    over = list(stretches(events)) if own and own[-1]["data"]["final"] else []
    second = _of_stretches([one for one in over if late_cards or one.unrated], own, (book, rules))
    return numbered(
        (*first.records, *second.records), (*first.left, *second.left), 1 + max(number_of(e["id"]) for e in events)
    )


def rerate_runs(events: Iterable[Json], book: Rulebook, rules: Rules, card: RateCard) -> Outcome:
    """Corrections of those predictions that have ended, by all of their records, whose own card came late: this one.

    Whoever books them numbers them. Where their instance is what is sold, they are of its class.
    """
    runs = [run for run in _runs(events) if _late_card(run, book.cards) is card]
    return _of_runs(runs, (book, rules), {}, online=False)


def rerate_stretches(
    events: Sequence[Json], book: Rulebook, rules: Rules, card: RateCard, under: str | None = None
) -> Outcome:
    """The same of an instance's own time, by its own records; while it is open, of what is not `under` its card now."""
    own = [event for event in events if event["type"] == RecordType.INSTANCE]
    found = []
    for one in stretches(events):
        parts = parts_of(one, own[-1], book.cards, rules)
        is_over = own[-1]["data"]["final"] or one.own[0]["data"]["billing"]["rate_card"] != under
        # What had no price has that of its own card now, and no other: for the rest somebody has to ask.
        theirs = parts[:1] if one.unrated else parts
        if is_over and any(part.card is card for part in theirs):
            found.append(one)
    return _of_stretches(found, own, (book, rules))


def numbered(records: Iterable[UsageRecord], left: tuple[str, ...], number: int) -> Outcome:
    """The same, of which the first record has that number of its instance's."""
    return Outcome(
        tuple([replace(one, id=record_id(str(one.instance), at)) for at, one in enumerate(records, number)]), left
    )


def _of_runs(runs: Iterable[Sequence[Json]], by: tuple[Rulebook, Rules], units: Units, *, online: bool) -> Outcome:
    records: list[UsageRecord] = []
    left: list[str] = []
    for run in runs:
        more = units.get(run[0]["data"]["prediction"], {})
        outcome = _rerated(run, by, more, online=online) if is_whole(run[0]) else GONE
        if isinstance(outcome, str):
            left.append(outcome)
        elif outcome is not None:
            billing, ended, sold = outcome
            counted = {"units_to_date": ended.prediction.units_to_date, "attributes": ended.prediction.attributes}
            whose = run[0], next(event for event in run if event["data"].get("final"))
            record = rerated(billing, whose, {**whose[1]["data"], "hardware": _latest(run)}, counted)
            records.append(replace(record, sold_ns=sold))
    return Outcome(tuple(records), tuple(left))


def _of_stretches(found: Iterable[Stretch], own: Sequence[Json], by: tuple[Rulebook, Rules]) -> Outcome:
    records: list[UsageRecord] = []
    left: list[str] = []
    for stretch in found:
        said = _of_stretch(stretch, own[-1], by) if stretch.whole else GONE
        if isinstance(said, str):
            left.append(said)
        elif said is not None:
            whose = stretch.own[0], stretch.own[-1]
            records.append(rerated(said, whose, own[-1]["data"], {}))
    return Outcome(tuple(records), tuple(left))


def _is_unrated(run: Sequence[Json]) -> bool:
    return any(event["data"]["billing"]["status"] == BillingStatus.UNRATED for event in run)


def _late_card(run: Sequence[Json], cards: tuple[RateCard, ...]) -> RateCard | None:
    """The card that was in force at the start of a run, where that came late, and another was known then, or none."""
    known_as = run[0]["data"]["billing"]["rate_card"]
    own = next((card for card in cards if card.hash == known_as), None)
    if own is None and known_as is not None:
        return None
    card = in_force(cards, realtime_ns(run[0]["data"]["interval"]["start_utc"]), own)
    return None if card is own else card


def _latest(run: Sequence[Json]) -> Json:
    """On what a run is known to have run by now: what evidence corrected bills, whatever its last record was told."""
    told: Json = next(event["data"]["hardware"] for event in reversed(run) if event["data"].get("reason") != RERATED)
    return told


def _of_stretch(stretch: Stretch, end: Json, by: tuple[Rulebook, Rules]) -> Billing | str | None:
    """What is to be billed of a stretch of an instance's own time; a word, where it cannot be."""
    book, rules = by
    due: list[Dues] = []
    for part in parts_of(stretch, end, book.cards, rules):
        reason = NO_CARD
        for _, dues in due_of(part, end, book.cards, rules):
            if dues.reason is None:
                due.append(dues)
                break
            reason = NO_TIER
        else:
            return reason
    return _settled(due, stretch.records) if due else None


def _settled(due: Sequence[Dues], records: Sequence[Json]) -> Billing | str | None:
    """What makes what these records billed into what is due."""
    currencies = {event["data"]["billing"]["currency"] for event in records if event["data"]["billing"]["lines"]}
    if currencies.union(dues.currency for dues in due) - {due[-1].currency}:
        return OTHER_CURRENCY
    return settle_all(due, [Line(**line) for event in records for line in event["data"]["billing"]["lines"]])


def _runs(events: Iterable[Json]) -> Iterator[list[Json]]:
    """The records of each prediction that has ended, with its corrections; an id may come again once it has ended."""
    runs: list[list[Json]] = []
    by_record: dict[str, list[Json]] = {}
    going: dict[str, list[Json]] = {}
    for event in events:
        data = event["data"]
        if event["type"] == RecordType.PREDICTION:
            run = going.setdefault(data["prediction"], [])
            if data["final"]:
                runs.append(going.pop(data["prediction"]))
        elif event["type"] == RecordType.CORRECTION and data["corrects"]["id"] in by_record:
            run = by_record[data["corrects"]["id"]]
        else:
            continue
        run.append(event)
        by_record[event["id"]] = run
    return (run for run in runs if run[0]["data"]["prediction"] is not None)


def _rerated(
    run: Sequence[Json], by: tuple[Rulebook, Rules], more: Mapping[str, str], *, online: bool
) -> "tuple[Billing, Ended, int] | str | None":
    """What a run is to be billed, with what it is billed for; a word, where it cannot be; None, where it is already."""
    book, rules = by
    told = [event for event in run if event["data"].get("final") or event["data"].get("reason") in TAKEN_BACK]
    ended, hardware = ended_as_told(told[-1]), _latest(run)
    anew = [event for event in run if event["data"].get("reason") == RERATED]
    before = [event["data"]["units_to_date"] for event in anew if event["data"]["status"] != Status.PROCESSING]
    counted = added(before[-1] if before else ended.prediction.units_to_date, more)
    on = {"tier": hardware["tier"], "devices": hardware["count"]}
    ended = replace(ended, prediction=replace(ended.prediction, units={}, units_total=counted, **on))
    online = online or ended.prediction.service_class in ONLINE
    dues = _dues(ended, rules, book.cards, realtime_ns(run[0]["data"]["interval"]["start_utc"]), online=online)
    if isinstance(dues, str):
        return dues
    billing = _settled((dues,), run)
    if billing is None or isinstance(billing, str):
        return billing
    already = bool(anew) or online or not _is_unrated(run)  # what has a price, or was rerated, is sold since then
    terms, times = rules.classes.terms[ended.prediction.service_class], ended.prediction.cut_times
    busy_ns = times.share if terms.quantity is Quantity.SHARE else times.active
    return billing, ended, 0 if already else sold_ns(dues, busy_ns)


def _dues(ended: Ended, rules: Rules, cards: tuple[RateCard, ...], start_utc_ns: int, *, online: bool) -> Dues | str:
    """What it costs by the card of its start, or by the first later one where that has nothing to say; else a word."""
    own = card_in_force(cards, start_utc_ns)
    if own is not None:
        dues = due_of_ended(ended, rules, own, online)
        if dues.reason is None:
            return dues
        if own.model(ended.prediction.model) is not None:
            return NO_TIER if any(line.rate is None for line in dues.lines) else NO_UNITS
    later = [card for card in cards if card.effective_utc_ns > start_utc_ns]
    for card in sorted(later, key=lambda card: card.effective_utc_ns):
        dues = due_of_ended(ended, rules, card, online)
        if dues.reason is None:
            return dues
    return NO_CARD if own is None and not later else NO_TIER
