"""Marks as bytes: whatever a worker gives, a line is JSON below the limit, and what must not be lost can be read."""

import json
import math
import tracemalloc
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taximeter import client, events, wire
from taximeter.client import flat
from taximeter.client.text import is_name, quantity, quote
from taximeter.journal import text
from taximeter.journal.marks import parse_mark
from tests.client.fifo import Fifo

of_one_fifo = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
anything = st.text(st.characters(), max_size=300)
names = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")), min_size=1, max_size=256)
amounts = st.one_of(
    st.integers(),
    st.floats(),
    st.decimals(),
    st.booleans(),
    anything,
    st.none(),
    st.sampled_from(["1_0", "٣", "1e999", "1e-99", "+1", " 1", "0x1", "007", "1.50", 10**50]),
)
values = st.one_of(amounts, st.lists(st.integers()), st.dictionaries(anything, st.integers()), st.binary())


def takes(check: Any, value: object) -> bool:
    try:
        check(value)
    except ValueError:
        return False
    return True


def read(line: bytes) -> events.Marked | events.BadMark:
    assert line[-1:] == b"\n"
    assert line.count(b"\n") == 1
    assert len(line) <= wire.MARK_MAX_BYTES
    json.loads(line)
    return parse_mark(line[:-1], 0)


@given(anything)
def test_any_string_is_json_with_surrogates_replaced(value: str) -> None:
    expected = value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert json.loads(quote(value)) == expected


@given(anything)
def test_a_name_is_what_the_agent_takes_as_one(value: str) -> None:
    assert is_name(value) == takes(text.name, value)


@given(amounts)
def test_an_amount_is_one_that_the_agent_counts_and_means_the_same(value: object) -> None:
    exact = quantity(value)
    if exact is not None:
        assert text.quantity(str(exact)) == str(exact)
        assert Decimal(exact) == Decimal(value if isinstance(value, int) else str(value))


@pytest.mark.parametrize("amount", [-1, -0.5, math.nan, math.inf, True, None, "", "-1", "x", [1], Decimal(-1), 10**40])
def test_what_is_no_amount_is_none(amount: object) -> None:
    assert quantity(amount) is None


@pytest.mark.parametrize("amount", [Decimal("1E+999999999"), Decimal("1E-999999999")])
def test_an_amount_of_a_thousand_million_digits_is_none_and_they_are_not_written_out(amount: Decimal) -> None:
    tracemalloc.start()
    try:
        assert quantity(amount) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("amount", "exact"),
    [
        (0, 0),
        (7, 7),
        (2.0, 2),
        (0.1, "0.1"),
        ("1.50", "1.5"),
        (Decimal("1E+3"), 1000),
        (Fraction(1, 2), "0.5"),
        ("007", 7),
    ],
)
def test_amounts_are_exact(amount: object, exact: int | str) -> None:
    assert quantity(amount) == exact


@given(st.dictionaries(anything, values, max_size=80))
def test_attributes_are_those_that_the_agent_takes(given: dict[str, Any]) -> None:
    pairs, left_out = flat.attributes(given)
    raws = msgspec.json.decode(b"{%b}" % b",".join(pairs), type=dict[str, msgspec.Raw])
    assert len(text.attributes(raws)) == len(pairs) == len(given) - left_out


@of_one_fifo
@given(st.lists(st.none() | anything, min_size=9, max_size=9), st.dictionaries(anything, values), st.booleans())
def test_whatever_a_prediction_is_called_its_start_is_one_line(
    fifo: Fifo, said: list[str | None], attributes: dict[str, Any], detached: bool
) -> None:
    words = ("model", "version", "account", "service_class", "pool", "parent", "root", "traceparent")
    given: Mapping[str, Any] = dict(zip(words, said[1:], strict=True))
    dropped = client.dropped()
    client.prediction(said[0], **given, attributes=attributes, detached=detached).start()
    lines = fifo.lines()
    assert [read(line) for line in lines] or client.dropped() > dropped


@of_one_fifo
@given(
    st.lists(names, min_size=5, max_size=5),
    st.dictionaries(anything, values),
    st.dictionaries(anything, amounts, max_size=100),
)
def test_well_named_it_is_read_as_it_was_meant(
    fifo: Fifo, said: list[str], attributes: dict[str, Any], units: dict[str, Any]
) -> None:
    model, version, account, pool, name = said
    given: dict[str, Any] = {"model": model[:64], "version": version[:64], "account": account[:64], "pool": pool[:64]}
    made = client.prediction(name, **given, service_class="fast_boot", attributes=attributes)
    with made:
        made.active()
        made.add(units)
    marks = [read(line) for line in fifo.lines()]
    assert all(isinstance(mark, events.Marked) for mark in marks), marks
    start, active, *_, finish = [mark.mark for mark in marks]  # type: ignore[union-attr]
    assert isinstance(start, events.StartMark)
    assert (start.prediction, start.service_class) == (name, events.ServiceClass.FAST_BOOT)
    assert {key: getattr(start, key) for key in given} == given
    assert active == events.ActiveMark(name)
    assert isinstance(finish, events.FinishMark)
    told = [mark.mark.units for mark in marks[2:]]  # type: ignore[union-attr]
    assert sum(map(len, told)) == min(
        64, sum(is_name(key) and quantity(value) is not None for key, value in units.items())
    )


def test_attributes_that_do_not_fit_are_left_out_and_counted(fifo: Fifo) -> None:
    dropped = client.dropped()
    attributes: dict[str, Any] = {f"a{n}": "x" * 200 for n in range(30)} | {
        "nested": {},
        "none": None,
        "resolution": "1080p",
    }
    with client.prediction("p1", model="acme/sdxl", attributes=attributes):
        pass
    start, _ = fifo.marks()
    assert 0 < len(start["attributes"]) < 31
    assert client.dropped() - dropped == len(attributes) - len(start["attributes"])


@pytest.mark.parametrize("attributes", [3, "ab", [1], {1: 2}, {"a": object()}])
def test_attributes_that_are_none_cost_no_mark(fifo: Fifo, attributes: Any) -> None:
    with client.prediction("p1", attributes=attributes):
        pass
    assert [mark["mark"] for mark in fifo.marks()] == ["start", "finish"]


class Hostile(dict[str, Any]):
    """What raises whatever is asked of it, as proxies do of what is not there."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError

    def raising(self, *_: object) -> Any:
        raise RuntimeError

    __len__ = __bool__ = __iter__ = __eq__ = __index__ = __float__ = __str__ = items = raising
    __hash__ = None


class Unpaired(dict[str, Any]):
    def items(self) -> Any:
        return [1, (1, 2, 3)]


@pytest.mark.parametrize(
    ("make", "kept"),
    [
        (Hostile, None),
        (Unpaired, None),
        (lambda: {"a": Hostile()}, None),
        (lambda: {"a": 1, "b": Hostile()}, {"a": 1}),
    ],
    ids=["what fails", "what has no pairs", "what holds such", "what also holds such"],
)
def test_nothing_that_is_kept_or_counted_is_raised_over(
    fifo: Fifo, make: Callable[[], Any], kept: dict[str, int] | None
) -> None:
    dropped, given = client.dropped(), make()
    with client.prediction("p1", attributes=given) as made:
        made.add(given)
        made.add(image=given)
    start, finish = fifo.marks()
    assert (start.get("attributes"), finish.get("units")) == (kept, kept)
    assert client.dropped() == dropped + 3


def test_a_start_that_is_too_long_without_them_is_left_out_with_all_that_follows(fifo: Fifo) -> None:
    dropped = client.dropped()
    with client.prediction("p1", model="m" * 4000) as made:
        made.active()
        made.add(image=1)
    assert fifo.lines() == []
    assert client.dropped() == dropped + 1


def test_many_units_take_as_many_marks_as_they_need(fifo: Fifo) -> None:
    with client.prediction("p1") as made:
        made.add({f"{n:02}" + "\N{TAXI}" * 200: n for n in range(64)})
    *marks, finish = (read(line) for line in fifo.lines())
    told = [mark.mark.units for mark in [*marks[1:], finish]]  # type: ignore[union-attr]
    assert sum(map(len, told)) == 64


class Colour(str, Enum):  # noqa: UP042 -- as many still write it
    RED = "red"


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError


def test_names_may_be_what_has_a_name(fifo: Fifo) -> None:
    name = uuid.uuid4()
    given: Any = {"model": Colour.RED, "account": 7}
    with client.prediction(name, **given):  # type: ignore[arg-type]
        pass
    start = fifo.marks()[0]
    assert (start["prediction"], start["model"], start["account"]) == (str(name), "red", "7")


@pytest.mark.parametrize("word", [Unspeakable(), [], {}, object(), float("nan")])
def test_nothing_that_is_given_as_a_name_is_raised_over(fifo: Fifo, word: Any) -> None:
    given = dict.fromkeys(("model", "account", "service_class", "parent", "root", "traceparent"), word)
    with client.prediction(word, **given) as made:
        made.add({word: 1} if isinstance(word, float | object) and not isinstance(word, list | dict) else word)
        made.finish(word)
    client.stopping(word)
    for line in fifo.lines():
        read(line)


def test_a_name_with_a_percent_sign_is_no_format(fifo: Fifo) -> None:
    with client.prediction("100%s", model="50%d", account="%(x)b"):
        pass
    start = fifo.marks()[0]
    assert (start["prediction"], start["model"], start["account"]) == ("100%s", "50%d", "%(x)b")


def test_a_status_that_is_none_is_a_failure(fifo: Fifo) -> None:
    client.prediction("p1").start().finish("done")
    assert fifo.marks()[-1]["status"] == "failed"


def test_ready_and_stopping_are_marks_with_a_time(fifo: Fifo) -> None:
    client.ready()
    client.stopping()
    client.stopping("aborted")
    ready, *stopping = [read(line) for line in fifo.lines()]
    assert isinstance(ready, events.Marked)
    assert ready.said_ns
    reasons = [mark.mark.reason for mark in stopping]  # type: ignore[union-attr]
    assert reasons == [events.StopReason.DRAIN, events.StopReason.ABORTED]
