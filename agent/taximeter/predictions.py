"""Predictions on an instance: who may begin one, what it is called, what it counted, how it ended.

Owns the rule that what `taximeter run` fixed no mark can change, and the bounds on what a worker may make us keep.
A refusal is a bounded word, returned and not raised. Refuses to know time and money.
"""

from collections.abc import Mapping
from decimal import Decimal

from taximeter import lineage
from taximeter.billing.money import EXACT, plain
from taximeter.clockwork import utc_ns
from taximeter.events import Exited, Oom, ServiceClass, Source, StartMark, Status, StopReason
from taximeter.instance import Instance, Prediction
from taximeter.records import Witness
from taximeter.rulebook import Rulebook
from taximeter.sold import boots_fast
from taximeter.values import replace

MOST_OPEN = 1024
MOST_UNITS = 64


def find(instance: Instance, prediction: str) -> Prediction | None:
    """The open prediction of that id."""
    for open_ in instance.predictions:
        if open_.id == prediction:
            return open_
    return None


def without(instance: Instance, prediction: str) -> Instance:
    """The instance without that prediction."""
    return replace(instance, predictions=tuple(open_ for open_ in instance.predictions if open_.id != prediction))


def begin_one_shot(instance: Instance, at_ns: int, witness: Witness, book: Rulebook) -> Prediction:
    """The one prediction that a one-shot's command is."""
    options = instance.opened.options
    name = options.prediction or instance.opened.instance
    kin = lineage.of_run(options, name)
    card = book.card_at(utc_ns(instance.opened, at_ns, instance.phases.suspended))
    return Prediction(
        id=name,
        model=options.model,
        version=options.version,
        account=options.account,
        service_class=instance.service_class,
        pool=options.pool,
        parent=kin.parent,
        root=kin.root,
        attributes={},
        traceparent=instance.opened.traceparent,
        card=card.hash if card else None,
        start_ns=at_ns,
        start=witness,
        active=True,
        units=options.units,
        cut_ns=at_ns,
        units_total=options.units,
    )


def begin(instance: Instance, mark: StartMark, at_ns: int, late_ns: int | None, book: Rulebook) -> Prediction | str:
    """The prediction that a start mark begins at `at_ns`, received `late_ns` after (None: it did not say).

    A word instead of a prediction is why it is refused.
    """
    refusal = _refusal(instance, mark)
    if refusal:
        return refusal
    options = instance.opened.options
    kin = lineage.of_mark(options, mark, find(instance, mark.parent) if mark.parent else None)
    card = book.card_at(utc_ns(instance.opened, at_ns, instance.phases.suspended))
    model, version, pool = options.model or mark.model, options.version or mark.version, options.pool or mark.pool
    left_open = ServiceClass.FAST_BOOT if boots_fast(card, model, version, pool) else ServiceClass.PUBLIC
    service_class = options.service_class or mark.service_class or left_open
    return Prediction(
        id=mark.prediction,
        model=model,
        version=version,
        account=options.account or mark.account,
        service_class=service_class,
        pool=pool,
        parent=kin.parent,
        root=kin.root,
        attributes=mark.attributes,
        traceparent=mark.traceparent,
        card=card.hash if card else None,
        start_ns=at_ns,
        start=Witness(Source.MARK, late_ns),
        active=service_class is not ServiceClass.FAST_BOOT,
        cut_ns=at_ns,
        owner=None if mark.detached or mark.pid == instance.pid else mark.pid,
        marked_ns=at_ns,
    )


def _refusal(instance: Instance, mark: StartMark) -> str | None:
    options = instance.opened.options
    if find(instance, mark.prediction) is not None:
        return "already_started"
    if len(instance.predictions) >= MOST_OPEN:
        return "too_many_open"
    fixed = (
        (options.account, mark.account),
        (options.model, mark.model),
        (options.version, mark.version),
        (options.pool, mark.pool),
        (options.service_class, mark.service_class),
    )
    if any(told is not None and said is not None and told != said for told, said in fixed):
        return "fixed_by_run"
    return None


def count_units(instance: Instance, prediction: str | None, units: Mapping[str, str], at_ns: int) -> Instance | str:
    """Add increments, said at `at_ns`, to a prediction; None names a one-shot's own. A refusal is a word."""
    if prediction is None:
        if instance.opened.options.worker or not instance.predictions:
            return "no_such_prediction"
        prediction = instance.predictions[0].id
    counted = find(instance, prediction)
    if counted is None:
        return "no_such_prediction"
    total = added(counted.units_to_date, units)
    if len(total) > MOST_UNITS:
        return "too_many_units"
    since = total if counted.last_interim is None else added(counted.units, units)
    marked_ns = max(counted.marked_ns, at_ns)
    changed = replace(counted, units=since, units_total=total, marked_ns=marked_ns, doubted=False)
    at = instance.predictions.index(counted)
    predictions = (*instance.predictions[:at], changed, *instance.predictions[at + 1 :])
    return replace(instance, predictions=predictions)


def added(before: Mapping[str, str], units: Mapping[str, str]) -> Mapping[str, str]:
    """Counts, and more of them, unit by unit."""
    total = dict(before)
    for name, amount in units.items():
        total[name] = plain(EXACT.add(Decimal(total.get(name, "0")), Decimal(amount)))
    return total


def ended_status(instance: Instance, event: Exited) -> Status:
    """How the instance, and whatever is open on it, ends when its command exits.

    A node without memory is the platform's doing; a memory limit is the worker's own, as any other crash.
    """
    if instance.stop is StopReason.CANCELED:
        return Status.CANCELED
    if instance.stop is StopReason.ABORTED:
        return Status.ABORTED
    one_shot = not instance.opened.options.worker
    if event.code == 0 and (one_shot or not instance.predictions):
        return Status.SUCCEEDED
    if instance.stop is StopReason.DRAIN or event.oom == Oom.NODE:
        return Status.ABORTED
    return Status.CANCELED if event.signal is not None and event.signal == instance.interrupted else Status.FAILED
