"""A rate card that comes when it was in force already, and what is open by then: pure.

Owns that an open prediction goes on under the card of its start, and an instance that is sold online under the one that
is in force, as if either had been known in time; and the correction of what interim records of predictions have billed
by another card. What an instance has told of its own time is corrected by its records (rerating), as is whatever has
ended on it; once it is over itself they are settled for good, for its end or other hardware may have changed more of
it. Where a card has no price for a prediction that goes on, or one in another currency, it keeps the card that billed
it. Refuses to know when a card came.
"""

from taximeter.about import record_id
from taximeter.billing.classes import ONLINE
from taximeter.charging import bills_itself, rate_anew
from taximeter.clockwork import utc_ns
from taximeter.corrections import rerated_correction
from taximeter.instance import Instance, Prediction
from taximeter.online_rerating import in_force
from taximeter.records import UsageRecord
from taximeter.rulebook import Rulebook
from taximeter.turn import Paused, Turn, under_each_card
from taximeter.values import replace


def goes_under(instance: Instance, card: str, turn: Turn) -> Instance:
    """The instance after the card of that hash came late; the turn has the corrections that this leads to at once.

    Raises Paused where these, or a cut on the way, are more than it has room for: called anew, it goes on from there.
    """
    online, book = instance.service_class in ONLINE, turn.book
    if not instance.records:
        own = _card_at(instance.card, utc_ns(instance.opened, instance.opened.at_ns), book)
        instance = replace(instance, card=own)
    if online:
        instance = under_each_card(instance, max(instance.since_ns, instance.cut.at_ns), turn)
    may_change = instance.opened.options.worker or bills_itself(instance, book)
    if instance.records and may_change and card not in instance.repriced:
        instance = replace(instance, repriced=(*instance.repriced, card))
    return _with_own_cards(instance, turn)


def corrected(instance: Instance, records: tuple[UsageRecord, ...]) -> tuple[Instance, tuple[UsageRecord, ...]]:
    """The instance after corrections that were worked out by its records, each with its number."""
    name, first = instance.opened.instance, instance.records
    told = tuple([replace(one, id=record_id(name, number)) for number, one in enumerate(records, first)])
    return replace(instance, records=first + len(told)), told


def _with_own_cards(instance: Instance, turn: Turn) -> Instance:
    """The instance with every open prediction under the card of its start. Raises Paused."""
    book, records = turn.book, list[UsageRecord]()
    done, turn.cut = turn.cut, 0
    until = len(instance.predictions)
    if turn.room is not None:
        until = min(until, done + turn.room)
        turn.room -= until - done
    predictions = list(instance.predictions[:done])
    for prediction in instance.predictions[done:until]:
        card = _own_card(instance, prediction, book)
        changed = rate_anew(instance, prediction, card, book) if card and card != prediction.card else None
        if card is None or changed is None:
            predictions.append(prediction)
            continue
        if changed.correction is not None:
            records.append(rerated_correction(instance, prediction, card, changed, book))
        predictions.append(replace(prediction, card=card))
    rest = instance.predictions[until:]
    instance, told = corrected(replace(instance, predictions=(*predictions, *rest)), tuple(records))
    turn.records.extend(told)
    if rest:
        raise Paused(instance, until)
    return instance


def _own_card(instance: Instance, prediction: Prediction, book: Rulebook) -> str | None:
    """The card that was in force at its start, as the cards are known now."""
    slept_ns = instance.phases.suspended - prediction.times.suspended
    return _card_at(prediction.card, utc_ns(instance.opened, prediction.start_ns, slept_ns), book)


def _card_at(known_as: str | None, at_utc_ns: int, book: Rulebook) -> str | None:
    """The card in force at an instant, for what is under the card of that hash: if nobody knows it, that stays."""
    own = book.card_of(known_as)
    if own is None and known_as is not None:
        return known_as
    card = in_force(book.cards, at_utc_ns, own)
    return card.hash if card else None
