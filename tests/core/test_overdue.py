"""Rate cards that come when they were in force already: all costs what it would have, had they come in time."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter.billing.classes import ONLINE
from taximeter.billing.money import PLACES
from taximeter.billing.rates import RateCard, parse_card
from taximeter.events import Event, Marked, Observed, Options, ServiceClass, Status, Stopping, StopReason, UnitsMark
from taximeter.hardware.inventory import Device, Hardware
from taximeter.instance import Instance
from taximeter.lifecycle import Stage
from taximeter.meter import fold, open_instance
from taximeter.online_rerating import as_one
from taximeter.overdue import corrected, goes_under
from taximeter.records import RecordType, UsageRecord
from taximeter.rerating import Outcome, rerate, rerate_runs, rerate_stretches
from taximeter.rulebook import Rulebook
from taximeter.turn import Paused, Turn
from taximeter.values import replace
from tests import recomputing
from tests.core.draws import MATRICES
from tests.core.stories import (
    MINUTE,
    SECOND,
    WORKER,
    amount_of,
    beat,
    book,
    card,
    exited,
    finish,
    opened,
    ready,
    spawned,
    start,
    tell,
)
from tests.core.test_laws import histories

PRIVATE = replace(WORKER, service_class=ServiceClass.PRIVATE, account="cus_7")
CPU = Hardware("cpu", 1, rule="test")
IMAGE = {"name": "acme/image", "amount": "0.03", "unit": "image"}


class Agent:
    """One instance, as an agent books it whose cards come whenever they do."""

    def __init__(
        self, options: Options, interim_ns: int, first: RateCard | None, on: Hardware = CPU, **matrix: Any
    ) -> None:
        self._interim_ns, self._matrix = interim_ns, matrix
        self.cards: tuple[RateCard, ...] = (first,) if first else ()
        self.instance: Instance = open_instance(opened(options), self.book, on)
        self.ledger: list[UsageRecord] = recomputing.facts(self.book)
        self.facts = len(self.ledger)
        self.room: int | None = None
        self.pauses = 0

    @property
    def book(self) -> Rulebook:
        return book(self._interim_ns, self.cards, **self._matrix)

    @property
    def records(self) -> list[UsageRecord]:
        return [record for record in self.ledger if record.type is not RecordType.FACT]

    def amount(self, *prediction: str) -> Decimal:
        return sum(
            (amount_of(one) for one in self.records if not prediction or one.prediction in prediction), Decimal(0)
        )

    def fold(self, *events: Event) -> None:
        step = fold(self.instance, events, self.book)
        self.instance = step.instance
        self.ledger.extend(step.records)

    def gets(self, late: RateCard) -> None:
        """A card is put in force, and what was billed meanwhile corrected; twice, as by an agent that was killed."""
        self.cards = (*self.cards, late)
        self.ledger.append(recomputing.facts(self.book, self.facts - len(self.cards))[-1])
        self.facts += 1
        for _ in range(2):
            self.goes_under(late)
            self.correct(late)

    def goes_under(self, late: RateCard) -> None:
        """In one piece, or in pieces of so many predictions as there is room for."""
        turn = Turn(self.book, may_pause=True, room=self.room)
        while True:
            try:
                self.instance = goes_under(self.instance, late.hash, turn)
                break
            except Paused as paused:
                self.instance, turn.cut, turn.room = paused.instance, paused.cut, self.room
                self.pauses += 1
        self.ledger.extend(turn.records)

    def correct(self, late: RateCard) -> None:
        """What is worked out from records."""
        by = self.book, self.book.rules[self.book.current]
        self._book(rerate_runs(self.events(), *by, late))
        own = [event for event in self.events() if event["data"]["prediction"] is None]
        if own:
            outcome = rerate_stretches(own, *by, late, self.instance.card)
            assert rerate_stretches(self.few(own), *by, late, self.instance.card) == outcome
            self._book(outcome)

    def _book(self, outcome: Outcome) -> None:
        self.instance, records = corrected(self.instance, outcome.records)
        self.ledger.extend(records)

    def few(self, events: Sequence[dict[str, Any]]) -> list[Any]:
        """Records of an instance's own time, as few as may be."""
        found: list[Any] = []
        for event in events:
            both = as_one(found[-1], event, self.cards) if found else None
            found[len(found) - (both is not None) :] = [both or event]
        return found

    def settle(self) -> None:
        """It is over: what came after a correction is corrected, too."""
        for known_as in self.instance.repriced:
            late = self.book.card_of(known_as)
            assert late is not None
            self.correct(late)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in recomputing.sealed(self.records)]

    def faults(self) -> Sequence[Any]:
        found: Sequence[Any] = recomputing.tool().recompute(recomputing.sealed(self.ledger)).findings
        return found


def late(at_s: int, price: str, **more: Any) -> RateCard:
    """A card that takes effect so many seconds after the opening."""
    content = card(price, f"2026-11-22T10:{at_s // 60:02d}:{at_s % 60:02d}Z").content()
    return parse_card(content | more, "test")


def worker(options: Options = WORKER, interim_ns: int = 2 * SECOND, first: RateCard | None = None) -> Agent:
    agent = Agent(options, interim_ns, first or card("0.5"))
    agent.fold(spawned(0), ready(0))
    return agent


def beats(agent: Agent, *seconds: int) -> None:
    agent.fold(*(beat(at * SECOND) for at in seconds))


def lines_of(record: UsageRecord) -> list[tuple[str, str, str]]:
    billing: Any = record.data["billing"]
    return [(line.quantity, line.rate, line.multiplier) for line in billing.lines]


def corrections(agent: Agent) -> list[UsageRecord]:
    return [one for one in agent.records if one.type is RecordType.CORRECTION]


def test_an_open_prediction_goes_on_under_the_card_of_its_start_and_what_was_told_of_it_is_corrected_once() -> None:
    agent = worker()
    agent.fold(start(3 * SECOND, "p1"))
    beats(agent, 4, 5, 6, 7)
    assert agent.amount("p1") == Decimal("1.5")
    agent.gets(late(3, "0.7"))
    (correction,) = corrections(agent)
    assert lines_of(correction) == [("3", "0.5", "-1"), ("3", "0.7", "1")]
    assert (correction.data["reason"], correction.data["status"]) == ("rerated", "processing")
    beats(agent, 8, 9)
    agent.fold(finish(9 * SECOND, "p1"), exited(9 * SECOND))
    agent.settle()
    assert agent.amount("p1") == Decimal("4.2")
    assert len(corrections(agent)) == 1
    assert list(agent.faults()) == []


def test_one_that_began_before_keeps_its_card() -> None:
    agent = worker()
    agent.fold(start(2 * SECOND, "p1"))
    beats(agent, 3, 4, 5)
    agent.gets(late(3, "0.7"))
    beats(agent, 6, 7)
    assert corrections(agent) == []
    assert agent.amount("p1") == 2


def test_what_has_ended_on_an_open_instance_is_corrected_and_what_ends_later_is_right_at_once() -> None:
    agent = worker()
    agent.fold(start(3 * SECOND, "p1"), finish(4 * SECOND, "p1"), start(5 * SECOND, "p2"))
    agent.gets(late(1, "0.7"))
    assert [one.prediction for one in corrections(agent)] == ["p1"]
    agent.fold(finish(6 * SECOND, "p2"), exited(7 * SECOND))
    agent.settle()
    assert (agent.amount("p1"), agent.amount("p2")) == (Decimal("0.7"), Decimal("0.7"))
    assert list(agent.faults()) == []


def test_online_time_of_an_open_instance_is_cut_where_the_card_took_effect() -> None:
    agent = worker(PRIVATE)
    beats(agent, 1, 2, 3)
    agent.fold(start(3 * SECOND, "p1"))
    beats(agent, 4, 5, 6, 7)
    agent.gets(late(3, "2"))
    assert agent.amount() == Decimal("1.5") + 2 * 3  # what was told: six seconds
    beats(agent, 8, 9)
    agent.fold(exited(9 * SECOND))
    agent.settle()
    assert agent.amount() == Decimal("1.5") + 2 * 6
    assert len(corrections(agent)) == 1


@pytest.mark.parametrize("options", [WORKER, PRIVATE])
@pytest.mark.parametrize("room", [1, 2, 5])
def test_where_there_is_room_for_less_than_is_open_it_is_in_pieces_that_lead_to_the_same(
    options: Options, room: int
) -> None:
    agent, whole = worker(options), worker(options)
    for one in (agent, whole):
        one.fold(*(start(3 * SECOND + at, f"p{at}") for at in range(5)))
        beats(one, 4, 5, 6)
        one.fold(start(6 * SECOND + 5, "last"))  # behind the last cut
        beats(one, 7)
    agent.room = room
    for one in (agent, whole):
        one.gets(late(3, "0.7"))
        beats(one, 8, 9)
        one.fold(exited(9 * SECOND))
        one.settle()
    assert agent.pauses >= (6 - 1) // room * (2 if options is PRIVATE else 1)
    assert whole.pauses == 0
    assert agent.records == whole.records
    assert len(corrections(agent)) >= 1
    assert list(agent.faults()) == []


def test_records_of_online_time_are_taken_as_few_as_may_be() -> None:
    agent = worker(PRIVATE)
    beats(agent, *range(1, 12))
    agent.cards = (*agent.cards, late(3, "2"))
    few = agent.few(agent.events())
    assert [one["data"]["interval"]["end_ns"] for one in few] == [2 * SECOND, 4 * SECOND, 10 * SECOND]
    assert (few[2]["data"]["time"]["idle_ns"], len(few[2]["ids"])) == (6 * SECOND, 3)
    assert [line["amount"] for line in few[2]["data"]["billing"]["lines"]] == ["3"]
    agent.fold(exited(11 * SECOND))
    assert len(agent.few(agent.events())) == 4
    in_time = Agent(PRIVATE, 2 * SECOND, card("0.5"))
    in_time.cards = agent.cards
    in_time.fold(spawned(0), ready(0), *(beat(at * SECOND) for at in range(1, 8)))
    few = in_time.few(in_time.events())
    assert [one["data"]["interval"]["end_ns"] for one in few] == [3 * SECOND, 6 * SECOND]


def test_an_instance_that_was_opened_since_then_and_has_told_nothing_is_under_the_card_from_its_opening() -> None:
    agent = worker(PRIVATE, MINUTE)
    beats(agent, 1, 2, 3)
    agent.gets(late(0, "2"))
    assert agent.instance.repriced == ()
    agent.fold(exited(4 * SECOND))
    assert agent.amount() == 8
    assert list(agent.faults()) == []


def test_what_had_no_card_is_billed_by_that_of_its_start_once_that_comes() -> None:
    agent = Agent(WORKER, 2 * SECOND, None)
    agent.fold(spawned(0), ready(0), start(SECOND, "p1"), finish(2 * SECOND, "p1"), start(3 * SECOND, "p2"))
    beats(agent, 4, 5)
    agent.gets(card("0.5"))
    agent.fold(finish(6 * SECOND, "p2"), exited(7 * SECOND))
    agent.settle()
    assert (agent.amount("p1"), agent.amount("p2")) == (Decimal("0.5"), Decimal("1.5"))
    assert list(agent.faults()) == []


def test_what_had_no_card_and_began_before_this_one_is_left_to_whoever_asks_for_it() -> None:
    agent = Agent(PRIVATE, 2 * SECOND, None)
    agent.fold(spawned(0), ready(0), start(SECOND, "p1"), finish(2 * SECOND, "p1"))
    beats(agent, 3, 4)
    agent.fold(exited(5 * SECOND))
    agent.gets(late(3, "0.5"))
    assert corrections(agent) == []


def test_how_an_online_instance_ends_counts_for_what_was_corrected_before() -> None:
    matrix = {"private": {"canceled": "0.5"}}
    agent = Agent(replace(PRIVATE, on_term=StopReason.CANCELED), 2 * SECOND, card("0.5"), **matrix)
    events = [spawned(0), ready(0), *(beat(at * SECOND) for at in range(1, 8))]
    agent.fold(*events)
    agent.gets(late(3, "2"))
    end = [Stopping(7 * SECOND, StopReason.CANCELED), exited(8 * SECOND, code=None, signal=15)]
    agent.fold(*end)
    agent.settle()
    whole = tell(PRIVATE, [*events, *end], agent.book)
    assert agent.instance.records == len(agent.records)
    assert agent.amount() == whole.amount()
    assert list(agent.faults()) == []


def test_nothing_is_left_to_the_end_of_a_command_that_is_a_prediction_and_no_more() -> None:
    agent = Agent(Options(prediction="p1"), 2 * SECOND, card("0.5"))
    agent.fold(spawned(0), ready(0))
    beats(agent, 1, 2, 3)
    agent.gets(late(0, "2"))
    assert agent.instance.repriced == ()
    agent.fold(exited(4 * SECOND))
    assert agent.amount("p1") == 8
    assert list(agent.faults()) == []


def test_counts_are_billed_by_the_card_of_the_start() -> None:
    agent = worker(first=parse_card({**card("0.5").content(), "models": [IMAGE]}, "test"))
    agent.fold(start(SECOND, "p1", model="acme/image"), Marked(2 * SECOND, UnitsMark("p1", {"image": "2"})))
    beats(agent, 3, 4)
    agent.gets(late(0, "0.5", models=[{**IMAGE, "amount": "0.05"}]))
    agent.fold(Marked(5 * SECOND, UnitsMark("p1", {"image": "1"})), finish(5 * SECOND, "p1"), exited(6 * SECOND))
    assert agent.amount("p1") == Decimal("0.15")
    assert list(agent.faults()) == []


def test_where_the_card_has_no_price_for_it_or_one_in_another_currency_it_keeps_the_card_that_billed_it() -> None:
    for more in ({"tiers": {"gpu-odd": "1"}}, {"currency": "EUR"}):
        agent = worker()
        agent.fold(start(SECOND, "p1"))
        beats(agent, 2, 3)
        agent.gets(late(0, "9", **more))
        agent.fold(finish(4 * SECOND, "p1"), exited(4 * SECOND))
        agent.settle()
        assert agent.amount("p1") == Decimal("1.5")


def test_what_other_hardware_changes_comes_with_the_next_record() -> None:
    """It declared two devices, and is seen on one of them."""
    both = Hardware("two", 2, (Device("GPU-a", "a GPU", None, 0), Device("GPU-b", "a GPU", None, 1)), settled=False)
    one = Hardware("one", 1, (Device("GPU-a", "a GPU", None, 0),))
    agent = Agent(WORKER, 2 * SECOND, card(one="1", two="3"), both)
    agent.fold(spawned(0), ready(0), start(SECOND, "p1"))
    beats(agent, 2, 3)
    agent.fold(Observed(3 * SECOND, 3 * SECOND, one))
    agent.gets(late(1, "0", tiers={"one": "2", "two": "5"}))
    hardware: Any = corrections(agent)[0].data["hardware"]
    assert (hardware.tier, agent.amount("p1")) == ("two", 5)
    agent.fold(finish(4 * SECOND, "p1"), exited(4 * SECOND))
    agent.settle()
    assert agent.amount("p1") == 6
    assert list(agent.faults()) == []


def test_what_is_billed_by_a_card_that_nobody_knows_is_left_as_it_is() -> None:
    agent = worker()
    agent.fold(start(SECOND, "p1"))
    beats(agent, 2, 3)
    agent.cards = ()
    before = agent.instance
    turn = Turn(book(2 * SECOND, (late(0, "9"),)))
    agent.instance = goes_under(agent.instance, "sha256:other", turn)
    assert turn.records == []
    assert agent.instance.predictions == before.predictions


def test_the_same_price_changes_the_card_and_no_amount() -> None:
    agent = worker()
    agent.fold(start(SECOND, "p1"))
    beats(agent, 2, 3)
    agent.gets(late(1, "0.5", version="again"))
    agent.fold(finish(4 * SECOND, "p1"), exited(4 * SECOND))
    agent.settle()
    assert corrections(agent) == []
    billing: Any = agent.records[-2].data["billing"]
    assert billing.rate_card == agent.cards[-1].hash
    assert list(agent.faults()) == []


def test_a_pool_has_sold_no_less_for_another_price() -> None:
    agent = Agent(WORKER, 2 * SECOND, None)
    agent.fold(spawned(0), ready(0), start(SECOND, "p1", pool="sdxl"))
    beats(agent, 2, 3, 4)
    agent.gets(card("0.5"))
    assert [one.sold_ns for one in corrections(agent)] == [3 * SECOND]


def test_of_a_run_some_of_whose_records_are_gone_nothing_is_worked_out() -> None:
    agent = worker()
    agent.fold(start(SECOND, "p1"))
    beats(agent, 2, 3, 4, 5)
    agent.fold(finish(5 * SECOND, "p1"), exited(6 * SECOND))
    agent.cards = (*agent.cards, late(1, "0.7"))
    left = [one for one in agent.events() if one["type"] != RecordType.PREDICTION or one["data"]["final"]]
    rules = agent.book.rules[agent.book.current]
    outcome = rerate_runs(left, agent.book, rules, agent.cards[-1])
    assert (outcome.records, outcome.left) == ((), ("records_gone",))
    assert rerate(left, agent.book, rules, {}, late_cards=True).left == ("records_gone",)


def test_of_an_instance_some_of_whose_records_are_gone_the_first_stretch_is_left() -> None:
    agent = worker(PRIVATE)
    beats(agent, 1, 2, 3, 4, 5)
    agent.fold(exited(6 * SECOND))
    agent.cards = (*agent.cards, late(3, "2"))
    rules = agent.book.rules[agent.book.current]
    outcome = rerate_stretches(agent.events()[1:], agent.book, rules, agent.cards[-1])
    assert (outcome.records, outcome.left) == ((), ("records_gone",))


# --- Laws ---

WHEN = st.integers(0, 40)
KNOWN = st.sampled_from(["0.5", "0.25", "2", "0.000123456"])
MINE = st.sampled_from([None, "acme/image", "acme/image"])


@st.composite
def busy(draw: st.DrawFn) -> tuple[Options, list[Event]]:
    """Half a minute of a worker that has something to do most of the time, with an end or none."""
    events: list[Event] = [spawned(0), ready(draw(st.integers(0, 5)) * SECOND)]
    open_: list[str] = []
    for at in range(6, 30):
        events.append(beat(at * SECOND))
        what, at_ns = draw(st.sampled_from(["start", "start", "finish", "count", ""])), at * SECOND + 1
        if what == "start":
            open_.append(f"p{at}")
            units = {"units": {"image": "1"}} if draw(st.booleans()) else {}
            events.append(start(at_ns, open_[-1], model=draw(MINE)))
            events += [Marked(at_ns, UnitsMark(open_[-1], units["units"]))] if units else []
        elif open_ and what == "count":
            events.append(Marked(at_ns, UnitsMark(draw(st.sampled_from(open_)), {"image": "2"})))
        elif open_ and what == "finish":
            ended = open_.pop(draw(st.integers(0, len(open_) - 1)))
            events.append(finish(at_ns, ended, draw(st.sampled_from([Status.SUCCEEDED, Status.FAILED]))))
    ends = [[], [exited(30 * SECOND)], [exited(30 * SECOND, code=1)]]
    return WORKER, [*events, *draw(st.sampled_from(ends))]


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[int, RateCard]]:
    """Cards, each at the second when it comes: none that is older than one that is in force by then."""
    found: list[tuple[int, RateCard]] = []
    in_force = -1
    for came in sorted(draw(st.lists(WHEN, max_size=3, unique=True))):
        effective = draw(st.integers(0, came))
        if effective > in_force:
            in_force = effective
            models = [{**IMAGE, "amount": draw(KNOWN), "plus_hardware": draw(st.booleans())}]
            found.append((came, late(effective, draw(KNOWN), version=f"{came}", models=models)))
    return found


@settings(deadline=None, max_examples=80)
@given(
    st.one_of(busy(), histories()),
    arrivals(),
    KNOWN,
    st.integers(SECOND // 2, 20 * SECOND),
    st.sampled_from([None, None, ServiceClass.PRIVATE, ServiceClass.DEPLOYMENT]),
    MATRICES,
)
def test_whatever_comes_late_all_costs_what_it_would_have_cost_and_the_recomputation_agrees(
    history: tuple[Options, list[Event]],
    cards: list[tuple[int, RateCard]],
    price: str,
    interim_ns: int,
    service_class: ServiceClass | None,
    matrix: dict[str, dict[str, str]],
) -> None:
    """Predictions to the last digit; online time no more than that, for where in a record it was is not known."""
    options, events = history
    options = replace(options, service_class=service_class or options.service_class)
    first = parse_card({**card(price).content(), "models": [IMAGE]}, "test")
    agent, coming = Agent(options, interim_ns, first, **matrix), list(cards)
    for event in events:
        while coming and event.at_ns is not None and coming[0][0] * SECOND <= event.at_ns:
            agent.gets(coming.pop(0)[1])
        agent.fold(event)
    for _, one in coming:
        agent.gets(one)
    agent.settle()
    count = len(agent.records)
    agent.settle()
    assert len(agent.records) == count
    assert list(agent.faults()) == []
    whole = tell(options, events, agent.book, silent=True)
    if options.service_class in ONLINE and agent.instance.phases.suspended:
        return  # a machine that slept meanwhile does not know when by its own clock a card took effect
    names = {one.prediction for one in agent.records if one.prediction}
    assert agent.amount(*names) == whole.amount(*names) or not names
    if agent.instance.stage is Stage.CLOSED:  # what goes on has told more of itself, for it was cut when the card came
        # What is told of in other stretches is rounded in other places: each of its lines by half of the last at most.
        rounding = PLACES * sum(len(one.data["billing"].lines) for one in agent.records)  # type: ignore[attr-defined]
        assert agent.amount() <= whole.amount() + (rounding if options.service_class in ONLINE else 0)
        assert agent.amount() == whole.amount() or options.service_class in ONLINE
    numbers = [int(one.id[-8:]) for one in agent.records]
    assert numbers == list(range(len(numbers)))
