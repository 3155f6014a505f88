"""The laws of prices: telescoping, monotone, whatever the order of marks; nothing unrated is billed; no float."""

import ast
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import taximeter
from taximeter.billing.dues import NOTHING_DUE, Due, Dues, dues, dues_by
from taximeter.billing.money import EXACT, plain, rounded
from taximeter.billing.rates import RateCard
from taximeter.billing.rating import rate, taken_back, taken_back_anew
from taximeter.billing.readings import Totals
from taximeter.billing.settling import settle
from taximeter.billing.tariffs import Offer, Sale, tariff_of
from taximeter.billing.units import COUNTED, HARDWARE, PREDICTION, UNITS
from taximeter.charging import due_of_ended
from taximeter.events import Event, FinishMark, Marked, Options, ServiceClass, Status, Stopping, StopReason, UnitsMark
from taximeter.instance import Ended, Prediction
from taximeter.meter import fold, open_instance
from taximeter.records import Billing, Line, RecordType, Witness
from taximeter.rulebook import Sold
from taximeter.values import replace
from tests.core.stories import SECOND, Told, book, classes, exited, finish, opened, ready, spawned, start, tell
from tests.core.test_models import parsed

#: Some so fine that products are rounded.
AMOUNTS = (st.decimals("0", "100", places=9) | st.decimals("0", "1", places=18)).map(plain)
COUNTS = (st.decimals("0", "1000000", places=3) | st.integers(0, 10**7).map(Decimal)).map(plain) | st.decimals(
    "0", "9", places=14
).map(plain)
NAMES = ("image", "second", "token", "token_input", "token_output", "video_second")
STATUSES = st.sampled_from(list(Status))
CLASSES = st.sampled_from([ServiceClass.PUBLIC, ServiceClass.TRAINING, ServiceClass.FAST_BOOT])


@st.composite
def prices(draw: st.DrawFn) -> list[dict[str, str]]:
    """One price, or several that count different things."""
    made: list[dict[str, str]] = []
    for unit in draw(
        st.lists(st.sampled_from(sorted(UNITS)), min_size=1, max_size=3, unique_by=lambda u: UNITS[u].base)
    ):
        price = {"unit": unit, "amount": draw(AMOUNTS)}
        if draw(st.booleans()):
            price["above"] = draw(st.sampled_from(["1", "2.5", "30"]))
        made.append(price)
    return made


@st.composite
def cards(draw: st.DrawFn) -> RateCard:
    """A card with one model of any kind."""
    said: dict[str, Any] = {"name": "m", "prices": draw(prices())}
    said["plus_hardware"] = draw(st.booleans())
    said["on_failure"] = draw(st.sampled_from(["time", "units", "none"]))
    if draw(st.booleans()):
        other = {"unit": PREDICTION, "amount": draw(AMOUNTS), "field": "x", "operator": "==", "value": "1"}
        free = all(price["unit"] != PREDICTION for price in said["prices"])
        said["criterias"] = [other] if free else []
    return parsed(said)


@st.composite
def histories(draw: st.DrawFn) -> list[Totals]:
    """Totals that grow, from nothing to an end."""
    load_ns = busy_ns = 0
    units: dict[str, Decimal] = {}
    told = []
    for _ in range(draw(st.integers(1, 4))):
        load_ns += draw(st.integers(0, 2 * SECOND))
        busy_ns += draw(st.integers(0, 90 * SECOND))
        for name, count in draw(st.dictionaries(st.sampled_from(NAMES), COUNTS, max_size=3)).items():
            units[name] = units.get(name, Decimal(0)) + Decimal(count)
        told.append(Totals(load_ns, busy_ns, {name: plain(count) for name, count in units.items()}, True, False))
    return [*told[:-1], told[-1]._replace(ended=True)]


def sale(card: RateCard, status: Status = Status.SUCCEEDED, tier: str = "cpu", x: str = "0") -> Sale:
    """The model of that card, sold to the public on two devices."""
    terms = classes().terms[ServiceClass.PUBLIC]
    return Sale(card, card.models["m"], terms, status, tier, 2, {"x": x})


def total(*billings: Billing | None) -> Decimal:
    """What they bill together."""
    return sum((Decimal(billing.amount or 0) for billing in billings if billing is not None), Decimal(0))


def told(sold: Sale, history: Sequence[Totals]) -> list[Billing]:
    """What the records of a history bill, cut at each of its totals; only the last knows how it ends."""
    open_ = sold._replace(status=Status.PROCESSING)
    billings: list[Billing] = []
    before: Totals | None = None
    for totals in history:
        as_ = sold if totals.ended else open_
        if before is None:
            rating = rate(dues(as_, totals))
        else:
            rating = rate(dues(as_, totals), dues(as_, before), dues(open_, before))
        billings += [one for one in (rating.billing, rating.correction) if one is not None]
        before = totals
    return billings


def amount(due: Dues) -> Decimal:
    """What is due in all."""
    return total(rate(due).billing)


def seen(due: Dues) -> tuple[object, ...]:
    """All that anybody can tell dues apart by."""
    return due.lines, due.currency, due.card, due.reason


def lines(*billings: Billing) -> list[Line]:
    """All of their lines."""
    return [line for billing in billings for line in billing.lines]


@given(cards(), histories(), STATUSES, st.sampled_from(["0", "1"]))
def test_no_cut_changes_what_a_model_costs(card: RateCard, history: list[Totals], status: Status, x: str) -> None:
    sold = sale(card, status, x=x)
    assert total(*told(sold, history)) == total(*told(sold, history[-1:]))


@given(cards(), histories(), STATUSES, st.sampled_from(["cpu", "gpu-t4"]))
def test_an_end_of_which_it_is_said_that_it_changes_nothing_changes_nothing(
    card: RateCard, history: list[Totals], status: Status, tier: str
) -> None:
    sold, before = sale(card, status), sale(card, Status.PROCESSING, tier)
    totals = history[-1]._replace(ended=False)
    if Offer(sold).as_before(before.tier, before.devices):
        assert seen(dues(sold, totals)) == seen(dues(before, totals))


def test_most_ends_change_nothing_of_what_was_due_before() -> None:
    card = parsed({"name": "m", "amount": "1", "unit": "image"})
    before = sale(card, Status.PROCESSING)
    changes_nothing = [status for status in Status if Offer(sale(card, status)).as_before(before.tier, 2)]
    assert changes_nothing == [Status.PROCESSING, Status.SUCCEEDED, Status.CANCELED]
    assert not Offer(sale(card)).as_before("gpu-t4", before.devices)
    assert not Offer(sale(card)).as_before(before.tier, 1)


def exactly(due: Due) -> Decimal:
    """What a line that is due costs, rounded once."""
    return rounded(EXACT.multiply(EXACT.multiply(due.quantity, due.rate or Decimal(0)), due.multiplier))


@given(cards(), histories())
def test_a_line_is_the_difference_of_two_prices_each_rounded_once(card: RateCard, history: list[Totals]) -> None:
    sold = sale(card)
    for before, now in pairwise(history):
        due, was = dues(sold, now), dues(sold, before)
        if due.reason is not None:
            continue
        prices = {(line.meter, line.unit): exactly(line) for line in was.lines}
        expected = [exactly(line) - prices.get((line.meter, line.unit), 0) for line in due.lines]
        billing = rate(due, was, was).billing
        grown = {(line.meter, line.unit): Decimal(line.amount) for line in billing.lines}
        assert [grown.get((line.meter, line.unit), 0) for line in due.lines] == expected
        assert Decimal(billing.amount or 0) == sum(expected)


@given(cards(), histories())
def test_dues_of_two_tariffs_that_are_alike_are_held_against_each_other_as_those_of_one(
    card: RateCard, history: list[Totals]
) -> None:
    tariff, alike = tariff_of(sale(card)), tariff_of(sale(card))
    before, now = history[0], history[-1]
    of_one = rate(dues_by(tariff, now), dues_by(tariff, before), dues_by(tariff, before))
    assert rate(dues_by(tariff, now), dues_by(alike, before), dues_by(alike, before)) == of_one


@given(cards(), histories(), STATUSES, st.lists(st.sampled_from(["0", "1", "2"]), min_size=1, max_size=4))
def test_an_offer_gives_what_its_sale_costs_whoever_asked_before(
    card: RateCard, history: list[Totals], status: Status, asked: list[str]
) -> None:
    offer = Offer(sale(card, status)._replace(attributes={}))
    for x in asked:
        found = dues_by(offer.tariff({"x": x, "y": "1"}), history[-1])
        assert seen(found) == seen(dues(sale(card, status, x=x), history[-1]))


@given(cards(), histories(), STATUSES)
def test_each_line_is_quantity_times_rate_times_multiplier(
    card: RateCard, history: list[Totals], status: Status
) -> None:
    for line in lines(*told(sale(card, status), history)):
        exact = Decimal(line.quantity) * Decimal(line.rate) * Decimal(line.multiplier)
        assert abs(exact - Decimal(line.amount)) <= Decimal("1e-18")
        assert Decimal(line.quantity) > 0


@given(cards(), histories())
def test_more_time_and_more_units_never_cost_less(card: RateCard, history: list[Totals]) -> None:
    sold = sale(card)._replace(status=Status.PROCESSING)
    amounts = [amount(dues(sold, totals)) for totals in history]
    assert all(before <= after for before, after in pairwise(amounts))


@given(st.sampled_from(sorted(UNITS)), AMOUNTS, AMOUNTS, histories())
def test_a_higher_price_never_costs_less(unit: str, one: str, other: str, history: list[Totals]) -> None:
    low, high = sorted((Decimal(one), Decimal(other)))
    amounts = [
        amount(dues(sale(parsed({"name": "m", "unit": unit, "amount": plain(price)}), Status.FAILED), history[-1]))
        for price in (low, high)
    ]
    assert amounts[0] <= amounts[1]


@given(cards(), histories())
def test_an_aborted_run_costs_nothing_however_it_was_cut(card: RateCard, history: list[Totals]) -> None:
    assert total(*told(sale(card, Status.ABORTED), history)) == 0


@given(cards(), histories())
def test_what_is_unrated_is_not_billed_at_all(card: RateCard, history: list[Totals]) -> None:
    sold = sale(card)
    billings = told(sold, history)
    if dues(sold, history[-1]).reason is not None:
        assert total(*billings) == 0
        assert "unrated" in [billing.status for billing in billings]


@given(cards(), histories(), STATUSES, st.permutations(NAMES))
def test_the_order_of_what_was_counted_changes_nothing(
    card: RateCard, history: list[Totals], status: Status, order: list[str]
) -> None:
    units = history[-1].units
    other = history[-1]._replace(units={name: units[name] for name in order if name in units})
    assert seen(dues(sale(card, status), other)) == seen(dues(sale(card, status), history[-1]))


@given(cards(), histories(), STATUSES)
def test_what_only_loaded_costs_no_units(card: RateCard, history: list[Totals], status: Status) -> None:
    last = history[-1]._replace(processed=False, busy_ns=0)
    assert all(line.unit in HARDWARE for line in dues(sale(card, status), last).lines)


@given(cards(), cards(), histories(), STATUSES)
def test_settling_makes_what_was_billed_into_what_is_due_and_then_there_is_nothing_to_settle(
    card: RateCard, other: RateCard, history: list[Totals], status: Status
) -> None:
    billed = told(sale(card, status), history)
    due = dues(sale(other, status), history[-1])
    settled = settle(due, lines(*billed))
    assert total(*billed, settled) == amount(due)
    assert settle(due, [*lines(*billed), *(settled.lines if settled else ())]) is None


def test_settling_what_was_never_billed_bills_it() -> None:
    card = parsed({"name": "m", "unit": "image", "amount": "0.03"})
    due = dues(sale(card), Totals(0, SECOND, {"image": "2"}, True, True))
    settled: Any = settle(due, ())
    assert [(line.meter, line.quantity, line.amount) for line in settled.lines] == [("image", "2", "0.06")]
    assert settle(NOTHING_DUE, ()) is None


# --- through the meter ---


def by_the_image(**said: Any) -> RateCard:
    return parsed({"name": "m", "unit": "image", "amount": "0.03", **said})


def run(events: list[Event], card: RateCard, interim_ns: int = 3 * SECOND) -> Told:
    """A worker's history of ten seconds."""
    events = [spawned(0), ready(0), *sorted(events, key=lambda event: event.at_ns or 0), exited(20 * SECOND)]
    return tell(Options(worker=True), events, book(interim_ns, (card,)))


def counted(at_s: int, **units: str) -> Marked:
    return Marked(at_s * SECOND, UnitsMark("p", units))


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.integers(1, 30),
    STATUSES.filter(lambda s: s != "processing"),
)
def test_when_units_come_changes_no_price(times: list[int], interim_s: int, status: Status) -> None:
    if status is Status.ABORTED:
        end: Event = Stopping(10 * SECOND, StopReason.ABORTED)
    else:
        end = Marked(10 * SECOND, FinishMark("p", status))
    events = [start(SECOND, "p", model="m"), *(counted(at, image="1") for at in times), end]
    due = {Status.FAILED: Decimal("0.0009"), Status.ABORTED: Decimal(0)}.get(status, len(times) * Decimal("0.03"))
    assert run(events, by_the_image(), interim_s * SECOND).amount() == due


def test_units_are_told_to_date_as_well_once_there_were_interim_records() -> None:
    events = [
        start(0, "p", model="m"),
        counted(1, image="1"),
        counted(4, image="2"),
        Marked(5 * SECOND, FinishMark("p", Status.SUCCEEDED)),
    ]
    first, last = (record.data for record in run(events, by_the_image()).predictions())
    assert (first["units"], "units_to_date" in first) == ({"image": "1"}, False)
    assert (last["units"], last["units_to_date"]) == ({"image": "2"}, {"image": "3"})


def test_a_state_that_an_older_agent_kept_counts_from_what_it_had() -> None:
    rules = book(rates=(by_the_image(),))
    events = [spawned(0), ready(0), start(0, "p", model="m"), counted(1, image="1")]
    state = fold(open_instance(opened(Options(worker=True)), rules), events, rules).instance
    older = replace(state, predictions=tuple(replace(open_, units_total={}) for open_ in state.predictions))
    rest = [counted(2, image="1"), finish(3 * SECOND, "p")]
    (record,) = fold(older, rest, rules).records
    billing: Any = record.data["billing"]
    assert billing.amount == "0.06"


def test_more_units_than_are_kept_are_refused_over_the_whole_life() -> None:
    events: list[Event] = [start(0, "p", model="m")]
    events += [counted(at, **{f"u{at}-{n}": "1" for n in range(33)}) for at in (1, 5)]
    assert run(events, by_the_image()).rejected == ["too_many_units"]


# --- no float ---


def _core() -> list[Path]:
    root = Path(taximeter.__file__).parent if taximeter.__file__ else Path(taximeter.__path__[0])
    names = ("charging", "rulebook", "booking", "predictions", "recall", "records", "digest")
    return [*(root / "billing").glob("*.py"), *(root / f"{name}.py" for name in names)]


def test_no_float_comes_near_money() -> None:
    """Neither a literal, nor the type, nor a division that makes one."""
    found: list[str] = []
    for path in _core():
        for node in ast.walk(ast.parse(path.read_text())):
            literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
            named = isinstance(node, ast.Name) and node.id == "float"
            divided = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
            if literal or named or divided:
                found.append(f"{path.name}:{getattr(node, 'lineno', 0)}")
    assert found == []
    assert len(_core()) > 10


@pytest.mark.parametrize(
    ("counted", "quantity"),
    [
        ("12", "0.000012"),
        ("0.000000000001", "0.000000000000000001"),
        ("1.0000000000005", "0.000001"),
        ("1.0000000000015", "0.000001000000000002"),
        ("123456789012345", "123456789.012345"),
    ],
)
def test_millions_of_what_is_counted_under_one_name_have_at_most_18_places(counted: str, quantity: str) -> None:
    sold = sale(parsed({"name": "m", "prices": [{"counts": "token_input", "unit": "million_token", "amount": "3"}]}))
    due = dues(sold, Totals(0, 0, {"token_input": counted}, processed=True, ended=True))
    assert [plain(line.quantity) for line in due.lines] == [quantity]


def test_what_is_counted_is_never_hardware_time() -> None:
    assert not COUNTED & HARDWARE


# --- single facts ---


def test_a_tariff_is_worked_out_once_for_the_attributes_that_its_price_looks_at() -> None:
    criterion = {"field": "x", "operator": "==", "value": "1", "amount": "2"}
    offer = Offer(sale(by_the_image(criterias=[criterion])))
    assert offer.tariff({"x": "1", "seed": "7"}) is offer.tariff({"x": "1", "seed": "8"})
    assert offer.tariff({"x": "1"}) is not offer.tariff({"x": "2"})
    assert offer.tariff({}).items[0].rate_text == "0.03"


def test_no_customer_fills_the_memory_with_attributes() -> None:
    criterion = {"field": "x", "operator": "==", "value": "1", "amount": "2"}
    offer = Offer(sale(by_the_image(criterias=[criterion])))
    first = offer.tariff({"x": "0"})
    assert all(offer.tariff({"x": str(number)}).items for number in range(257))
    assert offer.tariff({"x": "0"}) is not first


def test_a_rulebook_remembers_some_thousands_of_offers_and_what_it_forgets_it_works_out_again() -> None:
    rules = book(rates=(by_the_image(),))

    def offered(devices: int) -> Offer:
        sold = Sold(
            rules.current, rules.cards[0].hash, "m", ServiceClass.PUBLIC, Status.SUCCEEDED, "cpu", devices, False
        )
        return rules.offer(sold)

    first = offered(0)
    assert offered(0) is first
    assert [offered(devices).sale.devices for devices in range(4097)] == list(range(4097))
    assert (offered(0) is first, offered(0).sale) == (False, first.sale)


def test_a_model_that_is_not_billable_costs_nothing() -> None:
    card = by_the_image(billable=False)
    assert rate(dues(sale(card), Totals(0, SECOND, {"image": "2"}, True, True))).billing.status == "free"


def test_loading_is_billed_at_the_models_price_where_its_class_pays_for_loading() -> None:
    card = parsed({"name": "m", "unit": "computing_second", "amount": "0.5"})
    terms = classes(public={"load": "0.5"}).terms[ServiceClass.PUBLIC]
    totals = Totals(4 * SECOND, SECOND, {}, True, True)
    billing = rate(dues(sale(card)._replace(terms=terms), totals)).billing
    assert [(line.meter, line.amount) for line in billing.lines] == [
        ("computing_second load", "1"),
        ("computing_second", "0.5"),
    ]
    assert [line.meter for line in dues(sale(card), totals).lines] == ["computing_second"]


def test_hardware_time_is_billed_by_an_online_instance_alone() -> None:
    two = [{"unit": "gpu", "amount": "1"}, {"unit": "image", "amount": "0.03"}]
    card = parsed({"name": "m", "prices": two, "online_units": True})
    due = dues(sale(card)._replace(online=True), Totals(0, SECOND, {"image": "2"}, True, True))
    assert [line.meter for line in due.lines] == ["image"]


LAST = Totals(0, SECOND, {"image": "1"}, True, True)


def test_a_failed_run_of_an_online_instance_pays_for_its_time_there() -> None:
    due = dues(sale(by_the_image(online_units=True), Status.FAILED)._replace(online=True), LAST)
    assert due.lines == ()


def test_what_is_unrated_is_not_taken_back_either() -> None:
    unpriced = dues(sale(by_the_image()), LAST._replace(units={}))
    assert taken_back(unpriced, unpriced).status == "unrated"


def test_time_that_is_taken_back_changes_no_units() -> None:
    whole, left = (dues(sale(by_the_image()), LAST._replace(busy_ns=ns)) for ns in (3 * SECOND, SECOND))
    assert taken_back(whole, left).status == "free"


def test_time_taken_back_is_of_the_models_price_where_that_is_of_time() -> None:
    card = parsed({"name": "m", "unit": "gpu", "amount": "0.5"})
    whole, left = (dues(sale(card), LAST._replace(busy_ns=ns)) for ns in (3 * SECOND, SECOND))
    assert taken_back(whole, left).amount == "-2"
    one_device = sale(card)._replace(devices=1)
    was = tuple(dues(one_device, LAST._replace(busy_ns=ns)) for ns in (3 * SECOND, SECOND))
    correction: Any = taken_back_anew((whole, left), (was[0], was[1])).correction
    assert correction.amount == "-1"
    assert taken_back_anew((whole, left), (whole, left)).correction is None


def test_a_late_finish_takes_back_hardware_time_and_keeps_what_was_counted() -> None:
    card = by_the_image(plus_hardware=True)
    events = [start(0, "p", model="m"), counted(1, image="1"), finish(10 * SECOND, "p", said_ns=2 * SECOND)]
    story = run(events, card)
    assert story.amount() == Decimal("0.03") + 2 * Decimal("0.0001")
    (correction,) = story.of(RecordType.CORRECTION)
    assert correction.data["units_to_date"] == {"image": "1"}


def test_a_prediction_prices_anew_from_what_its_record_says() -> None:
    rules, card = book(), parsed({"name": "m", "unit": "image", "amount": "0.05", "online_units": True})
    events = [start(0, "p", model="m"), counted(1, image="2"), finish(5 * SECOND, "p")]
    (record,) = run(events, by_the_image(), 60 * SECOND).predictions()
    billing: Any = record.data["billing"]
    prediction = Prediction(
        **{name: record.data[name] for name in ("model", "version", "account", "pool", "parent", "root", "attributes")},
        id="p",
        service_class=ServiceClass.PUBLIC,
        traceparent=None,
        card=None,
        start_ns=0,
        start=Witness("mark", None),
        active=True,
        units_total={"image": "2"},
        tier="cpu",
    )
    ended = Ended(prediction, Status.SUCCEEDED)
    settled: Any = settle(due_of_ended(ended, rules.rules_of(""), card, online=False), billing.lines)
    assert settled.amount == "0.04"
    assert amount(due_of_ended(ended, rules.rules_of(""), card, online=True)) == Decimal("0.1")
    assert amount(due_of_ended(ended, rules.rules_of(""), by_the_image(), online=True)) == 0
    assert due_of_ended(ended, rules.rules_of(""), None, online=True).card is None
