#!/usr/bin/env python3
"""Recompute exported usage records: every line, every total, every correction, to the last digit.

    taximeter records --json | python3 tools/recompute.py
    python3 tools/recompute.py usage.ndjson [more.ndjson …] [--card card.json …]

For whoever does not trust Taximeter: one file, Python's standard library, nothing of Taximeter. It reads the records (a
sink's file, or `taximeter records --json`), takes prices and terms from the facts among them, does all the arithmetic
again in whole numbers and fractions, and names each record that says something else, with what was expected.

What each record is checked for: its place in the chain of hashes and its number; that intervals follow each other and
their parts add up; `to_date`; the rate card that was in force at the start; each priced line (quantity, unit, rate,
multiplier, amount); the sum; that a correction is there where one is due, and is what it must be; of an instance, that
the shares add up to its active time. What cannot be told from the records is counted under "not checked", with why.

`--card FILE` gives a rate card that the records name and do not hold: as a ledger's fact has it, in JSON.
Exit status: 0, all is right; 1, something is not; 2, the input cannot be read.
"""

import argparse
import copy
import hashlib
import json
import operator
import re
import shutil
import sys
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple

PREDICTION = "taximeter.usage.prediction.v1"
INSTANCE = "taximeter.usage.instance.v1"
CORRECTION = "taximeter.usage.correction.v1"
FACT = "taximeter.ledger.fact.v1"
CHECKPOINT = "taximeter.ledger.checkpoint.v1"
THRESHOLD = "taximeter.charge.threshold.v1"
#: These sell the instance's time; what runs on it is informative.
ONLINE = ("private", "deployment")
PROCESSING = "processing"
ATTO = 10**18
GENESIS = "sha256:" + "0" * 64
Json = Mapping[str, Any]

# --- Numbers: whole ones and fractions, so that nothing is rounded but where it is said -------------------------------

_PLAIN = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,64}(\.[0-9]{1,64})?([eE][+-]?[0-9]{1,2})?", re.ASCII)


class Fault(Exception):
    """What a record says, and what was expected."""


def number(text: object, what: str) -> Fraction:
    """A decimal number, written as records write it: in full, without an exponent and trailing zeros."""
    if not isinstance(text, str) or not _PLAIN.fullmatch(text) or text == "-0":
        raise Fault(f"{what} is {text!r}, expected a decimal number as a text, in full")
    return Fraction(text)


def text_of(value: Fraction) -> str:
    """The same, written."""
    rest, twos, fives = value.denominator, 0, 0
    while not rest % 2:
        rest, twos = rest // 2, twos + 1
    while not rest % 5:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest != 1:
        return str(value)  # no decimal number: shown, never equal to one
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}}"
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else sign + digits


def rounded(value: Fraction) -> Fraction:
    """The one rounding of money: half to even, at 18 places."""
    return Fraction(round(value * ATTO), ATTO)


def seconds(duration_ns: int) -> Fraction:
    """Nanoseconds as seconds."""
    return Fraction(duration_ns, 10**9)


def digest(content: object) -> str:
    """The hash by which rate cards and rules are named: over one canonical text."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def utc_ns(text: object) -> int:
    """RFC 3339 in UTC, as nanoseconds since 1970."""
    whole, _, fraction = str(text).removesuffix("Z").partition(".")
    try:
        return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 10**9 + int(fraction.ljust(9, "0") or 0)
    except ValueError:
        raise Fault(f"a time is {text!r}, expected one in UTC") from None


# --- The rate card, and the rules: what costs how much, and who pays for what -----------------------------------------

#: Priced units: so many of what is counted are one of it. The two last are time, which is measured.
UNITS = {
    **{name: (name, 1) for name in ("image", "image_megapixel", "video", "second", "audio_second", "video_second")},
    "5 seconds": ("second", 5),
    "minute": ("second", 60),
    "token": ("token", 1),
    "million_token": ("token", 10**6),
    **{name: (name, 1) for name in ("prediction", "computing_second", "gpu")},
}
TIME = ("computing_second", "gpu")
USUALLY = {"token_input": "token", "token_output": "token"}
_COMPARE = {
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def same(said: str, value: str) -> bool:
    """Texts are the same by their letters, numbers by their size."""
    return said == value or bool(
        _NUMBER.fullmatch(said) and _NUMBER.fullmatch(value) and Fraction(said) == Fraction(value)
    )


def holds(criterion: Json, attributes: Mapping[str, str]) -> bool:
    """Whether another price counts for a prediction with these attributes; what was not said compares to nothing."""
    said, operator, value = attributes.get(criterion["field"]), criterion["operator"], criterion["value"]
    if said is None:
        return False
    if operator == "in":
        return any(same(said, one) for one in value)
    if operator in ("==", "!="):
        return bool(same(said, value) == (operator == "=="))
    sizes = bool(_NUMBER.fullmatch(said) and _NUMBER.fullmatch(value))
    return sizes and bool(_COMPARE[operator](Fraction(said), Fraction(value)))


class Model:
    """A model's own price, as a card has it."""

    def __init__(self, name: str, said: Json) -> None:
        self.name, self.currency, self.prices = name, said["currency"], said["prices"]
        self.criterias: Sequence[Json] = said.get("criterias", ())
        self.plus_hardware, self.online_units = said.get("plus_hardware", False), said.get("online_units", False)
        self.billable, self.on_failure = said.get("billable", True), said["on_failure"]
        self.counted: Mapping[str, str] = said.get("counted", {})
        self.namespace = said.get("namespace")
        self.by_time = all(price["unit"] in TIME for price in (*self.prices, *self.criterias))

    def prices_for(self, attributes: Mapping[str, str]) -> list[Json]:
        """A criterion that holds replaces the price that counts the same, else the first; the first that holds wins."""
        prices, replaced = list(self.prices), set()
        for criterion in self.criterias:
            if holds(criterion, attributes):
                counts = criterion.get("counts")
                places = [at for at, price in enumerate(self.prices) if counts and price.get("counts") == counts]
                place = places[0] if places else 0
                if place not in replaced:
                    replaced.add(place)
                    prices[place] = criterion
        return prices

    def found(self, price: Json, units: Mapping[str, Fraction]) -> list[Fraction]:
        """What was counted that a price is for."""
        if price.get("counts"):
            return [units[price["counts"]]] if price["counts"] in units else []
        base = UNITS[price["unit"]][0]
        return [n for name, n in units.items() if self.counted.get(name, USUALLY.get(name, name)) == base]


class Card:
    """A rate card, as a ledger's fact has it."""

    def __init__(self, content: Json) -> None:
        self.hash, self.currency = digest(content), content["currency"]
        self.effective_ns = utc_ns(content["effective"].replace("+00:00", "Z"))
        self.tiers = {tier: Fraction(price) for tier, price in content["tiers"].items()}
        models = [Model(name, said) for name, said in content.get("models", {}).items()]
        spaces = Counter(model.namespace for model in models)
        self.models = {model.namespace: model for model in models if model.namespace and spaces[model.namespace] == 1}
        self.models.update((model.name, model) for model in models)


class Rules:
    """Who pays for which phase: a table of multipliers by class."""

    def __init__(self, content: Json) -> None:
        self.hash = digest(content)
        self.classes = {name: _terms(row) for name, row in content["classes"].items()}


def _terms(row: Json) -> dict[str, Any]:
    return {key: value if key == "quantity" else Fraction(value) for key, value in row.items()}


# --- What a run costs: of totals to date, and of nothing else ---------------------------------------------------------


class Due(NamedTuple):
    """So much on one meter, at its price; without a rate nobody knows it."""

    meter: str
    unit: str
    quantity: Fraction
    rate: Fraction | None
    multiplier: Fraction

    @property
    def key(self) -> tuple[str, str]:
        """What is compared from record to record."""
        return self.meter, self.unit

    def price(self, quantity: Fraction | None = None) -> Fraction:
        """Of all of it, or of so much."""
        return rounded((self.quantity if quantity is None else quantity) * (self.rate or 0) * self.multiplier)


_BY_EFFECT = operator.attrgetter("effective_ns")


class Dues(NamedTuple):
    """All that is due; `unrated`: there is no price for it."""

    lines: list[Due]
    currency: str | None
    card: str | None
    unrated: bool = False


class State(NamedTuple):
    """What is known of a run up to a record: its totals, and on what it was sold."""

    ns: Mapping[str, int]
    units: Mapping[str, Fraction]
    status: str
    tier: str
    devices: int
    counts: bool  #: of a prediction: it processed; of an instance: it was ready, so that its boot counts
    ended: bool  #: there is no more to come


class Piece(NamedTuple):
    """A stretch of online time that is over under an earlier card."""

    card: Card | None
    base: Mapping[str, int]
    state: State
    last_id: str
    interval: Json
    freed: Mapping[str, int] = {}  #: by how much its phases turned out to be others
    slices: Sequence[tuple[Json, Json, Json]] = ()  #: interval, time and totals of each of its records


#: By meter, unit and rate: how much of it, times its multiplier, and what that comes to.
Paid = Mapping[tuple[str, str, str], tuple[Fraction, Fraction]]


class Run:
    """One prediction, or an instance itself: what it is, and what its records have told."""

    def __init__(self, data: Json, *, online: bool) -> None:
        self.name, self.kind = data["prediction"], data["class"]
        self.online, self.model_name = online, data["model"]
        self.attributes: Mapping[str, str] = data.get("attributes", {})
        self.card_hash = data["billing"]["rate_card"]
        self.card: Card | None = None
        self.begun = self.told = data["interval"]  #: its first interval, and the last one
        self.slept_ns = 0  #: in the last one
        self.state: State | None = None
        self.last_id = ""
        self.partial = False  #: something of it is not here
        self.pieces: list[Piece] = []
        self.known: list[Card] = []  #: cards that were known at its last record
        self.base: Mapping[str, int] = {}  #: totals where the card in force took effect
        self.freed: Mapping[str, int] = {}  #: since then
        self.slices: list[tuple[Json, Json, Json]] = []  #: since then, of what is sold online: each record's times
        self.anew: dict[str, Paid] = {}  #: by the last record of a stretch: what was paid more, for its card came late

    def change_card(self, data: Json, card: Card | None) -> None:
        """From the last record on it is under another card: an instance that is sold online."""
        if self.state is not None:
            since = _since(self.begun, self.told)
            piece = Piece(self.card, self.base, self.state, self.last_id, since, self.freed, self.slices)
            self.pieces.append(piece)
            boot_ns = self.state.ns["boot_ns"] if self.state.counts else self.base.get("boot_ns", 0)
            self.base, self.freed, self.slices = {**self.state.ns, "boot_ns": boot_ns}, {}, []
        self.card, self.card_hash, self.begun = card, data["billing"]["rate_card"], data["interval"]

    def at(self, piece: Piece) -> "Run":
        """The same, as if only that stretch of it were told."""
        run = copy.copy(self)
        run.card, run.card_hash = piece.card, piece.card.hash if piece.card else None
        run.base, run.freed, run.pieces, run.slices = piece.base, piece.freed, [], list(piece.slices)
        run.begun = run.told = piece.interval
        return run

    def dues_of_piece(self, piece: Piece, state: State, rules: Rules) -> Dues | None:
        """What a stretch that is over costs."""
        return self._of_instance(_freed(state, piece.freed), rules.classes[self.kind], piece.base, piece.card)

    def dues(self, state: State, rules: Rules) -> Dues | None:
        """What it costs all in all; None where another record bills it."""
        terms = rules.classes[self.kind]
        if self.name is None:
            return self._of_instance(_freed(state, self.freed), terms, self.base, self.card)
        model = self.card.models.get(self.model_name) if self.card else None
        if self.online and not (model and model.online_units):
            return None
        if model is None:
            return self._of_tier(state, terms)
        nothing = Dues([], model.currency, self.card_hash)
        if not model.billable:
            return nothing
        if state.status == "failed" and model.on_failure != "units" and not model.by_time:
            by_time = model.on_failure == "time" and not self.online
            fits = self.card is not None and self.card.currency == model.currency
            return self._of_tier(state, terms) if by_time and fits else nothing
        lines = self._of_model(model, state, terms)
        if lines is None or any(line.rate is None for line in lines):
            return nothing._replace(unrated=True)
        if model.plus_hardware and not self.online:
            tier = self._of_tier(state, terms)
            return tier._replace(lines=[*tier.lines, *lines])
        return nothing._replace(lines=lines)

    def _of_instance(self, state: State, terms: Json, base: Mapping[str, int], card: Card | None) -> Dues | None:
        if not self.online and not (terms["boot"] or terms["idle"] or terms["teardown"]):
            return None
        end = _end_factor(terms, state.status) if self.online else Fraction(1)
        phases = ("boot", "idle", "active", "teardown") if self.online else ("boot", "idle", "teardown")
        spent = {phase: state.ns[f"{phase}_ns"] - base.get(f"{phase}_ns", 0) for phase in phases}
        parts = [(phase, spent[phase] * (phase != "boot" or state.counts), terms[phase] * end) for phase in phases]
        return self._of_time(parts, state.tier, card)

    def _of_tier(self, state: State, terms: Json) -> Dues:
        end = _end_factor(terms, state.status)
        parts = [("load", state.ns["load_ns"], terms["load"] * end)]
        parts.append((terms["quantity"], state.ns[f"{terms['quantity']}_ns"], terms["active"] * end))
        return self._of_time(parts, state.tier, self.card)

    @staticmethod
    def _of_time(parts: Iterable[tuple[str, int, Fraction]], tier: str, card: Card | None) -> Dues:
        rate = card.tiers.get(tier) if card else None
        lines = [Due(meter, "computing_second", seconds(ns), rate, by) for meter, ns, by in parts if ns and by]
        return Dues(lines, card.currency if card else None, card.hash if card else None, bool(lines) and rate is None)

    def _of_model(self, model: Model, state: State, terms: Json) -> list[Due] | None:
        by = terms["active"] * _end_factor(terms, state.status)
        if self.online and state.status == "aborted":
            by = Fraction(0)
        lines: list[Due] = []
        for price in model.prices_for(self.attributes) if by else ():
            if price["unit"] in TIME:
                lines += () if self.online else self._measured(price, state, terms, by)
                continue
            quantity = self._counted(model, price, state)
            if quantity is None:
                return None
            part = part_of(price, quantity)
            if part:
                lines.append(Due(meter_of(price), price["unit"], part, Fraction(price["amount"]), by))
        return lines

    @staticmethod
    def _measured(price: Json, state: State, terms: Json, by: Fraction) -> Iterator[Due]:
        busy, rate = seconds(state.ns[f"{terms['quantity']}_ns"]), Fraction(price["amount"])
        if price["unit"] == "gpu":
            part = part_of(price, busy * state.devices) if state.devices else busy
            if part:
                yield Due(meter_of(price), "gpu", part, rate if state.devices else None, by)
            return
        load = terms["load"] * _end_factor(terms, state.status)
        if state.ns["load_ns"] and load and "above" not in price and "up_to" not in price:
            yield Due(f"{meter_of(price)} load", price["unit"], seconds(state.ns["load_ns"]), rate, load)
        part = part_of(price, busy)
        if part:
            yield Due(meter_of(price), price["unit"], part, rate, by)

    @staticmethod
    def _counted(model: Model, price: Json, state: State) -> Fraction | None:
        """How many units there are; None: it succeeded, and nothing of what its price is for was ever counted."""
        if not state.counts:
            return Fraction(0)
        if price["unit"] == "prediction":
            return Fraction(int(state.ended))
        found = model.found(price, state.units)
        if not found:
            missed = state.ended and state.status == "succeeded" and Fraction(price["amount"])
            return None if missed else Fraction(0)
        size = UNITS[price["unit"]][1]
        return sum(found, Fraction(0)) if size == 1 else rounded(sum(found, Fraction(0)) / size)


def _end_factor(terms: Json, status: str) -> Fraction:
    return Fraction(terms[status]) if status in ("failed", "canceled", "aborted") else Fraction(1)


def meter_of(price: Json) -> str:
    """What a price's lines are called."""
    above = f" above {price['above']}" if "above" in price else ""
    up_to = f" up to {price['up_to']}" if "up_to" in price else ""
    return f"{price.get('counts') or price['unit']}{above}{up_to}"


def part_of(price: Json, quantity: Fraction) -> Fraction:
    """How much of a quantity a price is for."""
    if "up_to" in price:
        quantity = min(quantity, Fraction(price["up_to"]))
    return max(quantity - Fraction(price.get("above", "0")), Fraction(0))


# --- What a record must bill, and what a correction must be -----------------------------------------------------------

Line = tuple[str, str, str, str, str, str]


class Bill(NamedTuple):
    """The `billing` of a record, as far as it is recomputed."""

    status: str
    lines: tuple[Line, ...]
    amount: str | None
    currency: str | None


_KEYS = ("meter", "quantity", "unit", "rate", "multiplier", "amount")


def told_bill(billing: Json) -> Bill:
    """What a record says."""
    lines = tuple(tuple(line[key] for key in _KEYS) for line in billing["lines"])
    return Bill(billing["status"], lines, billing["amount"], billing["currency"])


def _line(due: Due, quantity: Fraction, multiplier: Fraction, amount: Fraction) -> Line:
    rate = text_of(due.rate or Fraction(0))
    return (due.meter, text_of(quantity), due.unit, rate, text_of(multiplier), text_of(amount))


def _rated(lines: Sequence[Line], currency: str | None) -> Bill:
    return Bill("rated", tuple(lines), text_of(sum((Fraction(line[5]) for line in lines), Fraction(0))), currency)


def bill_of(now: Dues, before: Dues) -> Bill:
    """A record bills what is due now and was not before: the difference of two totals, each rounded once."""
    was = {due.key: due.quantity for due in before.lines}
    grown = [due for due in now.lines if due.quantity != was.get(due.key, 0)]
    if now.unrated:
        return Bill("unrated", (), None, None) if grown or not now.lines else Bill("free", (), "0", now.currency)
    if not grown:
        return Bill("free", (), "0", now.currency)
    lines: list[Line] = []
    for due in grown:
        had = was.get(due.key, Fraction(0))
        lines.append(_line(due, due.quantity - had, due.multiplier, due.price() - due.price(had)))
    return _rated(lines, now.currency)


def corrected(billed: Dues, due: Dues) -> Bill | None:
    """What makes what was billed into what is due; None where it is that already. What has no price bills nothing."""
    left = {} if due.unrated else {one.key: one for one in due.lines}
    lines: list[Line] = []
    for was in () if billed.unrated else billed.lines:
        now = left.pop(was.key, None)
        if now == was:
            continue
        if now is not None and (now.rate, now.quantity) == (was.rate, was.quantity):
            lines.append(_line(was, was.quantity, now.multiplier - was.multiplier, now.price() - was.price()))
        elif now is not None and (now.rate, now.multiplier) == (was.rate, was.multiplier):
            more = now.quantity - was.quantity
            lines.append(
                _line(was, abs(more), was.multiplier if more > 0 else -was.multiplier, now.price() - was.price())
            )
        else:
            lines.append(_line(was, was.quantity, -was.multiplier, -was.price()))
            if now is not None:
                lines.append(_line(now, now.quantity, now.multiplier, now.price()))
    lines += [_line(one, one.quantity, one.multiplier, one.price()) for one in left.values()]
    return _rated(lines, due.currency) if lines else None


def opposite(bill: Bill) -> tuple[Line, ...]:
    """The same, taken back."""
    return tuple((*line[:4], text_of(-Fraction(line[4])), text_of(-Fraction(line[5]))) for line in bill.lines)


def differences(told: Bill, expected: Bill | None) -> str:
    """Where one bill is another than was expected; empty where it is not."""
    if expected is None:
        return "there is a correction, expected none"
    if told.status != expected.status:
        return f"billing.status is {told.status}, expected {expected.status}"
    for at, (one, other) in enumerate(zip(told.lines, expected.lines, strict=False)):
        for key, said, right in zip(_KEYS, one, other, strict=True):
            if said != right:
                return f"billing.lines[{at}].{key} ({one[0]}) is {said}, expected {right}"
    if len(told.lines) != len(expected.lines):
        more = told.lines[len(expected.lines) :] or expected.lines[len(told.lines) :]
        short = "too many" if len(told.lines) > len(expected.lines) else "too few"
        return f"billing.lines: {len(told.lines)}, {short}: expected {len(expected.lines)}; see {more[0]}"
    if told.amount != expected.amount:
        return f"billing.amount is {told.amount}, expected {expected.amount}, the sum of its lines"
    if told.currency != expected.currency:
        return f"billing.currency is {told.currency}, expected {expected.currency}"
    return ""


# --- Time: intervals and their parts ----------------------------------------------------------------------------------

PHASES = ("boot_ns", "idle_ns", "active_ns", "teardown_ns", "suspended_ns", "unknown_ns")
PARTS = ("load_ns", "active_ns", "suspended_ns", "unknown_ns")


def check_time(event: Json, data: Json) -> Iterator[str]:
    """What an interval says of itself."""
    interval, time = data["interval"], data["time"]
    wrong = [
        f"time.{part} is {ns!r}, expected whole nanoseconds"
        for part, ns in time.items()
        if type(ns) is not int or ns < 0
    ]
    if wrong:
        yield from wrong
        return
    length_ns = interval["end_ns"] - interval["start_ns"] + time["suspended_ns"]
    if time["wall_ns"] != length_ns:
        yield f"time.wall_ns is {time['wall_ns']}, expected {length_ns}: its interval, and what was suspended"
    labels_ns = utc_ns(interval["end_utc"]) - utc_ns(interval["start_utc"])
    if labels_ns != length_ns:
        yield f"interval: its UTC labels are {labels_ns} ns apart, expected {length_ns}"
    if event["time"] != interval["start_utc"]:
        yield f"time is {event['time']}, expected {interval['start_utc']}, the start of its interval"
    parts = PHASES if event["type"] == INSTANCE else PARTS
    sum_ns = sum(time[part] for part in parts)
    if sum_ns != time["wall_ns"]:
        yield f"time: {', '.join(parts)} add up to {sum_ns}, expected wall_ns, {time['wall_ns']}"
    if time.get("share_ns", 0) > time["active_ns"]:
        yield f"time.share_ns is {time['share_ns']}, expected no more than active_ns, {time['active_ns']}"


# --- The ledgers, and what is open in them ----------------------------------------------------------------------------


class Pending(NamedTuple):
    """A correction that must come next of an instance, by each of the rules that may have been in force."""

    run: Run
    interval: Json  #: of what is corrected
    event_id: str
    corrects: str
    reason: str
    by: Mapping[str, Bill | None]


class Life:
    """One instance: whatever of it is not settled."""

    def __init__(self, rules: list[Rules]) -> None:
        self.rules = rules  #: any of which it may have begun under, the newest first
        self.number = -1  #: of its last record
        self.boot_id: str | None = None
        self.runs: dict[str | None, Run] = {}
        self.share_ns = self.active_ns = 0
        self.whole = True  #: all of its records are here so far
        self.pending: list[Pending] = []
        self.over = False  #: its last own record is told; corrections may follow
        self.unready: list[tuple[str, bool]] = []  #: billed as if it never became ready (True), or as if it did


class Kept(NamedTuple):
    """What a later correction of a record starts from."""

    life: Life
    run: Run
    state: State
    interval: Json  #: of the corrections of it
    less: State | None = None  #: of what was taken back: the totals before that
    paid: Paid | None = None  #: since it was rerated
    anew: Paid | None = None  #: more than that, since its card came late and it was still open
    left: State | None = None  #: of what something was taken back of: the totals since


class Book:
    """One ledger, as far as it has been read."""

    def __init__(self) -> None:
        self.seq = 0
        self.hash = GENESIS
        self.whole = True  #: from its first record on, without a gap
        self.cards: list[Card] = []
        self.in_force: list[list[Card]] = [[]]  #: the cards that were known, as time went on
        self.rules: list[Rules] = []
        self.lives: dict[str, Life] = {}
        self.numbers: dict[str, int] = {}  #: of lives that are over and may be corrected
        self.recent: OrderedDict[int, bytes] = OrderedDict()
        self.kept: dict[str, Kept] = {}
        self.spend: dict[tuple[str, str, str], Fraction] = {}  #: by account, currency and period
        self.crossed: set[tuple[str, str, str, str]] = set()
        self.last_id = ""  #: of the last record of usage


class Finding(NamedTuple):
    """What is wrong with one record."""

    id: str
    seq: object
    what: str


class Recomputation:
    """Feed it records, in the order of their ledgers, then ask for the report."""

    def __init__(self, corrected_ids: Iterable[str] = ()) -> None:
        self.findings: list[Finding] = []
        self.not_checked: Counter[str] = Counter()
        self.types: Counter[str] = Counter()
        self.totals: dict[str, Fraction] = {}
        self.lines = 0
        self.cards: dict[str, Card] = {}
        self.rules: dict[str, Rules] = {}
        self.trusted: list[Rules] = []  #: rules that were given, not read
        self._corrected = frozenset(corrected_ids)
        self._books: dict[str, Book] = {}

    # --- What is given beside the records ---

    def give_card(self, content: Json) -> None:
        """A rate card that the records may name."""
        card = Card(content)
        self.cards[card.hash] = card

    def give_rules(self, content: Json) -> None:
        """Rules that may have been in force."""
        rules = Rules(content)
        self.trusted.insert(0, rules)

    # --- Records ---

    def feed(self, body: bytes) -> None:
        """The next record, as it is stored."""
        try:
            event = json.loads(body)
            data = event["data"]
            place, kind, name = data["ledger"], event["type"], event["id"]
            book = self._books.setdefault(place["id"], Book())
        except (ValueError, KeyError, TypeError) as error:
            self.findings.append(Finding("(unreadable)", None, f"is no record: {type(error).__name__}: {error}"))
            return
        try:
            if self._placed(book, event, body):
                self.types[kind] += 1
                self._look_at(book, event)
        except Fault as fault:
            self._fault(event, str(fault))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            self.findings.append(Finding(str(name), place.get("seq"), f"lacks or misstates {error!r}"))

    def _fault(self, event: Json, what: str) -> None:
        self.findings.append(Finding(event["id"], event["data"]["ledger"]["seq"], what))

    def _placed(self, book: Book, event: Json, body: bytes) -> bool:
        """Whether the record is the next of its ledger; one that was sent twice is left out."""
        place, own = event["data"]["ledger"], hashlib.sha256(body).digest()
        seq = place["seq"]
        if type(seq) is not int or seq < 1:
            raise Fault(f"ledger.seq is {seq!r}, expected a number from 1 on")
        if seq <= book.seq:
            known = book.recent.get(seq)
            if known is None:
                self.not_checked["came long after its successors: whether it is a repetition is not known"] += 1
            elif known != own:
                self._fault(event, f"ledger.seq is {seq}, which another record had")
            else:
                self.types["repeated"] += 1
            return False
        if seq == book.seq + 1:
            if place["previous"] != book.hash:
                self._fault(
                    event, f"ledger.previous is {place['previous']}, expected {book.hash}: the hash of record {seq - 1}"
                )
        else:
            book.whole = False
            self.not_checked["records before it are missing, so that its place in the chain cannot be told"] += 1
        book.seq, book.hash = seq, "sha256:" + own.hex()
        book.recent[seq] = own
        if len(book.recent) > 10_000:
            book.recent.popitem(last=False)
        return True

    def _look_at(self, book: Book, event: Json) -> None:
        kind, data = event["type"], event["data"]
        if kind == FACT:
            self._learn(book, data)
        elif kind == CORRECTION:
            self._add_up(book, event)
            self._correction(book, event)
        elif kind in (PREDICTION, INSTANCE):
            self._add_up(book, event)
            self._usage(book, event)
        elif kind == THRESHOLD:
            self._threshold(book, data)
        elif kind != CHECKPOINT:  # of these, only their place in the chain: `taximeter verify` has the rest
            self.not_checked[f"{kind}: what it says is not recomputed"] += 1

    def _learn(self, book: Book, data: Json) -> None:
        kind, content = data["fact"], data["content"]
        if kind not in ("rate_card", "rules"):
            return
        known_as = digest(content)
        if data["hash"] != known_as:
            raise Fault(f"the {kind}'s hash is {data['hash']}, expected {known_as}")
        if kind == "rate_card":
            card = self.cards[known_as] = Card(content)
            book.cards = [*(other for other in book.cards if other.hash != card.hash), card]
            book.in_force.append(book.cards)
        else:
            book.rules = [Rules(content), *(other for other in book.rules if other.hash != known_as)]

    def _add_up(self, book: Book, event: Json) -> None:
        data, billing = event["data"], event["data"]["billing"]
        for line in billing["lines"]:
            for key in ("quantity", "rate", "multiplier", "amount"):
                number(line[key], f"billing.lines: {key}")
        self.lines += len(billing["lines"])
        if billing["amount"] is not None:
            currency = str(billing["currency"])
            amount = number(billing["amount"], "billing.amount")
            self.totals[currency] = self.totals.get(currency, Fraction(0)) + amount
            if billing["status"] == "rated" and data["account"] == event["subject"] != "platform":
                spent = (data["account"], currency, event["time"][:7])
                book.spend[spent] = book.spend.get(spent, Fraction(0)) + amount
        book.last_id = event["id"]

    def _threshold(self, book: Book, data: Json) -> None:
        """An account's spend in a month, by the records so far, is at or beyond a threshold: said once."""
        account, currency, period, threshold = (data[key] for key in ("account", "currency", "period", "threshold"))
        if not book.whole or len(period) != len("2026-11"):
            self.not_checked["the spend that it tells is that of records which are not in the export"] += 1
            return
        spend = book.spend.get((account, currency, period), Fraction(0))
        if data["spend"] != text_of(spend) or spend < number(threshold, "threshold"):
            raise Fault(f"spend is {data['spend']}, at or beyond {threshold}: expected {text_of(spend)}")
        if data["since_utc"] != f"{period}-01T00:00:00.000000000Z":
            raise Fault(f"since_utc is {data['since_utc']}, expected the beginning of {period}")
        if data["crossed_by"]["id"] != book.last_id:
            raise Fault(f"crossed_by.id is {data['crossed_by']['id']}, expected {book.last_id}, the last one before it")
        if (account, currency, period, threshold) in book.crossed:
            raise Fault(f"tells again that {account} crossed {threshold} {currency} in {period}, expected that once")
        book.crossed.add((account, currency, period, threshold))

    # --- Usage ---

    def _usage(self, book: Book, event: Json) -> None:
        data = event["data"]
        life = self._life(book, event)
        for what in check_time(event, data):
            self._fault(event, what)
        run = self._run(book, life, event)
        state = self._continued(life, run, event)
        self._billed(life, run, state, event)
        run.state, run.last_id = state, event["id"]
        run.told, run.slept_ns = data["interval"], data["time"]["suspended_ns"]
        if run.name is None and run.online:
            run.slices.append((data["interval"], data["time"], data["to_date"]))
        if event["type"] == PREDICTION:
            life.share_ns += data["time"]["share_ns"]
        else:
            life.active_ns += data["time"]["active_ns"]
        if data["final"]:
            if event["id"] in self._corrected:
                book.kept[event["id"]] = Kept(life, run, state, _ended_interval(run, state))
            for piece in run.pieces:
                if piece.last_id in self._corrected:
                    left = piece.state._replace(status=state.status, tier=state.tier, ended=True)
                    anew = run.anew.get(piece.last_id)
                    book.kept[piece.last_id] = Kept(life, run.at(piece), left, piece.interval, anew=anew)
            life.runs.pop(run.name, None)
            if event["type"] == INSTANCE:
                self._ended(book, life, event)

    def _life(self, book: Book, event: Json) -> Life:
        """The instance of a record, which must be the next of its numbers."""
        name = event["data"]["instance"]
        number_ = int(event["id"].removeprefix(f"{name}-"))
        life = book.lives.get(name)
        if life is None:
            life = book.lives[name] = Life([*book.rules, *self.trusted])
            life.over = name in book.numbers
            life.number = book.numbers.pop(name, -1)
        if number_ != life.number + 1:
            if book.whole:
                self._fault(event, f"is record {number_} of its instance, expected {life.number + 1}")
            life.whole, life.pending = False, []
        life.number = number_
        if life.pending and event["type"] != CORRECTION:
            self._missed(life, event)
        boot_id = event["data"]["interval"]["boot_id"]
        if life.boot_id not in (None, boot_id):
            self._fault(event, f"interval.boot_id is {boot_id}, expected {life.boot_id}")
        life.boot_id = boot_id
        return life

    def _missed(self, life: Life, event: Json) -> None:
        """Corrections that were due did not come, unless under some of the rules they need not."""
        waiting, life.pending = life.pending, []
        for pending in waiting:
            left = [rules for rules in life.rules if pending.by.get(rules.hash) is None]
            if left:
                life.rules = left
                continue
            expected = pending.by[life.rules[0].hash] if life.rules else None
            what = f"is followed by no correction, expected one of {expected and expected.amount} ({pending.reason})"
            self.findings.append(Finding(pending.event_id, event["data"]["ledger"]["seq"], what))

    def _run(self, book: Book, life: Life, event: Json) -> Run:
        data = event["data"]
        run = life.runs.get(data["prediction"])
        if run is not None:
            if run.card_hash != data["billing"]["rate_card"]:
                if run.name is None and run.online:
                    run.change_card(data, self.cards.get(data["billing"]["rate_card"] or ""))
                    self._card_in_force(book, run, event)
                elif not self._came_late(book, life, run, data["billing"]["rate_card"]):
                    self._fault(event, f"billing.rate_card is another than at its start, {run.card_hash}")
            elif run.name is None and run.online:
                self._uncut(run, event)
            run.known = book.cards
            return run
        of_instance = life.runs.get(None)
        online = data["class"] in ONLINE or (of_instance is not None and of_instance.kind in ONLINE)
        run = life.runs[data["prediction"]] = Run(data, online=online)
        run.card = self.cards.get(run.card_hash or "")
        self._card_in_force(book, run, event)
        run.known = book.cards
        return run

    def _came_late(self, book: Book, life: Life, run: Run, known_as: str | None) -> bool:
        """Whether a prediction goes on under the card of its start, which came late, and costs the same so far."""
        found = (self._own_late(cards, run) for cards in reversed(book.in_force))
        own = next((card for card in found if card is not None and card.hash == known_as), None)
        if own is None or run.state is None:
            return False
        before = copy.copy(run)
        run.card, run.card_hash = own, own.hash
        dues = [(before.dues(run.state, rules), run.dues(run.state, rules)) for rules in life.rules]
        return any(not was or not now or _settled(now, _settled(was, {})[1])[0].lines == () for was, now in dues)

    def _own_late(self, cards: Sequence[Card], run: Run) -> Card | None:
        """The card in force at the start of a run, of those known once, if that is a later one than it names."""
        own = self.cards.get(_in_force(cards, utc_ns(run.begun["start_utc"])) or "")
        if own is None or (run.card_hash is not None and run.card is None):
            return None
        return own if run.card is None or own.effective_ns > run.card.effective_ns else None

    def _uncut(self, run: Run, event: Json) -> None:
        """What is sold online is cut where a card takes effect that was known before."""
        interval = event["data"]["interval"]
        start_ns, end_ns = utc_ns(interval["start_utc"]), utc_ns(interval["end_utc"])
        for card in run.known:
            if start_ns < card.effective_ns < end_ns and run.card and card.effective_ns > run.card.effective_ns:
                if any(event["data"]["time"][part] for part in ("suspended_ns", "unknown_ns")):
                    self.not_checked["a card took effect while the machine slept, or nobody looked"] += 1
                else:
                    self._fault(event, f"is not cut where the card {card.hash} took effect")

    def _card_in_force(self, book: Book, run: Run, event: Json) -> None:
        """It names the card that was in force at its start, by what was known at some time before its record."""
        data = event["data"]
        if run.card_hash is not None and run.card is None:
            if book.whole and book.cards:
                raise Fault(f"billing.rate_card is {run.card_hash}, expected a card that the ledger says was in force")
            self.not_checked["the rate card that it names is not in the export: prices are taken as they are"] += 1
            return
        if not book.cards:
            return
        begins = data["to_date"]["wall_ns"] == data["time"]["wall_ns"] or bool(run.pieces)
        if not begins or not book.whole:
            self.not_checked["its start, and so the card in force then, is not in the export"] += 1
            return
        at_ns = utc_ns(data["interval"]["start_utc"])
        for cards in book.in_force:
            if run.card_hash in (
                _in_force(cards, at_ns),
                *([_in_force(cards, at_ns - 10**10)] if run.name is None else []),
            ):
                return
        self._fault(
            event,
            f"billing.rate_card is {run.card_hash}, expected {_in_force(book.cards, at_ns)}, in force at its start",
        )

    def _continued(self, life: Life, run: Run, event: Json) -> State:
        """The totals up to this record: those before, and its own, which must be its `to_date`."""
        data = event["data"]
        time, to_date, units = data["time"], data["to_date"], _numbers(data["units"])
        was = run.state
        if was is None:
            before = {part: ns - time[part] for part, ns in to_date.items()}
            if any(before.values()):
                run.partial = True
                self.not_checked[
                    "records of its run before it are not in the export: what they billed is taken as right"
                ] += 1
                total = _numbers(data.get("units_to_date", {}))
                had = {unit: n - units.get(unit, 0) for unit, n in total.items()}
                counts = before.get("idle_ns", 0) + before["active_ns"] > 0
                hardware = data["hardware"]
                was = run.state = State(
                    dict(before), had, PROCESSING, hardware["tier"], hardware["count"], counts, False
                )
                if life.whole and life.number > 0 and run.name is None:
                    raise Fault(f"to_date is ahead of its records: expected {dict(time)}")
        else:
            before = dict(was.ns)
            start_ns, expected_ns = data["interval"]["start_ns"], run.told["end_ns"]
            if start_ns != expected_ns and not run.partial:
                self._fault(event, f"interval.start_ns is {start_ns}, expected {expected_ns}, where the last one ended")
        for part, ns in to_date.items():
            if ns != before.get(part, 0) + time[part]:
                self._fault(event, f"to_date.{part} is {ns}, expected {before.get(part, 0) + time[part]}")
        counted = dict(was.units) if was else {}
        for unit, n in units.items():
            counted[unit] = counted.get(unit, Fraction(0)) + n
        told = data.get("units_to_date")
        if told is not None and _numbers(told) != counted:
            self._fault(
                event, f"units_to_date is {told}, expected { ({unit: text_of(n) for unit, n in counted.items()}) }"
            )
        hardware = data["hardware"]
        on = (data["status"], hardware["tier"], hardware["count"])
        return State(to_date, counted, *on, self._counts(run, event), data["status"] != PROCESSING)

    @staticmethod
    def _counts(run: Run, event: Json) -> bool:
        data = event["data"]
        to_date = data["to_date"]
        if run.name is not None:
            return bool(to_date["active_ns"]) or run.kind != "fast_boot"
        ready = data.get("exit", {}).get("ready")
        if ready is not None:
            return bool(ready)
        boot = any(line["meter"] == "boot" for line in data["billing"]["lines"])
        return bool(to_date["idle_ns"] + to_date["active_ns"]) or boot or bool(run.state and run.state.counts)

    def _billed(self, life: Life, run: Run, state: State, event: Json) -> None:
        """Compare what it bills with what it must, by each of the rules that its instance may have begun under."""
        data = event["data"]
        told = told_bill(data["billing"])
        if (run.card_hash is not None and run.card is None) or not life.rules:
            if not life.rules:
                self.not_checked[
                    "the rules in force when its instance began are not in the export: only its sums are checked"
                ] += 1
            self._sums(told, event)
            return
        ways = [state]
        if run.name is not None and not state.ns["active_ns"] and state.ended and state.counts:
            ways.append(state._replace(counts=False))  # it never became ready, perhaps: its instance's end will tell
        outcomes = {way.counts: {rules.hash: self._outcome(run, way, rules) for rules in life.rules} for way in ways}
        for way in ways:
            left = [rules for rules in life.rules if not differences(told, outcomes[way.counts][rules.hash][0])]
            if left:
                life.rules = left
                if len(ways) > 1 and outcomes[True] != outcomes[False]:
                    life.unready.append((event["id"], not way.counts))
                break
        else:
            self._fault(event, differences(told, outcomes[state.counts][life.rules[0].hash][0]))
            way = state
        if run.partial:
            return
        hashes = [rules.hash for rules in life.rules]
        for at, piece in enumerate(run.pieces):
            by = {known_as: outcomes[way.counts][known_as][1][at] for known_as in hashes}
            reason = state.status if piece.state.tier == state.tier else "evidence"
            self._expect(life, Pending(run, piece.interval, event["id"], piece.last_id, reason, by))
            run.pieces[at] = piece._replace(state=piece.state._replace(tier=state.tier))
        by = {known_as: outcomes[way.counts][known_as][1][-1] for known_as in hashes}
        reason = state.status if run.state and run.state.tier == state.tier else "evidence"
        self._expect(life, Pending(run, _since(run.begun, run.told), event["id"], run.last_id, reason, by))

    @staticmethod
    def _expect(life: Life, pending: Pending) -> None:
        if any(pending.by.values()):
            life.pending.append(pending)

    @staticmethod
    def _outcome(run: Run, state: State, rules: Rules) -> tuple[Bill, list[Bill | None]]:
        """What a record must bill, and which corrections must follow it: of earlier cards' time, then of its own."""
        now, was, changes = run.dues(state, rules), run.state, list[Bill | None]()
        if now is None:
            return Bill("informative", (), None, run.card.currency if run.card else None), [None]
        for piece in run.pieces:
            so_now = piece.state._replace(status=state.status, tier=state.tier)
            then, due = run.dues_of_piece(piece, piece.state, rules), run.dues_of_piece(piece, so_now, rules)
            changes.append(corrected(then, due) if then and due else None)
        if was is None:
            return bill_of(now, Dues([], None, None)), [*changes, None]
        before = run.dues(was._replace(status=state.status, tier=state.tier, devices=state.devices), rules)
        billed = run.dues(was, rules)
        if before is None or billed is None:
            return bill_of(now, Dues([], None, None)), [*changes, None]
        # What turns out to have no price is not priced at all: what was billed of it is taken back.
        meant = before._replace(unrated=True) if now.unrated else before
        return bill_of(now, before), [*changes, corrected(billed, meant)]

    def _sums(self, told: Bill, event: Json) -> None:
        """Where prices or rules are not known: each line's own arithmetic, and the sum."""
        for at, (_, quantity, _, rate, multiplier, amount) in enumerate(told.lines):
            due = Fraction(quantity) * Fraction(rate) * Fraction(multiplier)
            if abs(Fraction(amount) - due) > Fraction(1, ATTO):  # the difference of two totals, each rounded once
                self._fault(event, f"billing.lines[{at}].amount is {amount}, expected about {text_of(rounded(due))}")
        if told.lines and told.amount != text_of(sum((Fraction(line[5]) for line in told.lines), Fraction(0))):
            self._fault(event, f"billing.amount is {told.amount}, expected the sum of its lines")

    def _ended(self, book: Book, life: Life, event: Json) -> None:
        data = event["data"]
        ready = data.get("exit", {}).get("ready")
        for billed, never in life.unready:
            if ready is not None and ready is never:
                self._fault(event, f"exit.ready is {ready}, but {billed} is billed as if it were {not ready}")
        if not life.whole or any(run.partial for run in life.runs.values()):
            self.not_checked[
                "records of its instance are missing: whether shares add up to active time is not known"
            ] += 1
        elif life.share_ns != data["to_date"]["active_ns"]:
            self._fault(
                event, f"to_date.active_ns is {data['to_date']['active_ns']}, expected {life.share_ns}: all its shares"
            )
        for name in life.runs if life.whole else ():
            self._fault(event, f"ends its instance, but prediction {name} has no final record")
        life.over = True
        self._close(book, life, data["instance"])

    @staticmethod
    def _close(book: Book, life: Life, name: str) -> None:
        if life.over and not life.pending:
            book.lives.pop(name, None)
            book.numbers[name] = life.number

    # --- Corrections ---

    def _correction(self, book: Book, event: Json) -> None:
        data = event["data"]
        interval, told, corrects = data["interval"], told_bill(data["billing"]), data["corrects"]["id"]
        if event["time"] != interval["start_utc"]:
            self._fault(event, f"time is {event['time']}, expected {interval['start_utc']}, the start of its interval")
        life = self._life(book, event)
        if data["reason"] == "freed":
            self._missed(life, event)
            self._freed(life, told, event)
            return
        if data["reason"] == "rerated" and corrects not in book.kept and self._open(life, corrects):
            self._missed(life, event)
            self._rerated_open(book, life, told, event)
            return
        while (
            life.pending and life.pending[0].corrects != corrects and life.pending[0].by.get(life.rules[0].hash) is None
        ):
            life.pending.pop(0)
        if life.pending and life.pending[0].corrects == corrects:
            self._as_due(life, told, event, life.pending.pop(0))
        elif corrects in book.kept:
            self._missed(life, event)
            self._late(book, told, event)
        elif book.whole and life.rules:
            self._missed(life, event)
            self._fault(event, f"corrects {corrects}, of which nothing is to be corrected")
        else:
            self.not_checked[
                "what it corrects is not in the export, or not priced by what is: only its sums are checked"
            ] += 1
            self._sums(told, event)
        self._close(book, life, data["instance"])

    @staticmethod
    def _open(life: Life, corrects: str) -> tuple[Run, Piece | None] | None:
        """Whose record is corrected while it goes on; of an instance, a stretch of it that may be over."""
        for run in life.runs.values():
            piece = next((piece for piece in run.pieces if piece.last_id == corrects), None)
            if piece is not None or run.last_id == corrects:
                return run, piece
        return None

    def _rerated_open(self, book: Book, life: Life, told: Bill, event: Json) -> None:
        """What goes on is billed anew so far, since the card of its start came late, or one that cuts it."""
        data, found = event["data"], self._open(life, event["data"]["corrects"]["id"])
        run, piece = found if found is not None else (None, None)
        if run is None or run.state is None or run.partial or not book.whole or not life.rules:
            self.not_checked[
                "what it corrects is not in the export, or not priced by what is: only its sums are checked"
            ] += 1
            self._sums(told, event)
            return
        if piece is None:
            piece = Piece(
                run.card, run.base, run.state, run.last_id, _since(run.begun, run.told), run.freed, run.slices
            )
        self._as_of(event, piece.interval)
        kept = Kept(life, run.at(piece), piece.state, piece.interval)
        own, wrong = self._own_late(book.cards, run), ""
        if run.name is not None and own is None:
            raise Fault("is rerated, expected that a card came late which was in force at its start")
        for rules in life.rules:
            if run.name is None:
                due = self._due_of_parts(book, kept, piece.state, rules)
            else:
                now = copy.copy(run)
                now.card, now.card_hash = own, own.hash if own else None
                due = now.dues(piece.state, rules) or Dues([], None, None)
            if data["billing"]["rate_card"] != due.card:
                wrong = wrong or f"billing.rate_card is {data['billing']['rate_card']}, expected {due.card}"
                continue
            before = _paid(kept, rules)
            expected, paid = _settled(due, _more(before, run.anew.get(piece.last_id, {})))
            bill = differences(told._replace(lines=tuple(sorted(told.lines))), expected)
            if not bill:
                if run.name is None:
                    run.anew[piece.last_id] = _more(paid, before, -1)
                else:
                    run.card, run.card_hash = own, own.hash if own else None
                return
            wrong = wrong or bill
        self._fault(event, wrong)

    def _freed(self, life: Life, told: Bill, event: Json) -> None:
        """Some of an instance's time was told as active, and was idle or teardown: a prediction had ended before."""
        data, run = event["data"], life.runs.get(None)
        if run is None or run.state is None or run.partial or (run.card_hash and not run.card) or not life.rules:
            self.not_checked[
                "what it corrects is not in the export, or not priced by what is: only its sums are checked"
            ] += 1
            self._sums(told, event)
            return
        corrects, time = data["corrects"]["id"], data["time"]
        length_ns = data["interval"]["end_ns"] - data["interval"]["start_ns"]
        parts_ns = (length_ns, time["idle_ns"], time["teardown_ns"])
        if min(parts_ns) < 0 or time["active_ns"] != -length_ns or sum(parts_ns[1:]) != length_ns:
            self._fault(event, f"time is {time}, expected {length_ns} ns of its interval to be idle or teardown")
        stretches = [*run.pieces, Piece(run.card, run.base, run.state, run.last_id, run.told, run.freed)]
        at = next((at for at, piece in enumerate(stretches) if piece.last_id == corrects), None)
        if at is None:
            raise Fault(f"corrects {corrects}, expected {run.last_id}, the last record of its instance")
        was = stretches[at]
        now = was._replace(freed={part: was.freed.get(part, 0) + ns for part, ns in time.items()})
        if any(now.state.ns[part] - now.base.get(part, 0) + ns < 0 for part, ns in now.freed.items()):
            raise Fault(f"time is {time}, of which less was told")
        if at < len(run.pieces):
            run.pieces[at] = now
        else:
            run.freed = now.freed
        left = [rules for rules in life.rules if not differences(told, self._less_active(run, was, now, rules))]
        if not left:
            self._fault(event, differences(told, self._less_active(run, was, now, life.rules[0])))
        else:
            life.rules = left

    @staticmethod
    def _less_active(run: Run, was: Piece, now: Piece, rules: Rules) -> Bill | None:
        billed, due = run.dues_of_piece(was, was.state, rules), run.dues_of_piece(now, now.state, rules)
        if billed is None or due is None:
            return None
        if billed.unrated or due.unrated:
            return Bill("unrated", (), None, None)
        return corrected(billed, due) or Bill("free", (), "0", due.currency)

    def _as_due(self, life: Life, told: Bill, event: Json, pending: Pending) -> None:
        left = [
            rules
            for rules in life.rules
            if pending.by.get(rules.hash) and not differences(told, pending.by[rules.hash])
        ]
        if not left:
            self._fault(event, differences(told, pending.by.get(life.rules[0].hash)))
            return
        life.rules = left
        self._as_of(event, pending.interval)
        if event["data"]["reason"] != pending.reason:
            self._fault(event, f"reason is {event['data']['reason']}, expected {pending.reason}")

    def _late(self, book: Book, told: Bill, event: Json) -> None:
        """A correction of what had ended: other hardware, or less time than was told."""
        data = event["data"]
        corrects, reason = data["corrects"]["id"], data["reason"]
        kept = book.kept[corrects]
        life, run, was = kept.life, kept.run, kept.state
        if (run.card_hash is not None and run.card is None) or not life.rules:
            self._sums(told, event)
            return
        interval = kept.interval
        if reason == "rerated":
            self._as_of(event, _since(kept.run.begun, kept.run.told))
            self._rerated(book, kept, told, event)
            return
        if reason == "evidence":
            self._as_of(event, interval)
        hardware = data["hardware"]
        now = was._replace(tier=hardware["tier"], devices=hardware["count"])
        less = kept.less
        if reason in ("late_finish", "owner_ended", "owner_unseen", "line_unread"):
            now = was._replace(ns=self._left(was, event))
            book.kept[corrects] = kept._replace(left=now)
            if event["id"] in self._corrected:
                book.kept[event["id"]] = Kept(life, run, now, data["interval"], was)
        elif reason != "evidence":
            raise Fault(f"reason is {reason}, expected one that a run which has ended is corrected for")
        else:
            new_less = less and less._replace(tier=now.tier, devices=now.devices)
            left_now = kept.left and kept.left._replace(tier=now.tier, devices=now.devices)
            paid = None if kept.paid is None else _more(kept.paid, _paid_by(told))
            book.kept[corrects] = Kept(life, run, now, interval, new_less, paid, left=left_now)
        left = [rules for rules in life.rules if not differences(told, self._change(run, was, now, less, rules))]
        if not left:
            self._fault(event, differences(told, self._change(run, was, now, less, life.rules[0])))
        else:
            life.rules = left

    def _rerated(self, book: Book, kept: Kept, told: Bill, event: Json) -> None:
        """What had no price is billed after all: by the card of its start, or else by the first later one."""
        data, run = event["data"], copy.copy(kept.run)
        corrects, units = data["corrects"]["id"], _numbers(data.get("units_to_date", {}))
        known = kept.left or kept.state
        for unit, n in known.units.items():
            if units.get(unit, Fraction(0)) < n:
                self._fault(event, f"units_to_date.{unit} is less than {text_of(n)}, which was counted before")
        card = self.cards.get(data["billing"]["rate_card"] or "")
        if card is None:
            self.not_checked["the rate card that it names is not in the export: prices are taken as they are"] += 1
            self._sums(told, event)
            return
        state, wrong = known._replace(units=units), ""
        for rules in kept.life.rules:
            run.card, run.card_hash = card, card.hash
            if run.name is not None and book.whole and book.cards:
                run.card, run.card_hash = self._first_that_prices(book, run, state, rules)
            if run.name is not None and run.card_hash != card.hash:
                wrong = wrong or f"billing.rate_card is {card.hash}, expected {run.card_hash}"
                continue
            due = run.dues(state, rules) or Dues([], card.currency, card.hash)
            if run.name is None and book.whole and book.cards:
                due = self._due_of_parts(book, kept, state, rules)
                if due.card != card.hash:
                    wrong = wrong or f"billing.rate_card is {card.hash}, expected {due.card}"
                    continue
            expected, paid = _settled(
                due, _more(_paid(kept, rules), kept.anew or {}) if kept.paid is None else kept.paid
            )
            found = differences(told._replace(lines=tuple(sorted(told.lines))), expected)
            if not found:
                book.kept[corrects] = kept._replace(paid=paid)
                return
            wrong = wrong or found
        self._fault(event, wrong)

    def _first_that_prices(self, book: Book, run: Run, state: State, rules: Rules) -> tuple[Card | None, str | None]:
        start_ns = utc_ns(run.begun["start_utc"])
        own = self.cards.get(_in_force(book.cards, start_ns) or "")
        later = sorted(
            (card for card in book.cards if card.effective_ns > start_ns), key=lambda card: card.effective_ns
        )
        for card in [own, *later] if own else later:
            run.card, run.card_hash = card, card.hash
            due = run.dues(state, rules)
            if (
                due is None
                or not due.unrated
                or (card is own and run.name is not None and run.model_name in card.models)
            ):
                return card, card.hash
        return None, None

    def _due_of_parts(self, book: Book, kept: Kept, state: State, rules: Rules) -> Dues:
        """What a stretch of online time costs, cut where cards took effect: each part as if it had begun there."""
        run, whole = kept.run, _freed(state, kept.run.freed)
        begun, ended = utc_ns(run.begun["start_utc"]), utc_ns(run.told["end_utc"])
        later = {card.effective_ns for card in book.cards if begun < card.effective_ns < ended}
        starts = [begun, *sorted(later if run.online else ())]
        unrated = run.card is None or bool((due := run.dues(state, rules)) and due.unrated)
        under = [self.cards.get(_in_force(book.cards, at) or "") for at in starts]
        if run.card is not None and not unrated:
            under = [one if one and one.effective_ns > run.card.effective_ns else run.card for one in under]
        lines, last, since = list[Due](), Dues([], None, None), run.base
        for at, start_ns in enumerate(starts):
            until = whole
            if at + 1 < len(starts):
                prices = [card.tiers.get(state.tier) if card else None for card in under[at : at + 2]]
                least = None in prices or not (prices[0] or 0) < (prices[1] or 0)
                until = _until(run, state, starts[at + 1], rules.classes[run.kind], least=least)
            part = copy.copy(run)
            part.base, part.freed, part.pieces = since, {}, []
            own = under[at]
            others = sorted(
                (one for one in book.cards if one.effective_ns > start_ns), key=lambda one: one.effective_ns
            )
            for card in [own, *others] if own else others:
                part.card, part.card_hash = card, card.hash
                due = part.dues(until, rules) or Dues([], card.currency, card.hash)
                if not due.unrated:
                    break
            else:
                return Dues([], None, None, unrated=True)
            lines, last, since = [*lines, *due.lines], due, until.ns
        return last._replace(lines=lines)

    def _as_of(self, event: Json, interval: Json) -> None:
        """A correction is of the whole that it corrects, and of no time of its own."""
        data = event["data"]
        for key, expected in interval.items():
            if data["interval"][key] != expected:
                self._fault(
                    event, f"interval.{key} is {data['interval'][key]}, expected {expected}, of what it corrects"
                )
        if any(data["time"].values()):
            self._fault(event, f"time is {data['time']}, expected none: nothing ran longer or shorter")

    @staticmethod
    def _left(was: State, event: Json) -> Mapping[str, int]:
        """What is left of its times once more is known."""
        time, to_date = event["data"]["time"], event["data"]["to_date"]
        interval = event["data"]["interval"]
        length_ns = interval["end_ns"] - interval["start_ns"]
        if utc_ns(interval["end_utc"]) - utc_ns(interval["start_utc"]) != length_ns:
            raise Fault(f"interval: its UTC labels are not {length_ns} ns apart, as its ends are")
        for part, ns in to_date.items():
            if time[part] > 0 or ns < 0 or ns != was.ns[part] + time[part]:
                raise Fault(f"to_date.{part} is {ns}, expected {was.ns[part]} less {-time[part]}")
        return {**was.ns, **to_date}

    @staticmethod
    def _change(run: Run, was: State, now: State, less: State | None, rules: Rules) -> Bill | None:
        if run.online:  # its instance bills the time, and nothing else of it changes
            informative = Bill("informative", (), None, run.card.currency if run.card else None)
            return informative if now.ns != was.ns else None
        if less is None:
            billed, due = run.dues(was, rules), run.dues(now, rules)
            if billed is None or due is None:
                return None
            change = corrected(billed, due)
            if (
                change is None and now.ns != was.ns
            ):  # less time, and no money: it had no price, or none of it was billed
                return Bill("unrated", (), None, None) if billed.unrated else Bill("free", (), "0", due.currency)
            return change
        # What was taken back is given again at the old price, and taken back at the new one.
        told, left = run.dues(less, rules), run.dues(was, rules)
        told_now = run.dues(less._replace(tier=now.tier, devices=now.devices), rules)
        left_now = run.dues(now, rules)
        if told is None or left is None or told_now is None or left_now is None:
            return None
        before, after = corrected(told, left), corrected(told_now, left_now)
        lines = (*(opposite(before) if before else ()), *(after.lines if after else ()))
        return _rated(lines, left_now.currency) if lines else None

    # --- The end ---

    def finish(self) -> None:
        """There are no more records."""
        for book in self._books.values():
            for life in book.lives.values():
                if life.pending:
                    self.not_checked["the correction that must follow it may not be written yet"] += 1


def _freed(state: State, freed: Mapping[str, int]) -> State:
    """The totals as they truly were."""
    return state._replace(ns={part: ns + freed.get(part, 0) for part, ns in state.ns.items()}) if freed else state


def _settled(due: Dues, paid: Paid) -> tuple[Bill, Paid]:
    """What makes what was paid so far into what is due, and what is paid then; quantities times their multipliers."""
    now: dict[tuple[str, str, str], tuple[Fraction, Fraction]] = {}
    for one in due.lines:
        key, n = (one.meter, one.unit, text_of(one.rate or Fraction(0))), one.quantity * one.multiplier
        had = now.get(key, (Fraction(0), Fraction(0)))
        now[key] = (had[0] + n, had[1] + rounded(n * (one.rate or Fraction(0))))
    lines = []
    for meter, unit, rate in sorted({*now, *paid}):
        key = (meter, unit, rate)
        (n, amount), (was, cost) = now.get(key, (Fraction(0),) * 2), paid.get(key, (Fraction(0),) * 2)
        if n != was or amount != cost:
            by = "-1" if n < was else "1"
            lines.append((meter, text_of(abs(n - was)), unit, rate, by, text_of(amount - cost)))
    total = sum((Fraction(line[5]) for line in lines), Fraction(0))
    return Bill("rated", tuple(sorted(lines)), text_of(total), due.currency), now


def _paid(kept: Kept, rules: Rules) -> Paid:
    """What was paid before anything was rerated: nothing of what had no price."""
    due = kept.run.dues(kept.left or kept.state, rules)
    return {} if due is None or due.unrated else _settled(due, {})[1]


def _paid_by(bill: Bill) -> Paid:
    """What the lines of a bill come to."""
    paid: Paid = {}
    for meter, quantity, unit, rate, by, amount in bill.lines:
        paid = _more(paid, {(meter, unit, rate): (Fraction(quantity) * Fraction(by), Fraction(amount))})
    return paid


def _more(paid: Paid, other: Paid, sign: int = 1) -> Paid:
    """What was paid, and something else."""
    keys = {*paid, *other}
    none = (Fraction(0), Fraction(0))
    return {
        key: (
            paid.get(key, none)[0] + sign * other.get(key, none)[0],
            paid.get(key, none)[1] + sign * other.get(key, none)[1],
        )
        for key in keys
    }


def _until(run: Run, state: State, at_ns: int, terms: Json, *, least: bool) -> State:
    """A stretch's totals at an instant within it; what its records leave open favours the payer.

    A boot comes first, a teardown last. Idle and active time, sleep, and what nobody saw may come in any order: as
    little of it is before the instant as can be (`least`: what comes then is no dearer), or as much.
    """
    interval, time, to_date = next(one for one in run.slices if at_ns < utc_ns(one[0]["start_utc"]) + one[1]["wall_ns"])
    passed_ns = max(0, at_ns - utc_ns(interval["start_utc"]))
    nobodys_ns = time["suspended_ns"] + time["unknown_ns"]
    left_ns = max(0, passed_ns - nobodys_ns) if least else min(passed_ns, time["wall_ns"] - nobodys_ns)
    middle = sorted(("idle", "active"), key=lambda phase: terms[phase])
    ns: dict[str, int] = {}
    for phase in ("boot", *(middle if least else reversed(middle)), "teardown"):
        before_ns = min(time[f"{phase}_ns"], left_ns)
        ns[f"{phase}_ns"] = to_date[f"{phase}_ns"] - time[f"{phase}_ns"] + before_ns
        left_ns -= before_ns
    is_over = not least or any(ns[f"{phase}_ns"] for phase in ("idle", "active", "teardown"))
    ready = state.counts and is_over and ns["boot_ns"] >= state.ns["boot_ns"]
    ns["boot_ns"] = state.ns["boot_ns"] if ready else run.base.get("boot_ns", 0)
    freed_ns = run.freed.get("idle_ns", 0) + run.freed.get("teardown_ns", 0)
    freed_ns = max(0, freed_ns - (state.ns["active_ns"] - ns["active_ns"]))  # it was the last of the active time
    idle_ns = min(run.freed.get("idle_ns", 0), freed_ns)
    ns["active_ns"] -= freed_ns
    ns["idle_ns"] += idle_ns
    ns["teardown_ns"] += freed_ns - idle_ns
    return state._replace(ns=ns)


def _since(first: Json, last: Json) -> Json:
    """From the beginning of one interval to the end of another."""
    return {**first, "end_ns": last["end_ns"], "end_utc": last["end_utc"]}


def _ended_interval(run: Run, state: State) -> Json:
    """All of a run; by the monotonic clock as long as it was awake since its last interim record, by UTC all of it."""
    awake_ns = state.ns["wall_ns"] - run.slept_ns
    return {**_since(run.begun, run.told), "start_ns": run.told["end_ns"] - awake_ns}


def _in_force(cards: Iterable[Card], at_ns: int) -> str | None:
    found: Card | None = None
    for card in cards:
        if card.effective_ns <= at_ns and (found is None or card.effective_ns >= found.effective_ns):
            found = card
    return found.hash if found else None


def _numbers(units: Json) -> dict[str, Fraction]:
    return {unit: number(n, f"units.{unit}") for unit, n in units.items()}


# --- What a person sees -----------------------------------------------------------------------------------------------


def corrected_ids(lines: Iterable[bytes]) -> Iterator[str]:
    """The records that are corrected later, so that what they said is kept until then."""
    for line in lines:
        if b"usage.correction.v1" in line:
            try:
                yield json.loads(line)["data"]["corrects"]["id"]
            except (ValueError, KeyError, TypeError):
                continue  # a fault, which is told when its turn comes


def recompute(lines: Sequence[bytes], cards: Iterable[Json] = (), rules: Iterable[Json] = ()) -> Recomputation:
    """Recompute records that are in memory."""
    made = Recomputation(corrected_ids(lines))
    for content in cards:
        made.give_card(content)
    for content in rules:
        made.give_rules(content)
    for line in lines:
        made.feed(line)
    made.finish()
    return made


def report(made: Recomputation, most: int) -> Iterator[str]:
    """The outcome, in lines."""
    kinds = ", ".join(f"{count:,} {kind.removeprefix('taximeter.')}" for kind, count in sorted(made.types.items()))
    yield f"recomputed  {kinds or 'no records'}"
    yield f"priced      {made.lines:,} lines, by {len(made.cards)} rate cards"
    for currency, amount in sorted(made.totals.items()):
        yield f"total       {text_of(amount)} {currency}"
    for what, count in sorted(made.not_checked.items()):
        yield f"not checked {count:,} × {what}"
    for finding in made.findings[:most]:
        yield f"WRONG       {finding.id} (record {finding.seq}): {finding.what}"
    if len(made.findings) > most:
        yield f"WRONG       and {len(made.findings) - most:,} more"
    faults = f"{len(made.findings):,} faults"
    yield f"result      {faults if made.findings else 'all that was checked is right, to the last digit'}"


def _spooled(names: Sequence[str]) -> list[BinaryIO]:
    """The inputs, each to be read twice."""
    if names:
        return [open(name, "rb") for name in names]
    spool = tempfile.TemporaryFile()  # noqa: SIM115 -- it is there until the end
    shutil.copyfileobj(sys.stdin.buffer, spool)
    return [spool]


def _lines(files: Iterable[BinaryIO]) -> Iterator[bytes]:
    for file in files:
        file.seek(0)
        yield from (line for line in (raw.rstrip(b"\r\n") for raw in file) if line)


def main(arguments: Sequence[str] | None = None) -> int:
    """Recompute what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="records, a line each; without any, standard input")
    parser.add_argument(
        "--card", action="append", default=[], metavar="FILE", help="a rate card, as a ledger's fact has it"
    )
    parser.add_argument("--most", type=int, default=50, metavar="N", help="how many faults to print (50)")
    asked = parser.parse_args(arguments)
    try:
        files = _spooled(asked.files)
        made = Recomputation(corrected_ids(_lines(files)))
        for name in asked.card:
            with open(name, "rb") as file:
                content = json.load(file)
            made.give_card(content.get("data", content).get("content", content))
        for line in _lines(files):
            made.feed(line)
        made.finish()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"cannot read {', '.join([*asked.files, *asked.card]) or 'standard input'}: {error}", file=sys.stderr)
        return 2
    print("\n".join(report(made, asked.most)))
    return 1 if made.findings else 0


if __name__ == "__main__":
    sys.exit(main())
