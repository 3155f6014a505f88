"""Which totals are charged to whom: of a prediction or an instance, by its class's row, on the hardware that bills.

Refuses to know prices (billing) and which hardware that is (sold); it is given a rulebook and the hardware.
"""

from collections.abc import Mapping
from functools import lru_cache

from taximeter.billing.classes import ONLINE, Quantity, Terms
from taximeter.billing.dues import NOTHING_DUE, Dues, dues, dues_by, of_time
from taximeter.billing.money import EXACT, plain
from taximeter.billing.outcome import sold_ns, why_nothing
from taximeter.billing.rates import RateCard
from taximeter.billing.rating import Rating, informative, rate, taken_back, taken_back_anew
from taximeter.billing.readings import Totals
from taximeter.billing.settling import line_of, settle
from taximeter.billing.tariffs import Offer, Sale, Tariff, multiplied
from taximeter.events import ServiceClass, Status
from taximeter.hardware.inventory import Hardware
from taximeter.instance import Ended, Freed, Instance, Phases, Piece, Prediction, Times
from taximeter.records import Billing, BillingStatus
from taximeter.rulebook import Rulebook, Rules, Sold
from taximeter.values import replace

By = tuple[Rulebook, Hardware]
_NO_PHASES = Phases()
_PROCESSING = Status.PROCESSING
_new = tuple.__new__
_NO_PHASE = "no time passed that its class bills"


def rate_prediction(instance: Instance, prediction: Prediction, times: Times, status: Status, by: By) -> Rating:
    """What a prediction used since its last record; where the instance is what is sold, that bills its time."""
    offer = _offer(instance, prediction, status, by)
    sale = offer.sale
    if sale.online and not (sale.model and sale.model.online_units):
        return Rating(informative(sale.card))
    tariff = offer.tariff(prediction.attributes)
    totals = _totals(sale, prediction, times, prediction.units_to_date, status is not _PROCESSING)
    now = dues_by(tariff, totals)
    if prediction.last_interim is None:
        cut, before, billed = totals, NOTHING_DUE, NOTHING_DUE
    else:
        cut = _totals(sale, prediction, prediction.cut_times, units_before(prediction), ended=False)
        before = billed = dues_by(tariff, cut)
        tier = prediction.tier or sale.tier
        if not offer.as_before(tier, prediction.devices):
            was = sale._replace(status=_PROCESSING, tier=tier, devices=prediction.devices)
            billed = dues(was._replace(attributes=prediction.attributes), cut)
    rating = rate(now, before, billed)
    if rating.billing.status is BillingStatus.FREE:
        rating = _with_reason(rating, why_nothing(sale, totals))
    if prediction.pool is None or sale.online:
        return rating
    sold = sold_ns(before, cut.busy_ns)
    resold = 0 if billed is before else sold - sold_ns(billed, cut.busy_ns)
    return rating._replace(sold_ns=sold_ns(now, totals.busy_ns) - sold, resold_ns=resold)


def _with_reason(rating: Rating, reason: str) -> Rating:
    """What comes to nothing says why."""
    billing = rating.billing
    return rating._replace(billing=_because(billing, reason)) if billing.status is BillingStatus.FREE else rating


@lru_cache(maxsize=64)
def _because(billing: Billing, reason: str) -> Billing:
    return replace(billing, reason=reason)


def rate_ended(instance: Instance, ended: Ended, by: By) -> Rating:
    """What other hardware changes of a prediction whose last record is written, or of what was taken back of one."""
    prediction = ended.prediction
    sale = _sale(instance, prediction, ended.status, by)
    if sale.online:
        return Rating(informative(None))
    was = _as_billed(sale, prediction)
    totals = _totals(sale, prediction, prediction.cut_times, prediction.units_to_date, ended=True)
    due, billed = dues(sale, totals), dues(was, totals)
    if ended.less is None:
        resold = sold_ns(due, totals.busy_ns) - sold_ns(billed, totals.busy_ns)
        return rate(due, due, billed)._replace(resold_ns=resold)
    whole = _totals(sale, prediction, _plus(prediction.cut_times, ended.less), prediction.units_to_date, ended=True)
    return taken_back_anew((dues(sale, whole), due), (dues(was, whole), billed))


def rate_less(instance: Instance, prediction: Prediction, left: Times, status: Status, by: By) -> Rating:
    """What it changes of a prediction's bill, which is whole, that only `left` of its times is to be billed."""
    sale = _sale(instance, prediction, status, by)
    if sale.online:
        return Rating(informative(sale.card))
    whole, less = (
        _totals(sale, prediction, times, prediction.units_to_date, ended=True) for times in (prediction.times, left)
    )
    due, still = dues(sale, whole), dues(sale, less)
    return Rating(taken_back(due, still), None, sold_ns(still, less.busy_ns) - sold_ns(due, whole.busy_ns))


def _plus(times: Times, more: Times) -> Times:
    return Times(times.load + more.load, times.active + more.active, times.share + more.share)


def due_of_ended(ended: Ended, rules: Rules, card: RateCard | None, online: bool) -> Dues:
    """What a prediction that has ended costs in all, by these rules and this card, on the hardware that billed it.

    For whoever prices it anew: `billing.settling` makes what was billed into that. `online`: its instance is sold.
    """
    prediction = ended.prediction
    model = card.model(prediction.model) if card else None
    currency, known_as = (card.currency, card.hash) if card else (None, None)
    if online and not (model and model.online_units):
        return Dues(Tariff(currency, known_as), ())
    terms = rules.classes.terms[prediction.service_class]
    sale = Sale(
        card, model, terms, ended.status, prediction.tier or "", prediction.devices, prediction.attributes, online
    )
    units = prediction.units_to_date
    return dues(sale, _totals(sale, prediction, prediction.cut_times, units, ended=True))


def rate_anew(instance: Instance, prediction: Prediction, card: str, book: Rulebook) -> Rating | None:
    """What another card changes of what a prediction's interim records have billed so far: its correction.

    None where that card has no price for it, or one in another currency.
    """
    if prediction.last_interim is None:
        return Rating(informative(None))
    due, busy_ns = _due_so_far(instance, prediction, card, book)
    billed, _ = _due_so_far(instance, prediction, prediction.card, book)
    lines = [] if billed.reason else [line_of(one) for one in billed.lines]
    if due.reason is not None or (lines and billed.currency != due.currency):
        return None
    resold = sold_ns(due, busy_ns) - sold_ns(billed, busy_ns)
    return Rating(informative(None), settle(due, lines), None, resold)


def _due_so_far(instance: Instance, prediction: Prediction, card: str | None, book: Rulebook) -> tuple[Dues, int]:
    """What a prediction costs up to its last record by a card, on what that was billed on; and how long it was busy."""
    known = book.card_of(card)
    model = known.model(prediction.model) if known else None
    online = ONLINE.intersection((prediction.service_class, instance.service_class))
    if online and not (model and model.online_units):
        return Dues(Tariff(known.currency if known else None, card), ()), 0
    terms = book.rules_of(instance.rules).classes.terms[prediction.service_class]
    on = (prediction.tier or "", prediction.devices, prediction.attributes, bool(online))
    sale = Sale(known, model, terms, _PROCESSING, *on)
    totals = _totals(sale, prediction, prediction.cut_times, units_before(prediction), ended=False)
    return dues(sale, totals), totals.busy_ns


def rate_instance(instance: Instance, phases: Phases, status: Status, by: By) -> Rating:
    """Boot, idle and teardown by their multipliers; active only where the instance is what is sold.

    All of it under the card in force now: what is over under earlier ones is rated by `rate_piece`.
    """
    (book, hardware), cut = by, instance.cut
    card, online = book.card_of(instance.card), instance.service_class in ONLINE
    terms = _terms(instance, book)
    if not online and not _is_charged(terms):
        return Rating(informative(card))
    since = instance.pieces[-1].until if instance.pieces else _NO_PHASES

    def due(until: Phases, readied: bool, ends: Status, tier: str) -> Dues:
        spent = truly(replace(until, boot=until.boot if readied else since.boot), instance.freed)
        return _of_phases((since, spent), (terms, ends), (tier, card), online=online)

    how = status if online else Status.PROCESSING
    now = due(phases, instance.readied, how, hardware.tier)
    if cut.interim is None:
        return _with_reason(rate(now), _NO_PHASE)
    before = due(cut.phases, cut.readied, how, hardware.tier)
    billed = due(cut.phases, cut.readied, Status.PROCESSING, cut.tier or hardware.tier)
    return _with_reason(rate(now, before, billed), _NO_PHASE)


def rate_freed(instance: Instance, piece: Piece, more: Freed, by: By) -> Billing | None:
    """What it changes of a stretch that was told that more of it was freed; None where nothing of it is charged."""
    book, hardware = by
    online, terms = instance.service_class in ONLINE, _terms(instance, book)
    if not online and not _is_charged(terms):
        return None
    at = (hardware.tier, book.card_of(piece.card))
    known = truly(piece.until, piece.freed)
    billed, left = (
        _of_phases((piece.since, until), (terms, Status.PROCESSING), at, online=online)
        for until in (known, truly(known, more))
    )
    return taken_back(billed, left)


def truly(until: Phases, freed: Freed) -> Phases:
    """Totals as they truly were."""
    idle, teardown = freed.idle, freed.teardown
    if not idle and not teardown:
        return until
    return replace(
        until, idle=until.idle + idle, active=until.active - idle - teardown, teardown=until.teardown + teardown
    )


def bills_itself(instance: Instance, book: Rulebook) -> bool:
    """Whether an instance's own records bill anything of its time."""
    return instance.service_class in ONLINE or _is_charged(_terms(instance, book))


def _terms(instance: Instance, book: Rulebook) -> Terms:
    return book.rules_of(instance.rules).classes.terms[instance.service_class]


def _is_charged(terms: Terms) -> bool:
    """Whether the time is charged that an instance is in none of its predictions."""
    return bool(terms.boot or terms.idle or terms.teardown)


def rate_piece(instance: Instance, piece: Piece, status: Status, by: By) -> Rating:
    """What the end, or other hardware, changes of a stretch of online time that is over under an earlier card."""
    book, hardware = by
    terms, card = _terms(instance, book), book.card_of(piece.card)
    spent = (piece.since, truly(piece.until, piece.freed))
    due = _of_phases(spent, (terms, status), (hardware.tier, card), online=True)
    billed = (piece.tier or hardware.tier, card)
    return rate(due, due, _of_phases(spent, (terms, Status.PROCESSING), billed, online=True))


def due_of_stretch(
    spent: tuple[Phases, Phases], how: tuple[ServiceClass, Status], at: tuple[str, RateCard | None], rules: Rules
) -> Dues:
    """What an instance's time between two totals costs in all, by class and end, by these rules: for rerating."""
    (service_class, status), terms = how, rules.classes.terms[how[0]]
    online = service_class in ONLINE
    return _of_phases(spent, (terms, status if online else Status.PROCESSING), at, online=online)


def _of_phases(
    spent: tuple[Phases, Phases], by: tuple[Terms, Status], at: tuple[str, RateCard | None], *, online: bool
) -> Dues:
    """What an instance's time between two totals costs."""
    (since, until), (terms, ends) = spent, by
    boot, idle, active, teardown = (
        multiplied(terms, ends, phase) for phase in (terms.boot, terms.idle, terms.active, terms.teardown)
    )
    own = (("active", until.active - since.active, active),) if online else ()
    parts = (("boot", until.boot - since.boot, boot), ("idle", until.idle - since.idle, idle), *own)
    return of_time((*parts, ("teardown", until.teardown - since.teardown, teardown)), *at)


def units_before(prediction: Prediction) -> Mapping[str, str]:
    """What a prediction had counted when it was last cut."""
    since, total = prediction.units, prediction.units_total
    if not since:
        return total
    return {
        name: plain(EXACT.subtract(EXACT.create_decimal(amount), EXACT.create_decimal(since[name])))
        if name in since
        else amount
        for name, amount in total.items()
    }


def _offer(instance: Instance, prediction: Prediction, status: Status, by: By) -> Offer:
    book, hardware = by
    card, service_class = book.card_of(prediction.card), prediction.service_class
    model = card.model(prediction.model) if card else None
    online = service_class in ONLINE or instance.service_class in ONLINE
    name = model.name if model else None
    sold = (instance.rules, prediction.card, name, service_class, status, hardware.tier, hardware.count, online)
    return book.offer(_new(Sold, sold))


def _sale(instance: Instance, prediction: Prediction, status: Status, by: By) -> Sale:
    return _offer(instance, prediction, status, by).sale._replace(attributes=prediction.attributes)


def _as_billed(sale: Sale, prediction: Prediction) -> Sale:
    """On the hardware that its last record was billed on."""
    return sale._replace(tier=prediction.tier or sale.tier, devices=prediction.devices)


def _totals(sale: Sale, prediction: Prediction, times: Times, units: Mapping[str, str], ended: bool) -> Totals:
    """A prediction is billed by its share or its active time; one that loads brings nothing before it has processed."""
    busy_ns = times.share if sale.terms.quantity is Quantity.SHARE else times.active
    processed = times.active > 0 or (prediction.active and prediction.service_class is not ServiceClass.FAST_BOOT)
    return Totals(times.load, busy_ns, units, processed, ended)
