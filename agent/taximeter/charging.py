"""Which time is charged to whom: the phases of a class's row, at the tier that bills.

Refuses to know prices (billing) and which tier that is (sold); it is given a rulebook and a tier.
"""

from decimal import Decimal

from taximeter.billing.classes import ONLINE, Quantity, Terms
from taximeter.billing.rating import Charge, Rating, informative, rate_time, take_back, take_back_anew
from taximeter.events import Status
from taximeter.instance import Ended, Instance, Phases, Prediction, Times
from taximeter.records import Billing
from taximeter.rulebook import Rulebook

_ONE = Decimal(1)


def rate_prediction(
    instance: Instance, prediction: Prediction, times: Times, status: Status, by: tuple[Rulebook, str]
) -> Rating:
    """What a prediction used since its last record; where the instance is what is sold, that bills it."""
    book, tier = by
    card, service_class = book.card_of(prediction.card), prediction.service_class
    if service_class in ONLINE or instance.service_class in ONLINE:
        return Rating(informative(card))
    terms = book.rules_of(instance.rules).classes.terms[service_class]
    factor = terms.on(status)
    cut = prediction.cut_times
    charges = (
        Charge("load", cut.load, times.load, terms.load * factor, terms.load),
        Charge(terms.quantity, *_quantities(terms, cut, times), terms.active * factor, terms.active),
    )
    return rate_time(charges, tier, card, prediction.tier)


def rate_ended(instance: Instance, ended: Ended, by: tuple[Rulebook, str]) -> Rating:
    """What another tier changes of a prediction whose last record is written: no time is new."""
    (book, tier), prediction = by, ended.prediction
    if prediction.service_class in ONLINE or instance.service_class in ONLINE:
        return Rating(informative(None))
    terms, times = book.rules_of(instance.rules).classes.terms[prediction.service_class], prediction.cut_times
    factor = terms.on(ended.status)
    load, active = terms.load * factor, terms.active * factor
    before, less = times, ended.less
    if less is not None:
        before = Times(load=times.load + less.load, active=times.active + less.active, share=times.share + less.share)
    charges = (
        Charge("load", before.load, times.load, load, load),
        Charge(terms.quantity, *_quantities(terms, before, times), active, active),
    )
    card = book.card_of(prediction.card)
    if less is not None:
        return take_back_anew(charges, (prediction.tier or tier, tier), card)
    return rate_time(charges, tier, card, prediction.tier)


def rate_less(
    instance: Instance, prediction: Prediction, left: Times, status: Status, by: tuple[Rulebook, str]
) -> Billing:
    """What it changes of a prediction's bill, which is whole, that only `left` of its times is to be billed."""
    (book, tier), times = by, prediction.times
    card, service_class = book.card_of(prediction.card), prediction.service_class
    if service_class in ONLINE or instance.service_class in ONLINE:
        return informative(card)
    terms = book.rules_of(instance.rules).classes.terms[service_class]
    factor = terms.on(status)
    load, active = terms.load * factor, terms.active * factor
    charges = (
        Charge("load", times.load, left.load, load, load),
        Charge(terms.quantity, *_quantities(terms, times, left), active, active),
    )
    return take_back(charges, tier, card)


def rate_instance(instance: Instance, phases: Phases, status: Status, by: tuple[Rulebook, str]) -> Rating:
    """Boot, idle and teardown by their multipliers; active only where the instance is what is sold."""
    book, tier = by
    card, cut, before = book.card_of(instance.card), instance.cut, instance.cut.phases
    service_class = instance.service_class
    terms = book.rules_of(instance.rules).classes.terms[service_class]
    online = service_class in ONLINE
    if not online and not (terms.boot or terms.idle or terms.teardown):
        return Rating(informative(card))
    factor = terms.on(status) if online else _ONE
    boot_before, boot_now = before.boot if cut.readied else 0, phases.boot if instance.readied else 0
    charges = (
        Charge("boot", boot_before, boot_now, terms.boot * factor, terms.boot),
        Charge("idle", before.idle, phases.idle, terms.idle * factor, terms.idle),
        Charge("active", before.active, phases.active, terms.active * factor, terms.active),
        Charge("teardown", before.teardown, phases.teardown, terms.teardown * factor, terms.teardown),
    )
    own = charges if online else tuple(charge for charge in charges if charge.meter != "active")
    return rate_time(own, tier, card, cut.tier)


def _quantities(terms: Terms, before: Times, now: Times) -> tuple[int, int]:
    """What a prediction is billed by: at its last record, and now."""
    return (before.share, now.share) if terms.quantity is Quantity.SHARE else (before.active, now.active)
